from __future__ import annotations

import math

import pytest
import torch

from policies.collapse import effective_rank, random_directions, sigreg, vicreg


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def directions(size: int, number: int = 64) -> torch.Tensor:
    return random_directions(size, number, torch.Generator().manual_seed(7))


def knots(value) -> float:
    """Σ_t w_t value(t), the trapezoid's rule written out for f(t) = e^{-t²/2} value(t)."""
    t = [3 * i / 16 for i in range(17)]
    f = [math.exp(-(x**2) / 2) * value(x) for x in t]
    return 3 / 16 * (sum(f) - (f[0] + f[-1]) / 2)


def test_directions_are_of_unit_length_and_everywhere():
    u = directions(3, 5000)
    torch.testing.assert_close(u.norm(dim=0), torch.ones(5000))
    assert u.mean(1).abs().max() < 0.03 and (u @ u.T / 5000 - torch.eye(3) / 3).abs().max() < 0.03


def test_the_statistic_of_a_standard_normal_is_what_theory_says():
    """The mean of n cosines and sines strays by (1 - e^{-t²}) / n in the mean square."""
    expected = knots(lambda t: 1 - math.exp(-(t**2)))
    found = [sigreg(normal(256, 16, seed=seed), directions(16)).item() for seed in range(20)]
    assert sum(found) / 20 == pytest.approx(expected, rel=0.15)
    assert expected == pytest.approx(0.53, abs=0.01)


def test_the_statistic_of_one_point_grows_with_the_batch():
    wanted = knots(lambda t: (1 - math.exp(-(t**2) / 2)) ** 2)
    for n in (64, 256):
        assert sigreg(torch.zeros(n, 16), directions(16)).item() == pytest.approx(n * wanted, rel=1e-4)
    assert wanted * 256 > 20


N = normal(256, 16)


@pytest.mark.parametrize("z", [2 * N, 0.5 * N, N + 1, N[:, :1].expand(256, 16), torch.ones(256, 16)])
def test_whatever_is_not_a_standard_normal_has_a_larger_statistic_and_a_way_down(z):
    z = z.clone().requires_grad_()
    statistic = sigreg(z, directions(16))
    assert statistic.item() > 3 * sigreg(normal(256, 16), directions(16)).item()
    statistic.backward()
    assert z.grad is not None and z.grad.isfinite().all() and z.grad.abs().max() > 0


def test_vicreg_by_hand():
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.1], [0.0, -0.1]])
    variance, covariance = vicreg(z)
    deviations = [math.sqrt(2 / 3 + 1e-4), math.sqrt(0.02 / 3 + 1e-4)]
    assert variance.item() == pytest.approx(1 - sum(deviations) / 2, abs=1e-6) and covariance.item() == 0.0
    same = torch.tensor([[2.0, 2.0], [-2.0, -2.0]])  # both columns of variance 8, which is their covariance too
    variance, covariance = vicreg(same)
    assert variance.item() == 0.0 and covariance.item() == pytest.approx(64.0)
    assert vicreg(torch.ones(5, 3))[0].item() == pytest.approx(0.99)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_isotropic_data_of_rank_r_has_effective_rank_r(rank):
    basis = torch.linalg.qr(normal(8, 8))[0][:rank]
    rows = torch.linalg.qr(normal(64, rank, seed=1))[0]
    assert effective_rank(rows @ basis) == pytest.approx(rank, rel=1e-3)
    assert effective_rank(5 * rows @ basis) == pytest.approx(rank, rel=1e-3)


def test_effective_rank_by_hand_and_of_collapsed_data():
    values = torch.tensor([3.0, 1.0])  # shares 3/4 and 1/4
    wanted = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(torch.diag(values)) == pytest.approx(wanted, rel=1e-5)
    assert effective_rank(torch.ones(50, 8) + 1e-4 * normal(50, 8)) < 1.01
    assert effective_rank(torch.zeros(50, 8)) == 0.0
    assert effective_rank(normal(5000, 8)) == pytest.approx(8, rel=0.01)
