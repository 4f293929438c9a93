"""How the claim about the gate of edits is measured (library.b); what is claimed: `embodied.evaluation.claims`.

(i) In the simulator: 100 good and 100 bad edits are planted in `embodied.evaluation.planted`'s bank, each decided by
the gate among up to four candidates, then run beside its base on mastered instructions that the gate never saw.
(ii) By counts alone: the share admitted against the true gain, and with flipped evaluations (`gate_curve`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embodied.evaluation.claims import Context, Measurement
from embodied.evaluation.gate_curve import flips, operating_curve
from embodied.evaluation.planted import Bank, Level, Planted, Sitting, family_of
from embodied.skills.edits import Edit, EditDecision, EditGate, EditGateConfig, Recorded, Snapshot, Task
from embodied.skills.probes import probability_of_gain, sample_sizes
from embodied.skills.statistics import wilson

__all__ = ["BAD", "GOOD", "Plant", "Verdict", "decided", "planted_edits", "plants"]

RED, BLUE, LIT, DARK, SHUT = "touching(red)", "touching(blue)", "lit(lamp)", "not lit(lamp)", "closed(drawer)"
MASTERED: Mapping[str, Level] = {RED: (0.8, 0), BLUE: (0.6, 0), LIT: (0.6, 0), DARK: (0.6, 0), SHUT: (0.2, 0)}
WEAK = {RED: (1.3, 1.1, 0.95, 0.8), LIT: (1.3, 1.0, 0.85, 0.6)}  # standard deviations, the worst first
SIBLING = {RED: BLUE, LIT: DARK}  # a goal of the same family, mastered
UNSEEN = tuple(f"{a} ; {b}" for a in (BLUE, DARK, SHUT) for b in (BLUE, DARK, SHUT) if a != b)
BROKEN: Level = (1.25, 0)  # what harm elsewhere makes of the sibling
ROWS, COMPOSED, RECORDED, HELD = 1_340, 300, 300, 40
GAIN = 0.10
GOOD = ("modify", "modify, same noise", "add", "remove")
BAD = ("no gain", "harm", "gain on the probe only", "harm elsewhere")
KEPT = "library.b.bank.npz"


@dataclass(frozen=True)
class Plant:
    """An update: the base's acting versions by slot, its candidates, of which the planted one has this position."""

    sort: str
    goal: str
    base: Mapping[str, Planted]
    candidates: tuple[tuple[str, Planted | None], ...]  # (kind, version) each, all of one slot or its override
    planted: int
    gain: float  # of the planted edit on its goal, over the whole bank

    @property
    def good(self) -> bool:
        return self.sort in GOOD


def plants(bank: Bank, sort: str, count: int, seed: int) -> list[Plant]:
    """``count`` updates with a planted edit of this sort. Truth is what the whole bank says of the two versions."""
    draw = np.random.default_rng([seed, (GOOD + BAD).index(sort)])
    found: list[Plant] = []
    while len(found) < count:
        plant = _plant(bank, sort, draw)
        if plant is not None:
            found.append(plant)
    return found


def _version(goal: str, level: Level, sibling: Level | None = None, knows: frozenset[int] = frozenset()) -> Planted:
    levels = {goal: level} | ({SIBLING[goal]: sibling or MASTERED[SIBLING[goal]]} if goal in SIBLING else {})
    return Planted(family_of(goal), levels, {goal: knows} if knows else {})


def _plant(bank: Bank, sort: str, draw: np.random.Generator) -> Plant | None:
    """A plant of this sort at a random place, or None where the truth there is another."""
    goal = str(draw.choice([RED, LIT]))
    weak = WEAK[goal]
    at = int(draw.integers(len(weak) - 1))
    own: Level = (weak[at], 0)
    family = family_of(goal)
    base: dict[str, Planted] = {family_of(g): _version(g, MASTERED[g]) for g in (RED, LIT, SHUT)}
    base[family] = _version(goal, own)
    better: Level = (weak[int(draw.integers(at + 1, len(weak)))], int(draw.integers(2)))
    worse = [(_version(goal, (weak[k], key), (0.6, key))) for k in range(at) for key in (0, 1)]
    equal = _version(goal, (own[0], 1), (0.6, 1))
    sibling: Level = (0.6, better[1])
    kind, knows = "modify", frozenset(range(bank.rows))
    match sort:
        case "modify":
            planted = _version(goal, (better[0], 1), (0.6, 1))
        case "modify, same noise":
            planted = _version(goal, (better[0], 0))
        case "add":
            del base[family]
            kind, planted = "add", _version(goal, (weak[int(draw.integers(len(weak)))], 1), sibling)
        case "remove":
            base[f"{family} [1]"], base[family] = base[family], _version(goal, (better[0], 1), (0.6, 1))
            kind, planted = "remove", None
        case "no gain":
            planted = equal
        case "harm":
            if not worse:
                return None
            planted = worse[int(draw.integers(len(worse)))]
        case "gain on the probe only":
            planted = _version(goal, equal.levels[goal], (0.6, 1), knows)  # the sitting says which rows are recorded
        case _:
            planted = _version(goal, better, BROKEN)
    fork = {**base}
    if planted is None:
        del fork[f"{family} [1]"]
    else:
        fork[family] = planted
    gain = _mean(bank, goal, fork, honest=True) - _mean(bank, goal, base)
    if ((sort in GOOD or sort == "harm elsewhere") and gain < GAIN) or (sort == "harm" and gain > -0.05):
        return None
    nothing = [("add", Planted(family, {"nothing": (0.0, key)})) for key in range(3)]
    copy = Planted(family, {**_version(goal, own).levels, "copy": (0.0, 0)})
    duds = nothing if kind == "add" else [("modify", version) for version in (*worse, equal, copy)]
    rivals = [duds[i] for i in draw.permutation(len(duds)) if duds[i][1] != planted][:3]
    place = int(draw.integers(len(rivals) + 1))
    return Plant(sort, goal, base, (*rivals[:place], (kind, planted), *rivals[place:]), place, gain)


def _acting(slots: Mapping[str, Planted]) -> dict[str, Planted]:
    return {slot.split(" [")[0]: slots[slot] for slot in sorted(slots)}


def _mean(bank: Bank, goal: str, slots: Mapping[str, Planted], honest: bool = False) -> float:
    acting = _acting(slots)
    if honest:  # what a version recognises counts for nothing on starts it was not fitted to
        acting = {family: Planted(v.family, v.levels) for family, v in acting.items()}
    return float(bank.of(goal, acting)[0].mean())


@dataclass(frozen=True)
class Verdict:
    """What became of a plant, and of unseen mastered instructions where an edit was admitted.

    ``unseen``: instruction → [pairs, regressions, fixes].
    """

    plant: Plant
    decision: EditDecision
    unseen: Mapping[str, tuple[int, int, int]]

    @property
    def right(self) -> bool:
        """Whether the planted edit was admitted."""
        return self.decision.accepted and self.decision.winner == self.plant.planted

    @property
    def false_accept(self) -> bool:
        """Whether an edit was admitted that is not good: a bad plant, or a rival."""
        return self.decision.accepted and not (self.plant.good and self.right)


def decided(bank: Bank, plant: Plant, seed: int, config: EditGateConfig | None = None) -> Verdict:
    """The gate's decision about one plant, as an update of its own, and its winner on what the gate never saw."""
    versions: dict[str, Planted] = {}
    sitting = Sitting(bank, versions, seed)
    base: dict[str, str] = {}
    for slot, version in plant.base.items():
        base[slot] = version.skill().version
        versions[base[slot]] = version
    tasks = [Task(goal, 0, i) for goal in MASTERED for i in range(RECORDED if goal == plant.goal else HELD)]
    outcomes = sitting.evaluate(base, tasks).success
    recorded = [Recorded(task, bool(success)) for task, success in zip(tasks, outcomes, strict=True)]
    seen = frozenset(sitting.row(task) for task in tasks if task.goal == plant.goal)
    slot = family_of(plant.goal)
    edits = []
    for kind, version in plant.candidates:
        if version is None:
            edits.append(Edit("remove", f"{slot} [1]", (plant.goal,)))
            continue
        if version.knows:
            version = Planted(version.family, version.levels, {plant.goal: seen})
        where = f"{slot} [1]" if f"{slot} [1]" in base else slot
        skill = version.skill(base.get(where))
        versions[skill.version] = version
        edits.append(Edit(kind, where, (plant.goal,), skill))
    covers = {slot: set(MASTERED) for slot in base}
    gate = EditGate(sitting.evaluate, seed, config)
    decision = gate.decide(edits, Snapshot(base, recorded, covers), round=0)
    unseen: dict[str, tuple[int, int, int]] = {}
    if decision.accepted and decision.edit is not None:
        before, after = sitting.acting(base), sitting.acting(decision.edit.fork(base))
        for instruction in UNSEEN:
            one, two = bank.of(instruction, before)[0], bank.of(instruction, after)[0]
            if one.mean() >= gate.config.mastered:
                unseen[instruction] = (len(one), int((one & ~two).sum()), int((~one & two).sum()))
    return Verdict(plant, decision, unseen)


def planted_edits(context: Context) -> Measurement:
    """library.b: the share of bad edits among the planted that are admitted; the other rates are conditions."""
    each = 3 if context.quick else 25
    bank = Bank(ROWS, COMPOSED, context.out / KEPT, context.say)
    verdicts: list[Verdict] = []
    for place, sort in enumerate((*GOOD, *BAD)):
        count = each * {"modify": 44, "modify, same noise": 36, "add": 10, "remove": 10}.get(sort, 25) // 25
        for i, plant in enumerate(plants(bank, sort, max(1, count), context.seed)):
            verdicts.append(decided(bank, plant, context.seed * 10_000 + 1_000 * place + i))
        done = [v for v in verdicts if v.plant.sort == sort]
        context.say(f"{sort}: {sum(v.decision.accepted for v in done)} of {len(done)} admitted")
    good, bad = ([v for v in verdicts if v.plant.good == flag] for flag in (True, False))
    wrong = sum(v.false_accept for v in bad)
    missed = sum(not v.right for v in good)
    rivals = sum(v.false_accept for v in good)
    admitted = [v for v in verdicts if (v.right and v.plant.good) or v.false_accept]
    losses = [_loss(v) for v in admitted if v.unseen]
    pairs = [sum(n for n, _, _ in v.unseen.values()) for v in admitted if v.unseen]
    loss = float(np.mean(losses)) if losses else float("nan")
    conditions = {
        "false rejects <= 10 %": missed <= 0.10 * len(good),
        "no rival of a good edit admitted beyond 2 %": rivals <= 0.02 * len(good),
        "net loss on unseen instructions <= 0.5 % an admitted edit": loss <= 0.005,
        "600 unseen pairs or more an admitted edit": bool(pairs) and min(pairs) >= 600,
    }
    curve = operating_curve(context.seed, 2_000 if context.quick else 20_000)
    details = {
        "false accepts": _share(wrong, len(bad)), "false rejects": _share(missed, len(good)),
        "rivals admitted": _share(rivals, len(good)),
        "by sort": {sort: _sort(verdicts, sort) for sort in (*GOOD, *BAD)},
        "unseen": _unseen(admitted), "loss an admitted edit": {"mean": loss, "worst": max(losses, default=0.0)},
        "unseen pairs": {"least": min(pairs, default=0), "all": sum(pairs)},
        "admitted in error": [_told(v) for v in verdicts if v.false_accept],
        "good with gains below 0.15": _share(
            sum(v.right for v in good if v.plant.gain < 0.15), sum(v.plant.gain < 0.15 for v in good)
        ),
        "episodes a decision": float(np.mean([v.decision.episodes for v in verdicts])),
        "sizes": asdict(sample_sizes()), "config": asdict(EditGateConfig()), "curve": curve,
        "flips": flips(context.seed, 1_000 if context.quick else 10_000),
        "bank": {f"{i}, {levels}": float(cell[0].mean()) for (i, levels), cell in sorted(bank.cells.items())},
        "reduced": "versions are the scripted expert with noise on its actions; five instructions, six unseen ones",
    }  # fmt: skip
    low, high = wilson(wrong, len(bad))
    figure = wrong / len(bad)
    return Measurement(figure, (float(low), float(high)), (context.seed,), len(verdicts), conditions, details)


def _loss(verdict: Verdict) -> float:
    """Regressions less fixes over the pairs of an admitted edit: success lost on unseen mastered instructions."""
    n, lost, won = (sum(column) for column in zip(*verdict.unseen.values(), strict=True))
    return (lost - won) / n


def _share(k: int, n: int) -> dict[str, Any]:
    low, high = wilson(k, n)
    return {"k": k, "n": n, "share": k / max(1, n), "lower": float(low), "upper": float(high)}


def _told(verdict: Verdict) -> dict[str, Any]:
    """An admitted bad edit: what was planted, its gain over the whole bank, and what the gate saw."""
    plant = verdict.plant
    return {"sort": plant.sort, "goal": plant.goal, "gain": plant.gain, "reason": verdict.decision.reason}


def _sort(verdicts: Sequence[Verdict], sort: str) -> dict[str, Any]:
    own = [v for v in verdicts if v.plant.sort == sort]
    gains = [v.plant.gain for v in own]
    return {
        "n": len(own), "planted admitted": sum(v.right for v in own),
        "rivals admitted": sum(v.decision.accepted and not v.right for v in own),
        "ended at": dict(Counter(v.decision.stage for v in own)), "true gains": [min(gains), max(gains)],
        "episodes": float(np.mean([v.decision.episodes for v in own])),
    }  # fmt: skip


def _unseen(admitted: Sequence[Verdict]) -> dict[str, Any]:
    """All unseen pairs together, gross and net, and how many (edit, instruction) show a proved loss.

    A version with noise of its own regresses on some starts and fixes as many where nothing was lost: gross counts
    those, net does not.
    """
    cells = [cell for v in admitted for cell in v.unseen.values()]
    n, lost, won = (sum(column) for column in zip(*cells, strict=True)) if cells else (0, 0, 0)
    proved = sum(probability_of_gain(lost, won) >= 1 - 0.01 / len(cells) for _, lost, won in cells)
    untouched = sum(lost + won == 0 for _, lost, won in cells)
    return {
        "pairs": n, "regressions": lost, "fixes": won, "gross": lost / max(1, n), "net": (lost - won) / max(1, n),
        "instructions": len(cells), "with a proved loss": proved, "without a change": untouched,
    }  # fmt: skip
