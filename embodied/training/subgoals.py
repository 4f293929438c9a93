"""Skills for BabyAI's missions by subgoals: hypothesised, verified by trying, induced, proved by the gate, reused.

A round: missions of every level are tried with what is known. For levels that fail, the role "propose" names subgoals
and the circumstances to try them in; each is tried at random under a short budget. What can be reached so becomes a
skill over all levels in which it was: practised, put to the gate on fresh seeds, kept with its operator. What is known
already is tried in new circumstances by the way, which teaches its operator what it needs. A planner composes the rest.
Every environment step of any of this counts.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embodied import runs
from embodied.core import EvalReport, OperatorCount
from embodied.language.base import LanguageModel, LMRequest
from embodied.language.subgoals import SubgoalGrammar, SubgoalReply, SubgoalRequest
from embodied.planning.lifted import LiftedOperator, schema_of
from embodied.skills.gate import Gate, GateConfig, Question
from embodied.skills.library import SkillLibrary
from embodied.training.babyai_world import EXPLORE, Levels, Over
from embodied.training.episodes import seed_of
from embodied.training.induction import EXPLORATION, Allowed, Case, Collector, blank_policy, gather, practise
from embodied.training.missions import MissionRunner, carry_out
from envs.suites.babyai_missions import Thing
from policies.base import load_policy

__all__ = ["LEVELS", "SubgoalLoop", "SubgoalSettings", "load_skills"]

LEVELS = ("go-to-local", "pickup-loc", "open-door", "put-next-local", "unlock-local", "unlock-pickup")
"""Of rising depth: one subgoal, two, two, four, four and six."""


@dataclass(frozen=True)
class SubgoalSettings:
    """``steps``: environment steps after which nothing new is begun. ``held_out``: things that no practice names."""

    levels: tuple[str, ...] = LEVELS
    seed: int = 0
    steps: int = 560_000
    rounds: int = 8
    slots: int = 96
    missions: int = 8  # of a level, that each round tries
    good: float = 0.9  # success from which a level needs nothing new
    verify: int = 1152  # environment steps for a level's hypotheses
    verified: float = 0.05  # success of trying at random from which a hypothesis counts as verified
    sure: float = 0.3  # success at random from which a second skill is practised in a round
    practice: int = 100_000  # environment steps for a skill, before the gate is asked
    tries: int = 2  # times that a skill is practised before it is given up in a round
    held_out: tuple[str, ...] = ("purple ball", "green key", "yellow box")


@dataclass
class SubgoalLoop:
    """One run in ``folder``: its library, its policies and operators by predicate, and the steps it took."""

    folder: Path
    settings: SubgoalSettings
    gate: GateConfig = field(default_factory=lambda: GateConfig(screen=24, n=120, confirm=120))
    model: LanguageModel = field(default_factory=SubgoalGrammar)
    say: Callable[[str], None] = lambda _: None
    policies: dict[str, Any] = field(default_factory=dict)
    operators: dict[str, LiftedOperator] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    history: list[dict[str, Any]] = field(default_factory=list)
    _rates: dict[Case, float] = field(default_factory=dict, repr=False)
    _written: dict[tuple[str, str, str], tuple[int, int]] = field(default_factory=dict, repr=False)

    def run(self) -> SubgoalLoop:
        """Rounds until every level does well, nothing new is verified, or the steps are spent."""
        with SkillLibrary.open(self.folder / runs.LIBRARY) as library:
            self._resume(library)
            idle = 0
            for number in range(library.next_round, library.next_round + self.settings.rounds):
                self.rng = np.random.default_rng(seed_of(self.settings.seed, 1, number))
                for policy in self.policies.values():
                    policy.seed(seed_of(self.settings.seed, 7, number) % (1 << 31))
                rates = self._try(number)
                failing = [level for level, rate in rates.items() if rate < self.settings.good]
                found = self._verify(failing, number) if failing and self._left() > 0 else {}
                row: dict[str, Any] = {"missions": rates, "verified": {p: len(c) for p, c in found.items()}}
                kept = self._induce(library, number, found, row)
                idle = 0 if kept else idle + 1
                if not failing or self._left() <= 0 or idle == 2:
                    break
        return self

    def _resume(self, library: SkillLibrary) -> None:
        """Takes over what the rounds that the folder holds already found out."""
        last = library.last_round
        if last is None:
            return
        self.policies, self.operators = load_skills(self.folder)
        self.steps = defaultdict(int, last.state["steps"])
        self.history = list(last.state.get("history", ()))
        self._new_counts()

    def _left(self) -> int:
        return self.settings.steps - sum(self.steps.values())

    def _levels(self, names: Sequence[str], slots: int, *purpose: int) -> Levels:
        return Levels(names, max(1, slots // len(names)), seed_of(self.settings.seed, *purpose))

    def _close(self, levels: Levels, purpose: str) -> None:
        self.steps[purpose] += levels.steps
        levels.close()

    # -- what fails, and why it might -----------------------------------------------------------------------------

    def _try(self, number: int) -> dict[str, float]:
        """Success by level of missions with what is known; executions count for the operators."""
        if not self.policies:
            return dict.fromkeys(self.settings.levels, 0.0)
        levels = self._levels(self.settings.levels, self.settings.missions * len(self.settings.levels), 2, number)
        runner = MissionRunner(levels, self.policies, self.operators, self.rng)
        outcomes, seen = carry_out(runner, 1)
        self._close(levels, "missions")
        self._count(seen)
        rates = {level: float(outcomes[level].mean()) for level in self.settings.levels}
        self.say(f"missions: {', '.join(f'{level} {rate:.2f}' for level, rate in rates.items())}")
        return rates

    def _verify(self, failing: Sequence[str], number: int) -> dict[str, list[Case]]:
        """Cases by predicate that could be brought about, of subgoals that no skill has yet, each tried a little."""
        found: dict[str, list[Case]] = {}
        sure = {level: set[str]() for level in failing}
        for depth in (0, 1, 2):
            asked = [level for level in failing if depth < 2 or not sure[level]]
            cases = [case for level in asked for case in self._proposed(level, depth)]
            if not cases:
                continue
            names = tuple(level for level in asked if any(c.level == level for c in cases))
            levels = self._levels(names, self.settings.slots, 3, number, depth)
            runner = Collector(levels, self.policies, cases, self.rng, self._who, EXPLORATION)
            over = gather(runner, steps=self.settings.verify * len(names))
            self._close(levels, "verification")
            self._count(over)
            tried: dict[Case, list[bool]] = defaultdict(list)
            for o in over:
                if o.option.actor == EXPLORE:
                    tried[o.option.label].append(o.success)
            for case, outcomes in tried.items():
                if len(outcomes) >= 4 and np.mean(outcomes) >= self.settings.verified:
                    found.setdefault(case.predicate, []).append(case)
                    self._rates[case] = float(np.mean(outcomes))
                    if self._rates[case] >= self.settings.sure:
                        sure[case.level].add(case.predicate)
        return found

    def _who(self, case: Case) -> str:
        """Who tries a case: the skill for it, where there is one."""
        return case.predicate if case.predicate in self.policies else EXPLORE

    def _proposed(self, level: str, depth: int) -> list[Case]:
        levels = Levels([level], 8, seed_of(self.settings.seed, 4))
        goals = levels.goals
        asked = tuple(dict.fromkeys(str(f) for goal in goals for f in goal.literals))
        levels.close()
        request = SubgoalRequest(missions=asked, known=tuple(self.policies), depth=depth)
        reply = self.model.complete(LMRequest("propose", request, SubgoalReply)).value
        own = {f.predicate for goal in goals for f in goal.literals}
        found = [s for s in reply.subgoals if len(s.context) == depth]
        if depth == 2:  # there are many; what is known is tried in them only where missions ask for it
            found = [s for s in found if s.predicate in own or s.predicate not in self.policies]
        return [Case(level, s.predicate, s.context, named) for s in found for named in (True, False)]

    # -- skills ---------------------------------------------------------------------------------------------------

    def _induce(
        self, library: SkillLibrary, number: int, found: dict[str, list[Case]], row: dict[str, Any]
    ) -> list[str]:
        """Practises what was verified, the surest first, and keeps what passes the gate."""
        kept: list[str] = []
        with library.round(number) as tx, tempfile.TemporaryDirectory() as scratch:
            for predicate in sorted(found, key=lambda p: -max(self._rates[c] for c in found[p])):
                best = max(self._rates[c] for c in found[predicate])
                if kept and best < self.settings.sure:
                    continue  # with what was just learnt it may be reached from nearer by
                cases = [c for c in found[predicate] if self._rates[c] >= 0.6 * best]
                policy = blank_policy(seed_of(self.settings.seed, 5, number) % (1 << 31))
                for attempt in range(self.settings.tries):
                    if self._left() <= 0:
                        break
                    levels = self._levels(_names(cases), self.settings.slots, 6, number, attempt)
                    curve = practise(
                        policy, levels, self.policies, cases, self.rng,
                        min(self.settings.practice, self._left()), allowed=self._allowed(), say=self.say,
                    )  # fmt: skip
                    self._close(levels, "practice")
                    goal, folder = schema_of(predicate), Path(scratch) / f"{predicate}-{attempt}"
                    policy.save_pretrained(folder)
                    seen: list[Over] = []
                    gate = Gate(self._measurer(cases, seen), self.settings.seed, self.gate)
                    decision = gate.decide(goal, [policy], round=number, attempt=attempt)
                    self.say(f"{goal}: practised to {curve[-1]:.2f} in {len(cases)} cases; {decision.reason}")
                    row.setdefault("gate", {})[f"{goal} #{attempt}"] = decision.reason
                    if not decision.admitted:
                        tx.add_decision(None, decision)
                    else:
                        skill = tx.add_skill(
                            goal, folder, conditioning={"features": "first, second", "steps": 32},
                            signature={"schema": goal, "attributes": ["kind", "colour", "place"]},
                            provenance={"from": "subgoals", "seed": self.settings.seed,
                                        "cases": [asdict(c) for c in cases]},
                        )  # fmt: skip
                        tx.add_decision(skill.version, decision)
                        self.policies[predicate] = policy
                        self.operators[predicate] = LiftedOperator(goal)
                        self._count(seen)
                        kept.append(predicate)
                        break
            tx.count(self._new_counts())
            self.history.append(row | {"kept": kept, "steps": sum(self.steps.values())})
            state = {
                "operators": {p: o.to_dict() for p, o in self.operators.items()},
                "steps": dict(self.steps), "history": self.history,
            }  # fmt: skip
            tx.seal(ledger_offset=0, store_offsets={}, state=state)
        return kept

    def _allowed(self) -> Allowed:
        held_out = set(self.settings.held_out)
        return lambda t: str(Thing(t.kind, t.colour)) not in held_out

    def _measurer(
        self, cases: Sequence[Case], seen: list[Over]
    ) -> Callable[[Any, Sequence[Question]], list[EvalReport]]:
        """`embodied.skills.gate.Evaluate`: n tries of verified cases in fresh episodes, judged by the facts."""

        def evaluate(policy: Any, questions: Sequence[Question]) -> list[EvalReport]:
            reports = []
            for goal, n, seed in questions:
                names = _names(cases)
                levels = Levels(names, max(1, min(n, self.settings.slots) // len(names)), seed)
                predicate = cases[0].predicate
                rng = np.random.default_rng(seed)
                runner = Collector(levels, {**self.policies, predicate: policy}, cases, rng, lambda c: c.predicate, 32)
                over = gather(runner, tries=n)
                self._close(levels, "gate")
                seen.extend(over)
                success = np.zeros(n, np.bool_)  # what could not be tried in its time was not brought about
                success[: len(over)] = [o.success for o in over]
                reports.append(EvalReport(goal, "", seed, success))
            return reports

        return evaluate

    def _count(self, over: Sequence[Over]) -> None:
        for o in over:
            if o.option.actor in self.operators:
                self.operators[o.option.actor].record(o.before, o.after, o.success)

    def _new_counts(self) -> list[OperatorCount]:
        """What the operators counted since the last round, for the library's table."""
        found = []
        for count in (c for operator in self.operators.values() for c in operator.counts()):
            key = (count.schema, count.literal, count.role)
            trials, hits = self._written.get(key, (0, 0))
            self._written[key] = (count.trials, count.hits)
            found.append(OperatorCount(*key, count.trials - trials, max(0, count.hits - hits)))
        return [c for c in found if c.trials]


def _names(cases: Sequence[Case]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(c.level for c in cases))


def load_skills(folder: Path) -> tuple[dict[str, Any], dict[str, LiftedOperator]]:
    """The admitted skills of a run and their operators, by predicate."""
    with SkillLibrary.open(folder / runs.LIBRARY, readonly=True) as library:
        last = library.last_round
        state = {} if last is None else last.state
        policies = {m.goal.partition("(")[0]: load_policy(library.artifact(m.skill)) for m in library.mastered()}
        operators = {p: LiftedOperator.from_dict(o) for p, o in state.get("operators", {}).items()}
    return policies, {p: o for p, o in operators.items() if p in policies}  # type: ignore[return-value]
