"""The rounds of the loop: each does one thing whole, and is committed or done again from its start.

``play_round`` plays, learns one policy from it and gates what it can already do; ``practice_round`` practises one
family of goals; ``plan_round`` composes admitted skills and learns what they need and do from carrying plans out.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from embodied.cli.schema import RunConfig
from embodied.core import Episode, EvalReport
from embodied.data import quarantine
from embodied.data.store import BrokenEpisodeError
from embodied.journal import Journal
from embodied.language.base import LanguageModel, LMRequest
from embodied.language.roles import RelabelReply, RelabelRequest
from embodied.language.skill_plans import planner_of
from embodied.planning.execute import carry_out
from embodied.repertoire import anywhere
from embodied.skills.gate import Gate, GateConfig, GateDecision, Question
from embodied.training.curricula import lessons, pay, prepare
from embodied.training.discovery_round import start_of
from embodied.training.entries import entry_of
from embodied.training.families import family_of, repertoire_of, schemas
from embodied.training.kept import KeptStates
from embodied.training.operator_learning import learn_operator
from embodied.training.play_policies import learn_all, won
from embodied.training.practice import PracticeConfig, begin, clone, practise
from embodied.training.rollouts import MAX_STEPS, Trial, measure_all, versions
from envs.goals import Goal, schema_of
from envs.monitor import STATE_LITERALS, truth_table
from envs.playroom.play import ScriptedPlay, play_env
from envs.vector import ENV_ID
from policies.multi_critic_ppo import MultiCriticPPO

__all__ = ["COMPOSED", "Worker", "weak_links"]

RECORDED = 16  # episodes of each measured set that are kept whole
EXECUTIONS = 120  # that an operator learns from, a goal: from free starts and kept states; experiments are more
KEPT_SHARE = 0.5  # of a practice's episodes begin in kept states, where there are any
TRIED, STEADY = 4, 0.9  # attempts within plans, and the success rate from which a skill needs no mending
COMPOSED = 96  # instructions carried out in a plan round


def weak_links(chained: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Goal → failures, of the goals that failed more than now and then within recent plans ([successes, n] each)."""
    return {goal: n - s for goal, (s, n) in chained.items() if n >= TRIED and s < STEADY * n}


@dataclass
class Worker:
    """Does rounds on a journal. ``tell(steps)`` is called now and then with environment steps just taken."""

    config: RunConfig
    journal: Journal
    agent: LanguageModel
    tell: Callable[[int], None]
    say: Callable[[str], None]

    def seed(self, *words: int) -> int:
        """A seed of this round, apart from every other."""
        key = (self.journal.round, *words)
        return int(np.random.SeedSequence(self.config.seed, spawn_key=key).generate_state(1, np.uint64)[0] >> 17)

    def lacks(self, part: str) -> bool:
        """Whether a part of the loop is left out (`RunConfig.without`)."""
        return part in self.config.without

    @property
    def gate_config(self) -> GateConfig:
        gate = self.config.gate
        threshold = self.config.threshold
        if not self.config.use_gate:  # the ablation: whatever practice ends with is kept after a glance
            return GateConfig(threshold, gate.screen, 1, 1, 1)
        if self.lacks("proof"):
            return GateConfig(threshold, 1, 1, 1, 1)
        return GateConfig(threshold, gate.screen, gate.n, gate.confirm, max(1, gate.n // 2))

    def spend(self, steps: int) -> None:
        self.journal.state.steps += steps
        self.tell(steps)

    # -- rounds --------------------------------------------------------------------------------------------------

    def play_round(self) -> None:
        """Scripted play fills the store; policies learn from it; what they can do already is gated."""
        journal, config = self.journal, self.config
        self.say("playing (scripted)")
        play = ScriptedPlay(play_env(config.num_envs, config.threads), self.seed(0))
        episodes = [_play_episode(found) for found in play.collect(config.play_steps)]
        self.keep(episodes)
        self.spend(sum(len(episode) for episode in episodes))
        self.say("learning from play")
        taught = learn_all(
            config.play_policy, journal.store, config.flow_updates, self.seed(1), journal.directory / "learners",
            lambda: self.tell(0),
        )  # fmt: skip
        taught[0].policy.save_pretrained(journal.directory / "play")
        journal.state.play = "play"
        with journal.library.round(journal.round) as tx:
            self.say("measuring what play taught")
            admitted: list[str] = []
            for schema, decisions in self.decide([one.policy for one in taught], schemas()).items():
                self.remember(schema, decisions, steps=journal.state.steps)
                for one, own in won(taught, decisions):
                    about = {"from": "play", "learner": one.name}
                    admitted += self.admit(tx, schema, one.policy, own, None, about)
            for one in taught:
                for metric, value in one.metrics.items():
                    journal.scalar(f"play/{one.name}/{metric}", value)
            journal.note(
                "play", "", f"{config.play_steps:,} steps of scripted play come first",
                f"{len(admitted)} goals at once", "learnt", admitted=admitted, episodes=len(episodes),
            )  # fmt: skip
            self.seal(tx)

    def practice_round(self, goal: str, why: str) -> None:
        """Practises ``goal`` with its family, gates the result on every goal that may gain, learns the operators.

        Of the family's other goals those are gated that are not mastered yet, or fail within plans.
        """
        journal, config = self.journal, self.config
        asked = schema_of(Goal.parse(goal))
        name = family_of(config, asked)
        kin = {schema: goals for schema, goals in schemas().items() if family_of(config, schema) == name}
        practice = self.practice_config
        unfinished = journal.state.practice.get(name)
        if unfinished is not None:
            policy = MultiCriticPPO.load_training(journal.directory / unfinished["directory"])
            origin, before = unfinished["from"], int(unfinished["steps"])
        else:
            policy, origin, spent = begin(kin[asked], self.starts(name, kin), self.seed(2), practice)
            before = 0
            self.spend(spent)
        kept = prepare(self, policy, kin, asked, again=unfinished is not None)
        self.say(
            f"practising {Goal.parse(goal).text()}" + (f" and {len(kin) - 1} kinds like it" if len(kin) > 1 else "")
        )
        others = [other for schema, goals in kin.items() if schema != asked for other in goals]
        emphasis = 1 if self.lacks("skills") else max(1, len(others) // (2 * len(kin[asked])))  # asked: about a third
        outcome = practise(
            policy, kin[asked] * emphasis + others, config.practice_steps, self.seed(3), practice,
            warm=before == 0 and origin != "nothing", kept=kept, kept_share=KEPT_SHARE,
            on_iteration=lambda _: self.tell(practice.num_envs * practice.rollout),
        )  # fmt: skip
        journal.state.steps += outcome.steps
        if config.proposer == "soar":
            pay(self, [g for found in schemas().values() for g in found], goal, outcome.average)
        directory = journal.directory / "practice" / f"{_slug(name)}-{journal.round}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.parent.mkdir(exist_ok=True)
        policy.save_training(directory)
        journal.state.practice[name] = {
            "directory": str(directory.relative_to(journal.directory)), "steps": before + outcome.steps, "from": origin,
        }  # fmt: skip
        mastered = {m.goal: m.skill.version for m in journal.library.mastered()}
        settled = mastered.keys() - weak_links(journal.state.chained).keys()
        gained: list[str] = []
        results: list[str] = []
        reasons: list[str] = []
        with journal.library.round(journal.round) as tx:
            due = {schema: goals for schema, goals in kin.items() if schema == asked or not settled.issuperset(goals)}
            self.say(f"gating {asked}" + (f" and {len(due) - 1} kinds like it" if len(due) > 1 else ""))
            candidates = [outcome.average, outcome.policy][: config.candidates]
            for schema, decisions in self.decide(candidates, due).items():
                self.remember(schema, decisions, steps=journal.state.steps)
                parent = next((mastered[d.goal] for d in decisions if d.goal in mastered), None)
                made = {"from": origin, "steps": before + outcome.steps}
                for k in sorted({d.winner for d in decisions}):  # goals may differ in which candidate does best
                    own = [d for d in decisions if d.winner == k]
                    gained += self.admit(tx, schema, candidates[k], own, parent, made)
                results += [f"{d.goal} {d.winner_reports[0].report.rate:.0%}" for d in decisions]
                reasons += [f"{d.goal}: {d.reason}" for d in decisions]
            for other in (text for goals in kin.values() for text in goals):  # what was said of the one before
                journal.state.chained.pop(other, None)
            journal.note(
                "practice", goal, why, f"{', '.join(results)}; admitted: {', '.join(gained) or 'none'}",
                "admitted" if gained else "not yet",
                family=name, start=origin, steps=before + outcome.steps, reasons=reasons,
                metrics={k: round(v, 5) for k, v in outcome.metrics.items()},
            )  # fmt: skip
            for metric in ("success", "kl", "std", "reward/task", "reward/reach", "reward/safety"):
                if metric in outcome.metrics:
                    journal.scalar(f"practice/{_slug(name)}/{metric}", outcome.metrics[metric])
            self.seal(tx)
        for old in directory.parent.glob(f"{_slug(name)}-*"):
            if old != directory:
                shutil.rmtree(old, ignore_errors=True)

    def plan_round(self, goals: list[str], why: str) -> None:
        """Carries out composed goals by plan; operators learn from every execution."""
        journal = self.journal
        repertoire = repertoire_of(self.config, journal.library, journal.state.operators)
        plans = planner_of(self.config.language, repertoire)
        parsed = [Goal.parse(goal) for goal in goals]
        self.say(f"composing: {parsed[0].text()}")
        outcomes, steps = carry_out(
            parsed, repertoire.actors, plans, self.seed(4), replans=1, threads=self.config.threads,
            kept=self.kept, inventions=repertoire.inventions,
        )  # fmt: skip
        self.spend(steps)
        chained = {goal: [s / 2, n / 2] for goal, (s, n) in journal.state.chained.items() if n > 1}
        used = [option for outcome in outcomes for option in outcome.options]
        for option in used:
            if not self.lacks("operators"):
                repertoire.observe(option.goal, option.start, option.end, option.success)
            counts = chained.setdefault(anywhere(Goal.parse(option.goal)), [0.0, 0.0])
            counts[0] += option.success and not option.disturbed
            counts[1] += 1
        journal.state.chained = chained
        if not self.lacks("operators"):
            journal.state.operators |= {schema: op.to_dict() for schema, op in repertoire.operators.items()}
        done = sum(outcome.success for outcome in outcomes)
        for goal in dict.fromkeys(goals):
            of = [o for o in outcomes if o.goal == goal]
            journal.state.history.setdefault(goal, []).append([sum(o.success for o in of), len(of)])
        with journal.library.round(journal.round) as tx:
            for option in used:
                tx.add_usage(repertoire.versions[option.schema], option.goal, option.success, option.steps)
            journal.note(
                "plan", goals[0], why, f"{done} of {len(outcomes)} carried out", "composed",
                goals=sorted(set(goals)), reasons=sorted({o.reason for o in outcomes if o.reason})[:5],
            )  # fmt: skip
            journal.scalar("plan/success", done / max(1, len(outcomes)))
            self.seal(tx)

    # -- parts ---------------------------------------------------------------------------------------------------

    @property
    def practice_config(self) -> PracticeConfig:
        config = self.config
        return PracticeConfig(num_envs=max(16, config.num_envs), threads=config.threads, rollback=config.rollback)

    @cached_property
    def kept(self) -> KeptStates:
        """The states that executions ended in, as of the last sealed round."""
        state = self.journal.state
        return KeptStates.load(self.journal.directory / state.kept) if state.kept else KeptStates()

    def seal(self, tx: Any) -> None:
        """Makes the round durable: kept states first, then all that the journal holds."""
        journal, name = self.journal, f"kept-{self.journal.round}.safetensors"
        self.kept.save(journal.directory / name)
        journal.state.kept = name
        journal.seal(tx)
        for old in journal.directory.glob("kept-*.safetensors"):
            if old.name != name:
                old.unlink()

    def starts(self, name: str, kin: dict[str, list[str]]) -> dict[str, MultiCriticPPO]:
        """What practice may begin from: play relabelled for the goals and cloned, and what was practised before."""
        found: dict[str, MultiCriticPPO] = {}
        store = self.journal.store
        goals = [goal for found_goals in kin.values() for goal in found_goals]
        relabelled = self.config.use_play and not self.lacks("relabeler")
        if len(store) and (relabelled or self.config.cloning == "filtered"):
            features, actions, count, told = lessons(store, goals, self.config.cloning)
            if count >= 8:
                found[f"{count} {told}"] = clone(features, actions, self.seed(5), self.practice_config)
        for other, row in self.journal.state.practice.items():
            if any("?a" in schema for schema in kin) and ("?a" in other or other == "carry"):
                found[f"what was practised as {other}"] = MultiCriticPPO.load_training(
                    self.journal.directory / row["directory"]
                )
        return found | start_of(self, goals)

    def look(self, candidate: Any, questions: Sequence[Question]) -> list[EvalReport]:
        """`embodied.skills.gate.Evaluate`; some of the episodes are kept."""
        trials = [Trial(*question, record=RECORDED) for question in questions]
        found = measure_all(candidate, trials, threads=self.config.threads, on_steps=self.spend)
        for measured in found:
            self.keep(measured.episodes)
            self.relabel(measured.episodes)
        return [measured.report for measured in found]

    def decide(self, policies: Sequence[Any], kinds: Mapping[str, list[str]]) -> dict[str, list[GateDecision]]:
        """Screens policies on each schema's goals, gates and confirms the best; keeps some of the episodes."""
        gate = Gate(self.look, self.config.seed, self.gate_config)
        goals = [goal for of_one in kinds.values() for goal in of_one]
        made = iter(gate.decide_all(goals, policies, round=self.journal.round))
        return {schema: [next(made) for _ in of_one] for schema, of_one in kinds.items()}

    def remember(self, schema: str, decisions: list[GateDecision], steps: int) -> None:
        """Keeps each goal's first look and the schema's curve."""
        successes = n = 0
        for decision in decisions:
            screen = decision.winner_reports[0].report
            self.journal.state.history.setdefault(decision.goal, []).append([screen.successes, screen.n])
            successes, n = successes + screen.successes, n + screen.n
        self.journal.state.curves.setdefault(schema, []).append([steps, successes, n])
        self.journal.scalar(f"success/{_slug(schema)}", successes / max(1, n))

    def admit(
        self,
        tx: Any,
        schema: str,
        policy: Any,
        decisions: list[GateDecision],
        parent: str | None,
        provenance: dict[str, Any],
        conditioning: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Records a policy's evidence where at least one goal was admitted, and learns its operator; those goals."""
        admitted = [decision.goal for decision in decisions if decision.admitted]
        if not admitted:
            tx.add_decision(None, *decisions)
            return []
        n = min(EXECUTIONS, self.config.gate.n)
        trials = [Trial(goal, n, self.seed(6, k)) for k, goal in enumerate(admitted)]
        others = [kept for name, kept in self.journal.state.operators.items() if name != schema]
        operator, executed = learn_operator(
            policy, schema, trials, self.kept, threads=self.config.threads, on_steps=self.spend,
            taken=[text for kept in others for text in kept.get("invented", ())], declared=self.lacks("operators"),
        )  # fmt: skip
        entry = entry_of(self.agent, operator, admitted[0], executed, MAX_STEPS)
        with tempfile.TemporaryDirectory() as scratch:
            policy.save_pretrained(Path(scratch) / "policy")
            skill = tx.add_skill(
                schema, Path(scratch) / "policy", conditioning=conditioning or {"kind": "goal"},
                signature={"schema": schema}, parent=parent,
                provenance=provenance | {"executed": executed, "handbook": entry.author},
                policy=entry.policy, operator=entry.operator, handbook=entry.handbook,
            )  # fmt: skip
        tx.add_decision(skill.version, *decisions)
        tx.count(operator.counts())
        if not self.lacks("operators"):
            self.journal.state.operators[schema] = operator.to_dict()
        count = len(self.journal.library.mastered())
        state = self.journal.state
        state.mastered.append({"steps": state.steps, "seconds": state.seconds, "count": count})
        self.journal.scalar("mastered", count)
        return admitted

    def keep(self, episodes: list[Episode]) -> None:
        """Stores episodes; one that physics broke is dumped apart and named, and the others are kept."""
        waiting = list(episodes)
        while waiting:
            try:
                self.journal.store.extend(waiting)
                break
            except BrokenEpisodeError as error:
                broken = waiting.pop(error.position)
                path = quarantine.dump(
                    self.journal.directory / "quarantine", quarantine.Incident.from_episode(broken, str(error))
                )
                self.say(f"an episode was put aside in {path}: {error}")
        self.journal.state.episodes += len(waiting)

    def relabel(self, episodes: list[Episode]) -> None:
        """Counts the goals that episodes reached, whatever they were meant for."""
        literals = tuple(str(literal) for literal in STATE_LITERALS)
        for episode in () if self.lacks("relabeler") else episodes:
            message = RelabelRequest(literals=literals, truth=truth_table(episode.observations))
            for found in self.agent.complete(LMRequest("relabel", message, RelabelReply)).value.reached:
                self.journal.state.reached[found.goal] = self.journal.state.reached.get(found.goal, 0) + 1


def _play_episode(found: dict[str, Any]) -> Episode:
    """An episode of play; what the generator knows of its behaviours stays behind."""
    length = len(found["actions"])
    last = np.zeros(length, np.bool_)
    last[-1] = bool(found["truncated"])
    return Episode(
        observations=np.ascontiguousarray(found["facts"], np.float32),
        actions=np.ascontiguousarray(found["actions"], np.float32),
        rewards=np.zeros((length, 3), np.float32),
        terminations=np.zeros(length, np.bool_), truncations=last,
        states=found["state"][None], state_steps=np.zeros(1, np.int64),
        success=False, goal="", instruction="", source="scripted-play", policy="", env=ENV_ID, seed=int(found["seed"]),
        versions=versions(),
    )  # fmt: skip


def _slug(schema: str) -> str:
    """A schema as a file name."""
    return "".join(c if c.isalnum() else "_" for c in schema).strip("_")
