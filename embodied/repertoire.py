"""What a run can do now: its admitted skills, loaded, with the operators learnt about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embodied.core import LOCAL, Skill
from embodied.planning.execute import PlanFunction
from embodied.planning.execute import Step as RunStep
from embodied.planning.invented import Invented
from embodied.planning.operators import Operator
from embodied.planning.search import Plan, plan
from embodied.skills.library import SkillLibrary
from envs.goals import Goal, schema_of
from envs.vocabulary import ANYWHERE, PLACES

__all__ = ["Repertoire", "anywhere"]

NOISE = 0.03  # rates of executions closer than this are taken as equal


def anywhere(goal: Goal) -> str:
    """A goal's text with its named places taken as ``anywhere``: what the library admits placing skills under."""
    text = str(goal)
    for place in PLACES:
        text = text.replace(f", {place})", f", {ANYWHERE})")
    return text


def _steadiest(skills: Sequence[Skill], goal: str) -> Skill:
    """The youngest of the admitted skills (oldest first) whose rate of executions is about the highest of all; one that
    is not tainted, where there is one among them.
    """

    def rate(skill: Skill) -> float:
        executed = skill.provenance.get("executed") if skill.principal == LOCAL else None  # a stranger may say anything
        match executed.get(goal) if isinstance(executed, Mapping) else None:
            case [int(successes), int(n)] if 0 <= successes <= n:
                return (successes + 1) / (n + 2)
            case _:
                return 0.5

    enough = max(map(rate, skills)) - NOISE
    best = [skill for skill in skills if rate(skill) >= enough]
    return ([skill for skill in best if not skill.tainted] or best)[-1]


@dataclass
class Repertoire:
    """Skills by name (a schema, or a schema and a version), the operators learnt, and what each goal is given to."""

    actors: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    operators: dict[str, Operator] = field(default_factory=dict)
    acts: dict[str, str] = field(default_factory=dict)  # admitted goal → the name in ``actors`` of what carries it out

    @classmethod
    def load(
        cls, library: SkillLibrary, operators: Mapping[str, Any], family: Callable[[str], str] | None = None
    ) -> Repertoire:
        """From an open library and the loop's operator counts (schema → `Operator.to_dict`).

        Each goal is carried out by the admitted version that was steadiest wherever experience had left the world; the
        version that serves most of a schema's goals acts under the schema's own name. With ``family`` (of a schema)
        the youngest version of a family acts for all its goals instead, whatever it forgot.
        """
        from policies import load_policy

        found: dict[str, dict[str, list[Any]]] = {}  # schema → goal → admitted skills, oldest first
        youngest: dict[str, Any] = {}  # family → skill
        for row in sorted(library.status(), key=lambda row: (row.created_round, row.version)):
            if row.status == "admitted" and (skill := library.skill(row.version)).artifact:
                found.setdefault(row.schema, {}).setdefault(row.goal, []).append(skill)
                if family is not None:
                    youngest[family(row.schema)] = skill
        out, loaded = cls(), {}
        for schema, goals in sorted(found.items()):
            chosen = {
                goal: _steadiest(skills, goal) if family is None else youngest[family(schema)]
                for goal, skills in goals.items()
            }
            serves = Counter(skill.version for skill in chosen.values())
            skills = {skill.version: skill for skill in chosen.values()}
            for version in sorted(serves, key=lambda v: (serves[v], skills[v].created_round, v), reverse=True):
                name = schema if schema not in out.actors else f"{schema} [{version[:8]}]"
                artifact = skills[version].artifact
                if artifact not in loaded:  # one policy may serve several schemas
                    loaded[artifact] = load_policy(library.artifact(artifact))
                out.actors[name], out.versions[name] = loaded[artifact], version
                out.acts |= {goal: name for goal, skill in chosen.items() if skill.version == version}
            out.operators[schema] = Operator.from_dict(operators[schema]) if schema in operators else Operator(schema)
            for lesson in library.lessons(schema):
                if not lesson.tainted:
                    out.operators[schema].learn_lesson(lesson.literals, lesson.reason)
        return out

    @property
    def admitted(self) -> frozenset[str]:
        """The goals that some skill is admitted for."""
        return frozenset(self.acts)

    def allows(self, goal: Goal) -> bool:
        """Whether a ground goal's skill is admitted for it (a named place counts as any place)."""
        return anywhere(goal) in self.admitted

    @property
    def inventions(self) -> tuple[Invented, ...]:
        """The predicates invented for its operators, for `symbolic_state` and `carry_out`; names are unique."""
        return tuple(predicate for operator in self.operators.values() for predicate in operator.invented)

    def planner(self, plan: Callable[..., Plan] = plan) -> PlanFunction:
        """The planner over this repertoire, for `carry_out`; ``plan`` is another that is called as the embedded one."""

        def search(facts: Mapping[str, bool], rest: Goal, failed: Mapping[str, int]) -> list[RunStep] | str:
            found = plan(rest, facts, self.operators, allowed=self.allows, failed=failed)
            if not found.found:
                return found.explanation
            return [RunStep(self.acts[anywhere(Goal.parse(step.goal))], step.goal) for step in found.steps]

        return search

    def observe(self, goal: str, start: Mapping[str, bool], end: Mapping[str, bool], success: bool) -> None:
        """Counts one execution of a goal: facts before and after, and whether it was reached."""
        parsed = Goal.parse(goal)
        schema = schema_of(parsed)
        self.operators.setdefault(schema, Operator(schema)).observe(parsed, start, end, success)
