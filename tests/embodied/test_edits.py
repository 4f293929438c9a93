"""The gate of edits: closed forms, stages in their order, nothing admitted on what chose it, and the way back."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, binom, binomtest

from embodied.core import Skill
from embodied.evaluation import gate_curve
from embodied.skills.canary import Canary, evidence_of_harm
from embodied.skills.edit_checks import by_failure_mode, fault_of, least_used
from embodied.skills.edits import (
    Answer,
    Edit,
    EditDecision,
    EditGate,
    EditGateConfig,
    Fork,
    Recorded,
    Snapshot,
    Task,
)
from embodied.skills.gate import GateError
from embodied.skills.probes import (
    Probe,
    accept_probability,
    balanced,
    fixes_needed,
    flipped_rates,
    independent_discordance,
    pairs_needed,
    probability_of_gain,
    sample_sizes,
)

LAMP, RED, BLUE = "lit(lamp)", "lifted(red)", "lifted(blue)"
LIFT, LIT = "lifted(?a:block)", "lit(lamp)"
SMALL = EditGateConfig(probe=60, confirm=300, look=20, regression=300)


def skill(name: str, schema: str = LIFT, **how: object) -> Skill:
    return Skill(schema, name.encode().hex().ljust(64, "0"), **how)  # type: ignore[arg-type]


class World:
    """Bernoulli skills: success with the acting version's rate on the goal; luck by version and episode."""

    def __init__(self, rates: dict[str, dict[str, float]]) -> None:
        self.rates = rates  # version → goal → rate
        self.asked: list[tuple[dict[str, str], list[Task]]] = []
        self.flips = 0.0

    def one(self, version: str, task: Task) -> bool:
        word = [int(version[:8], 16), task.seed % 2**32, task.episode, len(task.goal) + ord(task.goal[-2])]
        return bool(np.random.default_rng(word).random() < self.rates[version].get(task.goal, 0.0))

    def __call__(self, fork: Fork, tasks: Sequence[Task]) -> Answer:
        self.asked.append((dict(fork), list(tasks)))
        acting = [fork.get(LIT if task.goal == LAMP else LIFT, "") for task in tasks]
        success = np.array([bool(v) and self.one(v, t) for v, t in zip(acting, tasks, strict=True)], np.bool_)
        if self.flips:
            success ^= np.random.default_rng(len(self.asked)).random(len(tasks)) < self.flips
        return Answer(success, {v: np.array([a == v for a in acting], np.bool_) for v in set(acting) if v})


OLD, LAMPS = skill("old"), skill("lamps", LIT)
NEW = {name: skill(name, parent=OLD.version) for name in ("good", "same", "bad", "careless", "cheat")}
RATES = {
    OLD.version: {RED: 0.5, BLUE: 0.95},
    LAMPS.version: {LAMP: 0.9},
    NEW["good"].version: {RED: 0.8, BLUE: 0.95},
    NEW["same"].version: {RED: 0.5, BLUE: 0.95},
    NEW["bad"].version: {RED: 0.02, BLUE: 0.95},
    NEW["careless"].version: {RED: 0.85, BLUE: 0.5},
    NEW["cheat"].version: {RED: 0.5, BLUE: 0.95},
}
BASE = {LIFT: OLD.version, LIT: LAMPS.version}


def setting(flips: float = 0.0) -> tuple[World, Snapshot]:
    world = World(RATES)
    tasks = [Task(goal, 9, i) for goal, n in ((RED, 200), (BLUE, 60), (LAMP, 40)) for i in range(n)]
    recorded = [Recorded(t, bool(s)) for t, s in zip(tasks, world(BASE, tasks).success, strict=True)]
    world.asked.clear()
    world.flips = flips
    return world, Snapshot(BASE, recorded, {LIFT: {RED, BLUE}, LIT: {LAMP}})


def modify(name: str) -> Edit:
    return Edit("modify", LIFT, (RED,), NEW[name])


def decide(*names: str, config: EditGateConfig = SMALL, attempt: int = 0) -> tuple[EditDecision, World]:
    world, snapshot = setting()
    return EditGate(world, 0, config).decide([modify(n) for n in names], snapshot, round=0, attempt=attempt), world


# ---- closed forms


@pytest.mark.parametrize("fixes, regressions", [(0, 0), (5, 0), (0, 5), (12, 7), (300, 250)])
def test_the_posterior_is_beta_and_one_less_the_mid_p_of_mcnemar(fixes: int, regressions: int) -> None:
    p = probability_of_gain(fixes, regressions)
    assert p == pytest.approx(beta.sf(0.5, 1 + fixes, 1 + regressions))
    assert p + probability_of_gain(regressions, fixes) == pytest.approx(1)
    m = fixes + regressions
    exact = binomtest(fixes, m, alternative="greater").pvalue if m else 1.0
    assert p == pytest.approx(1 - (exact - 0.5 * binom.pmf(fixes, m, 0.5)))
    cells = np.random.default_rng(0).dirichlet([1 + fixes, 1 + regressions, 40, 7], 4000)  # the concordant cells: any
    assert p == pytest.approx((cells[:, 0] > cells[:, 1]).mean(), abs=0.03)


def test_fixes_needed_is_the_least_number_that_reaches_the_level() -> None:
    for m in range(60):
        f = fixes_needed(m, 0.995)
        assert f > m or probability_of_gain(f, m - f) >= 0.995
        assert f == 0 or probability_of_gain(f - 1, m - f + 1) < 0.995
    assert fixes_needed(0, 0.9) == 1  # no discordant pair, no evidence


def test_sizes_hold_what_they_promise_exactly_and_at_every_discordance() -> None:
    for d in (0.1, 0.15, 0.25, 0.4, 0.505):
        n = pairs_needed(0.1, d, 0.995, 0.97)
        assert accept_probability(n, 0.1, d, 0.995) > 0.96
        assert accept_probability(n, 0.0, d, 0.995) < 0.006  # the size, for every d
        assert accept_probability(n, -0.05, max(d, 0.05), 0.995) < 1e-3
    sizes, config = sample_sizes(), EditGateConfig()
    assert (sizes.probe, sizes.confirm, sizes.look, sizes.regression) == (
        config.probe, config.confirm, config.look, config.regression,
    )  # fmt: skip
    assert sizes.false_accept < 0.0055 and sizes.false_reject < 0.085 and sizes.missed_loss < 0.06
    assert accept_probability(20, 0.0, 0.505, 0.9) > 0.08  # what a threshold of 0.9 alone would let through
    assert sample_sizes(gain=0.15, loss=0.15).confirm < sizes.confirm / 2
    simulated = np.random.default_rng(1).multinomial(400, [0.3, 0.2, 0.5], 4000)
    share = np.mean([probability_of_gain(int(f), int(r)) >= 0.995 for f, r, _ in simulated])
    assert share == pytest.approx(accept_probability(400, 0.1, 0.5, 0.995), abs=0.03)


def test_the_probe_is_unbiased_where_counting_is_not() -> None:
    draw = np.random.default_rng(0)
    for rate, fork in ((0.8, 0.8), (0.3, 0.4), (0.5, 0.6)):
        fixes, broken = draw.binomial(60, fork, 3000), draw.binomial(60, 1 - fork, 3000)
        gains = [Probe(60, 60, int(f), int(b), 0, rate).gain() for f, b in zip(fixes, broken, strict=True)]
        assert np.mean(gains) == pytest.approx(fork - rate, abs=0.005)
        variance = 2 * fork * (1 - fork) * (rate**2 + (1 - rate) ** 2) / 120
        assert np.var(gains) == pytest.approx(variance, rel=0.1)
    assert 60 * 0.4 - 60 * 0.6 < 0  # fixes less regressions would drop a fork that is ten points better
    assert Probe(10, 10, 5, 0, 4, 0.5).gain() == pytest.approx(0.25 - 0.2)


def test_the_balanced_draw_takes_half_and_half_and_what_there_is() -> None:
    rows = [Recorded(Task(RED, 0, i), i < 3) for i in range(50)]
    drawn = balanced(rows, 20, seed=1)
    assert [row.success for row in drawn].count(True) == 3 and len(drawn) == 13
    assert drawn == balanced(rows, 20, seed=1) != balanced(rows, 20, seed=2)


def test_bad_sizes_are_refused() -> None:
    for call in (
        lambda: pairs_needed(0.0, 0.1, 0.9, 0.9), lambda: accept_probability(5, 0.2, 0.1, 0.9),
        lambda: probability_of_gain(-1, 0), lambda: EditGateConfig(level=0.8), lambda: EditGateConfig(smoke=0),
        lambda: by_failure_mode([], [], 0),
    ):  # fmt: skip
        with pytest.raises(GateError):
            call()


# ---- static checks


def test_what_is_wrong_with_an_edit_is_said_before_anything_runs(tmp_path: Path) -> None:
    _, snapshot = setting()
    good = modify("good")
    assert fault_of(good, snapshot, 10) == ""
    nested: object = 0
    for _ in range(3000):
        nested = [nested]
    wrong = {
        "the kinds are": replace(good, kind="swap"),
        "must come with a skill": replace(good, skill=None),
        "already in the set": replace(good, kind="add"),
        "not in the set": replace(good, slot=f"{LIFT} [x]"),
        "must name the instructions": replace(good, goals=()),
        "unknown instruction": replace(good, goals=("flown(red)",)),
        "canonical": replace(good, goals=("lifted( red )",)),
        "nothing is recorded": replace(good, goals=("open(drawer)",)),
        "is not the slot's family": replace(good, skill=LAMPS),
        "is not the hash": replace(good, skill=replace(NEW["good"], artifact="../etc")),
        "no finite JSON": replace(good, skill=replace(NEW["good"], conditioning={"code": [math.nan]})),
        "in the set already": replace(good, skill=OLD),
        "was made from": replace(good, skill=replace(NEW["good"], parent="f" * 64)),
        "the predicates are": replace(good, literals=("flown(?a)",)),
        "is none of": replace(good, literals=("clear(?b)",)),
        "another type": replace(good, literals=("clear(?a:drawer)",)),
        "cannot be grounded": replace(good, literals=("open(?a)",)),
        "is no literal": replace(good, literals=("clear(?a) & clear(?a)",)),
        "sole coverage of 'lifted(blue)'": Edit("remove", LIFT, (RED,)),
    }
    for sentence, edit in wrong.items():
        assert sentence in fault_of(edit, snapshot, 10), sentence
    deep = replace(good, skill=replace(NEW["good"], conditioning={"code": nested}))
    assert "no finite JSON" in fault_of(deep, snapshot, 10)
    assert fault_of(replace(good, literals=("not on(?a, red)", "clear(?a)")), snapshot, 10) == ""
    another = Edit("add", f"{LIFT} [2]", (RED,), NEW["good"])
    assert fault_of(another, snapshot, 2) == "" and "holds 1 of 1" in fault_of(another, snapshot, 1)


def test_weights_that_are_missing_or_not_finite_are_found(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    _, snapshot = setting()
    snapshot = replace(snapshot, artifact=lambda skill: tmp_path)
    assert "No such file" in fault_of(modify("good"), snapshot, 10)
    for value, fault in ((1.0, ""), (np.inf, "not finite")):
        save_file({"w": np.full(3, value, np.float32)}, tmp_path / "model.safetensors")
        assert fault in fault_of(modify("good"), snapshot, 10)
        assert bool(fault) == bool(fault_of(modify("good"), snapshot, 10))


def test_candidates_come_in_turn_from_the_commonest_failure_modes() -> None:
    recorded = [Recorded(Task(RED, 0, i), False, "dropped" if i < 3 else "missed") for i in range(9)]
    edits = [replace(modify("good"), mode=mode) for mode in ("dropped", "dropped", "missed", "odd")]
    assert [edit.mode for edit in by_failure_mode(edits, recorded, 3)] == ["missed", "dropped", "odd"]
    covers = {LIFT: {RED, BLUE}, f"{LIFT} [2]": {RED}, LIT: {LAMP}}
    assert least_used(dict.fromkeys(covers, "v"), LIFT, covers, {}) == f"{LIFT} [2]"
    assert least_used(BASE, LIFT, covers | {f"{LIFT} [2]": ()}, {}) is None


# ---- the course


def test_a_good_edit_is_admitted_on_fresh_pairs_and_forks_are_plain_mappings() -> None:
    decision, world = decide("bad", "good", "same")
    assert decision.accepted and decision.winner == 1 and decision.stage == "admitted", decision.reason
    assert decision.edit is not None and decision.edit.fork(BASE) == BASE | {LIFT: NEW["good"].version}
    assert [pairs.stage for pairs in decision.pairs][-2:] == ["confirm", "use"]
    assert decision.episodes == sum(len(tasks) for _, tasks in world.asked)
    probed = {t for _, tasks in world.asked for t in tasks if t.seed == 9}
    fresh = [t for fork, tasks in world.asked for t in tasks if t.seed != 9 and fork == BASE]
    assert probed and len(set(fresh)) == len(fresh)  # no fresh episode is looked at twice
    for fork, tasks in world.asked[-2:]:
        assert probed.isdisjoint(tasks) and len(tasks) == decision.pairs[-1].n, fork
    summary = json.loads(json.dumps(decision.summary(), allow_nan=False))
    assert summary["accepted"] and summary["version"] == NEW["good"].version
    assert summary["pairs"][-1]["p"] >= SMALL.level


@pytest.mark.parametrize(
    "name, stages", [("same", {"probe", "confirm"}), ("bad", {"smoke", "probe"}), ("careless", {"regression"})]
)
def test_no_gain_harm_and_harm_elsewhere_are_rejected(name: str, stages: set[str]) -> None:
    for attempt in range(3):
        decision, _ = decide(name, attempt=attempt)
        assert not decision.accepted and decision.stage in stages, decision.reason
    if name == "careless":
        assert "lost" in decision.reason


def test_a_gain_on_the_probe_alone_is_rejected_at_the_confirmation() -> None:
    _, snapshot = setting()

    class Cheating(World):
        def one(self, version: str, task: Task) -> bool:
            return True if version == NEW["cheat"].version and task.seed == 9 else super().one(version, task)

    decision = EditGate(Cheating(RATES), 0, SMALL).decide([modify("cheat"), modify("good")], snapshot, round=0)
    assert decision.winner == 0 and decision.gains[0] > decision.gains[1] and decision.gains[0] > 0.4
    assert not decision.accepted and decision.stage == "confirm", decision.reason


def test_updates_decided_together_are_decided_as_alone_in_fewer_calls() -> None:
    names = ["good", "same", "careless"]
    world, snapshot = setting()
    updates = [([modify(name)], snapshot) for name in names]
    together = EditGate(world, 0, SMALL).decide_all(updates, round=0)
    calls = len(world.asked)
    alone = [decide(name, attempt=i) for i, name in enumerate(names)]
    assert [d.summary() for d in together] == [d.summary() for d, _ in alone]
    assert calls < sum(len(w.asked) for _, w in alone)


def test_an_edit_is_credited_only_where_it_acted() -> None:
    world, snapshot = setting()

    def unused(fork: Fork, tasks: Sequence[Task]) -> Answer:
        return replace(world(fork, tasks), used={})

    decision = EditGate(unused, 0, SMALL).decide([modify("good")], snapshot, round=0)
    assert decision.stage == "use" and "acted in 0 of" in decision.reason


def test_an_invalid_episode_failed_and_costs_more() -> None:
    world, snapshot = setting()

    def broken(fork: Fork, tasks: Sequence[Task]) -> Answer:
        bad = np.full(len(tasks), fork != BASE, np.bool_)
        return replace(world(fork, tasks), invalid=bad & (np.arange(len(tasks)) % 2 == 0))

    decision = EditGate(broken, 0, SMALL).decide([modify("good")], snapshot, round=0)
    assert not decision.accepted and decision.stage in ("smoke", "probe")
    assert decision.stage == "smoke" or decision.gains[0] < 0


def test_an_evaluation_that_is_not_the_simulators_or_not_the_one_asked_for_is_refused() -> None:
    world, snapshot = setting()
    for change, sentence in (
        ({"kind": "language"}, "simulator's word"),
        ({"success": np.ones(3)}, r"bool\["),
        ({"used": {"v": np.ones(1, np.bool_)}}, r"bool\["),
    ):
        gate = EditGate(lambda fork, tasks, how=change: replace(world(fork, tasks), **how), 0, SMALL)
        with pytest.raises(GateError, match=sentence):
            gate.decide([modify("good")], snapshot, round=0)
    with pytest.raises(GateError, match="1 … 4 candidate"):
        EditGate(world, 0, SMALL).decide([], snapshot, round=0)
    used_up = replace(
        snapshot, recorded=[*snapshot.recorded, *(Recorded(t, True) for t in _asked_fresh(world, snapshot))]
    )
    with pytest.raises(GateError, match="decided before"):
        EditGate(world, 0, replace(SMALL, audit=0)).decide([modify("good")], used_up, round=0)


def _asked_fresh(world: World, snapshot: Snapshot) -> list[Task]:
    world.asked.clear()
    EditGate(world, 0, SMALL).decide([modify("good")], snapshot, round=0)
    return [task for fork, tasks in world.asked if fork == BASE for task in tasks if task.seed != 9]


# ---- faults


def test_flipped_evaluations_are_caught_by_the_audit() -> None:
    for flips in (0.2, 0.4):
        world, snapshot = setting(flips)
        decision = EditGate(world, 0, SMALL).decide([modify("good")], snapshot, round=0)
        assert decision.stage == "audit" and "came out otherwise" in decision.reason


def test_flips_shrink_gains_and_leave_nulls_null() -> None:
    for gain, d, rate in ((0.2, 0.5, 0.3), (0.0, 0.4, 0.1), (-0.1, 0.3, 0.4)):
        cells = gate_curve._cells(0.5, gain, d, rate)
        assert (cells[0] - cells[1], cells[0] + cells[1]) == pytest.approx(flipped_rates(gain, d, rate))
    for row in gate_curve.flips(0, 150):
        assert row["no gain"] <= 0.03 and row["no gain, audited"] <= 0.03
        assert row["harm elsewhere, audited"] <= 0.01
        assert row["flips"] < 0.1 or row["good, audited"] < 0.05  # it stands still rather than trust such evaluations


def test_the_operating_curve_agrees_with_its_closed_form() -> None:
    d = independent_discordance(0.45, 0.1)
    found = gate_curve.admitted_share(0, 2000, 0.45, 0.1, d)
    assert found["admitted"] == pytest.approx(accept_probability(995, 0.1, d, 0.995), abs=0.02)
    assert gate_curve.admitted_share(0, 1000, 0.45, 0.0, 0.495)["admitted"] < 0.01
    assert gate_curve.admitted_share(0, 500, 0.45, 0.2, 0.4, loss=0.2)["admitted"] < 0.02


# ---- the trial


def run_trial(seed: int, before: float, after: float, **how: float) -> Canary:
    canary = Canary(modify("good"), BASE, seed, **how)  # type: ignore[arg-type]
    luck = np.random.default_rng([99, seed]).random(4000)
    for use in range(4000):
        if canary.state != "trial":
            break
        edited = canary.draws(use)
        assert canary.fork(use) == (canary.edit.fork(BASE) if edited else BASE)
        canary.record(edited, bool(luck[use] < (after if edited else before)))
    return canary


def test_the_trial_reverts_what_is_worse_and_keeps_what_is_not() -> None:
    worse = [run_trial(seed, 0.9, 0.5) for seed in range(20)]
    assert all(canary.state == "reverted" for canary in worse)
    assert np.mean([canary.used for canary in worse]) < 120
    assert worse[0].fork(10_000) == BASE and not worse[0].draws(3)  # from then on the base runs
    assert worse[0].record(True, True) == "reverted" and json.dumps(worse[0].summary())
    same = [run_trial(1000 + seed, 0.7, 0.7) for seed in range(60)]
    assert sum(canary.state == "reverted" for canary in same) <= 3  # at most 1 % in expectation, by Ville
    better = run_trial(7, 0.6, 0.9)
    assert better.state == "kept" and better.used == 400 and better.draws(400)
    assert better.fork(401) == better.edit.fork(BASE)


def test_the_evidence_of_harm_is_a_martingale_with_no_preference_at_the_start() -> None:
    assert evidence_of_harm(0, 0) == pytest.approx(0)
    for won, lost in ((0, 0), (3, 1), (2, 9), (0, 30)):
        step = 0.5 * (math.exp(evidence_of_harm(won + 1, lost)) + math.exp(evidence_of_harm(won, lost + 1)))
        assert step == pytest.approx(math.exp(evidence_of_harm(won, lost)))
    assert evidence_of_harm(0, 12) > math.log(100) > evidence_of_harm(12, 0)
    with pytest.raises(GateError, match="share"):
        Canary(modify("good"), BASE, 0, share=1.0)
