"""Plans by task, as a picture: principal axes in closed form, and every plan drawn."""

from __future__ import annotations

import numpy as np
import pytest

from embodied.viz.plans import plan_map, principal


def test_the_axes_are_those_of_most_variance() -> None:
    draws = np.random.default_rng(0).normal(size=(400, 5)) * [0.1, 3.0, 0.2, 1.0, 0.1]
    spots, share = principal(draws)
    centred = draws - draws.mean(0)
    for found, column in zip(spots.T, (1, 3), strict=True):
        assert abs(np.corrcoef(found, centred[:, column])[0, 1]) > 0.98
    assert share == pytest.approx((spots**2).sum() / (centred**2).sum())


def test_one_number_a_plan_still_has_a_map_and_nonsense_is_refused() -> None:
    spots, share = principal(np.arange(4.0)[:, None])
    assert share == pytest.approx(1.0) and not spots[:, 1].any()
    for wrong in (np.zeros((1, 3)), np.full((4, 2), np.nan)):
        with pytest.raises(ValueError, match="two finite plans"):
            principal(wrong)


def test_tasks_have_colours_of_their_own() -> None:
    plans = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.5], [0.0, -0.5]])
    picture = plan_map({"proposed": plans, "recognised": plans}, np.array([0, 0, 1, 1]), ("open_drawer", "sweep"))
    assert picture.dtype == np.uint8 and picture.shape[1] > 2 * 420
    colours = {tuple(c) for c in picture.reshape(-1, 3)}
    assert len(colours) > 4
