"""What play taught, in the library: segments of play are skill candidates, and a policy from play carries them out.

Play is cut where it changes its mind and its segments are sorted by what came true in them
(`embodied.training.segments`). A policy from play is given goals as states, so a goal in words needs one: the
*exemplars* of a goal are the segments in which play itself brought it about. Of those whose end, put in place of the
thing's present, makes the goal true by the simulator's predicates, the one that began most alike says where to go. No
label and no expert's way is read. Every goal then goes through the gate on fresh starts, and what passes is kept with
its exemplars, the operator that the segments teach, and its name in the scene's words.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embodied import runs
from embodied.data.batches import Encoder, Recorded
from embodied.errors import ConfigError
from embodied.evaluation.goal_exam import Act, acting
from embodied.evaluation.goal_gate import exam_evaluate
from embodied.skills.gate import Gate, GateConfig, GateDecision, GateError
from embodied.skills.library import Round, SkillLibrary
from embodied.training.episodes import seed_of
from embodied.training.offline import POLICY, load_goal_policy
from embodied.training.segments import Candidate, Segment, SegmentModel, begun, candidates, segments_of, truth
from envs.scenes.goal_states import GoalStates
from envs.scenes.scene import Scene, load
from envs.scenes.subgoals import Subgoals
from envs.scenes.words import MAX_TERMS, Term, WordError
from policies.base import Policy

__all__ = ["Exemplars", "keep_played", "played_goals", "towards"]

EPISODES = 400  # of the play are cut
LEAST = 8  # segments that a goal rests on
MOST = 32  # goals that go to the gate, the commonest of them
KEPT = 48  # exemplars of a goal, drawn where there are more
DECIMALS = 4  # of their facts, metres and radians
STEPS = 250  # control steps that a skill may take


@dataclass(frozen=True)
class Exemplars:
    """Where a goal's thing was when play began to bring it about, and at the end: float32[m, K] each, facts of it.

    ``which`` is the thing's number in `Subgoals`, ``beside`` the columns of the place of another block that the goal
    puts it in relation to (none, or three): ends are seen from there.
    """

    goal: str
    which: int
    beside: tuple[int, ...]
    starts: np.ndarray
    ends: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, rounded."""
        starts, ends = (np.round(rows.astype(np.float64), DECIMALS).tolist() for rows in (self.starts, self.ends))
        return {"goal": self.goal, "which": self.which, "beside": list(self.beside), "starts": starts, "ends": ends}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Exemplars:
        """Inverse of `to_dict`. Raises ConfigError for what is none."""
        try:
            starts, ends = (np.asarray(found[key], np.float32) for key in ("starts", "ends"))
            if (
                starts.ndim != 2
                or starts.shape != ends.shape
                or not np.isfinite(starts).all() & np.isfinite(ends).all()
            ):
                raise ValueError(f"starts {starts.shape} and ends {ends.shape} must be alike and finite")
            return cls(str(found["goal"]), int(found["which"]), tuple(map(int, found["beside"])), starts, ends)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"a skill's exemplars cannot be read: {error!r}") from None

    def goals(self, scene: Scene, facts: np.ndarray) -> np.ndarray:
        """The state to go to from each of facts[n, NX], float64[n, NX]: the present but for the thing.

        Where no exemplar would make the goal true, that of the most alike start.
        """
        subgoals, m = Subgoals(scene), len(self.starts)
        columns = subgoals.columns(self.which)
        terms = [Term(t.predicate, t.args) for t in scene.vocabulary.parse(self.goal)]
        wanted = [t.positive for t in scene.vocabulary.parse(self.goal)]
        spread = self.starts.std(axis=0) + 0.01
        chosen = np.empty((len(facts), facts.shape[1]))
        for i, present in enumerate(np.asarray(facts, np.float64)):
            ends = np.repeat(present[None], m, axis=0)
            ends[:, columns] = self.ends
            if self.beside:  # x, y and z alone: how high it was carried, and from where, is its own
                ends[:, columns.start : columns.start + 3] += present[list(self.beside)]
            ends = subgoals.alone(np.repeat(present[None], m, axis=0), ends, np.full(m, self.which))
            seen = np.stack([begun(scene, np.stack([present, end])) for end in ends])
            holds = (truth(scene, seen, terms) == wanted).all(axis=1)
            away = (((present[columns] - self.starts) / spread) ** 2).sum(axis=1)
            chosen[i] = ends[int(np.argmin(np.where(holds, away, away + 1e9)))]
        return chosen


def exemplars_of(
    scene: Scene, goal: tuple[Term, ...], facts: np.ndarray, spans: Sequence[tuple[int, int]], seed: int
) -> Exemplars:
    """Those of ``spans``, (first, last row of facts[rows, NX]) of segments in which the goal came true."""
    subgoals, encoder = Subgoals(scene), GoalStates(scene)
    which = subgoals.names.index(goal[0].args[0])
    other = [arg for arg in goal[0].args[1:] if arg in {b.name for b in scene.blocks}]
    drawn = np.array(spans)
    if len(drawn) > KEPT:
        drawn = drawn[np.random.default_rng(seed).choice(len(drawn), KEPT, replace=False)]
    columns = subgoals.columns(which)
    ends = encoder.hindsight(facts, drawn[:, 0], drawn[:, 1])
    beside: tuple[int, ...] = ()
    own = ends[:, columns].copy()
    if other:
        place = subgoals.columns(subgoals.names.index(other[0])).start
        beside = (place, place + 1, place + 2)
        own[:, :3] -= ends[:, place : place + 3]
    return Exemplars(" & ".join(map(str, goal)), which, beside, facts[drawn[:, 0]][:, columns], own)


def played_goals(
    play: Recorded, scene: Scene, *, seed: int = 0, episodes: int = EPISODES, most: int = MOST, **model: Any
) -> tuple[dict[str, Exemplars], dict[str, Candidate]]:
    """Goals that play brought about often, each with its exemplars, and the candidate skill each belongs to.

    ``model``: of `SegmentModel`. Goals about several things at once are left to plans.
    """
    ends = np.asarray(play.episode_ends)[:episodes]
    facts, actions = np.asarray(play.observations[: ends[-1]]), np.asarray(play.actions[: ends[-1]])
    learner = SegmentModel(scene, seed=seed, **model)
    learner.fit(facts, actions, ends)
    found: list[Segment] = []
    spans: dict[tuple[Term, ...], list[tuple[int, int]]] = defaultdict(list)
    for k, (a, b) in enumerate(zip((0, *ends[:-1]), ends, strict=True)):
        if b - a < 2:
            continue
        for segment in segments_of(scene, facts[a:b], learner.cuts(facts[a:b], actions[a : b - 1]), k):
            found.append(segment)
            spans[segment.effect].append((int(a) + segment.start, int(a) + segment.stop))
    owners = {goal: candidate for candidate in candidates(scene, found) for goal in candidate.goals}
    things = set(Subgoals(scene).names)
    exemplars = {}
    for effect, rows in sorted(spans.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        goal = " & ".join(map(str, effect))
        about = {t.args[0] for t in effect}
        if len(rows) < LEAST or len(effect) > MAX_TERMS or len(about) != 1 or not about <= things:
            continue
        try:
            scene.vocabulary.parse(goal)
        except WordError:
            continue
        exemplars[goal] = exemplars_of(scene, effect, facts, rows, seed_of(seed, len(exemplars)))
        if len(exemplars) == most:
            break
    return exemplars, {goal: owners[goal] for goal in exemplars}


def towards(policy: Policy, encoder: Encoder, scene: Scene, exemplars: Exemplars) -> Act:
    """Acts towards what the exemplars say of the first facts it is given; goals it is given are not read."""
    goals: np.ndarray | None = None
    act = acting(policy, encoder)

    def follow(facts: np.ndarray, _: np.ndarray) -> np.ndarray:
        nonlocal goals
        goals = exemplars.goals(scene, facts) if goals is None else goals
        return act(facts, goals)

    return follow


def keep_played(
    folder: Path, play: Recorded, *, gate: GateConfig | None = None, seed: int = 0, steps: int = STEPS,
    say: Callable[[str], None] = lambda _: None, **cutting: Any,
) -> list[str]:  # fmt: skip
    """Puts what a training's policy can do of what play did to the gate, and keeps what passes in the folder's library.

    ``cutting``: of `played_goals`. Returns the goals admitted there. What was decided before a kill is not asked again,
    and a policy that has been through the gate is left as it is. Raises ConfigError for a policy that was not learnt on
    goal states of a scene.
    """
    policy, encoder = load_goal_policy(folder)
    name = json.loads((folder / "encoder.json").read_text(encoding="utf-8")).get("scene")
    if name is None:
        raise ConfigError(f"{folder} did not learn from facts of a scene of ours, so nothing says what its play did")
    scene = load(name)
    with SkillLibrary.open(folder / runs.LIBRARY) as library:
        artifact = library.artifacts.put(folder / POLICY)
        last = library.last_round
        state: dict[str, Any] = dict(last.state) if last is not None else {}
        if state.get("artifact") != artifact:
            state = {"artifact": artifact, "world": {"scene": name, "blocks": None}, "reasons": {}, "finished": False}
        if state["finished"]:
            return [entry.goal for entry in library.mastered()]
        say("cutting the play, and sorting what came true in it")
        exemplars, owners = played_goals(play, scene, seed=seed, **cutting)
        say(f"{len(exemplars)} goals for the gate, {len(state['reasons'])} of them decided already")
        for goal, shown in exemplars.items():
            if goal in state["reasons"]:
                continue
            decision = _decide(policy, encoder, name, shown, seed, gate, steps)
            say(f"{scene.vocabulary.describe(goal)}: {decision.reason}")
            state = state | {"reasons": state["reasons"] | {goal: decision.reason}}
            with library.round(library.next_round) as tx:  # a round a goal: what was decided survives a kill
                if not decision.admitted:
                    tx.add_decision(None, decision)
                else:
                    _keep(
                        tx,
                        folder / POLICY,
                        policy,
                        owners[goal],
                        shown,
                        decision,
                        scene.vocabulary.describe(goal),
                        steps,
                    )
                tx.seal(ledger_offset=0, store_offsets={}, state=state)
        with library.round(library.next_round) as tx:
            tx.seal(ledger_offset=0, store_offsets={}, state=state | {"finished": True})
        return [entry.goal for entry in library.mastered()]


def _keep(
    tx: Round, artifact: Path, policy: Policy, owner: Candidate, shown: Exemplars, decision: GateDecision, name: str,
    steps: int,
) -> None:  # fmt: skip
    """Records an admitted goal's skill, its evidence, and what its segments teach about it where nothing is known."""
    skill = tx.add_skill(
        owner.schema, artifact, conditioning={"exemplars": shown.to_dict(), "steps": steps},
        signature={"schema": owner.schema},
        provenance={
            "from": "play", "name": name, "segments": owner.count, "needs": list(owner.needs),
            "policy": policy.registry_key,
        },
    )  # fmt: skip
    tx.add_decision(skill.version, decision)
    if not tx.library.operators(owner.schema):
        tx.count(owner.counts)


def _decide(
    policy: Policy, encoder: Encoder, name: str, shown: Exemplars, seed: int, gate: GateConfig | None, steps: int
) -> GateDecision:
    """The gate's decision about one goal; rejected, with the reason, where the expert shows too few fresh starts."""
    scene = load(name)
    evaluate = exam_evaluate(lambda candidate: towards(candidate, encoder, scene, shown), name, steps)
    try:
        return Gate(evaluate, seed, gate).decide(shown.goal, [policy], round=0)
    except GateError as error:
        return GateDecision(shown.goal, False, f"not decided: {error}", 0, ())
