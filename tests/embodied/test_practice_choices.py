"""The choices of practice on the table-top: probed starts, own successes, going back, and the pay of hard goals."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from embodied.cli.schema import RunConfig
from embodied.data.store import EpisodeStore
from embodied.journal import LoopState
from embodied.training import curricula, practice
from embodied.training.curricula import lessons, pay, prepare
from embodied.training.disagreement import PROBES, disagreement, probed_starts
from embodied.training.kept import KeptStates
from embodied.training.practice import PracticeConfig, clone, fresh, practise, refine
from embodied.training.rollback import WINDOW
from embodied.training.rollouts import MAX_STEPS, Trial, measure, measure_all
from embodied.training.successes import own_successes
from envs.playroom.oracle import ScriptedOracle
from envs.predicates import COLUMNS
from envs.vector import TabletopVectorEnv
from policies.multi_critic_ppo import MultiCriticPPO

TINY = PracticeConfig(num_envs=8, rollout=16, trials=24, clone_epochs=25, threads=1)
GOAL = "lifted(red)"


@pytest.fixture(scope="module")
def taught() -> MultiCriticPPO:
    """A policy that lifts now and then."""
    env = TabletopVectorEnv(30, GOAL, threads=1, terminate_on_success=False, autoreset_mode="Disabled")
    observation, _ = env.reset(seed=77)
    oracle, seen, done = ScriptedOracle(env), [], []
    for _ in range(70):
        action = oracle.act()
        seen.append(observation)
        done.append(action)
        observation = env.step(action)[0]
    env.close()
    return clone(np.concatenate(seen), np.concatenate(done), seed=1, config=TINY)


@pytest.fixture(scope="module")
def tried(taught, tmp_path_factory) -> Iterator[tuple[EpisodeStore, KeptStates]]:
    """What that policy did with noise, and where it ended."""
    kept = KeptStates()
    found = measure(taught, GOAL, 60, 5, threads=1, record=60, deterministic=False, kept=kept)
    store = EpisodeStore.open(tmp_path_factory.mktemp("run") / "episodes", {}, columns=COLUMNS)
    store.extend(found.episodes)
    assert 0 < found.report.successes < 60
    yield store, kept
    store.close()


def test_own_successes_bring_back_what_was_forgotten(taught, tried):
    store, _ = tried
    own = own_successes(store, [GOAL])
    assert 8 <= len(own.episode_ends) < len(store)
    assert len(own_successes(store, ["lit(lamp)"]).episode_ends) == 0
    assert lessons(store, ["lit(lamp)"], "filtered")[2] == 0
    features, actions, count, told = lessons(store, [GOAL], "filtered")
    assert (told, 0 < count <= len(own.episode_ends)) == ("own successes", True)
    assert lessons(store, [GOAL], "relabelled")[2] > count
    policy = fresh(0, TINY)
    policy.load_arrays(taught.arrays())
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.networks.actor.parameters():
            weight.add_(0.06 * torch.randn(weight.shape, generator=noise))
    before = measure(policy, GOAL, 40, 99, threads=1).report.successes
    helped, spent = refine(policy, features, actions, [GOAL], 3, TINY)
    assert helped
    assert spent > 0
    assert measure(policy, GOAL, 40, 99, threads=1).report.successes >= before + 4


def test_what_does_not_help_is_not_cloned(taught):
    policy = fresh(0, TINY)
    policy.load_arrays(taught.arrays())
    nonsense = np.random.default_rng(0).uniform(-1, 1, (400, 5)).astype(np.float32)
    features = np.zeros((400, policy.observation_size), np.float32)
    assert not refine(policy, features, nonsense, [GOAL], 3, TINY)[0]
    for name, array in policy.arrays().items():
        np.testing.assert_array_equal(array, taught.arrays()[name], err_msg=name)


def test_practice_begins_where_probes_disagree(taught, tried):
    kept = tried[1].arrays()
    assert kept is not None
    (states, facts), spent = probed_starts(taught, kept, [GOAL], 12_000, 4, threads=1)
    again, _ = probed_starts(taught, kept, [GOAL], 12_000, 4, threads=1)
    np.testing.assert_array_equal(states, again[0])
    assert len(states) == len(facts) > 0
    assert 0 < spent <= 10 * PROBES * MAX_STEPS
    counts = np.unique(states, axis=0, return_counts=True)[1]
    assert set(counts.tolist()) <= {3, 4}
    assert disagreement(np.eye(4, dtype=bool)).tolist() == [3, 3, 3, 3]
    still = fresh(0, TINY)
    assert probed_starts(still, kept, ["on(red, blue)"], 1, 4, threads=1)[0] is kept  # nowhere: as without probes


def test_practice_goes_back_on_updates_that_did_harm(taught, monkeypatch):
    policy = fresh(0, TINY)
    policy.load_arrays(taught.arrays())
    good = policy.arrays()
    config = PracticeConfig(num_envs=8, rollout=MAX_STEPS, threads=1, rollback=True)

    def trained(policy: MultiCriticPPO, env: Any, steps: int, note: Any, *_: Any, **__: Any) -> Any:
        for k in range(2 * WINDOW):
            harmed = k >= WINDOW  # as if the first window's last update had spoilt the policy
            note({"iteration": k, "steps": k, "episodes": 50, "success": 0.1 if harmed else 0.8})
            if k == WINDOW - 1:
                policy.load_arrays(fresh(5, TINY).arrays())
        return SimpleNamespace(steps=1, metrics=[{"success": 0.1}])

    monkeypatch.setattr(practice, "train_ppo", trained)
    outcome = practise(policy, [GOAL], 1, 4, config, warm=False)
    assert outcome.metrics == {"success": 0.1, "rolled_back": 1}
    for name, array in policy.arrays().items():
        np.testing.assert_array_equal(array, good[name], err_msg=name)
    for name, array in outcome.average.arrays().items():
        np.testing.assert_allclose(array, good[name], err_msg=name)


def test_going_back_leaves_nothing_behind_where_nothing_is_harmed(taught):
    policies = []
    for rollback in (False, True):
        policy = fresh(0, TINY)
        policy.load_arrays(taught.arrays())
        practise(policy, [GOAL], 256, 4, PracticeConfig(num_envs=8, rollout=16, rollback=rollback), warm=False)
        policies.append(policy.arrays())
    for name, array in policies[0].items():
        np.testing.assert_array_equal(array, policies[1][name], err_msg=name)


def worker(config: RunConfig, store: Any, kept: KeptStates) -> Any:
    """What is asked of a `Worker` here."""
    spent: list[int] = []
    journal = SimpleNamespace(
        state=LoopState(), store=store, scalar=lambda *_: None, library=SimpleNamespace(mastered=list)
    )
    return SimpleNamespace(
        config=config, journal=journal, kept=kept, practice_config=TINY, spend=spent.append, spent=spent,
        seed=lambda *words: sum(words),
    )  # fmt: skip


def test_a_round_prepares_as_it_is_set(taught, tried):
    store, kept = tried
    kin = {"lifted(?a:block)": [GOAL]}
    plain = worker(RunConfig(threads=1), store, kept)
    same = prepare(plain, taught, kin, "lifted(?a:block)", again=True)
    assert same is not None
    np.testing.assert_array_equal(same[0], kept.states)
    assert plain.spent == []
    config = RunConfig(threads=1, practice_steps=9_000, starts="disagreement", cloning="filtered")
    policy = fresh(0, TINY)
    policy.load_arrays(taught.arrays())
    chosen = worker(config, store, kept)
    begun = prepare(chosen, policy, kin, "lifted(?a:block)", again=True)
    assert begun is not None
    assert len(begun[0]) == len(begun[1]) != len(kept)
    assert len(chosen.spent) == 2


def test_practice_is_paid_on_the_same_episodes_each_time(taught, monkeypatch):
    asked: list[list[Trial]] = []

    def measured(policy: Any, trials: list[Trial], **how: Any) -> Any:
        asked.append(trials)
        return measure_all(policy, [Trial(t.goal, 2, t.seed) for t in trials], max_steps=3, **how)

    monkeypatch.setattr(curricula, "measure_all", measured)
    each = worker(RunConfig(threads=1), None, KeptStates())
    for _ in range(2):
        pay(each, [GOAL, "lit(lamp)"], GOAL, taught)
    assert asked[0] == asked[1]
    assert {t.goal for t in asked[0]} == {GOAL, "lit(lamp)"}
    assert each.journal.state.hard["paid"] == {"lifted(?a:block)": [0.0, 0.0]}
    assert sum(each.spent) == 2 * 4 * 3
