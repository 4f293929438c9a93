"""A scene's closed vocabulary: typed predicates over the things that are in it, as terms and as English.

=================== =============================================================================================
open(d), closed(d)  a drawer or door is open (three quarters of its travel and more), or closed
lit(l)              the lamp shines
toggled(l)          the lamp is now what it was not when the goal began: its button was pressed
touching(b)         the fingers are at the block
holding(b)          the block is gripped between the fingers
lifted(b)           … and held up in the air
at(b, p)            the block rests, released, on the table at the place
placed(b, p)        ``at``, and carried there through the air since the goal began
on(b, c)            the block rests, released, on the other block
inside(b, c)        the block lies, released, in the drawer or on the shelf
taken_out(b, c)     it was inside when the goal began, and lies on the table now
swept(b)            it was slid along the table, 8 cm or more, since the goal began, and rests
swept_left(b)       … 8 cm or more to the robot's left (+y); swept_right(b): to its right
turned_left(b)      it was turned by 60 degrees or more to the left, where it was (within 10 cm); turned_right(b)
toppled(b)          it stood when the goal began, and lies on a side now
moved_left(b)       it is 8 cm or more to the robot's left (+y) of where it was when the goal began, on the table or in
                    the gripper, however it came there; moved_right(b), moved_away(b) (+x), moved_near(b) (-x)
=================== =============================================================================================

Facts that look back (``toggled``, ``placed``, ``taken_out``, ``swept``, ``turned``, ``toppled``, ``moved``) are
judged on the change since the goal began.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np

__all__ = ["ANYWHERE", "MAX_TERMS", "PREDICATES", "Term", "Vocabulary", "WordError", "sayable"]

ANYWHERE = "anywhere"
MAX_TERMS = 4
PREDICATES: dict[str, tuple[str, ...]] = {  # name -> kinds of its arguments; "a|b" means either
    "open": ("drawer|door",),
    "closed": ("drawer|door",),
    "lit": ("lamp",),
    "toggled": ("lamp",),
    "touching": ("block",),
    "holding": ("block",),
    "lifted": ("block",),
    "at": ("block", "place"),
    "placed": ("block", "place"),
    "on": ("block", "block"),
    "inside": ("block", "drawer|shelf"),
    "taken_out": ("block", "drawer|shelf"),
    "swept": ("block",),
    "swept_left": ("block",),
    "swept_right": ("block",),
    "turned_left": ("block",),
    "turned_right": ("block",),
    "toppled": ("block",),
    "moved_left": ("block",),
    "moved_right": ("block",),
    "moved_away": ("block",),
    "moved_near": ("block",),
}
_PHRASES: dict[str, tuple[str, ...]] = {
    "open": ("open the {0}", "pull the {0} open"),
    "closed": ("close the {0}", "shut the {0}", "push the {0} shut"),
    "lit": ("turn on the {0}", "switch on the {0}", "light the {0}"),
    "not lit": ("turn off the {0}", "switch off the {0}"),
    "toggled": ("press the button of the {0}", "switch the {0}", "push the button of the {0}"),
    "touching": ("touch the {0}",),
    "holding": ("grasp the {0}", "hold the {0}"),
    "lifted": ("lift the {0}", "pick up the {0}", "raise the {0}"),
    "at": ("have the {0} at {1}",),
    "placed": ("put the {0} at {1}", "place the {0} at {1}", "carry the {0} to {1}"),
    "on": ("put the {0} on the {1}", "stack the {0} on the {1}", "place the {0} on top of the {1}"),
    "inside": ("put the {0} into the {1}", "store the {0} in the {1}", "place the {0} in the {1}"),
    "taken_out": ("take the {0} out of the {1}", "pull the {0} out of the {1}"),
    "swept": ("sweep the {0}", "slide the {0} along the table"),
    "swept_left": ("sweep the {0} to the left", "push the {0} to the left"),
    "swept_right": ("sweep the {0} to the right", "push the {0} to the right"),
    "turned_left": ("turn the {0} to the left", "rotate the {0} left"),
    "turned_right": ("turn the {0} to the right", "rotate the {0} right"),
    "toppled": ("knock over the {0}", "topple the {0}", "knock the {0} over"),
    "moved_left": ("move the {0} to the left", "shift the {0} to the left"),
    "moved_right": ("move the {0} to the right", "shift the {0} to the right"),
    "moved_away": ("move the {0} away", "shift the {0} away", "push the {0} away"),
    "moved_near": ("move the {0} nearer", "shift the {0} nearer", "pull the {0} nearer"),
}
_TERM = re.compile(r"(?P<no>not\s+)?(?P<name>\w+)\s*\(\s*(?P<args>[^()]*?)\s*\)", re.IGNORECASE)
_NEEDLESS = (re.compile(r"\b(please|could you|now)\b"), re.compile(r"\b(a|an)\b"))
_CLAUSES = re.compile(r"\band\b|,|;|\bthen\b")
_CLASHES = (
    ("open", "closed"),
    ("swept_left", "swept_right"),
    ("turned_left", "turned_right"),
    ("moved_left", "moved_right"),
    ("moved_away", "moved_near"),
    ("swept_left", "moved_right"),
    ("swept_right", "moved_left"),
)


def sayable(name: str) -> bool:
    """Whether a thing can be called so: it is a word or more, and does not read like the end of a clause."""
    return bool(_plain(name)) and "(" not in name and not _CLAUSES.search(name.lower())


def _plain(text: str) -> str:
    """Lower case, without punctuation and "the"."""
    return " ".join(word for word in re.findall(r"\w+", text.lower()) if word != "the")


class WordError(ValueError):
    """A goal or an instruction outside a scene's vocabulary; the sentence lists what is in it."""


@dataclass(frozen=True, order=True)
class Term:
    """One fact, or its negation."""

    predicate: str
    args: tuple[str, ...]
    positive: bool = True

    def __str__(self) -> str:
        return f"{'' if self.positive else 'not '}{self.predicate}({', '.join(self.args)})"


@dataclass(frozen=True)
class Vocabulary:
    """``kinds``: thing -> kind; ``places``: place -> (x, y) m; ``says``: thing -> how it is called in English."""

    kinds: Mapping[str, str]
    places: Mapping[str, tuple[float, float]]
    says: Mapping[str, str] = field(default_factory=dict)

    def of_kind(self, kinds: str) -> tuple[str, ...]:
        """Every thing (or place) that fits a predicate's argument, such as ``drawer|shelf``."""
        names: list[str] = []
        for kind in kinds.split("|"):
            names += (*self.places, ANYWHERE) if kind == "place" else [n for n, k in self.kinds.items() if k == kind]
        return tuple(names)

    def index(self, kind: str, name: str) -> int:
        """The number of a thing among those of its kind ("container": drawers and shelves; "slide": drawers, doors)."""
        group = {"container": "drawer|shelf", "slide": "drawer|door"}.get(kind, kind)
        return [n for n, k in self.kinds.items() if k in group.split("|")].index(name)

    def predicates(self) -> tuple[str, ...]:
        """Predicates that can be said of something here."""
        return tuple(p for p, kinds in PREDICATES.items() if all(self.of_kind(kind) for kind in kinds))

    def parse(self, text: str) -> tuple[Term, ...]:
        """A conjunction such as ``open(drawer) & not lit(lamp)``; raises WordError."""
        terms = tuple(dict.fromkeys(self._term(part) for part in text.split("&")))
        if len(terms) > MAX_TERMS:
            raise WordError(f"'{text}' has {len(terms)} terms; at most {MAX_TERMS} can be judged together")
        for a, b in product(terms, terms):
            same = a.args == b.args
            against = a.predicate == b.predicate and a.positive != b.positive
            clash = a.positive and b.positive and (a.predicate, b.predicate) in _CLASHES
            if same and (against or clash):
                raise WordError(f"'{text}' is impossible: {a} and {b} exclude one another")
        return tuple(sorted(terms))

    def _term(self, text: str) -> Term:
        match = _TERM.fullmatch(text.strip())
        if match is None:
            raise WordError(f"'{text.strip()}' is not a fact such as open(drawer)")
        name, args = match["name"].lower(), tuple(a.strip() for a in match["args"].split(","))
        kinds = PREDICATES.get(name)
        if kinds is None or name not in self.predicates():
            raise WordError(f"unknown predicate '{name}'; in this scene there are: {', '.join(self.predicates())}")
        if len(args) != len(kinds):
            raise WordError(f"{name} takes {len(kinds)} argument(s), not {len(args)}: {', '.join(args)}")
        for arg, kind in zip(args, kinds, strict=True):
            if arg not in self.of_kind(kind):
                raise WordError(f"'{arg}' does not fit in {name}; valid: {', '.join(self.of_kind(kind))}")
        if len(set(args)) < len(args):
            raise WordError(f"{name}({', '.join(args)}) is impossible: the two must differ")
        return Term(name, args, match["no"] is None)

    def describe(self, goal: str, rng: np.random.Generator | None = None) -> str:
        """English for a goal: the canonical sentence, or a paraphrase drawn with ``rng``."""
        clauses = []
        for term in self.parse(goal):
            phrases = self._phrases(term)
            clauses.append(phrases[0] if rng is None else phrases[int(rng.integers(len(phrases)))])
        return " and ".join(clauses)

    def paraphrases(self, goal: str) -> tuple[str, ...]:
        """Every English sentence that `describe` may give for a goal, the canonical one first."""
        return tuple(" and ".join(clauses) for clauses in product(*map(self._phrases, self.parse(goal))))

    def understand(self, instruction: str) -> str:
        """The goal of an English instruction (or a goal as it is); raises WordError listing what can be asked for."""
        if "(" in instruction:
            return " & ".join(map(str, self.parse(instruction)))
        known = self._sentences
        terms = []
        for clause in _CLAUSES.split(instruction.lower()):
            words = _plain(clause)
            for needless in _NEEDLESS:  # only where it has to go: things may be called a and b
                if words not in known:
                    words = " ".join(needless.sub("", words).split())
            if not words:
                continue
            if words not in known:
                raise WordError(f"'{clause.strip()}' is not understood; I can: {'; '.join(self._examples())}")
            terms.append(known[words])
        if not terms:
            raise WordError(f"'{instruction}' asks for nothing; I can: {'; '.join(self._examples())}")
        return " & ".join(map(str, self.parse(" & ".join(map(str, terms)))))

    def terms(self) -> list[Term]:
        """Every positive fact that can be said here."""
        found = []
        for predicate in self.predicates():
            for args in product(*(self.of_kind(kind) for kind in PREDICATES[predicate])):
                if len(set(args)) == len(args):
                    found.append(Term(predicate, args))
        return found

    def _phrases(self, term: Term) -> list[str]:
        key = str(term).split("(")[0]
        said = [self.says.get(arg, arg.replace("_", " ")) for arg in term.args]
        templates = _PHRASES.get(key)
        if templates is None:
            return [f"make sure it is not so that {_PHRASES[term.predicate][0].format(*said)}"]
        return [template.format(*said) for template in templates]

    @cached_property
    def _sentences(self) -> dict[str, Term]:
        found = {}
        for term in self.terms():
            for one in (term, Term(term.predicate, term.args, False)):
                for phrase in self._phrases(one):
                    found[_plain(phrase)] = one
        return found

    def _examples(self) -> list[str]:
        first = {term.predicate: self._phrases(term)[0] for term in reversed(self.terms())}
        return sorted(first.values())
