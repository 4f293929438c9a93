"""Who chooses the goal, where practice begins, what it clones and when it goes back, on problems a person can check."""

from __future__ import annotations

import json
from statistics import median
from typing import Any

import numpy as np
import pytest

from embodied.core import Episode
from embodied.curriculum import bandit, gain, proposer, uncertainty
from embodied.curriculum.gain import HardGoals
from embodied.curriculum.records import Record, Situation
from embodied.evaluation.simulated_learner import ORACLE, SimulatedLearner, compare, live
from embodied.training.disagreement import disagreement
from embodied.training.rollback import WINDOW, Rollback, worse
from embodied.training.successes import LEAST, Lessons, lessons, quickest
from envs.goals import Goal, schema_of

OPEN, LIFT, LIFTED, CABINET = map(Goal.parse, ("open(drawer)", "lifted(red)", "lifted(blue)", "on(red, cabinet)"))
CHOOSERS = ("progress", "sec", "soar", "uncertainty")


def knowing(*records: Record, **more: Any) -> Situation:
    return Situation({Goal.parse(record.goal): record for record in records}, **more)


def ranked(score: Any, goals: list[Goal], situation: Situation) -> list[Goal]:
    return [choice.goal for choice in sorted(score(goals, situation), key=lambda choice: -choice.score)]


# -- who chooses -----------------------------------------------------------------------------------------------------


def test_a_bandit_prefers_kinds_that_rise_then_the_unknown_then_what_stays_as_it_is():
    rising = Record(str(OPEN), ((0, 24), (8, 24), (16, 24)))
    flat = Record(str(LIFT), ((12, 24),) * 5)
    falling = Record(str(OPEN), ((16, 24), (8, 24), (0, 24)))
    assert ranked(bandit.score, [CABINET, LIFT, OPEN], knowing(rising, flat)) == [OPEN, CABINET, LIFT]
    assert ranked(bandit.score, [CABINET, LIFT, OPEN], knowing(falling, flat))[0] == OPEN
    # the other goal of a kind shares what is known of it: its own record is no part of it where it has none
    one, other = bandit.score([LIFT, LIFTED], knowing(flat))
    assert one.score == other.score
    assert bandit.value([]) == bandit.UNTRIED
    assert bandit.value([0.4, 0.0]) == pytest.approx(0.25 * bandit.UNTRIED + 0.5 * (0.5 * 0.4))
    assert bandit.measured(()) == []
    assert bandit.measured([(0, 24), (0, 24)]) == [0.0, 0.0]


def test_practice_is_paid_what_it_adds_to_frozen_hard_goals():
    rates = {"open(drawer)": 0.5, "lifted(red)": 0.25, "lifted(blue)": 0.0, "on(red, cabinet)": 0.0}
    hard = HardGoals.of({}, rates, {"open(drawer)"})
    assert hard.best == {"lifted(blue)": 0.0, "on(red, cabinet)": 0.0}  # one a schema, the least successful
    measured = {"lifted(blue)": 0.5, "on(red, cabinet)": 0.125}
    assert hard.pay("placed(red, anywhere)", measured) == 0.625
    assert hard.pay("placed(blue, anywhere)", measured) == 0.0  # what was reached before earns nothing again
    assert hard.paid == {"placed(?a:block, ?p:place)": [0.625, 0.0]}
    kept = json.loads(json.dumps(hard.to_dict()))
    assert HardGoals.of(kept, rates, set()) == hard
    anew = HardGoals.of(kept, rates, {"open(drawer)", "lifted(blue)"})  # half are mastered
    assert (anew.best, anew.paid) == ({"on(red, cabinet)": 0.0, "lifted(red)": 0.25}, hard.paid)

    gains = {"lifted(?a:block)": [0.0, 0.0], schema_of(CABINET): [0.0, 0.6]}
    assert ranked(gain.score, [LIFT, OPEN, CABINET], knowing(gains=gains)) == [CABINET, OPEN, LIFT]


def test_uncertainty_wants_what_may_go_either_way_and_nothing_twice():
    records = [Record(str(OPEN), ((12, 24),)), Record(str(LIFT), ((24, 24),)), Record(str(CABINET), ((0, 24),))]
    goals = [LIFT, CABINET, OPEN]
    assert ranked(uncertainty.score, goals, knowing(*records))[0] == OPEN
    assert ranked(uncertainty.score, goals, knowing(*records, recent=(str(OPEN),) * 10))[-1] == OPEN
    assert uncertainty.score([LIFTED], knowing())[0].score == 1.0
    assert uncertainty.likeness(LIFT, LIFT) == 1.0
    assert uncertainty.likeness(LIFT, LIFTED) == pytest.approx(1 / 3)
    assert uncertainty.likeness(LIFT, OPEN) == 0.0


@pytest.mark.parametrize("mode", CHOOSERS)
def test_a_chooser_draws_by_its_score_and_says_why(mode: str):
    records = [Record(str(OPEN), ((0, 24), (8, 24), (16, 24))), Record(str(CABINET), ((0, 24),) * 3)]
    gains = {"open(drawer)": [0.6], schema_of(CABINET): [0.0]}
    chosen = proposer.choose(records, count=99, seed=3, mode=mode, gains=gains)
    assert chosen == proposer.choose(records, count=99, seed=3, mode=mode, gains=gains)
    scores = {choice.goal: choice.score for choice in chosen}
    assert scores[OPEN] > scores[CABINET]
    assert all(c.reason.startswith("I propose to ") and c.reason.endswith(".") for c in chosen)


def test_every_chooser_beats_chance_on_a_simulated_learner():
    found = compare(range(5), rounds=30)
    assert set(found) == {*proposer.MODES, ORACLE}
    assert all(found[mode] > 1.3 * found["uniform"] for mode in CHOOSERS)
    assert all(found[mode] < found[ORACLE] for mode in proposer.MODES)
    assert live("soar", 7, 12) == live("soar", 7, 12)


def test_a_simulated_learner_learns_only_where_what_is_needed_is_there():
    learner = SimulatedLearner(0)
    before = learner.success(CABINET)
    for _ in range(8):
        learner.practise(schema_of(CABINET))
    assert learner.success(CABINET) < before + 0.02
    for schema in ("lifted(?a:block)", "placed(?a:block, ?p:place)", schema_of(CABINET)):
        for _ in range(8):
            learner.practise(schema)
    assert learner.success(CABINET) > 0.95


# -- where practice begins -------------------------------------------------------------------------------------------


def test_a_state_counts_by_the_pairs_of_its_probes_that_disagree():
    success = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]], bool)
    assert disagreement(success).tolist() == [0, 3, 4, 3, 0]


def walked(choose: bool, seed: int, length: int = 12, rounds: int = 100) -> float:
    """A corridor learnt by policy gradient: the success from its far end, after practice from starts along it.

    At each place the right step is taken with probability σ(θ); REINFORCE with the batch's mean as its baseline.
    Probes count: without them five times as many episodes are learnt from.
    """
    rng, theta = np.random.default_rng(seed), np.full(length, -1.0)

    def attempts(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Right steps bool[n, length] as far as an episode got, and whether it arrived."""
        right = rng.random((len(starts), length)) < 1.0 / (1.0 + np.exp(-theta))
        right |= np.arange(length) > starts[:, None]
        return right, np.asarray(right.all(axis=1))

    for _ in range(rounds):
        starts = rng.integers(length, size=16 if choose else 80)
        if choose:
            tried = np.repeat(starts, 4)
            times = disagreement(attempts(tried)[1].reshape(-1, 4))
            starts = rng.choice(np.repeat(starts, times), 16) if times.any() else starts
        right, arrived = attempts(starts)
        for place in range(length):  # episodes that passed there
            passed = (starts >= place) & right[:, place + 1 :].all(axis=1)
            advantage = (arrived - arrived[passed].mean())[passed] if passed.any() else np.zeros(0)
            theta[place] += (
                4.8 / len(starts) * float(advantage @ (right[passed, place] - 1.0 / (1.0 + np.exp(-theta[place]))))
            )
    return float(np.prod(1.0 / (1.0 + np.exp(-theta))))


def test_starting_where_probes_disagree_learns_a_long_way_that_starting_anywhere_does_not():
    anywhere, chosen = (median(walked(choose, seed) for seed in range(5)) for choose in (False, True))
    assert chosen > 0.5 > 0.1 > anywhere


# -- what is learnt from ---------------------------------------------------------------------------------------------


def episode(goal: str, length: int, success: bool) -> Episode:
    zeros = np.zeros(length, bool)
    return Episode(
        observations=np.full((length + 1, 3), length, np.float32), actions=np.full((length, 2), length, np.float32),
        rewards=np.zeros((length, 3), np.float32), terminations=zeros, truncations=zeros,
        states=np.zeros((1, 4)), state_steps=np.zeros(1, np.int64), success=success, goal=goal, instruction="",
        source="evaluation", policy="", env="", seed=0, versions={},
    )  # fmt: skip


def test_only_the_quickest_own_successes_are_cloned():
    found = [episode("open(drawer)", 60 - k, k % 2 == 0) for k in range(50)]
    found += [episode("lit(lamp)", 9, True), episode("lit(lamp)", 5, False)]
    taken = quickest(found)
    assert [len(e) for e in taken] == [26, 24, 22, 20, 18, 16, 14, 12, 9]
    assert all(e.success for e in taken)
    assert len(quickest([episode("lit(lamp)", 10 + k % 7, True) for k in range(100)])) == 20
    assert LEAST == 8
    flat = lessons(taken, Lessons(np.zeros((0, 3), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.int64)))
    assert flat.episode_ends[-1] == len(flat.observations) == len(flat.actions) == sum(len(e) + 1 for e in taken)
    assert lessons([], flat).observations.shape == (0, 3)


# -- going back ------------------------------------------------------------------------------------------------------


class Hill:
    """A learner of one number: its success; updates raise it, but some do harm."""

    def __init__(self) -> None:
        self.success, self.momentum = 0.5, 0.0

    def arrays(self) -> dict[str, Any]:
        return {"success": self.success}

    def load_arrays(self, arrays: dict[str, Any]) -> None:
        self.success = arrays["success"]

    def training_arrays(self) -> dict[str, Any]:
        return {"actor_optimizer/m": self.momentum, "generator": "runs on"}

    def load_training_arrays(self, arrays: dict[str, Any]) -> None:
        self.momentum = arrays["actor_optimizer/m"]
        assert arrays["generator"] == "runs on"


def climbed(guarded: bool, seed: int) -> tuple[float, int]:
    """(success at the end, times it went back) of 200 updates, of which one in forty halves the success."""
    rng, learner = np.random.default_rng(seed), Hill()
    guard = Rollback(learner, {}, 4)  # type: ignore[arg-type]
    for _ in range(200):
        metrics = {"episodes": 50.0, "success": rng.binomial(50, learner.success) / 50}
        learner.success = learner.success / 2 if rng.random() < 1 / 40 else learner.success + 0.02 * (
            1 - learner.success
        )  # fmt: skip
        if guarded:
            guard.observe(metrics)
    return learner.success, guard.times


def test_going_back_on_harmful_updates_ends_higher():
    free, guarded = ([climbed(g, seed) for seed in range(7)] for g in (False, True))
    assert median(s for s, _ in guarded) > median(s for s, _ in free) + 0.05
    assert sum(times for _, times in guarded) >= len(guarded)


def test_nothing_is_taken_back_from_what_only_varies():
    rng, times = np.random.default_rng(0), 0
    for _ in range(20):
        guard = Rollback(Hill(), {}, 0)  # type: ignore[arg-type]
        for _ in range(10 * WINDOW):
            guard.observe({"episodes": 50.0, "success": rng.binomial(50, 0.7) / 50})
        times += guard.times
    assert times <= 4
    assert worse(20, 100, (60, 100))
    assert not worse(50, 100, (60, 100))
    assert not worse(0, 0, (60, 100))
    assert not worse(9, 100, (0, 0))
