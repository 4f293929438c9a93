"""What a run can do now: its admitted skills, loaded, with the operators learnt about them."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Skills by name (a schema, or a schema and a version), the operators learnt, and what each goal is given to."""

    actors: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    operators: dict[str, Operator] = field(default_factory=dict)
    acts: dict[str, str] = field(default_factory=dict)  # admitted goal → the name in ``actors`` of what carries it out

    @classmethod
    def load(cls, library: SkillLibrary, operators: Mapping[str, Any]) -> Repertoire:
        """From an open library and the loop's operator counts (schema → `Operator.to_dict`).

        Of a schema's versions the one admitted for most goals acts under the schema's own name, then the one with the
        highest success; a goal that only another version is admitted for is given to that one.
        """
        from policies import load_policy

        best: dict[str, dict[str, dict[str, float]]] = {}  # schema → version → goal → confirmed success
        for row in library.status():
            if row.status == "admitted":
                versions = best.setdefault(row.schema, {})
                versions.setdefault(row.version, {})[row.goal] = row.confirm_successes / max(1, row.confirm_n)
        out, loaded = cls(), {}
        for schema, versions in sorted(best.items()):
            order = sorted(versions, key=lambda v: (len(versions[v]), sum(versions[v].values()), v), reverse=True)
            for version in order:
                fresh = {goal for goal in versions[version] if goal not in out.acts}
                if not fresh:
                    continue
                name = schema if schema not in out.actors else f"{schema} [{version[:8]}]"
                artifact = library.skill(version).artifact
                if artifact not in loaded:  # one policy may serve several schemas
                    loaded[artifact] = load_policy(library.artifact(artifact))
                out.actors[name], out.versions[name] = loaded[artifact], version
                out.acts |= dict.fromkeys(fresh, name)
            out.operators[schema] = Operator.from_dict(operators[schema]) if schema in operators else Operator(schema)
        return out

    @property
    def admitted(self) -> frozenset[str]:
        """The goals that some skill is admitted for."""
        return frozenset(self.acts)

    def allows(self, goal: Goal) -> bool:
        """Whether a ground goal's skill is admitted for it (a named place counts as any place)."""
        return anywhere(goal) in self.admitted

    def planner(self) -> PlanFunction:
        """The planner over this repertoire, for `carry_out`."""

        def search(facts: Mapping[str, bool], rest: Goal) -> list[RunStep] | str:
            found = plan(rest, facts, self.operators, allowed=self.allows)
            if not found.found:
                return found.explanation
            return [RunStep(self.acts[anywhere(Goal.parse(step.goal))], step.goal) for step in found.steps]

        return search

    def observe(self, goal: str, start: Mapping[str, bool], end: Mapping[str, bool], success: bool) -> None:
        """Counts one execution of a goal: facts before and after, and whether it was reached."""
        parsed = Goal.parse(goal)
        schema = schema_of(parsed)
        self.operators.setdefault(schema, Operator(schema)).observe(parsed, start, end, success)
