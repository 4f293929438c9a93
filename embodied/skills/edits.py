"""The gate of edits: one change of the skill set, admitted only on episodes that did not choose it.

1. *static*: types, hashes, symbols, finite numbers, room, sole coverage (`edit_checks`); nothing is run.
2. *audit*: the base repeats episodes that are recorded of it. A simulator gives the same outcomes again; an evaluation
   that does not is no ground to change anything on, and nothing is admitted.
3. *smoke*: a few fresh pairs a candidate; what is beyond hope ends here.
4. *probe*: every candidate on the same recorded episodes, half failing and half passing under the base. The best goes
   on, if its gain (`Probe.gain`) is above 0. The probe chooses, so it certifies nothing.
5. *regression*, budget 0: every mastered instruction is measured again in fresh pairs; those with a regression are
   measured once more, by pairs enough for the loss not to be borne. One proved loss rejects, and so does a proved loss
   over all of them together.
6. *confirm*: the winner on fresh pairs of the instructions it is meant for: P(Δ > 0) must reach the level.
7. *use*: the same, when fixes count only in episodes in which the edit's own version acted.

What is admitted runs on trial first (`embodied.skills.canary`). Sizes are fixed before the episodes they count are
drawn; that of the confirmation follows the discordance seen in the *probe*, that of a regression's second look the one
seen in the first, whose pairs the test then leaves out. What the sizes promise: `embodied.skills.probes`, docs/gate.md.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from embodied.skills.edit_checks import Edit, Fork, Snapshot, fault_of
from embodied.skills.edit_records import STAGES, Answer, EditDecision, EditGateConfig, Evaluate, Pairs
from embodied.skills.gate import GateError, seed_for
from embodied.skills.probes import (
    Probe,
    Recorded,
    Task,
    balanced,
    discordance_bound,
    pairs_needed,
    probability_of_gain,
    spread,
)

__all__ = [
    "STAGES", "Answer", "Edit", "EditDecision", "EditGate", "EditGateConfig", "Evaluate", "Fork", "Pairs", "Recorded",
    "Snapshot", "Task",
]  # fmt: skip

Request = tuple[Fork, list[Task]]
Course = Generator[list[Request], list[Answer], EditDecision]


class EditGate:
    """Decides about edits with a given way to evaluate forks. One edit at most comes of each update."""

    def __init__(self, evaluate: Evaluate, run_seed: int, config: EditGateConfig | None = None) -> None:
        self.evaluate = evaluate
        self.run_seed = run_seed
        self.config = config or EditGateConfig()

    def decide(self, candidates: Sequence[Edit], snapshot: Snapshot, *, round: int, attempt: int = 0) -> EditDecision:
        """As `decide_all`, of one update."""
        return self.decide_all([(candidates, snapshot)], round=round, attempt=attempt)[0]

    def decide_all(
        self, updates: Sequence[tuple[Sequence[Edit], Snapshot]], *, round: int, attempt: int = 0
    ) -> list[EditDecision]:
        """A decision an update, each as if made alone (as attempts ``attempt``, ``attempt`` + 1, …).

        What they ask of the same fork at the same stage is evaluated in one call. GateError without candidates, with
        too many of them, and for an evaluation that is not the one asked for.
        """
        for candidates, _ in updates:
            if not 1 <= len(candidates) <= self.config.candidates:
                raise GateError(
                    f"an update takes 1 … {self.config.candidates} candidate edits, not {len(candidates)}; "
                    "`by_failure_mode` chooses them"
                )
        courses = [self._course(*update, round, attempt + i) for i, update in enumerate(updates)]
        waiting: dict[int, list[Answer] | None] = dict.fromkeys(range(len(courses)))
        decided: dict[int, EditDecision] = {}
        while waiting:
            requests: dict[int, list[Request]] = {}
            for i, answers in waiting.items():
                try:
                    requests[i] = next(courses[i]) if answers is None else courses[i].send(answers)
                except StopIteration as end:
                    decided[i] = end.value
            waiting = {**self._answered(requests)}
        return [decided[i] for i in range(len(courses))]

    def _answered(self, requests: Mapping[int, list[Request]]) -> dict[int, list[Answer]]:
        """Answers to all requests, one evaluation a fork."""
        places: dict[tuple[tuple[str, str], ...], list[tuple[int, int]]] = {}
        for i, asked in requests.items():
            for j, (fork, _) in enumerate(asked):
                places.setdefault(tuple(sorted(fork.items())), []).append((i, j))
        found: dict[tuple[int, int], Answer] = {}
        for key, where in places.items():
            tasks = [task for i, j in where for task in requests[i][j][1]]
            answer = self._checked(self.evaluate(dict(key), tasks), len(tasks))
            first = 0
            for i, j in where:
                part = slice(first, first + len(requests[i][j][1]))
                used = {version: rows[part] for version, rows in answer.used.items()}
                invalid = None if answer.invalid is None else answer.invalid[part]
                found[i, j] = Answer(answer.success[part], used, invalid)
                first = part.stop
        return {i: [found[i, j] for j in range(len(asked))] for i, asked in requests.items()}

    @staticmethod
    def _checked(answer: Answer, n: int) -> Answer:
        """The answer, as long as it is n outcomes judged by the simulator; an invalid episode has failed."""
        if answer.kind != "simulator":
            raise GateError(
                f"an edit is admitted on the simulator's word alone, not on evidence of kind '{answer.kind}'"
            )
        rows = {"success": answer.success, **answer.used}
        rows |= {} if answer.invalid is None else {"invalid": answer.invalid}
        for name, array in rows.items():
            if np.asarray(array).dtype != np.bool_ or np.shape(array) != (n,):
                raise GateError(f"an evaluation of {n} episodes must give bool[{n}], but {name} is {array!r:.80}")
        return answer if answer.invalid is None else replace(answer, success=answer.success & ~answer.invalid)

    def _course(self, candidates: Sequence[Edit], snapshot: Snapshot, round: int, attempt: int) -> Course:
        """An update's course: yields what it asks, and is sent the answers."""
        config, base = self.config, dict(snapshot.base)
        faults = [fault_of(edit, snapshot, config.capacity) for edit in candidates]
        probes: list[Probe | None] = [None] * len(candidates)
        pairs: list[Pairs] = []
        seen: set[Task] = {row.task for row in snapshot.recorded}
        episodes, winner = 0, -1

        def decision(stage: str, reason: str) -> EditDecision:
            gains = tuple(float("nan") if probe is None else probe.gain(config.penalty) for probe in probes)
            edit = candidates[winner] if winner >= 0 else None
            accepted = stage == STAGES[-1]
            text = f"{'' if accepted else 'rejected, '}{stage}: {reason}"
            return EditDecision(
                accepted, stage, text, winner, edit, tuple(faults), tuple(probes), gains, tuple(pairs), episodes
            )

        def fresh(label: str, purpose: str, goals: Sequence[str], n: int) -> list[Task]:
            """n episodes that nobody has looked at in this decision, nor were they recorded before."""
            seeds = {g: seed_for(self.run_seed, purpose, round, attempt, f"edit {label} {g}") for g in goals}
            tasks = spread(goals, n, seeds)
            if not seen.isdisjoint(tasks):
                raise GateError(f"attempt {attempt} of round {round} was decided before; fresh episodes need a new one")
            seen.update(tasks)
            return tasks

        def compared(stage: str, goal: str, before: Answer, after: Answer) -> Pairs:
            return _pairs(stage, goal, before.success, after.success)

        # audit
        open_ = [i for i, fault in enumerate(faults) if not fault]
        if not open_:
            return decision("static", "; ".join(faults))
        goals = sorted({goal for i in open_ for goal in candidates[i].goals})
        pool = [row for row in snapshot.recorded if row.task.goal in goals]
        again = balanced(pool, config.audit, seed_for(self.run_seed, "screen", round, attempt, "edit audit"))
        if again:
            (answer,) = yield [(base, [row.task for row in again])]
            episodes += len(again)
            differ = int((answer.success != _outcomes(again)).sum())
            if differ > config.audit_allowed:
                return decision(
                    "audit", f"{differ} of {len(again)} recorded episodes came out otherwise when they were repeated"
                )
        # smoke
        asked = {i: fresh(f"smoke {i}", "screen", candidates[i].goals, config.smoke) for i in open_}
        answers = yield [r for i in open_ for r in ((base, asked[i]), (candidates[i].fork(base), asked[i]))]
        for k, i in enumerate(open_):
            before, after = answers[2 * k : 2 * k + 2]
            episodes += 2 * len(asked[i])
            pairs.append(compared("smoke", "", before, after))
            if pairs[-1].p < config.hopeless or (after.invalid is not None and after.invalid.all()):
                faults[i] = f"hopeless in the smoke test: {pairs[-1].text()}"
        open_ = [i for i in open_ if not faults[i]]
        if not open_:
            return decision("smoke", "; ".join(filter(None, faults)))
        # probe
        drawn = balanced(pool, config.probe, seed_for(self.run_seed, "screen", round, attempt, "edit probe"))
        answers = yield [(candidates[i].fork(base), [row.task for row in drawn]) for i in open_]
        for i, answer in zip(open_, answers, strict=True):
            episodes += len(drawn)
            probes[i] = _probe(drawn, answer, snapshot.rate(goals))
        winner = max(open_, key=lambda i: probes[i].gain(config.penalty))  # type: ignore[union-attr]
        chosen = probes[winner]
        assert chosen is not None  # every open candidate was probed
        if chosen.gain(config.penalty) <= 0:
            return decision("probe", f"the best of {len(open_)} gains {chosen.gain(config.penalty):+.3f} on the probe")
        edit, fork = candidates[winner], candidates[winner].fork(base)
        # regression
        held = [g for g in snapshot.mastered(config.mastered, config.mastered_n) if edit.goals != (g,)]  # see confirm
        alarm = 1 - config.false_alarm / (len(held) + 1)
        looks = {goal: fresh("look", "regression", [goal], config.look) for goal in held}
        suspects: dict[str, Pairs] = {}
        if held:
            every = [task for tasks in looks.values() for task in tasks]
            before, after = yield [(base, every), (fork, every)]
            episodes += 2 * len(every)
            pairs.append(compared("regression", "", before, after))
            if _lost(pairs[-1], alarm):
                return decision("regression", f"mastered instructions are lost: {pairs[-1].text()}")
            for k, goal in enumerate(held):
                part = slice(k * config.look, (k + 1) * config.look)
                look = _pairs("regression", goal, before.success[part], after.success[part])
                if look.regressions:
                    suspects[goal] = look
        if suspects:
            asked_of = {
                goal: fresh(
                    "again", "regression", [goal], self.second_look(look.fixes + look.regressions, look.n, alarm)
                )
                for goal, look in suspects.items()
            }
            answers = yield [r for tasks in asked_of.values() for r in ((base, tasks), (fork, tasks))]
            for k, (goal, tasks) in enumerate(asked_of.items()):
                episodes += 2 * len(tasks)
                pairs.append(compared("regression", goal, *answers[2 * k : 2 * k + 2]))
            for found in pairs[-len(suspects) :]:
                if _lost(found, alarm):
                    return decision("regression", f"a mastered instruction is lost: {found.text()}")
        # confirm
        tasks = fresh("confirm", "confirm", edit.goals, self.confirmation(chosen))
        before, after = yield [(base, tasks), (fork, tasks)]
        episodes += 2 * len(tasks)
        pairs.append(compared("confirm", "", before, after))
        if pairs[-1].p < config.level:
            return decision("confirm", f"P(gain) is {pairs[-1].p:.3f}, less than {config.level}: {pairs[-1].text()}")
        # use
        acted = (before if edit.skill is None else after).used.get(edit.credited(base), np.zeros(len(tasks), np.bool_))
        credited = int((~before.success & after.success & acted).sum())
        pairs.append(Pairs("use", "", len(tasks), credited, pairs[-1].regressions))
        if pairs[-1].p < config.level:
            return decision("use", f"its version acted in {credited} of {pairs[-2].fixes} fixes: {pairs[-1].text()}")
        return decision("admitted", f"P(gain) is {pairs[-2].p:.4f}: {pairs[-2].text()}, {credited} of them its own")

    def second_look(self, discordant: int, n: int, alarm: float) -> int:
        """Pairs of a second look, sized by the discordant ones of the first's n."""
        c = self.config
        bound = discordance_bound(discordant, n)
        return min(c.regression, pairs_needed(c.loss, bound, alarm, c.power))

    def confirmation(self, probe: Probe) -> int:
        """Pairs of the confirmation, sized by the discordance seen in the probe."""
        c = self.config
        fixed = discordance_bound(probe.fixes, probe.failing) if probe.failing else 1.0
        broken = discordance_bound(probe.regressions, probe.passing) if probe.passing else 1.0
        bound = (1 - probe.rate) * fixed + probe.rate * broken
        return min(c.confirm, max(c.confirm_least, pairs_needed(c.gain, bound, c.level, c.power)))


def _pairs(stage: str, goal: str, before: np.ndarray, after: np.ndarray) -> Pairs:
    return Pairs(stage, goal, len(before), int((~before & after).sum()), int((before & ~after).sum()))


def _lost(pairs: Pairs, alarm: float) -> bool:
    """Whether a loss is proved: P(Δ < 0) at the alarm's level."""
    return probability_of_gain(pairs.regressions, pairs.fixes) >= alarm


def _outcomes(rows: Sequence[Recorded]) -> np.ndarray:
    return np.array([row.success for row in rows], np.bool_)


def _probe(drawn: Sequence[Recorded], answer: Answer, rate: float) -> Probe:
    """Counts of a candidate's probe against what is recorded of the base."""
    before, after = _outcomes(drawn), answer.success
    invalid = 0 if answer.invalid is None else int(answer.invalid.sum())
    failing = int((~before).sum())
    fixes, regressions = int((~before & after).sum()), int((before & ~after).sum())
    return Probe(failing, len(before) - failing, fixes, regressions, invalid, rate)
