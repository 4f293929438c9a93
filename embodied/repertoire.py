"""What a run can do now: its admitted skills, loaded, with the operators learnt about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from embodied.planning.execute import PlanFunction
from embodied.planning.execute import Step as RunStep
from embodied.planning.operators import Operator
from embodied.planning.search import plan
from embodied.skills.library import SkillLibrary
from envs.goals import Goal, schema_of
from envs.vocabulary import ANYWHERE, PLACES

__all__ = ["Repertoire", "anywhere"]


def anywhere(goal: Goal) -> str:
    """A goal's text with its named places taken as ``anywhere``: what the library admits placing skills under."""
    text = str(goal)
    for place in PLACES:
        text = text.replace(f", {place})", f", {ANYWHERE})")
    return text


@dataclass
class Repertoire:
    """Skills by schema (one admitted version each), the operators learnt, and which goals are admitted."""

    actors: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    operators: dict[str, Operator] = field(default_factory=dict)
    admitted: frozenset[str] = frozenset()

    @classmethod
    def load(cls, library: SkillLibrary, operators: Mapping[str, Any]) -> Repertoire:
        """From an open library and the loop's operator counts (schema → `Operator.to_dict`).

        Of a schema's versions the one admitted for most goals acts, then the one with the highest lower bounds.
        """
        from policies import load_policy

        score: dict[tuple[str, str], list[float]] = {}
        goals: dict[tuple[str, str], set[str]] = {}
        for row in library.status():
            if row.status == "admitted":
                key = (row.schema, row.version)
                score.setdefault(key, []).append(row.confirm_successes / max(1, row.confirm_n))
                goals.setdefault(key, set()).add(row.goal)
        out, admitted, loaded = cls(), set(), {}
        for schema in sorted({schema for schema, _ in score}):
            version = max(
                (v for s, v in score if s == schema), key=lambda v: (len(score[schema, v]), sum(score[schema, v]), v)
            )
            out.versions[schema] = version
            artifact = library.skill(version).artifact
            if artifact not in loaded:  # one policy may serve several schemas
                loaded[artifact] = load_policy(library.artifact(artifact))
            out.actors[schema] = loaded[artifact]
            out.operators[schema] = Operator.from_dict(operators[schema]) if schema in operators else Operator(schema)
            admitted |= goals[schema, version]
        out.admitted = frozenset(admitted)
        return out

    def allows(self, goal: Goal) -> bool:
        """Whether a ground goal's skill is admitted for it (a named place counts as any place)."""
        return anywhere(goal) in self.admitted

    def planner(self) -> PlanFunction:
        """The planner over this repertoire, for `carry_out`."""

        def search(facts: Mapping[str, bool], rest: Goal) -> list[RunStep] | str:
            found = plan(rest, facts, self.operators, allowed=self.allows)
            if not found.found:
                return found.explanation
            return [RunStep(step.schema, step.goal) for step in found.steps]

        return search

    def observer(self) -> Callable[[str, str, Mapping[str, bool], Mapping[str, bool], bool], None]:
        """Counts executions: (schema, goal, facts before, facts after, success)."""

        def observe(schema: str, goal: str, start: Mapping[str, bool], end: Mapping[str, bool], success: bool) -> None:
            parsed = Goal.parse(goal)
            if schema_of(parsed) == schema:
                self.operators.setdefault(schema, Operator(schema)).observe(parsed, start, end, success)

        return observe
