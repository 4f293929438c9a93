"""Practice: the better start is chosen by measurement, and training that was saved goes on bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied.training.practice import PracticeConfig, begin, clone, fresh, practise
from embodied.training.rollouts import MAX_STEPS, Trial, measure, measure_all
from envs.playroom.oracle import ScriptedOracle
from envs.vector import TabletopVectorEnv
from policies.multi_critic_ppo import MultiCriticPPO

TINY = PracticeConfig(num_envs=8, rollout=16, trials=10, clone_epochs=25, threads=1)
GOAL = "lifted(red)"


def same(one: MultiCriticPPO, other: MultiCriticPPO) -> None:
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name], err_msg=name)


@pytest.fixture(scope="module")
def lessons() -> tuple[np.ndarray, np.ndarray]:
    """Features and actions of a scripted expert, 40 tables."""
    env = TabletopVectorEnv(40, GOAL, threads=1, terminate_on_success=False, autoreset_mode="Disabled")
    observation, _ = env.reset(seed=77)
    oracle, seen, done = ScriptedOracle(env), [], []
    for _ in range(70):
        action = oracle.act()
        seen.append(observation)
        done.append(action)
        observation = env.step(action)[0]
    return np.concatenate(seen), np.concatenate(done)


@pytest.fixture(scope="module")
def taught(lessons) -> MultiCriticPPO:
    return clone(*lessons, seed=1, config=TINY)


def test_cloning_teaches_and_the_better_start_is_chosen(lessons, taught):
    features, actions = lessons
    guessed, _ = taught.predict(features, deterministic=True)
    assert np.mean((guessed - actions) ** 2) < 0.5 * np.mean((actions - actions.mean(0)) ** 2)
    starts = {"nonsense": fresh(9, TINY), "what was shown": taught}
    chosen, origin, spent = begin([GOAL], starts, seed=3, config=TINY)
    assert origin == "what was shown"
    assert 0 < spent <= 2 * TINY.trials * MAX_STEPS
    lent, kept = chosen.arrays(), taught.arrays()
    changed = {name for name in lent if not np.array_equal(lent[name], kept[name])}
    assert changed <= {name for name in lent if "std" in name}
    again, _, _ = begin([GOAL], dict(reversed(starts.items())), seed=3, config=TINY)  # whatever the order
    same(chosen, again)


def test_without_a_start_it_begins_with_nothing():
    policy, origin, spent = begin([GOAL], {}, seed=3, config=TINY)
    assert (origin, spent) == ("nothing", 0)
    same(policy, fresh(3, TINY))


def test_practice_counts_its_steps_and_changes_the_policy(taught):
    policy = fresh(0, TINY)
    policy.load_arrays(taught.arrays())
    told: list[dict[str, float]] = []
    outcome = practise(policy, [GOAL, "lit(lamp)"], 300, 4, TINY, warm=True, on_iteration=told.append)
    assert outcome.steps == 384  # whole rollouts of 8 · 16 steps
    assert [metrics["steps"] for metrics in told] == [128, 256, 384]
    assert outcome.policy is policy
    assert {"reward/task", "reward/reach", "reward/safety", "std"} <= set(outcome.metrics)
    assert all(np.isfinite(value) for value in outcome.metrics.values())
    # three rollouts only teach the critics of a policy that already acts
    for name, array in policy.arrays().items():
        if "actor" in name:
            np.testing.assert_array_equal(array, taught.arrays()[name], err_msg=name)
    practise(policy, [GOAL], 128, 4, TINY, warm=False)
    assert any(not np.array_equal(a, taught.arrays()[n]) for n, a in policy.arrays().items() if "actor" in n)


def test_practice_ends_when_it_has_nothing_left_to_teach(taught):
    easy = dataclasses.replace(TINY, learnt=0.0, settled=2, rollout=MAX_STEPS)
    policy = fresh(0, easy)
    policy.load_arrays(taught.arrays())
    outcome = practise(policy, [GOAL], 100 * MAX_STEPS * easy.num_envs, 4, easy, warm=True)
    assert outcome.steps == 4 * MAX_STEPS * easy.num_envs


def test_who_acts_in_the_end_is_an_average_over_the_last_rollouts(taught):
    policy = fresh(0, TINY)
    policy.load_arrays(taught.arrays())
    outcome = practise(policy, [GOAL], 8 * 128, 4, TINY, warm=False)
    begun, now, average = taught.arrays(), policy.arrays(), outcome.average.arrays()
    for name in now:
        if "actor" in name and name.endswith("weight"):
            assert np.linalg.norm(average[name] - now[name]) < np.linalg.norm(begun[name] - now[name])
            assert not np.array_equal(average[name], now[name])
        elif "actor" not in name:
            np.testing.assert_array_equal(average[name], now[name])


def test_saved_practice_goes_on_bit_for_bit(taught, tmp_path: Path):
    policy = fresh(5, TINY)
    policy.load_arrays(taught.arrays())
    practise(policy, [GOAL], 256, 1, TINY, warm=True)
    policy.save_training(tmp_path / "kept")
    resumed = MultiCriticPPO.load_training(tmp_path / "kept")
    same(policy, resumed)
    for each in (policy, resumed):
        practise(each, [GOAL], 256, 2, TINY, warm=False)
    same(policy, resumed)


def test_practice_is_the_same_twice():
    outcomes = [practise(fresh(2, TINY), [GOAL], 256, 6, TINY, warm=False) for _ in range(2)]
    same(outcomes[0].policy, outcomes[1].policy)
    assert outcomes[0].metrics == outcomes[1].metrics


class Still:
    """Does nothing, with the gripper open."""

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        return np.tile(np.array([0, 0, 0, 0, 1], np.float32), (len(observation), 1)), None


def test_a_measurement_says_what_happened_and_gives_whole_episodes(taught):
    found = measure(taught, GOAL, 12, 5, threads=1, record=3, artifact="a" * 64)
    again = measure(taught, GOAL, 12, 5, threads=1)
    np.testing.assert_array_equal(found.report.success, again.report.success)
    np.testing.assert_array_equal(found.end, again.end)
    assert found.report.successes > 0
    assert found.report.lengths is not None
    assert found.steps == found.report.lengths.sum()
    for k, episode in enumerate(found.episodes):
        assert len(episode) == found.report.lengths[k]
        assert episode.success == found.report.success[k] == episode.terminations[-1] != episode.truncations[-1]
        np.testing.assert_allclose(episode.observations[0], found.start[k], rtol=1e-6)
        np.testing.assert_allclose(episode.observations[-1], found.end[k], rtol=1e-6)
    crowd = [Trial("lit(lamp)", 200, 8), Trial(GOAL, 12, 5, record=2), Trial("not lit(lamp)", 20, 9)]
    steps: list[int] = []
    beside = measure_all(taught, crowd, threads=2, max_steps=60, on_steps=steps.append)
    assert [len(one.report.success) for one in beside] == [200, 12, 20]
    assert sum(steps) == sum(one.steps for one in beside)
    alone = measure(taught, GOAL, 12, 5, threads=1, max_steps=60)  # as in a crowd, where episodes wait in line
    np.testing.assert_array_equal(beside[1].report.success, alone.report.success)
    np.testing.assert_array_equal(beside[1].start, alone.start)
    np.testing.assert_allclose(beside[1].end, alone.end, atol=1e-6)
    assert [episode.goal for episode in beside[1].episodes] == [GOAL, GOAL]
    nothing = measure(Still(), GOAL, 4, 5, threads=1, max_steps=10)
    assert nothing.report.successes == 0
    assert nothing.steps == 40
    np.testing.assert_array_equal(nothing.start, found.start[:4])  # the same starts, whoever acts and however many
