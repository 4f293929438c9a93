"""Instructions carried out with skills from discovery or play: what they cover of a goal, one after another, and again.

Skills learnt without a task are few and plain, so a plan is a cover: of the facts still wanted, the skill that does
most of them and fewest others comes first. A skill runs until its goal has held for a moment or its time is up.
Stages ("… then …") are judged one after another, each on the change since it began.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embodied import runs
from embodied.planning.execute import OptionRecord, Outcome
from embodied.skills.library import SkillLibrary
from embodied.training.discovered import HOLD, REST, Act, acting, scene_of
from embodied.training.played import Exemplars, towards
from embodied.training.segments import back_terms, begun, follows, state_terms, truth
from envs.control import GRIP
from envs.scenes.discovery import DiscoveryVectorEnv
from envs.scenes.goal_states import GoalStates
from envs.scenes.scene import Scene
from envs.scenes.words import Term, Vocabulary, WordError
from policies.base import load_policy

__all__ = ["Option", "Options", "coded", "cover", "perform", "stages_of"]

_THEN = re.compile(r"[,;]?\s*(?:\band\s+)?\bthen\b\s*", re.IGNORECASE)

OnStep = Callable[[DiscoveryVectorEnv, str], None]
"""Called with the world and the goal that is pursued (or "") before the first and after every control step."""


Acting = Callable[[DiscoveryVectorEnv], np.ndarray]
"""The world now -> an action float32[1, A]."""


@dataclass(frozen=True)
class Option:
    """An admitted skill: its goal, the facts that hold where it succeeds, how surely, what begins to act, how long."""

    goal: str
    schema: str
    terms: frozenset[Term]
    lower: float
    begin: Callable[[], Acting]
    steps: int


@dataclass(frozen=True)
class Options:
    """What a discovery's library holds, and the world it was learnt in."""

    known: tuple[Option, ...]
    world: Mapping[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Options:
        """Raises LibraryError for a library that is damaged, ConfigError for a skill that cannot be read."""
        with SkillLibrary.open(folder / runs.LIBRARY, readonly=True) as library:
            last = library.last_round
            world = {"scene": "discovery", "blocks": 1} | ({} if last is None else dict(last.state.get("world", {})))
            scene, policies, known = scene_of(world), {}, []
            for entry in library.mastered():
                skill = entry.skill
                if skill.artifact not in policies:
                    policies[skill.artifact] = load_policy(library.artifact(skill))
                begin = _beginning(policies[skill.artifact], skill.conditioning, scene)
                terms = scene.vocabulary.parse(entry.goal)
                facts = frozenset((*terms, *(weaker for t in terms for weaker in follows(t))))
                known.append(
                    Option(
                        entry.goal, skill.schema, facts,
                        entry.lower, begin, int(skill.conditioning["steps"]),  # type: ignore[call-overload]
                    )
                )  # fmt: skip
        return cls(tuple(known), world)

    def sentences(self, words: Vocabulary) -> list[str]:
        """What they do, in English."""
        return [words.describe(option.goal) for option in self.known]


def _beginning(policy: Any, conditioning: Mapping[str, Any], scene: Scene) -> Callable[[], Acting]:
    """How a skill begins to act: told a code, or given a state that play once reached (`embodied.training.played`)."""
    if "exemplars" in conditioning:
        exemplars, encoder = Exemplars.from_dict(conditioning["exemplars"]), GoalStates(scene)

        def begin() -> Acting:
            act = towards(policy, encoder, scene, exemplars)
            return lambda env: act(env.facts, env.facts)

        return begin
    return coded(acting(policy), np.asarray(conditioning["code"], np.float32))


def coded(act: Act, code: np.ndarray) -> Callable[[], Acting]:
    """How a skill acts that is told a code float32[Z]."""
    return lambda: lambda env: act(env.observation(), code[None])


def stages_of(instruction: str, words: Vocabulary) -> list[str]:
    """The goals of an instruction, in order. Raises WordError, in one sentence, for what is not in the words."""
    parts = [part for part in _THEN.split(instruction) if part.strip()]
    return [words.understand(part) for part in parts or [instruction]]


def cover(
    wanted: Sequence[Term], known: Sequence[Option], words: Vocabulary, failed: Sequence[str] = ()
) -> list[Option]:
    """Options that bring about the facts wanted, in order; none where some fact is brought about by no option.

    What clashes with any of them is left out; what failed before comes last among those that do as much.
    """
    plan: list[Option] = []
    open_terms = list(wanted)
    fitting = [option for option in known if not _clashes(option, wanted, words)]
    while open_terms:
        ranked = [(sum(t in o.terms for t in open_terms), o) for o in fitting]
        done, best = max(
            ranked,
            key=lambda x: (x[0], -failed.count(x[1].goal), -len(x[1].terms - set(wanted)), x[1].lower),
            default=(0, None),
        )
        if best is None or not done:
            return []
        plan.append(best)
        open_terms = [t for t in open_terms if t not in best.terms]
    return plan


def _clashes(option: Option, wanted: Sequence[Term], words: Vocabulary) -> bool:
    for own in option.terms:
        for term in wanted:
            try:
                words.parse(f"{own} & {term}")
            except WordError:
                return True
    return False


def perform(
    stages: Sequence[str], options: Options, seed: int, *, replans: int = 2, on_step: OnStep = lambda *_: None
) -> Outcome:
    """Carries the stages' goals out in the scene that ``seed`` draws; judged by the simulator."""
    env = DiscoveryVectorEnv(
        1, autoreset_mode="Disabled", threads=1, sleep=False, **{"max_steps": 1 << 30, **options.world}
    )
    outcome = Outcome(" & ".join(stages), success=True)
    try:
        run = _Run(env, options, outcome, on_step, replans)
        env.reset(seed=seed)
        on_step(env, "")
        for stage in stages:
            outcome.success = outcome.success and run.stage(stage)
    finally:
        env.close()
    return outcome


@dataclass
class _Run:
    """One instruction on its way."""

    env: DiscoveryVectorEnv
    options: Options
    outcome: Outcome
    on_step: OnStep
    replans: int

    def stage(self, goal: str) -> bool:
        """Whether the stage's goal holds at its end."""
        words, rows = self.env.scene.vocabulary, [self.env.facts[0].copy()]
        terms = words.parse(goal)
        tried: list[str] = []
        while True:
            holds = self._holds(rows, terms)
            self.outcome.holds.update({str(t): bool(h) for t, h in zip(terms, holds, strict=True)})
            if holds.all():
                return True
            if self.outcome.reason:
                return False
            if tried and self.outcome.replans >= self.replans:
                self.outcome.reason = "it did not come about in the plans I may make"
                return False
            missing = [t for t, held in zip(terms, holds, strict=True) if not held]
            plan = cover(missing, self.options.known, words, tried)
            if not plan:
                without = [t for t in missing if not cover([t], self.options.known, words)] or missing
                self.outcome.reason = f"I have no skill to {words.describe(str(without[0]))}"
                return False
            self.outcome.replans += bool(tried)
            self.outcome.plans.append([option.goal for option in plan])
            for option in plan:
                tried.append(option.goal)
                if not self._run(option, rows):
                    break

    def _run(self, option: Option, rows: list[np.ndarray]) -> bool:
        """Runs an option until its goal has held, its time is up, or a block fell; whether its goal holds."""
        env, own, held = self.env, [rows[-1]], 0
        terms, act = env.scene.vocabulary.parse(option.goal), option.begin()
        for _ in range(option.steps):
            self._step(act(env), option.goal, rows)
            own.append(rows[-1])
            held = held + 1 if self._holds(own, terms).all() else 0
            if held >= HOLD or self.outcome.reason:
                break
        self._rest(rows)
        own += rows[-REST:]
        success = bool(self._holds(own, terms).all()) and not self.outcome.reason
        before, after = (self._literals(part) for part in ([own[0]], own))
        self.outcome.options.append(
            OptionRecord(option.schema, option.goal, before, after, success, len(own) - 1 - REST)
        )
        return success

    def _rest(self, rows: list[np.ndarray]) -> None:
        """Lets things come to rest, the gripper as it is."""
        for _ in range(REST):
            action = np.zeros((1, 5), np.float32)
            action[0, 4] = self.env.facts[0, GRIP]
            self._step(action, "", rows)

    def _step(self, action: np.ndarray, goal: str, rows: list[np.ndarray]) -> None:
        info = self.env.step(action)[4]
        rows.append(self.env.facts[0].copy())
        self.outcome.steps += 1
        if info["lost"][0] and not self.outcome.reason:
            self.outcome.reason = "a block fell off the table"
        self.on_step(self.env, goal)

    def _holds(self, rows: list[np.ndarray], terms: Sequence[Term]) -> np.ndarray:
        """bool[terms], as if a goal had begun with the first row."""
        now = begun(self.env.scene, np.stack(rows))
        found = truth(self.env.scene, now[None], [Term(t.predicate, t.args) for t in terms])[0]
        return found == [t.positive for t in terms]

    def _literals(self, rows: list[np.ndarray]) -> dict[str, bool]:
        terms = [*state_terms(self.env.scene), *back_terms(self.env.scene)]
        return {str(t): bool(h) for t, h in zip(terms, self._holds(rows, terms), strict=True)}
