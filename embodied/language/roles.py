"""The roles of the language agent, as checked messages: what each is asked and what it may reply.

Goals are text forms of the closed grammar and are parsed on the way in: a message cannot hold anything the
simulator could not judge, and a proposal cannot be impossible. Truth tables are bool[T+1, L]: whether each of
L literals held at each of T+1 steps, as judged by the simulator.

======== ================================================================================
propose  which goals to practise next, given what was tried and what is mastered
relabel  which goals an episode reached, whatever it was meant for, and at which step
judge    whether an episode reached a given goal
plan     which skills, in which order, take the facts of now to a goal
analyse  whether a learning curve has converged
answer   what the robot says about what it did
describe what a skill is called, when to use it and when not, and which skills are one (the librarian)
======== ================================================================================
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from embodied.curriculum.proposer import Record
from envs.goals import Goal, GoalError, impossible_reason
from envs.goals import Literal as Fact


def _goal(text: str) -> str:
    return str(Goal.parse(text))


def _possible(text: str) -> str:
    reason = impossible_reason(Goal.parse(text))
    if reason:
        raise GoalError(f"'{text}' is impossible because {reason}")
    return _goal(text)


def _fact(text: str) -> str:
    return str(Fact.parse(text))


def _table(value: Any) -> np.ndarray:
    table = np.asarray(value)
    if table.ndim != 2 or not np.isin(table, (0, 1)).all():
        raise ValueError(f"a truth table is bool[steps + 1, literals], not {table.dtype}{list(table.shape)}")
    return table.astype(np.bool_)


def _printable(text: str) -> str:
    if not text.isprintable():  # it may reach a terminal
        raise ValueError("a sentence holds no control characters")
    return text


def _pictures(frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
    for frame in frames:
        if not frame.startswith(b"\x89PNG\r\n\x1a\n") or len(frame) > PICTURE_BYTES:
            raise ValueError(f"a frame is a PNG of at most {PICTURE_BYTES:,} bytes, not {len(frame):,} of something")
    return frames


PICTURE_BYTES, PICTURES = 2_000_000, 8
GoalText = Annotated[str, Field(max_length=1_000), AfterValidator(_goal)]
PossibleGoal = Annotated[str, Field(max_length=1_000), AfterValidator(_possible)]
FactText = Annotated[str, Field(max_length=200), AfterValidator(_fact)]
Frames = Annotated[tuple[bytes, ...], Field(max_length=PICTURES), AfterValidator(_pictures)]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Sentence = Annotated[str, Field(min_length=1, max_length=600, pattern=r"^[^\n]+$"), AfterValidator(_printable)]
SkillName = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
HANDBOOK_TOKENS = 120
TruthTable = Annotated[
    np.ndarray, BeforeValidator(_table), PlainSerializer(lambda table: table.astype(int).tolist(), list)
]


class Message(BaseModel):
    """Base of every message: immutable, and unknown fields are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False,
        ser_json_bytes="base64", val_json_bytes="base64",
    )  # fmt: skip


class ProposeRequest(Message):
    """What was tried so far. ``excluded`` may be goals or English; ``recent`` are the latest proposals.

    ``mode`` is how the embedded proposer chooses; ``gains`` what practice of each schema was paid, for "soar".
    ``frames`` are pictures of the scene, for a backend that sees.
    """

    records: tuple[Record, ...] = ()
    excluded: tuple[str, ...] = ()
    recent: tuple[GoalText, ...] = ()
    count: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    mode: Literal["progress", "uniform", "sec", "soar", "uncertainty"] = "progress"
    gains: dict[str, tuple[float, ...]] = {}
    frames: Frames = ()


class Proposal(Message):
    """One goal to practise, and why."""

    goal: PossibleGoal
    reason: Sentence
    score: float = 0.0


class ProposeReply(Message):
    """Proposals, best first; none where nothing is left to learn."""

    proposals: tuple[Proposal, ...]


class _Judged(Message):
    literals: tuple[FactText, ...]
    truth: TruthTable

    @model_validator(mode="after")
    def _columns(self) -> _Judged:
        if self.truth.shape[1] != len(self.literals) or not len(self.truth):
            raise ValueError(f"{len(self.literals)} literals need as many columns, not {self.truth.shape[1]}")
        return self


class RelabelRequest(_Judged):
    """An episode's truth table; with ``pairs``, conjunctions of two goals it reached are wanted too."""

    pairs: bool = False


class Reached(Message):
    """A goal that was false when the episode began and holds at its end, since ``step``."""

    goal: PossibleGoal
    step: int = Field(ge=1)


class RelabelReply(Message):
    """Every goal reached, earliest first."""

    reached: tuple[Reached, ...]


class JudgeRequest(_Judged):
    """An episode's truth table and a goal; a stage counts once it held ``hold`` steps in a row.

    ``frames`` are pictures of the episode in order, for a backend that sees.
    """

    goal: GoalText
    hold: int = Field(default=5, ge=1)
    frames: Frames = ()


class JudgeReply(Message):
    """The judgement, the step it was reached at, and the kind of evidence it rests on."""

    success: bool
    step: int | None
    evidence: Literal["simulator", "judge", "language"]
    reason: Sentence


class PlanRequest(Message):
    """The goal, the facts of now, learnt operators (`Operator.to_dict`) and the goals skills may be given.

    ``operators`` None means the ones the backend holds; ``allowed`` None means every goal of their schemas.
    """

    goal: GoalText
    facts: dict[FactText, bool]
    operators: tuple[dict[str, Any], ...] | None = None
    allowed: tuple[GoalText, ...] | None = None


class PlanStep(Message):
    """One skill of a plan: its schema and the goal it is given."""

    skill: str
    goal: PossibleGoal
    probability: Rate = 0.5


class PlanReply(Message):
    """Steps in order, or an explanation why there are none; both empty where the goal holds already."""

    steps: tuple[PlanStep, ...]
    probability: Rate
    explanation: str = ""

    @model_validator(mode="after")
    def _either(self) -> PlanReply:
        if self.steps and self.explanation:
            raise ValueError("a reply holds steps or an explanation, not both")
        return self


class AnalyseRequest(Message):
    """A goal's learning curve: evaluations (successes, n), oldest first; ``threshold`` is the gate's."""

    goal: GoalText
    curve: tuple[tuple[int, int], ...]
    threshold: Rate = 0.8


class AnalyseReply(Message):
    """The verdict on a curve, the interval of its level, its slope per evaluation and the test's p-value."""

    state: Literal["mastered", "improving", "declining", "converged", "undecided"]
    converged: bool
    rate: Rate
    low: Rate
    high: Rate
    slope: float
    p_value: Rate
    reason: Sentence


class AnswerRequest(Message):
    """What came of an instruction; ``goal`` None where it was not understood, ``reason`` then says why.

    ``holds`` gives each literal of the goal and whether it holds at the end, ``done`` the goals of the skills
    that were run and whether each was reached, ``seconds`` of simulated time.
    """

    instruction: str
    goal: GoalText | None = None
    success: bool = False
    holds: dict[FactText, bool] = {}
    done: tuple[tuple[GoalText, bool], ...] = ()
    seconds: float = Field(default=0.0, ge=0.0)
    reason: str = ""


class AnswerReply(Message):
    """One or two plain sentences."""

    text: Sentence


class Entry(Message):
    """What the librarian knows of one skill: its name, schema, evaluations (successes, n) and handbook."""

    name: SkillName
    schema_text: Annotated[str, Field(max_length=1_000)]
    evidence: tuple[int, int] = (0, 0)
    handbook: Annotated[str, Field(max_length=2_000)] = ""


class DescribeRequest(Message):
    """A skill that has no entry yet, why its attempts failed, and the entries of skills like it.

    ``needs`` and ``effects`` are the literals that its operator learnt, as text. Everything here may have come from a
    stranger's pack.
    """

    skill: Entry
    needs: tuple[FactText, ...] = ()
    effects: tuple[FactText, ...] = ()
    failures: tuple[Annotated[str, Field(max_length=600)], ...] = ()
    others: tuple[Entry, ...] = ()


class DescribeReply(Message):
    """A name, a handbook entry of at most HANDBOOK_TOKENS words and marks, and the skills that do the same.

    ``merge`` proposes; whether two skills are one is decided by the gate.
    """

    name: SkillName
    when: Sentence
    do: Sentence
    dont: Sentence
    merge: tuple[SkillName, ...] = ()

    @model_validator(mode="after")
    def _short(self) -> DescribeReply:
        count = sum(len(re.findall(r"\w+|[^\w\s]", text)) for text in (self.when, self.do, self.dont))
        if count > HANDBOOK_TOKENS:
            raise ValueError(f"a handbook entry has at most {HANDBOOK_TOKENS} tokens, not {count}")
        return self


ROLES: dict[str, tuple[type[Message], type[Message]]] = {
    "propose": (ProposeRequest, ProposeReply),
    "relabel": (RelabelRequest, RelabelReply),
    "judge": (JudgeRequest, JudgeReply),
    "plan": (PlanRequest, PlanReply),
    "analyse": (AnalyseRequest, AnalyseReply),
    "answer": (AnswerRequest, AnswerReply),
    "describe": (DescribeRequest, DescribeReply),
}
"""Role -> (request, reply)."""
