"""English instructions <-> goals, exactly for the closed grammar.

`describe` speaks a goal, `parse_instruction` reads one; every paraphrase the first can draw is read back as
the same goal. Reading is tolerant of case, articles, commas, politeness, "cube" for "block", left-out verbs
("put the red block on the cabinet and the blue one in the drawer") and "both blocks". "and" joins what must
hold together; "then", a full stop or a semicolon starts a new stage. "it" is the drawer after "open" and
"close", the lamp after "switch", and otherwise the block that was last handled.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from envs import phrases
from envs.goals import Goal, GoalError, Literal, UnknownWordError
from envs.vocabulary import ANYWHERE, BLOCKS, OBJECTS, PLACES, PREDICATES, names_of

if TYPE_CHECKING:
    import numpy as np

_MARKS = ".;!?"
_NOUN = (
    rf"(?:{'|'.join(BLOCKS)})(?: block| one)?|drawer|lamp|light|cabinet|table|it"
    r"|both(?: blocks?| ones?)?|block|one"
)
_PREPOSITION = "|".join(phrases.STANDING + phrases.MOVING)
_PLACE = (
    rf"(?:(?:{_PREPOSITION}) )?(?:{'|'.join(PLACES)})(?: (?:spot|side|end|place))?(?: of table)?"
    rf"|(?:(?:{_PREPOSITION}) )?(?:any|some|marked) spot(?: on table)?"
    r"|(?:any|some)where(?: on table)?|(?:on|onto) table"
)
_PAIR = re.compile(  # "lift the red and the blue block": the pair that follows a verb means both
    rf"\b(\w+) ({'|'.join(BLOCKS)})(?: block)? and (?!\2)(?:{'|'.join(BLOCKS)})(?: blocks?)?\b"
)
_JOINTS = (", then ", " then ", ", and then ", " and then ", ". Then ", " and after that ")
_ORDER = list(PREDICATES)  # the natural order to say things in; "closed" comes last


def describe(goal: Goal, rng: np.random.Generator | None = None) -> str:
    """English instruction for a goal: the canonical one, or a paraphrase drawn with ``rng``."""
    if rng is None:
        plain = (" and ".join(_command(x, None) for x in spoken(stage)) for stage in goal.stages)
        return ", then ".join(plain)
    stages = []
    for stage in goal.stages:
        literals = spoken(stage)
        if rng.random() < 0.3:
            literals = [literals[i] for i in rng.permutation(len(literals))]
        clauses = [_command(literal, rng) for literal in literals]
        head = ", ".join(clauses[:-1])
        stages.append(f"{head} and {clauses[-1]}" if head else clauses[-1])
    text = stages[0]
    for stage in stages[1:]:
        text += _pick(_JOINTS, rng) + stage
    if rng.random() < 0.5:
        text = _with_pronoun(text, goal, rng)
    text = _pick(("{}", "{}", "please {}", "{}, please", "could you {}?", "now {}"), rng).format(text)
    return text[0].upper() + text[1:] + _pick(("", ".", "!"), rng) if rng.random() < 0.5 else text


def state_text(literal: Literal) -> str:
    """What the world is like when the literal holds: ``"the red block is on the cabinet"``."""
    return _fill(_states(literal)[0], literal, None)


def parse_instruction(text: str) -> Goal:
    """English, or a goal's text form, -> Goal.

    Raises UnknownWordError for words outside the vocabulary and GoalError for known words in a sentence that
    says nothing the robot can check, each with one sentence that lists what it knows.
    """
    if "(" in text:
        return Goal.parse(text)
    words = _words(text)
    context: list[Literal] = []
    stages: list[list[Literal]] = []
    verb = ""
    for stage in _split(words):
        literals: list[Literal] = []
        for clause in stage:
            for part in _both(clause):
                literal = _read(part, context) or _read(f"{verb} {part}", context)
                if literal is None:
                    raise _not_understood(part, words)
                literals.append(literal)
                context.append(literal)
            if clause.split()[0] in _verbs():
                verb = clause.split()[0]
        stages.append(literals)
    if not stages:
        raise GoalError(f"the instruction {text!r} asks for nothing; I can {phrases.ABILITIES}")
    return Goal(tuple(map(tuple, stages)))


# speaking ------------------------------------------------------------------------------------------------


def spoken(stage: tuple[Literal, ...]) -> list[Literal]:
    """A stage's literals in the order a person would say them, "closed" last."""
    return sorted(stage, key=lambda x: (x.predicate == "closed", _ORDER.index(x.predicate), x))


def _pick(options: tuple[str, ...], rng: np.random.Generator | None) -> str:
    return options[0] if rng is None else options[int(rng.integers(len(options)))]


def _states(literal: Literal) -> tuple[str, ...]:
    key = (literal.predicate, literal.positive)
    if key in phrases.STATES:
        return phrases.STATES[key]
    return tuple(state.replace(" is ", " is not ", 1) for state in phrases.STATES[literal.predicate, True])


def _command(literal: Literal, rng: np.random.Generator | None) -> str:
    commands = phrases.COMMANDS.get((literal.predicate, literal.positive), ())
    if not commands or (rng is not None and rng.random() < 0.2):
        return f"{_pick(phrases.ASSURANCES, rng)} {_fill(_pick(_states(literal), rng), literal, rng)}"
    return _fill(_pick(commands, rng), literal, rng)


def _fill(template: str, literal: Literal, rng: np.random.Generator | None) -> str:
    args = literal.args
    if rng is not None and literal.predicate == "next_to" and rng.random() < 0.5:
        args = args[::-1]
    if len(args) == 2 and (args[1] in PLACES or args[1] == ANYWHERE):
        standing, moving = _place(args[1], phrases.STANDING, rng), _place(args[1], phrases.MOVING, rng)
        return template.format(_pick(phrases.NOUNS[args[0]], rng), standing, to=moving)
    return template.format(*(_pick(phrases.NOUNS[arg], rng) for arg in args))


def _place(name: str, prepositions: tuple[str, ...], rng: np.random.Generator | None) -> str:
    if name == ANYWHERE:
        return _pick(phrases.ANY_SPOT, rng)
    return f"{prepositions[0]} {_pick(phrases.SPOTS[name], rng)}"


def _with_pronoun(text: str, goal: Goal, rng: np.random.Generator) -> str:
    """Replace one repeated noun phrase by "it" where the sentence still reads as the same goal."""
    names = {noun: name for name, row in phrases.NOUNS.items() for noun in row}
    matches = list(re.finditer("|".join(names), text))
    spans = [m.span() for i, m in enumerate(matches) if names[m[0]] in {names[n[0]] for n in matches[:i]}]
    for i in rng.permutation(len(spans)):
        start, end = spans[i]
        changed = f"{text[:start]}it{text[end:]}"
        try:
            if parse_instruction(changed) == goal:
                return changed
        except GoalError:
            continue
    return text


# reading -------------------------------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    tokens = re.findall(r"[\w'-]+|[,.;!?]", text.lower().replace("\u2019", "'"))
    line = " ".join(w for w in tokens if w not in phrases.ARTICLES)
    for phrase, other in phrases.PHRASES.items():
        line = re.sub(rf"(?<![\w']){re.escape(phrase)}(?![\w'])", other, line)
    words = [phrases.SYNONYMS.get(w, w) for w in line.split()]
    line = " ".join(w for w in words if w not in phrases.FILLERS)
    return _PAIR.sub(lambda m: f"{m[1]} both" if m[1] in {*_verbs(), "up", "down"} else m[0], line).split()


@lru_cache(maxsize=1)
def _verbs() -> frozenset[str]:
    templates = [t for row in phrases.COMMANDS.values() for t in row]
    return frozenset(t.split()[0] for t in (*templates, *phrases.ASSURANCES))


def _split(words: list[str]) -> list[list[str]]:
    """Words -> stages of clauses; a comma separates only where a verb follows."""
    stages: list[list[list[str]]] = [[[]]]
    for i, word in enumerate(words):
        follower = next((w for w in words[i + 1 :] if w not in {"and", "then", ","}), "")
        if word == "then" or word in _MARKS:
            stages.append([[]])
        elif word == "and" or (word == "," and follower in _verbs()):
            stages[-1].append([])
        elif word != ",":
            stages[-1][-1].append(word)
    clauses = [[" ".join(clause) for clause in stage if clause] for stage in stages]
    return [stage for stage in clauses if stage]


def _both(clause: str) -> list[str]:
    match = re.search(r"\bboth(?: blocks?| ones?)?\b", clause)
    if match is None:
        return [clause]
    return [f"{clause[: match.start()]}{block}{clause[match.end() :]}" for block in BLOCKS]


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[re.Pattern[str], str, bool]]:
    """Every template as a pattern with groups a0, a1 (arguments in the literal's order)."""
    assurance = "(?:(?:make sure|see to it|ensure)(?: that)? )?"
    rows = [("", t, key) for key, row in phrases.COMMANDS.items() for t in row]
    rows += [(assurance, t, key) for key, row in phrases.STATES.items() for t in row]
    rows += [(assurance, t.replace(" is ", " is not ", 1), (name, False))
             for (name, sign), row in phrases.STATES.items() if sign for t in row]  # fmt: skip
    patterns = []
    for prefix, template, (name, sign) in rows:
        plain = " ".join(w for w in template.split() if w not in phrases.ARTICLES)
        second = _PLACE if PREDICATES[name][-1] == "place" else _NOUN
        slots = {"{to}": f"(?P<a1>{second})", "{0}": f"(?P<a0>{_NOUN})", "{1}": f"(?P<a1>{second})"}
        body = re.sub(r"\{\w+\}", lambda slot, slots=slots: slots[slot[0]], plain)
        patterns.append((re.compile(prefix + body), name, sign))
    return patterns


def _read(clause: str, context: list[Literal]) -> Literal | None:
    """The literal a clause means, or None; raises GoalError where it reads but fits no type."""
    error: GoalError | None = None
    for pattern, name, sign in _patterns():
        match = pattern.fullmatch(clause)
        if match is None:
            continue
        try:
            return Literal(name, _arguments(name, match, context), sign)
        except GoalError as problem:
            error = error or problem
    if error is not None:
        raise error
    return None


def _arguments(name: str, match: re.Match[str], context: list[Literal]) -> tuple[str, ...]:
    types = PREDICATES[name]
    args: list[str] = []
    for i, kind in enumerate(types):
        phrase = match[f"a{i}"]
        args.append(_place_name(phrase) if kind == "place" else _object_name(phrase))
    for i, kind in enumerate(types):
        if args[i] == "it":
            args[i] = _antecedent(kind, {a for j, a in enumerate(args) if j != i}, context)
    return tuple(args)


def _place_name(phrase: str) -> str:
    return next((word for word in phrase.split() if word in PLACES), ANYWHERE)


def _object_name(phrase: str) -> str:
    word = phrase.split()[0].replace("light", "lamp")
    if word not in OBJECTS and word != "it":
        raise GoalError(f"say which block you mean, {' or '.join(BLOCKS)}")
    return word


def _antecedent(types: str, others: set[str], context: list[Literal]) -> str:
    fitting = [name for name in names_of(types) if name not in others]
    if "block" not in types.split("|"):
        return fitting[0]  # there is one drawer and one lamp
    for literal in reversed(context):
        for arg in literal.args:
            if arg in fitting and arg in BLOCKS:
                return arg
    if len(fitting) == 1:
        return fitting[0]
    raise GoalError(f"I cannot tell what 'it' means; name one of {', '.join(fitting)}")


@lru_cache(maxsize=1)
def _lexicon() -> frozenset[str]:
    source = " ".join(pattern.pattern for pattern, _, _ in _patterns())
    known = set(re.findall(r"[a-z]+", re.sub(r"\?P<\w+>", " ", source)))
    return frozenset(known | {"blocks", "ones", "and", "then", "both", "anywhere", "somewhere", *",.;!?"})


def _not_understood(clause: str, words: list[str]) -> GoalError:
    unknown = tuple(dict.fromkeys(w for w in words if w not in _lexicon()))
    things = ", ".join(noun[0].removeprefix("the ") for noun in phrases.NOUNS.values())
    places = ", ".join((*PLACES, ANYWHERE))
    known = f"I know the objects {things}, the places {places}, and I can {phrases.ABILITIES}"
    if unknown:
        listed = " and ".join(repr(w) for w in unknown)
        return UnknownWordError(f"I don't know {listed}: {known}", unknown)
    return GoalError(f"I know the words of {clause!r} but not what it asks: {known}")
