"""The English of the vocabulary: sentence templates, noun phrases and words that carry no meaning.

One table serves both directions: `envs.instructions` fills the templates in to speak and turns the same
templates into patterns to understand, so a paraphrase that can be said can also be read. ``{0}`` and ``{1}``
are the literal's arguments; ``{to}`` is a place (argument 1) reached by a motion. The first template of a
row is the canonical one.
"""

from __future__ import annotations

COMMANDS: dict[tuple[str, bool], tuple[str, ...]] = {
    ("open", True): ("open {0}", "pull {0} open", "pull out {0}", "slide {0} open", "open up {0}"),
    ("closed", True): ("close {0}", "shut {0}", "push {0} shut", "slide {0} closed", "push {0} in"),
    ("lit", True): (
        "turn on {0}",
        "turn {0} on",
        "switch on {0}",
        "switch {0} on",
        "light up {0}",
        "light {0}",
    ),
    ("lit", False): ("turn off {0}", "turn {0} off", "switch off {0}", "switch {0} off", "put out {0}"),
    ("holding", True): ("hold {0}", "grasp {0}", "grab {0}", "grip {0}", "take hold of {0}"),
    ("lifted", True): (
        "lift {0}",
        "pick up {0}",
        "pick {0} up",
        "raise {0}",
        "lift {0} up",
        "hold {0} up in the air",
        "hold {0} in the air",
        "lift up {0}",
    ),
    ("touching", True): ("touch {0}", "tap {0}", "make contact with {0}", "feel {0}"),
    ("clear", True): ("clear {0}", "clear the top of {0}", "uncover {0}", "free the top of {0}"),
    ("at", True): ("push {0} {to}", "slide {0} {to}", "move {0} {to}", "bring {0} {to}", "get {0} {to}"),
    ("placed", True): (
        "put {0} {1}",
        "place {0} {1}",
        "set {0} down {1}",
        "put {0} down {1}",
        "carry {0} {to}",
        "put down {0} {1}",
    ),
    ("on", True): (
        "put {0} on {1}",
        "stack {0} on {1}",
        "place {0} on top of {1}",
        "put {0} on top of {1}",
        "set {0} down on {1}",
        "place {0} on {1}",
        "stack {0} on top of {1}",
        "put {0} onto {1}",
    ),
    ("inside", True): (
        "put {0} in {1}",
        "put {0} into {1}",
        "place {0} inside {1}",
        "drop {0} into {1}",
        "store {0} in {1}",
        "put {0} away in {1}",
        "place {0} in {1}",
        "put {0} inside {1}",
    ),
    ("left_of", True): (
        "put {0} to the left of {1}",
        "place {0} left of {1}",
        "move {0} to the left of {1}",
        "put {1} to the right of {0}",
        "move {1} to the right of {0}",
        "put {0} left of {1}",
    ),
    ("in_front_of", True): (
        "put {0} in front of {1}",
        "place {0} in front of {1}",
        "move {0} in front of {1}",
        "put {1} behind {0}",
        "move {1} behind {0}",
        "set {0} down in front of {1}",
    ),
    ("next_to", True): (
        "put {0} next to {1}",
        "place {0} beside {1}",
        "move {0} next to {1}",
        "put {0} beside {1}",
        "put {0} close to {1}",
        "put {0} near {1}",
    ),
}

STATES: dict[tuple[str, bool], tuple[str, ...]] = {  # the canonical one is what the robot says of the world
    ("open", True): ("{0} is open", "{0} is pulled out"),
    ("closed", True): ("{0} is closed", "{0} is shut"),
    ("lit", True): ("{0} is on", "{0} is lit", "{0} is switched on"),
    ("lit", False): ("{0} is off", "{0} is switched off", "{0} is not lit", "{0} is not on"),
    ("holding", True): ("{0} is held", "{0} is in your hand", "{0} is gripped"),
    ("lifted", True): ("{0} is up in the air", "{0} is lifted", "{0} is in the air"),
    ("touching", True): ("{0} is touched", "{0} is in contact with a finger"),
    ("clear", True): ("{0} is clear", "{0} is clear on top"),
    ("at", True): ("{0} is {1}", "{0} is standing {1}"),
    ("placed", True): ("{0} is placed {1}", "{0} is put down {1}"),
    ("on", True): ("{0} is on {1}", "{0} is on top of {1}"),
    ("inside", True): ("{0} is inside {1}", "{0} is in {1}"),
    ("left_of", True): ("{0} is to the left of {1}", "{0} is left of {1}", "{1} is to the right of {0}"),
    ("in_front_of", True): ("{0} is in front of {1}", "{1} is behind {0}"),
    ("next_to", True): ("{0} is next to {1}", "{0} is beside {1}"),
}

ASSURANCES = ("make sure", "make sure that", "see to it that", "ensure that", "ensure")

NOUNS: dict[str, tuple[str, ...]] = {  # name -> noun phrases, the canonical one first
    "red": ("the red block", "the red cube", "the red one"),
    "blue": ("the blue block", "the blue cube", "the blue one"),
    "drawer": ("the drawer",),
    "lamp": ("the lamp", "the light"),
    "cabinet": ("the cabinet", "the cupboard"),
    "table": ("the table",),
}

SPOTS: dict[str, tuple[str, ...]] = {  # place -> phrases that follow a preposition
    "left": ("the left spot", "the left side", "the left"),
    "right": ("the right spot", "the right side", "the right"),
    "centre": ("the centre spot", "the centre", "the middle of the table", "the center"),
    "near": ("the near spot", "the near side", "the near side of the table"),
    "far": ("the far spot", "the far side", "the far end of the table"),
}
STANDING, MOVING = ("at", "on", "in"), ("to", "onto", "into")  # the first of each is the one spoken
ANY_SPOT = ("anywhere on the table", "somewhere on the table", "anywhere", "at any spot on the table")

SYNONYMS = {"cube": "block", "cubes": "blocks", "center": "centre", "middle": "centre", "cupboard": "cabinet",
            "afterwards": "then", "finally": "then", "atop": "on"}  # fmt: skip
PHRASES = {  # rewritten before anything else, on words without articles
    "isn't": "is not",
    "after that": "then",
    "and then": "then",
    "on to": "onto",
    "in to": "into",
    "for me": "",
    "i want you to": "",
    "i would like you to": "",
    "i'd like you to": "",
    "can you": "",
    "could you": "",
    "would you": "",
    "will you": "",
    "try to": "",
}
ARTICLES = frozenset({"the", "a", "an"})
FILLERS = frozenset({"please", "now", "kindly", "just", "robot", "hey", "also", "first"})

ABILITIES = (
    "open and close the drawer, switch the lamp on and off, and touch, hold, lift, uncover, push or place a "
    "block, stack it, put it in the drawer or on the cabinet, or put it beside or in front of the other"
)
