from __future__ import annotations

import numpy as np
import pytest

from embodied.evaluation.probing import linear_probe


def rows(n: int = 2000, d: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d))


def test_what_is_linear_is_found_what_is_noise_is_not():
    z, noise = rows(), np.random.default_rng(1).normal(size=(2000, 2))
    y = np.stack([3 * z[:, 0] - z[:, 1] + 7, z[:, 2] + noise[:, 0], noise[:, 1], np.abs(z[:, 3])], axis=1)
    probe = linear_probe(z, y)
    assert probe.rows == 500 and probe.mean == pytest.approx(probe.r2.mean())
    assert probe.r2[0] == pytest.approx(1.0, abs=1e-6)
    assert probe.r2[1] == pytest.approx(0.5, abs=0.06)  # half of the variance is noise
    assert abs(probe.r2[2]) < 0.02 and abs(probe.r2[3]) < 0.03


def test_the_score_does_not_depend_on_units():
    z, y = rows(), rows()[:, :2] @ np.array([[1.0, 0.3], [0.2, 1.0]]) + np.random.default_rng(2).normal(size=(2000, 2))
    plain = linear_probe(z, y).r2
    scaled = linear_probe(z * [1e3, 1e-3, 1, 1, 1, 1] + 5, y * 100 - 3).r2
    np.testing.assert_allclose(scaled, plain, atol=1e-9)


def test_ridge_shrinks_towards_the_mean():
    """With one column of deviation 1, the weight is 1 / (1 + λ), so that R² = 1 - (λ / (1 + λ))²."""
    z = rows(4000, 1)
    assert linear_probe(z, z, ridge=1.0).r2[0] == pytest.approx(0.75, abs=0.01)


def test_constant_targets_have_no_score_and_constant_representations_none_above_zero():
    z = rows(100, 3)
    probe = linear_probe(z, np.stack([z[:, 0], np.full(100, 0.1)], axis=1))
    assert np.isnan(probe.r2[1]) and probe.mean == probe.r2[0] > 0.99
    assert np.isnan(linear_probe(z, np.ones((100, 1))).mean)
    assert linear_probe(np.full((100, 3), 0.1), z).mean <= 0.0


def test_groups_are_held_out_as_a_whole():
    """Rows that know only their episode predict its mean within the episode, and nothing in another."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 30)
    z, y = np.eye(20)[groups], rng.normal(size=(20, 1))[groups]
    assert linear_probe(z, y).mean > 0.99
    assert linear_probe(z, y, groups=groups).mean < 0.1
    assert linear_probe(z, y, groups=groups, held_out=0.5).rows == 300


def test_the_split_follows_the_seed():
    z, y = rows(200), rows(200)[:, :1] + np.random.default_rng(3).normal(size=(200, 1))
    assert linear_probe(z, y, seed=1).mean == linear_probe(z, y, seed=1).mean != linear_probe(z, y, seed=2).mean


def test_misuse_is_refused_in_one_sentence():
    z = rows(10)
    with pytest.raises(ValueError, match=r"representations \(10, 6\) and targets \(9, 1\)"):
        linear_probe(z, z[:9, :1])
    with pytest.raises(ValueError, match="must be finite"):
        linear_probe(z, np.full((10, 1), np.nan))
    with pytest.raises(ValueError, match=r"held_out = 1.0 must lie in \(0, 1\)"):
        linear_probe(z, z, held_out=1.0)
    with pytest.raises(ValueError, match="both sides need at least 2"):
        linear_probe(z, z, groups=np.zeros(10))
    with pytest.raises(ValueError, match=r"groups has shape \(3,\); expected \(10,\)"):
        linear_probe(z, z, groups=np.zeros(3))
