"""The head: which versions of each family are in use now, as a chain of changes that is only ever appended to.

A family is a skill's schema. `Writer.commit` is a compare-and-swap: it names the head it was thought out on and fails
with `HeadMoved`, which carries the head there is, where another process was faster. `SkillLibrary.at` pins a head: a
`Snapshot` shows the same versions for as long as it is kept, whoever writes meanwhile.

A family holds at most so many versions. What is evicted for a new one is dominated: first versions that master nothing,
then those all of whose mastered goals another one of the family masters with a lower bound at least as high, then those
whose goals others master at all. The only version that masters some goal is never evicted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embodied.core import LOCAL, Skill, canonical_json
from embodied.skills.artifacts import LibraryError
from embodied.skills.statistics import wilson

if TYPE_CHECKING:
    from embodied.skills.library import SkillLibrary


@dataclass(frozen=True)
class Head:
    """One head: its number, its parent's (one less), the digest of the chain up to it, who moved it, and how."""

    id: int
    parent: int
    digest: str
    principal: str
    changes: Mapping[str, Any]  # "add", "remove", "evict": family -> versions


ROOT = Head(0, -1, hashlib.sha256(b"").hexdigest(), LOCAL, {})  # of a library that nothing was committed to


@dataclass(frozen=True)
class Change:
    """Versions to put into the head, and to take out of it."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class HeadMoved(LibraryError):
    """A change was thought out on a head that is no longer the current one, which is `current`."""

    def __init__(self, expected: int, current: Head) -> None:
        super().__init__(
            f"the head is {current.id}, no longer {expected}; look at what was changed meanwhile and "
            f"commit on {current.id}"
        )
        self.current = current


class FamilyFull(LibraryError):
    """A family is full of versions each of which alone masters some goal."""


def after(parent: Head, principal: str, changes: Mapping[str, Any]) -> Head:
    """The head that changes make of another."""
    digest = hashlib.sha256(canonical_json([parent.digest, principal, changes]).encode()).hexdigest()
    return Head(parent.id + 1, parent.id, digest, principal, changes)


def evicted(
    family: str, members: Collection[str], fresh: Collection[str], status: Iterable[Sequence[Any]], capacity: int
) -> list[str]:
    """Versions to take out of a family so that its members, of which the fresh ones stay, fit into the capacity.

    status: (version, goal, status, confirm_n, confirm_k) of the members. FamilyFull where too few may go.
    """
    kept = set(members)
    bounds: dict[str, dict[str, float]] = {version: {} for version in members}  # of the goals a version masters
    for version, goal, found, n, k in status:
        if version in bounds and found == "admitted":
            bounds[version][goal] = float(wilson(k, n)[0])
    gone: list[str] = []
    while len(kept) > capacity:
        others = {
            v: {g: max((bounds[w].get(g, -1.0) for w in kept if w != v), default=-1.0) for g in bounds[v]}
            for v in kept - set(fresh)
        }
        free = [v for v, goals in others.items() if all(bound >= 0 for bound in goals.values())]
        if not free:
            raise FamilyFull(
                f"the family '{family}' is full: each of its {capacity} versions is new or the only one that masters "
                "some goal; remove one by name, or make the library with a larger capacity"
            )

        merit = {
            v: (bool(bounds[v]), any(others[v][g] < b for g, b in bounds[v].items()), sum(bounds[v].values()), v)
            for v in free
        }
        gone.append(min(free, key=merit.__getitem__))
        kept.remove(gone[-1])
    return gone


class Snapshot:
    """The versions of one head; it never changes. Made by `SkillLibrary.at`."""

    def __init__(self, library: SkillLibrary, head: Head, families: Mapping[str, tuple[str, ...]]) -> None:
        self.head = head
        self.families = families
        self._library = library
        self._versions = frozenset(version for versions in families.values() for version in versions)

    def __len__(self) -> int:
        return len(self._versions)

    def __contains__(self, version: object) -> bool:
        return version in self._versions

    def skills(self, family: str | None = None) -> list[Skill]:
        """The skills of a family (none where it is unknown), or all, by family and version."""
        chosen = self.families if family is None else {family: self.families.get(family, ())}
        return [self._library.skill(version) for name in sorted(chosen) for version in chosen[name]]
