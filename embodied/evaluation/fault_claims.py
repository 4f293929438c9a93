"""How it is measured what faults cost (library.c); what is claimed: `embodied.evaluation.claims`.

(i) *The language agent* answers garbage, in time or not at all, lies, or is poisoned: lives of a drawn learner
(`embodied.evaluation.fault_world`, a surrogate) beside lives by the embedded default on the same seeds, in shares of
the goals mastered. Lives in the simulator are rows of ``library.c.arms.json``, which are made only where ``seeds`` is
given (12 core-minutes a row on two cores: the ablation preset behind a stub server); rows that are there count.
(ii) *The evaluator* flips: the gate of edits by its counts (`gate_curve`), the head after a stream of edits beside the
head left alone. A judge that lies is let record what it likes, and nothing may be admitted by it.
(iii) *Packs* are poisoned (`embodied.evaluation.poisoned`): each is imported, its skill proves itself or not, and then
the planner carries out instructions and retrieval is asked. About 10 core-seconds a pack and a policy, 200 packs.

Cost: (i) 4 core-minutes, (ii) 1, (iii) 33; a quick measurement takes two and a half in all.
"""

from __future__ import annotations

import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from embodied.cli.schema import GateConfig, RunConfig
from embodied.core import EvalReport
from embodied.evaluation import arms
from embodied.evaluation.claims import Context, Measurement
from embodied.evaluation.fault_world import DrawnLearner, lived
from embodied.evaluation.gate_curve import FORKS, flips
from embodied.evaluation.poisoned import HONEST, KINDS, OPEN, SHUT, Sent, Workshop
from embodied.journal import Journal
from embodied.language.faults import Faults
from embodied.language.grammar import GrammarModel
from embodied.language.guard import Fallback, Guard, Vetted
from embodied.planning.execute import carry_out
from embodied.repertoire import Repertoire
from embodied.skills.index import SkillIndex
from embodied.skills.library import SkillLibrary
from embodied.skills.packs import PackError, import_pack
from embodied.skills.retrieval import CapabilityGap, Query, retrieve
from embodied.training.proving import Proof, prove, waiting
from embodied.training.rounds import Worker
from envs.goals import Goal
from policies.random import RandomPolicy

__all__ = ["ARMS", "Spread", "faults", "heads", "lives", "lying_judge", "spread"]

POINTS = 5.0
ARMS: dict[str, dict[str, float]] = {
    "garbage 50 %": {"invalid": 0.5}, "garbage 100 %": {"invalid": 1.0}, "time-outs 50 %": {"slow": 0.5},
    "time-outs 100 %": {"slow": 1.0}, "lies 20 %": {"lying": 0.2}, "lies 50 %": {"lying": 0.5},
    "lies 100 %": {"lying": 1.0}, "poisoned 100 %": {"poisoned": 1.0},
    "some of all": {"invalid": 0.25, "slow": 0.25, "lying": 0.25, "poisoned": 0.25},
}  # fmt: skip
"""Arm → rates of `Faults`."""
PATIENCE, DELAY = 0.05, 0.1  # seconds that a slow backend is given, and takes
ROUNDS = (6, 14)  # of a drawn life
FRESH = 100  # the first seed of lives: what leeway and levels were chosen on lies below
SHARES: dict[str, tuple[int, int]] = {"1 %": (99, 1), "5 %": (57, 3), "20 %": (32, 8)}
"""Share of poisoned packs → (honest, poisoned) ones."""
EDITS = 10  # of a stream: half of them good, the others of the bad sorts in turn
TRIES = 240  # instructions and queries of all shares together
LIVES = {"embedded": "", "garbage": "wrong types", "time-outs": "stalls", "any goal": "ok", "orders": "injection"}
"""Arm of the lives in the simulator → mode of the stub server."""
TABLE = "library.c.arms.json"


def faults(context: Context) -> Measurement:
    """library.c: the points that the worst arm of (i), (ii) and the lives lies below the embedded default; what poison
    does is a condition.
    """
    quick = context.quick
    seeds = tuple(FRESH + k for k in range(3 if quick else 10))
    language = lives(seeds, ROUNDS[:1] if quick else ROUNDS, context.say)
    evaluator = heads(context.seed, 500 if quick else 5_000)
    real = simulated_lives(context)
    below = {name: row["below"] for name, row in {**language, **evaluator, **real}.items()}
    context.say(", ".join(f"{name}: {points:+.1f}" for name, points in below.items()))
    workshop = Workshop(context.out / "library.c", context.seed, context.say)
    kinds = cycle(KINDS)
    shares = {"33 %": (4, 2)} if quick else SHARES
    packs = {
        name: spread(workshop, Spread(honest, poison, TRIES // len(shares), 60 if quick else 100), kinds, context)
        for name, (honest, poison) in shares.items()
    }
    executed, tries = (sum(row[key] for row in packs.values()) for key in ("poisoned executed", "tries"))
    came = [row["honest adopted"] / row["honest"] for row in packs.values()]
    conditions = {
        "poisoned skills executed: 0": executed == 0,
        "200 tries or more": tries >= 200,
        "imports used before they proved themselves: 0": all(row["used before"] == 0 for row in packs.values()),
        "honest imports come in, 3 of 4 or more": min(came) >= 0.75,
        "a lying judge's verdicts admit nothing": lying_judge(),
    }
    details = {
        "below": below, "language": language, "evaluator": evaluator, "packs": packs, "lives": real,
        "poisoned executed": executed, "tries": tries,
        "reduced": "(i) is a drawn learner but for the rows 'lives'; imported skills are cloned from a scripted expert",
    }  # fmt: skip
    worst = max(below.values())
    return Measurement(worst, None, seeds, len(below), conditions, details)


# ---- the language agent


def faulty(rates: dict[str, float], seed: int) -> Vetted:
    """The embedded default as a stranger, spoilt, behind all that stands between a backend and the loop."""
    backend = Faults(GrammarModel(), rates, seed, DELAY)
    patience = PATIENCE if "slow" in rates else 60.0
    return Vetted(
        Fallback(Guard(backend, patience), GrammarModel()), GrammarModel(), leeway=RunConfig().language.leeway
    )


def lives(seeds: Sequence[int], rounds: Sequence[int], say: Any = print) -> dict[str, dict[str, Any]]:
    """Arm → points of all goals that its drawn lives master less than the default's, at worst over ``rounds``, and by
    whom its questions were answered.
    """
    goals = len(DrawnLearner(0).goals)
    default = {n: [len(lived(GrammarModel(), seed, n)) for seed in seeds] for n in rounds}
    found = {}
    for name, rates in ARMS.items():
        row: dict[str, Any] = {"by rounds": {}, "fallbacks": 0, "overruled": 0, "requests": 0}
        free: list[float] = []  # points lost where nothing is overruled
        for n in rounds:
            mastered = []
            for seed in seeds:
                agent = faulty(rates, seed)
                mastered.append(len(lived(agent, seed, n)))
                inner: Any = agent.inner
                row["fallbacks"] += sum(inner.degraded.values())
                row["requests"] += sum(inner.degraded.values()) + sum(inner.answered.values())
                row["overruled"] += agent.overruled
                if "lying" in rates:
                    alone = len(lived(faulty(rates, seed).inner, seed, n))
                    free.append(100.0 * (default[n][len(mastered) - 1] - alone) / goals)
            less = [100.0 * (d - m) / goals for d, m in zip(default[n], mastered, strict=True)]
            row["by rounds"][n] = {"default": default[n], "mastered": mastered, "below": float(np.mean(less))}
        row["below where none is overruled"] = float(np.mean(free)) if free else None
        found[name] = row | {"below": max(part["below"] for part in row["by rounds"].values())}
        say(f"{name}: {found[name]['below']:+.1f} points below the default")
    return found


def simulated_lives(context: Context) -> dict[str, dict[str, Any]]:
    """Arm → points of the practised goals that lives in the simulator master less than the default's (the rows there
    are; where ``seeds`` is given they are made first).
    """
    path = arms.table_path(context, TABLE)
    about = {"preset": "ablation"}
    if context.seeds and not context.quick:
        wanted = {(arm, seed): about for seed in context.seeds_or(1) for arm in LIVES}
        arms.fill(path, wanted, lambda arm, seed: _live(context, arm, seed), float("inf"), context.say)
    table, _ = arms.matching(arms.kept(path), dict.fromkeys(LIVES, about))
    default, goals = table.pop("embedded", {}), len(DrawnLearner(0).goals)
    found = {}
    for arm, rows in table.items():
        shared = sorted(set(rows) & set(default))
        less = [100.0 * (default[s]["mastered"] - rows[s]["mastered"]) / goals for s in shared]
        if less:
            found[f"life, {arm}"] = {"seeds": shared, "below": float(np.mean(less))}
    return found


def _live(context: Context, arm: str, seed: int) -> dict[str, Any]:
    """A life of the ablation preset behind the stub server in an arm's mode; goals mastered by its own gate."""
    from embodied import loop, runs
    from embodied.cli.config import compose
    from embodied.evaluation.backend_claims import STALL
    from embodied.language.stub_server import stub_server

    name = f"faults-{arm.replace(' ', '-')}-seed{seed}"
    settings = ["preset=ablation", f"seed={seed}", f"name={name}", f"out={context.out}", "heldout_episodes=0"]
    with stub_server(LIVES[arm] or "ok", STALL) as server:
        if LIVES[arm]:
            settings += ["language.backend=openai", f"language.endpoint={server.url}", "language.model=stub",
                         "language.timeout=2.0", "language.retries=0"]  # fmt: skip
        run = loop.run(compose(RunConfig, settings), Console(file=io.StringIO()))
    return {"mastered": len(runs.mastered(run)[1])}


# ---- the evaluator


def heads(seed: int, edits: int) -> dict[str, dict[str, Any]]:
    """Arm → points of true success that a head lies below itself left alone after `EDITS` edits decided by an evaluator
    that flips (negative: it has gained), and below one whose evaluator does not flip.

    Half of the edits are good; the others gain nothing, or gain and lose more elsewhere.
    """
    rows = {row["flips"]: row for row in flips(seed, edits)}
    bad = [name for name in FORKS if name != "good"]
    share = {name: 0.5 if name == "good" else 0.5 / len(bad) for name in FORKS}
    worth = {name: gain - loss for name, (gain, loss) in FORKS.items()}

    def change(row: dict[str, float], audit: str) -> float:
        return 100.0 * EDITS * sum(share[name] * row[f"{name}{audit}"] * worth[name] for name in FORKS)

    return {
        f"flips {rate:.0%}": {
            "below": -change(row, ", audited"), "less than without flips": change(rows[0.0], ", audited")
            - change(row, ", audited"), "below, without the audit": -change(row, ""), "admitted": row,
        }
        for rate, row in rows.items()
    }  # fmt: skip


def lying_judge() -> bool:
    """Whether a version of which a judge and a language model say only the best is still admitted for nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        RandomPolicy(4, 2).save_pretrained(Path(scratch) / "policy")
        with SkillLibrary.open(Path(scratch) / "library.sqlite") as library:
            with library.edit() as tx:
                skill = tx.add_skill(OPEN, Path(scratch) / "policy")
                for kind in ("judge", "language"):
                    for seed, purpose in enumerate(("gate", "confirm") * 10):
                        report = EvalReport(OPEN, "", seed, np.ones(1_000, np.bool_), kind=kind)
                        tx.add_evidence(skill.version, purpose, report)
            return not library.mastered() and library.standing()[0].status == "candidate"


# ---- packs


class Spread:
    """How many honest and poisoned packs come, how often use of them is tried, and episodes of the gate's sets."""

    def __init__(self, honest: int, poisoned: int, tries: int, episodes: int) -> None:
        self.honest, self.poisoned, self.tries, self.episodes = honest, poisoned, tries, episodes


def spread(workshop: Workshop, asked: Spread, kinds: Iterator[str], context: Context) -> dict[str, Any]:
    """What becomes of packs in a life that can open and shut the drawer by itself, and of its instructions then."""
    sent = _packs(workshop, asked, kinds)
    poison = {one.version: one.kind for one in sent if one.kind}
    config = RunConfig(
        name="spread", seed=context.seed, num_envs=16, threads=1, heldout_episodes=0,
        gate=GateConfig(24, asked.episodes, asked.episodes),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        journal = Journal.open(Path(scratch) / "run", config.gate.threshold)
        try:
            worker = Worker(config, journal, GrammarModel(), lambda steps: None, lambda line: None)
            for schema in (OPEN, SHUT):
                for number in (1,) if context.quick else (1, 2):
                    _learn(worker, workshop, schema, number)
            own = {skill.version for skill in journal.library.skills()}
            refused = Counter(kind for kind in (_take_in(journal.library, one) for one in sent) if kind)
            before = _used(journal, asked.tries // 4, context.seed)
            proofs: list[Proof] = []
            for skill in waiting(journal.library):
                proofs.append(prove(worker, skill.version))
                one, kind = proofs[-1], poison.get(skill.version, "honest")
                context.say(f"{kind}, {one.schema[:40]}: {one.stage}, {one.reason[:100]}")
            used = _used(journal, asked.tries, context.seed + 1)
            family = {p.version: p.imported for p in proofs if p.version}
            bad = [version for version in used if version in poison or family.get(version) in poison]
            lessons = len(journal.library.lessons())
        finally:
            journal.close()
    stages = {kind: Counter(p.stage for p in proofs if poison.get(p.imported, "") == kind) for kind in ("", *KINDS)}
    return {
        "honest": asked.honest, "honest adopted": stages[""]["adopted"], "poisoned": len(poison), "tries": len(used),
        "poisoned adopted": sum(stages[kind]["adopted"] for kind in KINDS), "poisoned executed": len(bad),
        "used before": sum(bool(version) and version not in own for version in before), "lessons": lessons,
        "packs refused": dict(refused), "stages": {kind or "honest": dict(c) for kind, c in stages.items() if c},
        "imported skills executed": sum(version in family for version in used),
    }  # fmt: skip


def _packs(workshop: Workshop, asked: Spread, kinds: Iterator[str]) -> list[Sent]:
    """All packs, in a drawn order."""
    found: list[Sent] = []
    for k in range(asked.honest):
        schema = list(HONEST)[k % len(HONEST)]
        copy = k // len(HONEST)
        name = f"honest-{list(HONEST).index(schema)}-{copy}"
        found.append(workshop.pack(schema, workshop.honest(schema, 0, copy), "", name))
    for k in range(asked.poisoned):
        kind = next(kinds)
        schema, policy = workshop.poisoned(kind, k + 1)
        found.append(workshop.pack(schema, policy, kind, f"{kind.replace(' ', '-')}-{k}"))
    return [found[i] for i in np.random.default_rng(workshop.seed).permutation(len(found))]


def _take_in(library: SkillLibrary, one: Sent) -> str:
    """Imports a pack; the kind where it was refused."""
    try:
        with library.edit() as tx:
            import_pack(tx, one.path)
    except PackError:
        return one.kind or "honest"
    return ""


def _learn(worker: Worker, workshop: Workshop, schema: str, number: int) -> None:
    """A skill that this life has by itself, through the gate."""
    policy, journal = workshop.honest(schema, number), worker.journal
    with journal.library.round(journal.round) as tx:
        decisions = worker.decide([policy], {schema: list(HONEST[schema])})[schema]
        worker.admit(tx, schema, policy, decisions, None, {"from": "an expert"})
        worker.seal(tx)


def _used(journal: Journal, tries: int, seed: int) -> list[str]:
    """The versions that acted in half as many instructions as tries, and those that retrieval gave for as many queries
    (one for a query, "" for a gap).
    """
    repertoire = Repertoire.load(journal.library, journal.state.operators)
    goals = [goal for found in HONEST.values() for goal in found]
    asked = [Goal.parse(goals[k % len(goals)]) for k in range(max(1, tries // 2))]
    used: list[str] = []
    if repertoire.actors:
        outcomes, _ = carry_out(asked, repertoire.actors, repertoire.planner(), seed, replans=1, threads=1)
        used += [repertoire.versions[option.schema] for outcome in outcomes for option in outcome.options]
    index = SkillIndex(journal.library)
    for k, goal in enumerate(asked):
        found = retrieve(index, Query((str(goal),)), 1, seed * 1_000 + k)
        used.append("" if isinstance(found, CapabilityGap) else found[0].version)
    return used
