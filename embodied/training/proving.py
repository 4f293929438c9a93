"""How a skill from a pack proves itself here, and what becomes of it.

1. *static checks*: its schema is one that is practised here, its policy fits this body and says finite numbers, and
   the same policy was not rejected or revoked here before for the same schema;
2. *consensus* (`embodied.skills.consensus`): beside admitted skills of its schema, near its preconditions and in random
   contexts; where there are none, it must leave alone in random contexts what its goal does not speak of;
3. *the gate*, on fresh rollouts.

What passes is *adopted*: a version of its own, made here from the imported policy, with the operator, the executions
and the handbook of what was seen here, comes into the head. Of the sender's words, evidence, operator and handbook
nothing is used; the import is its parent, so taint is inherited. What fails stays in quarantine with the decision and,
where it broke things in contexts that can be told, with lessons. They are kept as the sender's: lessons of a stranger
bind no planner here, else a bad version of a skill, sent on purpose, would forbid the good one.

A skill is decided within a round of the run, so a kill leaves none half decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from embodied.core import EvalReport, Skill
from embodied.errors import UsageError
from embodied.skills.artifacts import LibraryError
from embodied.skills.consensus import Consensus, alone, contexts_of, judge, neighbours_of, numbers_of, simulated
from embodied.skills.gate import Gate, GateConfig, Question
from embodied.skills.library import SkillLibrary
from embodied.training.families import schemas
from embodied.training.rollouts import Trial, measure_all
from embodied.training.rounds import Worker
from envs.observations import FEATURES
from envs.vector import ACTIONS
from policies import load_policy

__all__ = ["Proof", "fault_of", "prove", "waiting"]

CONTEXTS = 160  # episodes near the preconditions, and in random contexts, shared out over a schema's goals
LOOK = 64  # observations that a policy is asked about before it acts
REJECTED = "import rejected"
ADOPTED = "import adopted"


@dataclass(frozen=True)
class Proof:
    """What became of an import: the stage it ended at ("static", "consensus", "gate" or "adopted"), why, the goals that
    it was admitted for, and the version that was made of it ("" for none).
    """

    imported: str
    schema: str
    stage: str
    reason: str
    goals: tuple[str, ...] = ()
    version: str = ""


def waiting(library: SkillLibrary) -> list[Skill]:
    """The imports in quarantine that nothing was decided about yet, the oldest first."""
    found = [row.version for row in library.standing() if row.status == "quarantined"]
    return [library.skill(version) for version in found if not library.gate_decisions(version)]


def prove(worker: Worker, imported: str) -> Proof:
    """Lets an import prove itself, in a round of its own. UsageError for a version that is not in quarantine."""
    journal = worker.journal
    library = journal.library
    (standing,) = library.standing([library.skill(imported).version])
    if standing.status != "quarantined":
        raise UsageError(f"skill {imported[:12]} is {standing.status}, not quarantined, so it has nothing to prove")
    skill = library.skill(imported)
    worker.say(f"proving {skill.schema} from {skill.principal}")
    fault, policy = fault_of(library, skill)
    goals = schemas().get(skill.schema, [])
    judged = [] if fault else [_consensus(worker, skill, goal, k, len(goals)) for k, goal in enumerate(goals)]
    flagged = next((found for found in judged if found.flagged), None)
    with library.round(journal.round) as tx:
        if fault:
            proof = Proof(imported, skill.schema, "static", fault)
        elif flagged is not None:
            proof = Proof(imported, skill.schema, "consensus", flagged.verdict)
            for literals in sorted({lesson for found in judged for lesson in found.lessons}):
                reason = f"the imported skill {imported[:12]} broke there what others keep"
                tx.add_lesson(skill.schema, literals, reason, principal=skill.principal, tainted=True)
        else:
            decisions = _gate(worker).decide_all(goals, [policy], round=journal.round)
            told = {"from": "import", "principal": skill.principal}
            admitted = worker.admit(tx, skill.schema, policy, decisions, imported, told)
            made = [s.version for s in library.skills(skill.schema) if s.parent == imported] if admitted else [""]
            reason = "; ".join(f"{decision.goal} {decision.reason}" for decision in decisions)
            stage = "adopted" if admitted else "gate"
            proof = Proof(imported, skill.schema, stage, reason, tuple(admitted), made[-1])
        numbers = {"stage": proof.stage, "made": proof.version, "consensus": [numbers_of(found) for found in judged]}
        verdict = ADOPTED if proof.goals else REJECTED
        tx.add_gate_decision(
            f"import: {skill.schema[:200]}", library.head.id, [imported], numbers, verdict, proof.reason
        )
        journal.note(
            "import", ", ".join(proof.goals), f"a pack of {skill.principal} brought {skill.schema}", proof.reason,
            "admitted" if proof.goals else "rejected", version=imported, stage=proof.stage,
        )  # fmt: skip
        worker.seal(tx)
    return proof


def fault_of(library: SkillLibrary, skill: Skill) -> tuple[str, Any]:
    """Why an import cannot be tried at all ("" where it can), and its policy, loaded. It is not let act."""
    if skill.schema not in schemas():
        return f"'{skill.schema[:100]}' is none of the {len(schemas())} kinds of goals that are practised here", None
    if not skill.artifact:
        return "it comes without a policy, and words alone can prove nothing", None
    if dict(skill.conditioning) not in ({}, {"kind": "goal"}):
        return "its policy is not told what to do by a goal of the grammar, so it belongs to another kind of run", None
    revoked = {revocation.version for revocation in library.revocations()}
    for other in library.skills(skill.schema):
        if other.artifact != skill.artifact or other.version == skill.version:
            continue
        if other.version in revoked:
            return f"its policy is that of {other.version[:12]}, which was revoked", None
        if any(row.verdict == REJECTED for row in library.gate_decisions(other.version)):
            return f"its policy is that of {other.version[:12]}, which was rejected here", None
    try:
        policy = load_policy(library.artifact(skill))
        if (policy.observation_size, policy.action_size) != (FEATURES, ACTIONS["tool"]):
            return (
                f"its policy takes {policy.observation_size} numbers and gives {policy.action_size}; this body has "
                f"{FEATURES} and {ACTIONS['tool']}"
            ), None
        seen = np.random.default_rng(0).normal(size=(LOOK, FEATURES)).astype(np.float32)
        actions, _ = policy.predict(seen, None, np.ones(LOOK, np.bool_), deterministic=True)
    except LibraryError:
        raise  # the library is damaged: that is not the sender's
    except Exception as error:  # a stranger's configuration may fail anywhere; whatever it is, it is the skill's fault
        return f"its policy does not run ({type(error).__name__}: {str(error)[:200]})", None
    if np.shape(actions) != (LOOK, ACTIONS["tool"]) or not np.isfinite(actions).all():
        return "its policy gives actions that are not all finite numbers", None
    return "", policy


def _gate(worker: Worker) -> Gate:
    """The run's gate, whatever the run itself admits by. Its episodes are not kept: what a stranger's policy does is
    nothing to learn from.
    """

    def evaluate(candidate: Any, questions: Sequence[Question]) -> list[EvalReport]:
        trials = [Trial(*question) for question in questions]
        found = measure_all(candidate, trials, threads=worker.config.threads, on_steps=worker.spend)
        return [measured.report for measured in found]

    asked = worker.config.gate
    return Gate(
        evaluate,
        worker.config.seed,
        GateConfig(asked.threshold, asked.screen, asked.n, asked.confirm, max(1, asked.n // 2)),
    )


def _consensus(worker: Worker, skill: Skill, goal: str, number: int, goals: int) -> Consensus:
    """The comparison on one of the schema's goals."""
    library = worker.journal.library
    execute, facts = simulated(library, goal, threads=worker.config.threads, on_steps=worker.spend)
    n = max(1, CONTEXTS // goals)
    near, free = (n, worker.seed(7, number, 0), False), (n, worker.seed(7, number, 1), True)
    learn = contexts_of(goal, facts)
    neighbours = neighbours_of(library, skill.version)
    kept = cache(execute)
    if neighbours:
        found = judge(skill.version, neighbours, kept, near, free, facts, learn=learn)
        if found.flagged:
            return found
    return alone(skill.version, goal, kept, near, free, facts, neighbours=neighbours, learn=learn)
