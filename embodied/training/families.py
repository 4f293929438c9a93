"""What is practised together, and hence what a run's skills are: its library as its configuration lets it act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embodied.cli.schema import RunConfig
from embodied.repertoire import Repertoire
from embodied.skills.library import SkillLibrary
from envs.goals import all_ground_goals, schema_of

__all__ = ["EVERYTHING", "family", "family_of", "repertoire_of", "schemas"]

CARRYING = frozenset({"placed", "on", "inside", "left_of", "in_front_of", "next_to"})
EVERYTHING = "everything"  # the one family of a run without skills


def schemas() -> dict[str, list[str]]:
    """Every practised schema → its ground goals."""
    found: dict[str, list[str]] = {}
    for goal in all_ground_goals():
        found.setdefault(schema_of(goal), []).append(str(goal))
    return found


def family(schema: str) -> str:
    """What is practised together: all that carries a block to a target shares one policy, the rest stands alone.

    Such goals differ in the target that the features hold, not in what has to be done: each is practice for the rest.
    """
    return "carry" if schema.split("(")[0] in CARRYING else schema


def family_of(config: RunConfig, schema: str) -> str:
    """The family of a schema in a run; without skills there is one."""
    return EVERYTHING if "skills" in config.without else family(schema)


def repertoire_of(config: RunConfig, library: SkillLibrary, operators: Mapping[str, Any]) -> Repertoire:
    """What a run can do, from its open library and the loop's operator counts.

    Without regression, or without skills, nothing holds on to an earlier version: the youngest of a family acts.
    """
    forgets = {"regression", "skills"} & {*config.without}
    return Repertoire.load(library, operators, (lambda schema: family_of(config, schema)) if forgets else None)
