"""Skills discovered: a run gone on with is the run never stopped, and what an exam of them says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embodied.errors import ConfigError, UsageError
from embodied.evaluation.skill_exam import SkillExam, sit
from embodied.training import discovery
from embodied.training.discovery import COMBINE, METHODS, DiscoverySettings, Skills, discover, settings_of
from envs.scenes.discovery import COSTS
from policies.checkpoint import module_arrays

SMALL: dict[str, Any] = {"steps": 80, "num_envs": 4, "rollout": 5}  # four rollouts
TINY = {"hidden": (16, 16), "updates": 2, "batch": 32}


class Killed(RuntimeError):
    """Stands for the end of the process."""


def small(method: str = "slim", **changes: Any) -> DiscoverySettings:
    return settings_of(method, **(SMALL | {"skill": TINY} | changes))


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch):
    monkeypatch.setattr(discovery, "STRETCH", 2)


def same(a: Skills, b: Skills) -> bool:
    pairs = [(a.policy.arrays(), b.policy.arrays()), (a.policy.training_arrays(), b.policy.training_arrays())]
    pairs.append((module_arrays(a.discovery.networks), module_arrays(b.discovery.networks)))
    return all(x.keys() == y.keys() and all(np.array_equal(x[n], y[n]) for n in x) for x, y in pairs)


def killed(settings: DiscoverySettings, folder: Path, at: int) -> None:
    """The same, ended in the middle of its rollout ``at``."""

    def end(skills: Skills) -> None:
        if len(skills.curve) == at:
            raise Killed

    with pytest.raises(Killed):
        discover(settings, folder, 1, end)


# -- discovering ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"combine": "normalized_rewards", "blocks": 2}, {"combine": "lagrangian"}, {"method": "metra"}],
    ids=lambda changes: "-".join(map(str, changes.values())) or "slim",
)
def test_a_run_killed_and_gone_on_with_is_the_run_never_stopped(tmp_path, changes):
    settings = small(**changes)
    torch.rand(1)
    straight = discover(settings, None, 1)
    killed(settings, tmp_path / "run", 3)  # one stretch is kept, another begun
    assert len(Skills.load(tmp_path / "run").curve) == 2
    resumed = discover(settings, tmp_path / "run", 1)
    assert same(straight, resumed) and straight.curve == resumed.curve and len(resumed.curve) == 4
    loaded = Skills.load(tmp_path / "run")
    assert same(straight, loaded) and loaded.curve == straight.curve
    assert len([x for x in (tmp_path / "run").iterdir() if x.is_dir()]) == 2  # older ones are gone
    row = straight.curve[-1]
    assert row["steps"] == 80 and {f"cost/{name}" for name in COSTS} <= row.keys()
    again = discover(settings, tmp_path / "run", 1)  # done already
    assert same(again, straight)


def test_another_seed_is_another_run():
    assert not same(discover(small(steps=40), None, 1), discover(small(steps=40, seed=1), None, 1))


def test_other_settings_are_refused(tmp_path):
    discover(small(steps=0), tmp_path / "run", 1)
    with pytest.raises(ConfigError, match="holds skills of other settings"):
        discover(small(steps=0, seed=1), tmp_path / "run", 1)
    (tmp_path / "run" / "state.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no discovered skills, or they are damaged"):
        Skills.load(tmp_path / "run")


def test_random_acts_as_it_was_made(tmp_path):
    settings = settings_of("random", num_envs=4)
    skills = discover(settings, tmp_path / "run", 1)
    assert skills.curve == [] and skills.policy.networks.norm.count == 4
    assert same(skills, discover(settings, tmp_path / "run", 1))


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("slim", "metra", "random")])
def test_every_method_with_its_one_reward_runs(method):
    skills = discover(small(method, steps=20), None, 1)
    assert skills.policy.config.reward_names == ("skill",) and len(skills.curve) == 1
    assert all(np.isfinite(value) for value in skills.curve[0].values())


def test_rescaled_rewards_hardly_change_a_run_but_that_of_their_sum():
    apart = {}
    for combine in ("normalized_advantages", "sum"):
        own = {"combine": combine, "skill": TINY | {"method": "diayn"}}  # a reward that is there from the first step on
        runs = [discover(small(**own, scales=scales), None, 1) for scales in ({}, {"skill": 100.0})]
        one, other = (torch.nn.utils.parameters_to_vector(x.policy.networks.actor.parameters()) for x in runs)
        apart[combine] = float((one - other).norm().detach() / one.norm().detach())
    assert apart["normalized_advantages"] < 2e-3 < 2e-2 < apart["sum"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "dreams"}, "unknown method 'dreams'; valid: slim, metra, lsd, csd, diayn, dusdi, rnd, random"),
        ({"combine": "mean"}, f"unknown rule 'mean' to combine rewards; valid: {', '.join(COMBINE)}"),
        ({"rewards": ("fame",)}, "there is no reward 'fame'; valid: skill, safety, reach, grasp, lift, joint_limit"),
        ({"weights": {"fame": 1.0}}, "there is no reward 'fame'"),
        ({"scales": {"fame": 1.0}}, "there is no reward 'fame'"),
        ({"weights": {"reach": 0, "skill": 0, "safety": 0}}, "all weights are zero"),
        ({"rewards": ()}, "no rewards given"),
        ({"scales": {"skill": np.inf}}, "weight and scale of 'skill' must be finite"),
        ({"weights": {"skill": np.nan}}, "weight and scale of 'skill' must be finite"),
        ({"blocks": 0}, "blocks = 0 must be at least 1"),
        ({"steps": -1}, "steps = -1 must be at least 0"),
        ({"num_envs": 0}, "num_envs = 0 must be at least 1"),
        ({"floor": -0.1}, "floor = -0.1 must be at least 0"),
        ({"discount": 1.0}, r"discount = 1.0 must lie in \[0, 1\)"),
        ({"skill": {"objects": 2}}, "skill has no 'objects' of its own"),
        ({"skill": {"colour": 1}}, "skill = .*colour"),
        ({"skill": {"method": "dreams"}}, "Unknown discovery method 'dreams'"),
        ({"combine": "lagrangian", "rewards": ("skill",)}, "a lagrangian needs a cost among its rewards"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        discovery.make_skills(settings_of(**({"method": "slim"} | changes)), 10, 5)


# -- the exam ------------------------------------------------------------------------------------------------------


def made(path: np.ndarray, **changes: Any) -> SkillExam:
    """An exam of given paths float64[T + 1, n, B, 3]."""
    steps, n = path.shape[0] - 1, path.shape[1]
    values: dict[str, Any] = {
        "codes": np.tile([1.0, 0.0], (n, 1)),
        "path": path,
        "tool": np.zeros((steps + 1, n, 3)),
        "states": np.zeros((steps + 1, n, 1)),
        "costs": np.zeros((steps, n, len(COSTS))),
        "alive": np.ones((steps + 1, n), bool),
        "lifted": np.zeros(n),
        "table": (0.28, -0.36, 0.72, 0.36),
    }
    return SkillExam(**(values | changes))


def test_the_summary_counts_what_it_says():
    start = [0.5, 0.0, 0.02]
    ends = [[0.62, 0.0, 0.02], [0.5, 0.0, 0.02], [0.5, 0.5, -0.1], [0.71, 0.0, 0.02]]
    path = np.array([[[start]] * 4, [[end] for end in ends]], float).reshape(2, 4, 1, 3)
    costs = np.zeros((1, 4, len(COSTS)))
    costs[0, 0, 1], costs[0, 2, 2], costs[0, 2, 1] = 0.5, 1.0, 0.5
    alive = np.array([[True] * 4, [True, True, False, True]])
    summary = made(path, costs=costs, alive=alive, lifted=np.array([0.05, 0, 0, 0.01])).summary()
    assert summary["coverage05"] == summary["coverage10"] == 3  # where it began, and two more; not beside the table
    assert (summary["interaction"], summary["interior"], summary["lift"], summary["fell"]) == (0.75, 0.25, 0.25, 0.25)
    assert summary["moved"] == [0.75]
    assert summary["alignment"] == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert summary["violation"]["table_hit"] == 0.5 and summary["violation"]["any"] == 0.5
    assert summary["cost"]["table_hit"] == 0.25 and summary["violation"]["force"] == 0
    assert made(path, codes=np.zeros((4, 3))).summary()["alignment"] is None


def test_what_ended_is_no_step_of_anyone_s():
    path = np.tile([0.5, 0.0, 0.02], (3, 2, 1, 1))
    costs = np.ones((2, 2, len(COSTS)))
    alive = np.array([[True, True], [True, False], [True, False]])
    costs[1, 1] = 0  # as `sit` leaves it
    summary = made(path, costs=costs, alive=alive).summary()
    assert summary["violation"]["any"] == 1.0 and summary["cost"]["force"] == 1.0


def test_an_exam_is_of_one_start_and_the_same_bits_each_time():
    skills = discover(small(steps=20), None, 1)
    exams = [sit(skills, 7, threads=1, steps=6, codes=skills.discovery.codes(5, 1).numpy()) for _ in range(2)]
    for name in ("path", "tool", "states", "costs"):
        np.testing.assert_array_equal(getattr(exams[0], name), getattr(exams[1], name))
    exam = exams[0]
    assert exam.path.shape == (7, 5, 1, 3) and exam.costs.shape == (6, 5, len(COSTS)) and exam.alive.shape == (7, 5)
    np.testing.assert_array_equal(exam.states[0], np.repeat(exam.states[0, :1], 5, axis=0))
    assert (np.abs(exam.tool[-1] - exam.tool[-1, 0]).max(axis=1)[1:] > 0).all()  # each code its own way
    assert exam.summary()["fell"] == 0
    assert len(sit(skills, 7, threads=1, steps=1).codes) == 50
