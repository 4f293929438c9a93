"""Parameter-space skills in the library: an artifact of adapters (`policies.adapters`) that acts on a base also there.

Its conditioning is ``{"kind": "adapter", "base": hash, "adapters": [hashes], "mode": mode}``. The base is an artifact
of a skill of its own, so that it is kept as long as the library is; adapters that are composed lie inside the
artifact, and their hashes say which they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embodied.core import Skill
from embodied.skills.library import LibraryError, SkillLibrary, Writer
from policies.adapters import FlowAdapters
from policies.base import load_policy
from policies.checkpoint import CheckpointError, content_hash, read_header

__all__ = ["KIND", "add_adapter_skill", "load_adapter_skill"]

KIND = "adapter"
_ENTRIES = ("base", "adapters", "mode")


def add_adapter_skill(
    tx: Writer, schema: str, directory: str | Path, *, conditioning: Mapping[str, object] | None = None, **more: Any
) -> Skill:
    """Keep a directory of adapters as a version of a skill; ``conditioning`` is added to, ``more`` is
    `Writer.add_skill`'s.

    LibraryError where it holds no adapters, or no skill of the library has their base as its artifact.
    """
    about = _conditioning(directory)
    base = about["base"]
    if all(skill.artifact != base for skill in tx.library.skills()):
        raise LibraryError(
            f"{directory} holds adapters on the base {base[:12]}, which no skill of {tx.library.path} carries; add the "
            "base as a skill first"
        )
    return tx.add_skill(schema, directory, conditioning=dict(conditioning or {}) | about, **more)


def load_adapter_skill(library: SkillLibrary, skill: Skill) -> FlowAdapters:
    """What carries out an adapter skill: its adapters, on their base, both verified.

    LibraryError where the conditioning is another's, or says other than the artifact does, or the base is not there.
    """
    found = skill.conditioning
    if found.get("kind") != KIND:
        raise LibraryError(
            f"skill {skill.version[:12]} has conditioning of kind {found.get('kind')!r}; an adapter skill's is {KIND!r}"
        )
    directory = library.artifact(skill)
    about = _conditioning(directory)
    for name in _ENTRIES:
        if found.get(name) != about[name]:
            raise LibraryError(
                f"skill {skill.version[:12]} says {name} = {found.get(name)!r}, its artifact {about[name]!r}: one of "
                "them is not this skill's"
            )
    try:
        return FlowAdapters.load(directory, load_policy(library.artifact(about["base"])))
    except CheckpointError as error:
        raise LibraryError(f"skill {skill.version[:12]} cannot act: {error}") from error


def _conditioning(directory: str | Path) -> dict[str, Any]:
    """What the adapters in a directory are made of; LibraryError where it holds none."""
    try:
        header = read_header(directory)
        if header.type != FlowAdapters.registry_key:
            raise CheckpointError(f"{directory} holds a {header.type!r} policy, not {FlowAdapters.registry_key!r}.")
        base, adapters, mode = (header.config[name] for name in _ENTRIES)
        return {"kind": KIND, "base": base, "adapters": list(adapters) or [content_hash(directory)], "mode": mode}
    except (CheckpointError, KeyError, TypeError) as error:
        raise LibraryError(f"{directory} holds no adapter skill: {error}") from error
