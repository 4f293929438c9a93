"""The closed grammar of invented predicates: what a planner may know of a state beyond the vocabulary.

A *term* is a measured quantity of typed arguments, ``gap(?a, ?b)``; a *comparison* sets it against a threshold; a
predicate is one comparison or two together, with a name:

    near(?a, ?b) := gap(?a, ?b) < 0.051

Nothing else can be said, so nothing that is read or proposed is ever executed. Where they come from:
`embodied.planning.invention`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from envs.predicates import B_V, B_YAW, BLOCK, BLOCK_STRIDE, DRAWER, TOOL, WIDTH, YAW
from envs.vocabulary import BLOCKS, PREDICATES

__all__ = ["DIGITS", "QUANTITIES", "Comparison", "Invented", "InventionError", "Quantity", "extend"]

DIGITS = 4  # of a threshold
_COMPARISON = re.compile(r"\s*(\w+)\(([^()]*)\)\s*([<>])\s*(-?\d+(?:\.\d+)?)\s*")


class InventionError(ValueError):
    """A predicate does not fit the grammar; the sentence says what does not, and what would."""


def _block(facts: np.ndarray, block: int, column: int = 0, width: int = 3) -> np.ndarray:
    first = BLOCK + BLOCK_STRIDE * block + column
    return facts[:, first : first + width]


def _turn(facts: np.ndarray, a: int) -> np.ndarray:
    """Of a block against the fingers, rad, 0 … π/4: a block is the same after a quarter turn."""
    apart = (_block(facts, a, B_YAW, 1)[:, 0] - facts[:, YAW]) % (math.pi / 2)
    return np.minimum(apart, math.pi / 2 - apart)


@dataclass(frozen=True)
class Quantity:
    """A measured quantity: argument types, what to call less and more of it, facts and block indices → float64[n]."""

    types: tuple[str, ...]
    less: str
    more: str
    measure: Callable[..., np.ndarray]


_HAND = slice(TOOL, TOOL + 3)
QUANTITIES: dict[str, Quantity] = {
    "gap": Quantity(("block", "block"), "near", "apart",
                    lambda x, a, b: np.linalg.norm(_block(x, a, 0, 2) - _block(x, b, 0, 2), axis=1)),
    "rise": Quantity(("block", "block"), "below", "above", lambda x, a, b: _block(x, a)[:, 2] - _block(x, b)[:, 2]),
    "reach": Quantity(("block",), "at_hand", "out_of_hand",
                      lambda x, a: np.linalg.norm(_block(x, a) - x[:, _HAND], axis=1)),
    "height": Quantity(("block",), "low", "high", lambda x, a: _block(x, a)[:, 2]),
    "forward": Quantity(("block",), "close_by", "far_off", lambda x, a: _block(x, a)[:, 0]),
    "across": Quantity(("block",), "to_the_right", "to_the_left", lambda x, a: _block(x, a)[:, 1]),
    "turn": Quantity(("block",), "straight", "turned", _turn),
    "speed": Quantity(("block",), "slow", "fast", lambda x, a: np.linalg.norm(_block(x, a, B_V), axis=1)),
    "opening": Quantity(("drawer",), "pushed", "pulled", lambda x: x[:, DRAWER]),
    "spread": Quantity((), "fingers_closed", "fingers_open", lambda x: x[:, WIDTH]),
    "hand_height": Quantity((), "hand_low", "hand_high", lambda x: x[:, TOOL + 2]),
}  # fmt: skip
"""Name → quantity; SI units: metres, radians, metres a second."""


@dataclass(frozen=True)
class Comparison:
    """``quantity(args) < threshold``, or ``>``; args are variables, blocks or ``drawer``."""

    quantity: str
    args: tuple[str, ...]
    less: bool
    threshold: float

    def __post_init__(self) -> None:
        known = QUANTITIES.get(self.quantity)
        if known is None:
            raise InventionError(f"unknown quantity {self.quantity!r}; valid are {', '.join(QUANTITIES)}")
        if len(self.args) != len(known.types) or len(set(self.args)) < len(self.args):
            raise InventionError(f"{self.quantity} takes different arguments {known.types}, not {self.args}")
        for arg, kind in zip(self.args, known.types, strict=True):
            if (arg != "drawer") if kind == "drawer" else not (arg in BLOCKS or re.fullmatch(r"\?[a-d]", arg)):
                raise InventionError(f"{arg!r} does not fit in {self.quantity}{known.types}")
        if not math.isfinite(self.threshold):
            raise InventionError(f"the threshold {self.threshold} of {self.quantity} is not a finite number")

    def __str__(self) -> str:
        return f"{self.quantity}({', '.join(self.args)}) {'<' if self.less else '>'} {self.threshold:.{DIGITS}f}"

    def values(self, facts: np.ndarray, names: Mapping[str, str]) -> np.ndarray:
        """The quantity, float64[n], on facts float[n, NX] with variables bound to blocks by ``names``."""
        blocks = [BLOCKS.index(names.get(arg, arg)) for arg in self.args if arg != "drawer"]
        return QUANTITIES[self.quantity].measure(facts, *blocks)

    def satisfied(self, values: np.ndarray) -> np.ndarray:
        return values < self.threshold if self.less else values > self.threshold


@dataclass(frozen=True)
class Invented:
    """A named predicate: all of one or two comparisons. Its text form reads back equal."""

    name: str
    comparisons: tuple[Comparison, ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z_0-9]{2,60}", self.name) or self.name in PREDICATES:
            raise InventionError(
                f"{self.name!r} cannot name a predicate: lower-case words that the vocabulary lacks can"
            )
        if not 1 <= len(self.comparisons) <= 2:
            raise InventionError(f"{self.name} has {len(self.comparisons)} comparisons; a predicate has one or two")

    @property
    def args(self) -> tuple[str, ...]:
        return tuple(sorted({arg for comparison in self.comparisons for arg in comparison.args}))

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.args)}) := {' & '.join(map(str, self.comparisons))}"

    @classmethod
    def parse(cls, text: str) -> Invented:
        """Inverse of ``str``; InventionError says what does not fit the grammar."""
        head, sign, body = text.partition(":=")
        parts = [_COMPARISON.fullmatch(part) for part in body.split("&")]
        if len(text) > 400 or not sign or not all(parts):
            raise InventionError(f"{text[:80]!r} is not a predicate such as 'near(?a, ?b) := gap(?a, ?b) < 0.051'")
        found = [
            Comparison(m[1], tuple(a.strip() for a in m[2].split(",") if a.strip()), m[3] == "<", float(m[4]))
            for m in parts if m is not None
        ]  # fmt: skip
        return cls(head.partition("(")[0].strip(), tuple(found))

    def atom(self, names: Mapping[str, str]) -> str:
        """The fact's text with variables bound."""
        return f"{self.name}({', '.join(names.get(arg, arg) for arg in self.args)})"

    def holds(self, facts: np.ndarray, names: Mapping[str, str]) -> np.ndarray:
        """Truth bool[n] on facts float[n, NX], variables bound to blocks."""
        return np.all([c.satisfied(c.values(facts, names)) for c in self.comparisons], axis=0)


def extend(states: Sequence[dict[str, bool]], facts: np.ndarray, inventions: Iterable[Invented]) -> None:
    """Adds every ground fact of invented predicates to symbolic states, one for each row of facts float[n, NX]."""
    for invented in inventions:
        variables = [arg for arg in invented.args if arg.startswith("?")]
        for blocks in permutations(BLOCKS, len(variables)):
            names = dict(zip(variables, blocks, strict=True))
            for state, holds in zip(states, invented.holds(facts, names), strict=True):
                state[invented.atom(names)] = bool(holds)
