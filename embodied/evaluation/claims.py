"""The claims ledger: what this project says it can do, what was measured, and one command to measure it anew.

A claim is registered here with its target and the function that measures it; a measurement is one small
JSON file in ``docs/results/`` with seeds, interval, versions and date. A claim that was measured and falls
short is listed as not met, and one without a file as not measured.
"""

from __future__ import annotations

import datetime
import importlib
import json
import math
import operator
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import embodied
from embodied.data.durable import replace_file

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "==": operator.eq,
}
STAMPED = ("mujoco", "torch", "gymnasium", "stable-baselines3", "numba", "numpy")


class ClaimError(ValueError):
    """A claim or its record cannot be used; the sentence says which and why."""


@dataclass(frozen=True)
class Measurement:
    """What was found: a figure, its interval, the seeds, and n (episodes, runs or windows).

    ``conditions`` are named facts that must hold besides the figure; ``details`` is whatever a reader may
    want.
    """

    figure: float
    interval: tuple[float, float] | None = None
    seeds: tuple[int, ...] = ()
    n: int = 0
    conditions: dict[str, bool] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a measuring function is given. ``seeds`` is 0 for the claim's own number of them."""

    quick: bool
    results: Path
    out: Path
    runs: tuple[Path, ...] = ()
    seed: int = 0
    seeds: int = 0
    say: Callable[[str], None] = print

    def seeds_or(self, number: int) -> tuple[int, ...]:
        """The seeds to measure: as many as were asked for, else ``number``."""
        return tuple(range(self.seed, self.seed + (self.seeds or number)))


@dataclass(frozen=True)
class Claim:
    """One claim: figure ``comparison`` target. ``measure`` is "module:function", loaded when it is needed.

    A quick measurement has ``quick_target`` where that is given, and never counts as the claim's own.
    """

    id: str
    statement: str
    comparison: str
    target: float
    unit: str
    measure: str
    quick: str
    quick_target: float | None = None

    def __post_init__(self) -> None:
        if self.comparison not in COMPARISONS:
            raise ClaimError(f"claim {self.id}: comparison {self.comparison!r} is not one of {', '.join(COMPARISONS)}")

    def command(self, quick: bool = False) -> str:
        """The command that measures it."""
        return f"embodied claims run {self.id}" + (" --quick" if quick else "")

    def target_of(self, quick: bool) -> float:
        """The target that a full or a quick measurement is held to."""
        return self.quick_target if quick and self.quick_target is not None else self.target

    def met(self, measurement: Measurement, quick: bool = False) -> bool:
        """Whether the figure reaches the target (never where it is not finite) and every condition holds."""
        reached = COMPARISONS[self.comparison](measurement.figure, self.target_of(quick))
        return math.isfinite(measurement.figure) and reached and all(measurement.conditions.values())


@dataclass(frozen=True)
class Record:
    """A measurement as it is kept: the JSON file's contents."""

    id: str
    quick: bool
    met: bool
    target: float
    comparison: str
    command: str
    date: str
    versions: dict[str, str]
    machine: str
    measurement: Measurement

    @classmethod
    def read(cls, path: Path) -> Record:
        """From its file. Raises ClaimError where that is not a record."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = content.pop("measurement")
            for key in ("interval", "seeds"):
                found[key] = None if found[key] is None else tuple(found[key])
            return cls(measurement=Measurement(**found), **content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ClaimError(f"{path} is not a claim's record ({error}); delete it and measure anew") from error

    def write(self, path: Path) -> None:
        """To its file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = asdict(self)
        content["measurement"]["details"] = _finite(content["measurement"]["details"])
        replace_file(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def _finite(value: Any) -> Any:
    """Details with null for what could not be measured: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


REGISTRY: dict[str, Claim] = {}


def register(claim: Claim) -> Claim:
    """Add a claim to the ledger. Raises ClaimError where the id is taken."""
    if claim.id in REGISTRY:
        raise ClaimError(f"claim {claim.id} is registered twice")
    REGISTRY[claim.id] = claim
    return claim


def get(claim_id: str) -> Claim:
    """The claim of that id. Raises ClaimError naming the valid ids."""
    if claim_id not in REGISTRY:
        raise ClaimError(f"unknown claim {claim_id!r}; valid ids: {', '.join(sorted(REGISTRY))}")
    return REGISTRY[claim_id]


def path_of(results: Path, claim_id: str, quick: bool) -> Path:
    """Where a claim's full or quick measurement is kept."""
    return results / f"{claim_id}{'.quick' if quick else ''}.json"


def recorded(results: Path, claim_id: str, quick: bool = False) -> Record | None:
    """The last measurement, or None."""
    path = path_of(results, claim_id, quick)
    return Record.read(path) if path.exists() else None


def measure(claim_id: str, context: Context) -> Record:
    """Measure a claim anew and keep the record."""
    claim = get(claim_id)
    module, _, name = claim.measure.partition(":")
    found: Measurement = getattr(importlib.import_module(module), name)(context)
    record = Record(
        id=claim.id,
        quick=context.quick,
        met=claim.met(found, context.quick),
        target=claim.target_of(context.quick),
        comparison=claim.comparison,
        command=claim.command(context.quick),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        versions=versions(),
        machine=machine(),
        measurement=found,
    )
    record.write(path_of(context.results, claim.id, context.quick))
    return record


def versions() -> dict[str, str]:
    """What was measured with: this project, Python, and the libraries that decide the result."""
    stamp = {"embodied": embodied.__version__, "python": platform.python_version()}
    for name in STAMPED:
        try:
            stamp[name] = version(name)
        except PackageNotFoundError:
            stamp[name] = "not installed"
    return stamp


def machine() -> str:
    """The machine in words, e.g. "x86_64, 2 cores"."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()}, {cores} cores"


_EVALUATION = "embodied.evaluation"
_MAIN = f"{_EVALUATION}.main_claims"
_PLAY = f"{_EVALUATION}.play"
for _claim in (
    Claim("main.a", "README command 1 ends with the report (fresh venv, no network, no GL); command 2 passes",
          "<=", 15.0, "minutes", f"{_MAIN}:fresh_install", "command 1 only"),
    Claim("main.b", "distinct goals mastered from an empty library, default preset (quick preset: 10)",
          ">=", 16, "goals", f"{_MAIN}:mastered_goals", "the quick preset", quick_target=10),
    Claim("main.c", "success on 40 held-out two- and three-step instructions, default preset",
          ">=", 0.75, "success", f"{_MAIN}:heldout_instructions", "the quick preset"),
    Claim("main.d", "goals the full loop masters beyond the best of: uniform proposer, no play, no gate",
          ">", 0.0, "goals more", f"{_MAIN}:ablations", "one seed"),
    Claim("main.e", "environment steps/s over the raw physics limit of every core, same model, sleep off",
          ">=", 0.90, "of the limit", f"{_MAIN}:simulation_speed", "short windows"),
    Claim("main.f", "kill -9 at random moments of a run, each resumed: equal to a run that was never killed",
          "==", 5, "of 5 resumed", f"{_MAIN}:kill_and_resume", "2 kills", quick_target=2),
    Claim("main.g", "same seed twice: identical episodes and library",
          "==", 1, "share identical", f"{_MAIN}:same_seed_twice", "the smoke preset"),
    Claim("world.a", "playroom: environment steps/s over the physics limit of every core, 64 and 256 slots, sleep off",
          ">=", 0.93, "of the limit", f"{_EVALUATION}.world_claims:speed", "short windows"),
    Claim("world.b", "simulated robot-seconds a second, pick and place: over the fastest of the installed peers",
          ">=", 4.0, "times", f"{_EVALUATION}.world_claims:peers", "short windows"),
    Claim("world.c", "pictures of 84 x 84 a second and core without GL, shaded; with GL 1,000; both agree",
          ">=", 400, "pictures/s", f"{_EVALUATION}.render_claims:rendering", "short windows"),
    Claim("world.d", "playroom: the scripted expert's worst success over the 18 tasks; grasp; 10 million random steps",
          ">=", 0.95, "success", f"{_EVALUATION}.world_claims:experts", "fewer episodes and steps"),
    Claim("world.e", "playroom: control steps/s of the play generators; play covers more than demonstrations",
          ">=", 5000, "steps/s", f"{_EVALUATION}.world_claims:play", "fewer steps"),
    Claim("world.f", "Reach and Push learnt by stable-baselines3's PPO and SAC+HER, unmodified, through the adapter",
          "==", 4, "of 4 learnt", f"{_EVALUATION}.baseline_claims:sb3_learns", "Reach alone", quick_target=2),
    Claim("world.g", "suites: 1,000 steps on three tasks each, success seen both ways where there is an expert",
          "==", 6, "of 6 suites", f"{_EVALUATION}.suite_claims:suites_run", "the same"),
    Claim("play.a", "one policy from 14 h of scripted play, no labels: average over the 18 playroom tasks, best arm",
          ">=", 0.855, "success", f"{_PLAY}_claims:headline", "30,000 steps of play, few updates", quick_target=0.0),
    Claim("play.b", "a push or a moved block costs the play policy less success than 18 cloned experts",
          ">", 0.0, "less lost", f"{_PLAY}_more_claims:disturbed", "small", quick_target=-1.0),
    Claim("play.c", "two tasks away, one thing at a time with patience: success; without, and three away, beside it",
          ">=", 0.5, "success", f"{_EVALUATION}.far_claims:far_goals", "small", quick_target=0.0),
    Claim("play.d", "ACT-JEPA's success less ACT's at equal parameters, on the same starts; its probes higher",
          ">=", -0.03, "success", f"{_EVALUATION}.representation_claims:representations", "small",
          quick_target=-1.0),
    Claim("play.e", "BESO's success with 50 sampling steps less that with 3, on the same starts",
          "<=", 0.03, "success", f"{_PLAY}_more_claims:few_steps", "small", quick_target=1.0),
    Claim("play.g", "windows sampled a second over a plain DataLoader, same data; 10 million steps in flat memory",
          ">=", 10.0, "times", f"{_PLAY}_more_claims:data_speed", "1 million steps"),
    Claim("play.f", "boundary F1 (5 steps) of cuts by surprise in fresh play, over the best of fixed, gripper, random",
          ">", 0.0, "F1 more", f"{_EVALUATION}.segment_claims:segments", "one seed, less play and training"),
    Claim("play.h", "told in English, with at most 1 % of the windows labelled: average success over the 18 tasks",
          ">=", 0.5, "success", f"{_EVALUATION}.language_claims:instructed", "small", quick_target=0.0),
    Claim("slim.a", "a reward scaled by 0.1 or 10: SLIM's worst change in coverage, interaction or violation",
          "<=", 0.15, "relative change", f"{_EVALUATION}.slim_claims:scale_test", "40,000 steps", quick_target=1e9),
    Claim("slim.b", "table covered by SLIM beyond the best of: sums, tuned too, Lagrangian, METRA, LSD, CSD, DIAYN",
          ">", 0.0, "bins of 5 cm more", f"{_EVALUATION}.slim_claims:coverage", "40,000 steps", quick_target=-1e9),
    Claim("slim.c", "two blocks: share of seeds in which each is moved by some skill",
          "==", 1.0, "of seeds", f"{_EVALUATION}.slim_claims:two_blocks", "40,000 steps", quick_target=1.0),
    Claim("slim.f", "discovered skills that pass the gate and do what they are named for in 80 % of fresh rollouts",
          ">=", 6, "skills", f"{_EVALUATION}.slim_library_claims:skill_library", "40,000 steps", quick_target=0),
    Claim("slim.d", "a block put to a spot: PPO over frozen skills beyond the best flat learner at equal steps in all",
          ">", 0.0, "success more", f"{_EVALUATION}.slim_use_claims:hierarchy", "15,000 steps", quick_target=-2.0),
    Claim("library.a", "goals the full open-ended loop masters beyond the best arm that lacks a part of it; its exam",
          ">", 0.0, "goals more", f"{_EVALUATION}.openended_claims:open_ended", "smoke, two arms", quick_target=-30.0),
    Claim("library.b", "planted edits: share of 100 bad ones admitted; beside it good ones rejected and what is lost",
          "<=", 0.02, "false accepts", f"{_EVALUATION}.gate_claims:planted_edits", "23 edits, the same bank"),
    Claim("slim.e", "a whole training step with three critics over one with one; PPO and SAC over stable-baselines3's",
          "<=", 1.3, "times", f"{_EVALUATION}.slim_speed:training_cost", "few rounds"),
    Claim("library.f", "held-out pairs of manners: adapters composed in parameters beyond the better of score, action",
          ">", 0.0, "success more", f"{_EVALUATION}.adapter_claims:combinations", "one pair", quick_target=-2.0),
    Claim("library.c", "faults (flips, garbage, time-outs, lies): the worst arm below the default; poison executed: 0",
          "<=", 5.0, "points", f"{_EVALUATION}.fault_claims:faults", "short lives, 6 packs"),
    Claim("library.d", "task_lm: tasks of depth 3 and 4, none of them supervised, planned after GRPO; depth 1-2 kept",
          ">=", 0.7, "success", f"{_EVALUATION}.task_lm_claims:planner_model", "tiny training", quick_target=0.0),
    Claim("library.e", "learnt operators against the simulator: precision and recall of preconditions and effects",
          ">=", 0.95, "the lower", f"{_EVALUATION}.operator_claims:accuracy", "a tenth of it", quick_target=0.0),
    Claim("library.g", "100,000 skills: p99 of retrieval (on its core) over 10 ms, of 8 writers' commits over 50 ms",
          "<=", 1.0, "of the target", f"{_EVALUATION}.library_claims:scale", "small", quick_target=20.0),
    Claim("library.i", "a language server that refuses, errs, stalls, cuts, floods or injects: runs that end well",
          "==", 18, "of 18 modes", f"{_EVALUATION}.backend_claims:survives", "the roles alone"),
    Claim("library.h", "BabyAI: levels, of 6, on which learnt skills with a planner beat flat learning at equal steps",
          ">=", 4, "levels", f"{_EVALUATION}.babyai_claims:babyai", "2 levels, 20,000 steps", quick_target=0),
):  # fmt: skip
    register(_claim)
