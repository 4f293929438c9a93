"""How library.e is measured: learnt operators against the simulator's truth, and how well they say what will succeed.

Runs are those named by ``runs=…``, else one of the quick preset below ``context.out``. The policies of a run's admitted
goals are executed anew on the present physics. Operators are learnt by the present learner from executions of its own;
what they are judged by are others. The operators as the run itself learnt them are judged in the details.

Executions are kept below ``context.out`` by policy, goal, size and versions: a measurement that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from embodied import runs
from embodied.evaluation.claims import ClaimError, Context, Measurement, versions
from embodied.evaluation.operator_truth import Tried, Verdict, canonical, done, lifted, needed
from embodied.planning.execute import symbolic_state
from embodied.planning.operators import Operator
from embodied.repertoire import Repertoire
from embodied.training.episodes import seed_of
from embodied.training.experiments import VARIANTS, bases, experiment, vary
from embodied.training.kept import KeptStates
from embodied.training.operator_learning import EXPERIMENTS, count
from embodied.training.rollouts import Begun, Trial, measure_all
from embodied.training.rounds import EXECUTIONS
from envs.goals import Goal, schema_of
from envs.predicates import GRIP, WIDTH
from envs.vector import TabletopVectorEnv

__all__ = ["accuracy", "judge_run", "summarise"]

SEED = 20_261_124  # of every execution that judges; the learner was worked out on 20_261_122
LEARNING_SEED = 7_122  # of those that operators are learnt from
FRESH = 200  # executions of each schema that begin as those learnt from do, for the predicted success
BASES, HELD = 40, 12  # base states of each schema that are varied; those drawn with a block in the hand
KINDS = ("precondition", "add", "delete")


def accuracy(context: Context) -> Measurement:
    """library.e: the lower of precision and recall of learnt preconditions, additions and deletions, pooled.

    Conditions: the predicted success's Brier score is below that of the schemas' base rates; at least 300 fresh
    executions a schema. Details: each kind's own figures, what was missed and what is not so, by run and schema.
    """
    paths = _runs(context)
    return summarise({path.name: judge_run(path, context) for path in paths}, 0.1 if context.quick else 1.0)


def summarise(found: Mapping[str, dict[str, dict[str, Any]]], share: float) -> Measurement:
    """The measurement that judged runs (run → schema → row) amount to."""
    rows = [row for one in found.values() for row in one.values()]
    kinds = {kind: _pool([row["learnt"][kind] for row in rows]) for kind in KINDS}
    everything = _pool([row["learnt"][kind] for row in rows for kind in KINDS])
    own = _pool([row["of the run"][kind] for row in rows for kind in KINDS])
    n = sum(row["brier"]["n"] for row in rows)
    brier = {
        key: sum(row["brier"][key] * row["brier"]["n"] for row in rows) / max(1, n)
        for key in ("predicted", "base rate")
    }
    conditions = {
        "predicted success beats the base rate": brier["predicted"] < brier["base rate"],
        "300 fresh executions of each schema": all(row["executions"] >= 300 for row in rows),
    }
    details = {
        "all": everything, **kinds, "as the runs learnt them": own, "brier": brier | {"n": n}, "share": share,
        "schemas": len(rows), "runs": found,
    }  # fmt: skip
    figure = min(everything["precision"], everything["recall"]) if rows else float("nan")
    return Measurement(figure, None, (SEED,), sum(row["executions"] for row in rows), conditions, details)


def _runs(context: Context) -> list[Path]:
    if context.runs:
        return list(context.runs)
    from embodied.evaluation.main_claims import runs_of

    return runs_of(context, "quick")[1]


def judge_run(path: Path, context: Context, share: float = 0.0) -> dict[str, dict[str, Any]]:
    """Each admitted schema of a run judged: schema → row. ``share`` of the executions, else all or a quick tenth."""
    share = share or (0.1 if context.quick else 1.0)
    with runs.library(path) as library:
        last = library.last_round
        if last is None:
            raise ClaimError(f"{path} has no finished round, so no operator was learnt; name another run")
        repertoire = Repertoire.load(library, last.state["operators"])
    kept = KeptStates.load(path / last.state["kept"]).arrays() if last.state["kept"] else None
    rows = {}
    for schema, own in sorted(repertoire.operators.items()):
        goals = sorted(goal for goal in repertoire.admitted if schema_of(Goal.parse(goal)) == schema)
        context.say(f"{path.name}: {schema}")
        found = {}
        for k, goal in enumerate(goals):
            name = repertoire.acts[goal]
            sizes = [SEED, LEARNING_SEED, share / len(goals), EXECUTIONS, EXPERIMENTS, FRESH, BASES, HELD]
            about = [repertoire.versions[name], goal, versions(), *sizes]
            digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
            file = context.out / "library.e" / f"{digest}.npz"
            if not file.exists():
                made = executed(goal, repertoire.actors[name], kept, seed_of(SEED, k), share / len(goals))
                file.parent.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(file, allow_pickle=False, **made)
            found[goal] = dict(np.load(file))
        rows[schema] = judge(schema, own, found)
    return rows


def executed(goal: str, actor: Any, kept: Any, seed: int, share: float) -> dict[str, np.ndarray]:
    """All executions of a goal that the claim needs: to learn from (two kinds), fresh ones, and varied ones."""
    trials = [Trial(goal, EXECUTIONS, seed_of(LEARNING_SEED, seed)), Trial(goal, max(8, int(share * FRESH)), seed)]
    learning, fresh = measure_all(actor, trials, free_starts=True, starts=kept, threads=1)
    tested = experiment(actor, goal, EXPERIMENTS * EXECUTIONS, seed_of(LEARNING_SEED, seed, 1), kept, threads=1)
    made: dict[str, np.ndarray] = {}
    for name, found in (("learning", learning), ("tested", tested), ("fresh", fresh)):
        made |= {f"{name}_start": found.start, f"{name}_end": found.end, f"{name}_success": found.report.success}
    parts = [bases(goal, max(4, int(share * BASES)), seed_of(seed, 1), kept)]
    if kept is not None:
        gripping = (kept[1][:, GRIP] < 0) & (kept[1][:, WIDTH] > 0.03)
        if gripping.sum() >= 8:
            holding = (kept[0][gripping], kept[1][gripping])
            parts.append(bases(goal, max(2, int(share * HELD)), seed_of(seed, 2), holding, 1.0))
    base = Begun(*(np.concatenate([getattr(b, x) for b in parts]) for x in ("states", "places", "facts")))
    env = TabletopVectorEnv(len(base.states), [goal], terminate_on_success=False, autoreset_mode="Disabled", threads=1)
    varied = [vary(env, base, variant, seed_of(seed, 3, i)) for i, variant in enumerate(VARIANTS)]
    env.close()
    trials = [Trial(goal, len(base.states), seed) for _ in VARIANTS]
    found = measure_all(actor, trials, begun=[one for one, _ in varied], threads=1)
    made["varied_end"] = np.stack([one.end for one in found])
    made["varied_start"] = np.stack([one.facts for one, _ in varied])
    made["varied_success"] = np.stack([one.report.success for one in found])
    made["varied_lost"] = np.stack([lost | ~np.isfinite(one.facts).all(1) for one, lost in varied])
    return made


def judge(schema: str, own: Operator, found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """One schema's row, from `executed` of each of its goals."""
    learnt, fresh, tried = Operator(schema), Operator(schema), []
    for goal, made in found.items():
        for name, operator in (("learning", learnt), ("tested", learnt), ("fresh", fresh)):
            count(operator, [(goal, made[f"{name}_start"], made[f"{name}_end"], made[f"{name}_success"])])
        whole = ~made["varied_lost"]
        start, end, success = (made[f"varied_{x}"][whole] for x in ("start", "end", "success"))
        count(fresh, [(goal, start, end, success)])
        tried.append(_tried(learnt, Goal.parse(goal), made))
    predicted, outcome = [], []
    for goal, made in found.items():
        parsed = Goal.parse(goal)
        for state, success in zip(symbolic_state(made["fresh_start"]), made["fresh_success"], strict=True):
            if not all(literal.holds(state) for literal in parsed.final):
                predicted.append(learnt.predict(parsed, state))
                outcome.append(float(success))
    p, y = np.array(predicted), np.array(outcome)
    needs, effects = needed(tried), [v for v in done(fresh) if "placed(" not in v.literal]
    return {
        "learnt": compared(learnt, needs, effects),
        "of the run": compared(own, needs, effects),
        "lessons": [list(lesson.literals) for lesson in learnt.model.lessons if len(lesson.literals) > 1],
        "brier": {"predicted": float(np.mean((p - y) ** 2)), "base rate": float(np.var(y)), "n": len(y)},
        "executions": sum(made["fresh_success"].size + made["varied_success"].size for made in found.values()),
        "true needs": [asdict(v) for v in needs if v.holds or v.spared],
    }


def _tried(operator: Operator, goal: Goal, made: Mapping[str, np.ndarray]) -> Tried:
    out = Tried()
    for facts, success, lost in zip(made["varied_start"], made["varied_success"], made["varied_lost"], strict=True):
        given = [all(literal.holds(state) for literal in goal.final) for state in symbolic_state(facts)]
        out.facts.append(lifted(operator, goal, facts))
        out.success.append(success)
        out.usable.append(~np.array(given) & ~lost)
    return out


# ---- precision and recall


def compared(operator: Operator, needs: Sequence[Verdict], effects: Sequence[Verdict]) -> dict[str, Any]:
    """What an operator has of each kind against the verdicts. A lesson of one fact is a precondition."""
    model = operator.model
    lessons = [lesson.literals[0] for lesson in model.lessons if len(lesson.literals) == 1]
    before = {canonical(x) for x in model.precondition} | {canonical(_negated(x)) for x in lessons}
    add = {fact for fact in model.add if not fact.startswith("placed(")}  # ``placed`` is ``at`` in a state
    delete = {f"not {fact}" for fact in model.delete if not fact.startswith("placed(")}
    return {
        "precondition": _compare(before, needs),
        "add": _compare(add, [v for v in effects if not v.literal.startswith("not ")]),
        "delete": _compare(delete, [v for v in effects if v.literal.startswith("not ")]),
    }


def _negated(literal: str) -> str:
    return literal.removeprefix("not ") if literal.startswith("not ") else f"not {literal}"


def _compare(learnt: set[str], verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Literals learnt and true, learnt and not so, missed; undecided ones count neither way.

    Figures of each: n, the rate with it (or of the effect), the rate without.
    """
    by_name = {v.literal: v for v in verdicts}
    holds = {name: v.holds for name, v in by_name.items()}
    known = {name for name in learnt if holds.get(name) is not None}
    missed = {name for name, yes in holds.items() if yes and name not in learnt}
    return {
        "right": sorted(name for name in known if holds[name]),
        "wrong": sorted(name for name in known if not holds[name]),
        "missed": sorted(missed),
        "learnt but undecided": sorted(learnt - known),
        "undecided": sum(yes is None for yes in holds.values()),
        "figures": {
            name: [v.n, round(v.rate, 3), round(v.without, 3)]
            for name, v in sorted(by_name.items())
            if name in learnt | missed
        },
    }


def _pool(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    right, wrong, missed, open_ = (
        sum(len(row[key]) for row in rows) for key in ("right", "wrong", "missed", "learnt but undecided")
    )
    return {
        "precision": right / (right + wrong) if right + wrong else 1.0,
        "recall": right / (right + missed) if right + missed else 1.0,
        "right": right, "wrong": wrong, "missed": missed, "learnt but undecided": open_,
    }  # fmt: skip
