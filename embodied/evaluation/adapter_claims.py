"""How the claim about parameter-space skills (library.f) is measured; what is claimed: `embodied.evaluation.claims`.

The base is the flow that play.a trained on 14 h of play, one a seed; it presses buttons, always in the same manner.
Four adapters on it learn a manner each (`embodied.evaluation.manners`) from demonstrations at all three lamps. Held
out are the six pairs of manners: each is shown a few times, at one lamp only, and c(s) learns from that. Examined is
the press *in both manners* at all three lamps, from starts that nothing was trained on, by every way of composing,
without those demonstrations too (c = 1/2 and 1 everywhere), by the adapters alone, by the base, and by the base
fine-tuned as a whole on the same few. Rows (who, seed) stand in ``docs/results/library.f.arms.json`` and are filled in
parts.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console

from embodied.data.batches import Recorded
from embodied.evaluation.arms import ARMS, Table, fill, kept, play_data, table_path, trained
from embodied.evaluation.claims import Context, Measurement, versions
from embodied.evaluation.goal_exam import Exam, acting, set_exam, sit_exam
from embodied.evaluation.manners import MANNERS, STEPS, TASKS, WIDE, buttons, demonstrate, kept_to
from embodied.skills.statistics import bootstrap_interval, wilson
from embodied.training.offline import OfflineSettings, train_offline
from envs.control import TOOL
from policies.adapters import MODES, FlowAdapters, policy_hash
from policies.flow_bc import FlowBC
from policies.offline import OfflinePolicy

__all__ = ["PAIRS", "Design", "combinations"]

KEPT = "library.f.arms.json"
ALONE = "alone"  # the row of the base and of single adapters
PAIRS = tuple(itertools.combinations(MANNERS, 2))
STARTS = {"mean": 0.5, "sum": 1.0}  # c before it has learnt
TEST_SEED = 20_261_141  # of the exam; settings were chosen on another
BUDGET = 3_600.0  # seconds after which no further row is begun


@dataclass(frozen=True)
class Design:
    """How much is shown, learnt and asked."""

    singles: int = 30  # demonstrations of one manner at each of three lamps
    few: int = 20  # of a pair, at the first lamp alone
    adapter_updates: int = 1_500
    adapter_rate: float = 3e-3
    few_updates: int = 300
    composer_rate: float = 1e-2
    tuning_rates: tuple[float, ...] = (3e-4, 1e-3)  # of the base as a whole
    batch: int = 128
    questions: int = 16  # a lamp; those that begin too near to it are not asked
    seed: int = TEST_SEED


QUICK = Design(singles=2, few=2, adapter_updates=20, few_updates=10, questions=1)


def combinations(context: Context) -> Measurement:
    """library.f: success of parameter-level composition less the better of score- and action-level, held-out pairs."""
    seeds, design = context.seeds_or(1 if context.quick else 3), QUICK if context.quick else Design()
    pairs = PAIRS[:1] if context.quick else PAIRS
    names = [ALONE, *map(_name, pairs)]
    about = json.loads(json.dumps({"design": asdict(design), "quick": context.quick, "base": asdict(ARMS["flow"])}))
    path = table_path(context, KEPT)
    wanted = {(name, seed): about for seed in seeds for name in names}
    benches: dict[int, _Bench] = {}

    def measure(name: str, seed: int) -> dict[str, Any]:
        if seed not in benches:
            benches[seed] = _Bench(context, design, seed)
        return benches[seed].alone() if name == ALONE else benches[seed].pair(tuple(name.split(" & ")))

    missing = fill(path, wanted, measure, BUDGET, context.say)
    table = {
        name: {seed: row for seed, row in rows.items() if row["about"] == about} for name, rows in kept(path).items()
    }
    return _summary(table, pairs, seeds, missing)


def _summary(table: Table, pairs: Sequence[Sequence[str]], seeds: Sequence[int], missing: list[str]) -> Measurement:
    """The figure over pairs and seeds that have been measured."""
    cells = [(_name(p), str(s)) for s in seeds for p in pairs if str(s) in table.get(_name(p), {})]
    cells = [cell for cell in cells if cell[1] in table.get(ALONE, {})]
    if not cells:
        return Measurement(float("nan"), None, tuple(seeds), 0, {}, {"missing": missing})
    rates: dict[str, list[float]] = {}
    for name, seed in cells:
        arms = table[name][seed]["arms"] | table[ALONE][seed]["pairs"][name]
        for arm, row in arms.items():
            if not arm.startswith("only "):  # each of these is of some pairs alone
                rates.setdefault(arm, []).append(row["rate"])
    means = {arm: float(np.mean(values)) for arm, values in rates.items()}
    other, more = _beyond(rates, "")
    rows = [row for by_seed in table.values() for row in by_seed.values()]
    counted = tuple(sorted({int(seed) for _, seed in cells}))
    details = {
        "success": means, "better of score and action": other,
        "beyond it with none shown": {
            start: float(_beyond(rates, _unshown(start))[1].mean())
            for start in STARTS if "parameter" + _unshown(start) in rates
        },
        "by pair": {
            name: {arm: float(np.mean([v for v, c in zip(values, cells, strict=True) if c[0] == name]))
                   for arm, values in rates.items()}
            for name in dict.fromkeys(name for name, _ in cells)
        },
        "rows": {f"{name}, seed {seed}": table[name][seed]["arms"] for name, seed in cells},
        "alone": {seed: table[ALONE][seed]["singles"] for seed in map(str, counted)},
        "missing": missing, "kept": KEPT,
        "reduced": "manners of one task (a press) from scripted demonstrations; states instead of pixels",
    }  # fmt: skip
    conditions = {
        "base hash unchanged": all(row["base"] == row["base after"] for row in rows),
        "all pairs and seeds": not missing and len(cells) == len(pairs) * len(seeds),
    }
    n = sum(table[name][seed]["arms"]["parameter"]["n"] for name, seed in cells)
    interval = bootstrap_interval(more.tolist(), np.mean, resamples=10_000) if len(more) > 1 else None
    return Measurement(float(more.mean()), interval, counted, n, conditions, details)


def _beyond(rates: Mapping[str, list[float]], which: str) -> tuple[str, np.ndarray]:
    """The better of score and action on average, and how much more success parameters have, pair by pair."""
    other = max(("score", "action"), key=lambda mode: float(np.mean(rates[mode + which])))
    return other, np.subtract(rates["parameter" + which], rates[other + which])


class _Bench:
    """One seed's base, exam and adapters, each made when it is first needed."""

    def __init__(self, context: Context, design: Design, seed: int) -> None:
        self.context, self.design, self.seed = context, design, seed
        self.base = self._base()
        self.name = policy_hash(self.base)
        self.exam = _from_afar(set_exam(TASKS, design.questions, design.seed + seed))
        self._adapters: dict[str, FlowAdapters] = {}

    def _base(self) -> FlowBC:
        found = trained(self.context, "flow", ARMS["flow"], self.seed, play_data(self.context)).policy
        assert isinstance(found, FlowBC)
        return found

    def alone(self) -> dict[str, Any]:
        """The row of what needs no pair: the base and every adapter, by its own manner and by every pair."""
        policies: dict[str, OfflinePolicy] = {"base": self.base}
        policies |= {manner: self.adapter(manner) for manner in MANNERS}
        seen = {who: self.sit(policy) for who, policy in policies.items()}
        singles = {who: self.judged(one, () if who == "base" else (who,)) for who, one in seen.items()}
        pairs = {}
        for pair in PAIRS:
            own = {f"only {manner}": self.judged(seen[manner], pair) for manner in pair}
            best = max(own.values(), key=lambda row: row["rate"])
            pairs[_name(pair)] = {"base": self.judged(seen["base"], pair), "best single": best} | own
        return self.stamped({"singles": singles, "pairs": pairs})

    def pair(self, pair: Sequence[str]) -> dict[str, Any]:
        """The row of a pair: every way of composing, without and with the few demonstrations; fine-tuning."""
        design = self.design
        few, _ = demonstrate(pair, TASKS[:1], design.few, 7_000 + self.seed)
        own = [self.adapter(manner) for manner in pair]
        arms: dict[str, Any] = {}
        for mode in MODES:
            for start, c in STARTS.items():
                zero = FlowAdapters.composition(self.base, own, mode=mode, start=c, seed=self.seed)
                arms[mode + _unshown(start)] = self.judged(self.sit(zero), pair)
            both = FlowAdapters.composition(
                self.base, own, mode=mode, seed=self.seed, learning_rate=design.composer_rate, warmup=20
            )
            learnt = self.learn(both, few, design.few_updates, f"{_name(pair)} {mode}")
            assert isinstance(learnt, FlowAdapters)
            row = self.judged(self.sit(learnt), pair)
            c = learnt.weights(few.encoder.features(few.observations[:-1], few.observations[1:]))
            arms[mode] = row | {"c": c.mean(0).tolist(), "c deviation": c.std(0).tolist()}
        for rate in design.tuning_rates:
            whole = FlowBC(replace(self.base.config, learning_rate=rate, warmup=20, seed=self.seed))
            whole.load_arrays(self.base.arrays())
            tuned = self.learn(whole, few, design.few_updates, f"{_name(pair)} fine-tuned")
            arms[f"fine-tuned, {rate:g}"] = self.judged(self.sit(tuned), pair)
        for arm, row in arms.items():
            self.context.say(f"   {_name(pair)}, {arm}: {row['rate']:.2f}")
        return self.stamped({"arms": arms})

    def adapter(self, manner: str) -> FlowAdapters:
        """The adapter of one manner."""
        if manner not in self._adapters:
            design = self.design
            data, _ = demonstrate((manner,), TASKS, design.singles, 5_000 + self.seed)
            fresh = FlowAdapters.over(self.base, learning_rate=design.adapter_rate, warmup=20, seed=self.seed)
            found = self.learn(fresh, data, design.adapter_updates, manner)
            assert isinstance(found, FlowAdapters)
            self._adapters[manner] = found
        return self._adapters[manner]

    def learn(self, policy: OfflinePolicy, data: Recorded, updates: int, name: str) -> OfflinePolicy:
        """Trained now, or found finished below ``context.out``."""
        settings = OfflineSettings(updates=updates, batch=self.design.batch, seed=self.seed, horizon=120)
        about = [policy.config_dict(), dict(data.about), asdict(settings), versions()]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
        folder = f"{name.replace(' & ', '-').replace(' ', '-')}-seed{self.seed}-{digest}"
        return train_offline(policy, data, settings, self.context.out / "adapters" / folder, Console(quiet=True)).policy

    def sit(self, policy: OfflinePolicy) -> dict[str, np.ndarray]:
        """What a policy did in the exam: pressed bool[n], and whether it kept to each manner bool[n]."""
        exam = self.exam
        trace: list[np.ndarray] = [exam.starts.astype(np.float32)]
        policy.seed(self.seed)
        answers = sit_exam(
            acting(policy, _encoder()), exam, steps=STEPS,
            watch=lambda env, t: trace.append(env.facts.astype(np.float32)),
        )  # fmt: skip
        kept = kept_to(np.stack(trace, axis=1), answers.steps, buttons()[exam.which])
        return {"pressed": answers.success} | kept

    def judged(self, seen: Mapping[str, np.ndarray], manners: Sequence[str]) -> dict[str, Any]:
        """Presses in these manners: rate, Wilson's interval, and what each part of it came to."""
        good = np.all([seen["pressed"], *(seen[m] for m in manners)], axis=0)
        lower, upper = wilson(int(good.sum()), len(good))
        return {
            "rate": float(good.mean()), "solved": int(good.sum()), "n": len(good), "lower": float(lower),
            "upper": float(upper), "pressed": float(seen["pressed"].mean()),
            "manners": {m: float(seen[m].mean()) for m in manners},
            "shown lamp": float(good[self.exam.which == 0].mean()),
            "other lamps": float(good[self.exam.which > 0].mean()),
        }  # fmt: skip

    def stamped(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the base's hash before and after everything."""
        for adapter in self._adapters.values():
            adapter.check_base()
        return row | {"base": self.name, "base after": policy_hash(self.base)}


def _from_afar(exam: Exam) -> Exam:
    """The questions whose start lies before the way that is judged."""
    level = np.linalg.norm(exam.starts[:, TOOL : TOOL + 2] - buttons()[exam.which], axis=1)
    rows = np.flatnonzero(level > WIDE)
    parts = {name: getattr(exam, name)[rows] for name in ("which", "states", "goals", "starts")}
    return replace(exam, **parts)


def _encoder() -> Any:
    from envs.scenes.goal_states import GoalStates
    from envs.scenes.scene import load

    return GoalStates(load("playroom"))


def _unshown(start: str) -> str:
    """How an arm is called, behind its mode, that was shown no pair."""
    return f", {start}, none shown"


def _name(pair: Sequence[str]) -> str:
    return " & ".join(pair)
