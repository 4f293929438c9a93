"""Pictures of discovered skills, from exams made up: no physics, no learning."""

from __future__ import annotations

import numpy as np
import pytest

from embodied.evaluation.skill_exam import SkillExam
from embodied.viz import discovery as pictures
from embodied.viz.canvas import CARD, hue_colour
from envs.scenes.discovery import COSTS
from policies.discovery import DiscoveryConfig

TABLE = (0.28, -0.36, 0.72, 0.36)


def exam(ends: list[tuple[float, float, float]], table=TABLE, steps: int = 8) -> SkillExam:
    """One block that goes straight from (0.5, 0) to each of the ends; codes are the directions."""
    start, last = np.array([0.5, 0.0, 0.02]), np.array(ends)
    share = np.linspace(0.0, 1.0, steps + 1)[:, None, None]
    path = (start + share * (last - start))[:, :, None]
    n = len(ends)
    codes = (last - start)[:, :2] / np.linalg.norm((last - start)[:, :2], axis=1, keepdims=True)
    alive, costs = np.ones((steps + 1, n), np.bool_), np.zeros((steps, n, len(COSTS)))
    return SkillExam(
        codes.astype(np.float32), path, path[:, :, 0], np.zeros((steps + 1, n, 9)), costs, alive, np.zeros(n), table
    )


FOUR = exam([(0.7, 0.0, 0.02), (0.5, 0.3, 0.02), (0.3, 0.0, 0.02), (0.5, -0.3, 0.02)])
PLAIN = DiscoveryConfig()


def test_bins_are_counted_by_codes_and_not_where_a_block_fell():
    cells, counts = FOUR.visited(0, 0.1)
    found = {tuple(cell): count for cell, count in zip(cells.tolist(), counts, strict=True)}
    assert found[(5, 0)] == 4
    assert found[(5, 2)] == 1
    assert (5, 4) not in found
    assert FOUR.bins(0.1) == [len(found)]
    assert exam([(0.5, 0.3, -4.0)]).bins(0.1) == [1]  # it sinks from the first step on


@pytest.mark.parametrize(
    ("config", "codes", "wanted", "words"),
    [
        (PLAIN, [[1.0, 0.0], [0.0, 1.0]], [[0.0], [0.25]], ["0°", "90°"]),
        (
            DiscoveryConfig(objects=2), [[0.6, 0.0, 0.0, 0.8], [-0.6, 0.0, 0.8, 0.0]],
            [[0.0, 0.25], [0.5, 0.0]], ["0° 90°", "180° 0°"],
        ),
        (
            DiscoveryConfig("metra", discrete=True, code_size=4), [[-1, -1, 3, -1], [3, -1, -1, -1]],
            [[0.5], [0.0]], ["skill 2", "skill 0"],
        ),
        (
            DiscoveryConfig("dusdi", objects=2), [[1, 0, 0, 0, 0, 0, 0, 0, 0, 1]],
            [[0.0, 0.8]], ["skill 0 4"],
        ),
        (DiscoveryConfig("rnd", objects=2), [[0.0, 1.0] + [0.0] * 14], [[0.25, 0.25]], ["code 1"]),
        (DiscoveryConfig("lsd", code_size=1), [[1.0], [-1.0]], [[0.125], [0.625]], ["45°", "225°"]),
    ],
)  # fmt: skip
def test_each_kind_of_code_has_its_colours_and_its_name(config, codes, wanted, words):
    found = np.array(codes, np.float32)
    assert found.shape[1] == config.code
    np.testing.assert_allclose(pictures.hues(found, config), wanted, atol=1e-6)
    assert pictures.tell(found, config) == words


def test_those_shown_are_spread_over_the_colours():
    many = pictures.choose(np.random.default_rng(0).random((50, 2)), 12)
    assert len(set(many.tolist())) == 12
    few = pictures.choose(np.repeat(np.arange(5) / 5, 10)[:, None], 12)
    assert sorted(few // 10) == [0, 1, 2, 3, 4]
    assert len(pictures.choose(np.zeros((3, 1)), 12)) == 3


def test_a_map_shows_the_bins_and_the_ways_where_they_are():
    covered = pictures.coverage(FOUR, ["red block"])
    ways = pictures.paths(FOUR, ["red block"], PLAIN)
    assert covered.dtype == ways.dtype == np.uint8
    colour = np.array(hue_colour(0.25))  # to the left of the robot, which is to the right on a map
    spots = np.argwhere((np.abs(ways[:, :380].astype(int) - colour) < 12).all(axis=-1))
    (top, left), (bottom, right) = spots.min(0), spots.max(0)
    assert right - left > 100 > 12 > bottom - top
    x, y = (left + right) // 2 - 10, (top + bottom) // 2 + 8  # within a bin, off its edges
    off = [np.abs(covered[place, x].astype(int) - np.array(CARD)).max() for place in (y, y + 60)]
    assert off[0] > 20
    assert off[1] < 6


def test_a_world_without_edges_and_discrete_codes_have_their_maps_too():
    open_ended = exam([(0.9, 0.0, 0.02)], (-1.0, -1.0, 1.0, 1.0))
    assert pictures.coverage(open_ended, ["cube"]).shape[0] > pictures.coverage(FOUR, ["cube"]).shape[0]
    config = DiscoveryConfig("diayn")
    numbered = SkillExam(np.eye(16, dtype=np.float32)[:4], *list(vars(FOUR).values())[1:])
    assert pictures.paths(numbered, ["red block"], config).std() > 0


def test_curves_are_drawn_of_nothing_of_one_point_and_past_what_is_no_number():
    assert pictures.curves([]).ndim == 3
    row = {"steps": 100, "reward/skill": 0.1} | {
        f"{kind}/{name}": 0.0 for kind in ("cost", "violation") for name in COSTS
    }
    shapes = {pictures.curves(rows).shape for rows in ([row], [row, row | {"steps": 200, "reward/skill": np.nan}])}
    assert len(shapes) == 1
