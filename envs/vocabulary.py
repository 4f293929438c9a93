"""The closed vocabulary of facts: objects, places and typed predicates, as plain tables.

World frame: x forward from the robot's base, y to the robot's left, z up, metres. What each predicate means:

================ ===================================================================================
open(drawer)     the drawer is pulled out far enough for a block to be put in
closed(drawer)   the drawer is pushed in (between the two it is neither)
lit(lamp)        the lamp shines; the button toggles it
holding(b)       the block is gripped between the fingers
lifted(b)        the block is held up in the air, well off whatever it stood on
touching(b)      the fingers are at the block (so what is held is touched)
clear(b)         no block stands on this one
at(b, p)         the block rests, released, on the table at the place
placed(b, p)     ``at``, and carried there through the air since the goal began
on(b, c)         the block rests, released, on the other block; on(b, cabinet): on top of the cabinet
inside(b, d)     the block lies, released, in the drawer (open or closed)
left_of(b, c)    b rests on the table beside c, to its left seen from the robot's seat: greater y
in_front_of(b,c) b rests on the table in line with c, before it seen from the robot's seat: nearer, smaller x
next_to(b, c)    the two blocks stand side by side on the table; symmetric, so there is one canonical order
================ ===================================================================================

The pseudo place ``anywhere`` is a position on the table drawn when an episode starts.
Pure Python: nothing here needs the simulator, so goals can be read and written without it.
"""

from __future__ import annotations

OBJECTS: dict[str, str] = {  # name -> type
    "red": "block",
    "blue": "block",
    "drawer": "drawer",
    "lamp": "lamp",
    "cabinet": "cabinet",
    "table": "table",
}

PLACES: dict[str, tuple[float, float]] = {  # named spots on the table, (x, y) in metres
    "left": (0.46, 0.20),
    "right": (0.46, 0.01),
    "centre": (0.50, 0.10),
    "near": (0.38, 0.10),
    "far": (0.61, 0.10),
}

ANYWHERE = "anywhere"

PREDICATES: dict[str, tuple[str, ...]] = {  # name -> argument types; "a|b" means either type
    "open": ("drawer",),
    "closed": ("drawer",),
    "lit": ("lamp",),
    "holding": ("block",),
    "lifted": ("block",),
    "touching": ("block",),
    "clear": ("block",),
    "at": ("block", "place"),
    "placed": ("block", "place"),
    "on": ("block", "block|cabinet"),
    "inside": ("block", "drawer"),
    "left_of": ("block", "block"),
    "in_front_of": ("block", "block"),
    "next_to": ("block", "block"),
}

SYMMETRIC = frozenset({"next_to"})
"""Predicates whose argument order means nothing."""

SWITCHED = frozenset({"lit"})
"""Predicates whose negation is a goal of its own, reached by the same skill."""

BLOCKS: tuple[str, ...] = tuple(name for name, kind in OBJECTS.items() if kind == "block")
PLACE_NAMES: tuple[str, ...] = (*PLACES, ANYWHERE)


def names_of(types: str) -> tuple[str, ...]:
    """Every object or place that fits an argument type such as ``"block"`` or ``"block|cabinet"``."""
    names: list[str] = []
    for kind in types.split("|"):
        names += PLACE_NAMES if kind == "place" else [n for n, k in OBJECTS.items() if k == kind]
    return tuple(names)


def type_of(name: str) -> str:
    """Type of an object or place; raises KeyError for anything else."""
    return "place" if name in PLACE_NAMES else OBJECTS[name]
