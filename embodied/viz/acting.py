"""What acts in a world that is looked at: chance, the world's script, a saved policy, a learnt skill, or a recording.

`make_show` opens the world and puts the actor into it; `Show.step` advances both by one control step. Of a world it
needs what `envs.vector.TabletopVectorEnv` offers: the gymnasium VectorEnv interface, ``simulation`` (to draw from),
and where it has them ``set_goals``, ``goal_text``, ``set_state``, ``lit`` and ``scripted_policy``, which gives an
actor: anything with the `predict` of `policies.base.Policy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from embodied import runs
from embodied.training.rollouts import Actor
from envs.registry import make_vector, native

if TYPE_CHECKING:
    from embodied.cli.schema import ViewConfig
    from embodied.core import Episode

__all__ = ["Show", "ViewError", "make_show"]


class ViewError(ValueError):
    """What was asked for cannot be looked at; the sentence says why, and what can."""


class RandomActor:
    """Actions drawn from the action space."""

    def __init__(self, env: VectorEnv, seed: int):
        self._space = env.action_space
        self._space.seed(seed)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        return self._space.sample(), state


class RecordedActor:
    """The actions float32[T, A] of an episode, one after the other."""

    def __init__(self, actions: np.ndarray):
        self._actions, self._next = actions, 0

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        self._next += 1
        return self._actions[None, min(self._next, len(self._actions)) - 1], state


@dataclass
class Show:
    """One slot of a world and what acts in it.

    ``who`` says in words who that is; ``steps`` is its length, 0: open; ``about`` stands for the running goal.
    """

    env: VectorEnv
    actor: Actor
    who: str
    steps: int = 0
    observation: Any = None
    about: str | None = None
    successes: int = 0
    episodes: int = 1
    _memory: Any = None
    _begins: np.ndarray = field(default_factory=lambda: np.ones(1, np.bool_))

    def step(self) -> None:
        """One control step. The world begins anew by itself where an episode ends."""
        action, self._memory = self.actor.predict(self.observation, self._memory, self._begins, deterministic=True)
        self.observation, _, terminated, truncated, info = self.env.step(action)
        self._begins = np.asarray(terminated | truncated)
        self.successes += int(info["success"][0] and self._begins[0])
        self.episodes += int(self._begins[0])

    @property
    def goal(self) -> str:
        """The goal of the running episode in words, or ""."""
        if self.about is not None:
            return self.about
        return self.env.goal_text(0) if hasattr(self.env, "goal_text") else ""  # type: ignore[attr-defined]

    @property
    def lit(self) -> dict[str, np.ndarray]:
        """The lamps of the world: geom name → lit bool[1]."""
        return {name: np.array(on) for name, on in getattr(self.env, "lit", {}).items()}


def make_show(config: ViewConfig) -> Show:
    """Opens the world and what acts in it, as the configuration says, at its reset.

    Raises ViewError for a combination or a part that the world or the run has not, UnknownEnvError for a world,
    CheckpointError for a policy that cannot be read, MissingRunError and StoreError for a run and its episodes.
    """
    asked = [name for name in ("policy", "skill", "episode") if getattr(config, name) not in ("", "random", -1)]
    if len(asked) > 1:
        raise ViewError(f"{' and '.join(asked)} were given; who is to act? name one of them")
    recorded = _recorded(config) if config.episode >= 0 else None
    # A recording ends where it ends, not where this world would begin anew.
    how = {"autoreset_mode": AutoresetMode.DISABLED} if recorded else {}
    env = make_vector(_world(config, recorded), 1, render_mode="rgb_array", **how)
    try:
        show = _replay(env, recorded, config) if recorded else _live(env, config)
    except BaseException:
        env.close()
        raise
    return show


def _live(env: VectorEnv, config: ViewConfig) -> Show:
    """A show in which something decides what to do."""
    goals: Sequence[str] = [config.goal] if config.goal else []
    if config.skill:
        actor, goal = _skill(env, config)
        goals, who = goals or [goal], f"the skill {goal} of {runs.find(config.run)}"
    elif config.policy == "random":
        actor, who = RandomActor(env, config.seed), "random actions"
    elif config.policy == "script":
        if not hasattr(env, "scripted_policy"):
            raise ViewError(f"{config.env} has no scripted play; policy=random, or the directory of a saved policy")
        actor, who = env.scripted_policy(), "the world's own script"  # type: ignore[attr-defined]
    else:
        actor, who = _policy(env, config), f"the policy in {config.policy}"
    if goals:
        if not hasattr(env, "set_goals"):
            raise ViewError(f"{config.env} takes no goals; leave goal and skill out")
        env.set_goals(list(goals))  # type: ignore[attr-defined]
    observation, _ = env.reset(seed=config.seed)
    return Show(env, actor, who, observation=observation)


def _replay(env: VectorEnv, episode: Episode, config: ViewConfig) -> Show:
    """A show in which a recorded episode happens again: its first state, and its actions."""
    if episode.goal and hasattr(env, "set_goals"):
        env.set_goals([episode.goal])  # type: ignore[attr-defined]
    observation, _ = env.reset(seed=config.seed)
    size, actions = env.get_state().shape[1], env.action_space.shape[1]  # type: ignore[attr-defined,index]
    if (episode.states.shape[1], episode.actions.shape[1]) != (size, actions):
        raise ViewError(
            f"episode {config.episode} was recorded in another version of {episode.env}: its states have "
            f"{episode.states.shape[1]} numbers and its actions {episode.actions.shape[1]}, here {size} and {actions}"
        )
    env.set_state(episode.states[:1])  # type: ignore[attr-defined]
    who = f"episode {config.episode} of {runs.find(config.run)} ({episode.source})"
    return Show(env, RecordedActor(episode.actions), who, len(episode), observation, episode.goal)


def _world(config: ViewConfig, recorded: Episode | None) -> str:
    """The world's name; an episode brings its own."""
    if recorded is None or not recorded.env:
        return config.env
    short = {full: name for name, full in native().items()}
    return short.get(recorded.env, recorded.env)


def _recorded(config: ViewConfig) -> Episode:
    from embodied.data.store import EpisodeStore

    folder = runs.find(config.run) / runs.EPISODES
    if not folder.is_dir():
        raise ViewError(f"{folder.parent} has kept no episodes")
    with EpisodeStore.open(folder, readonly=True, verify=False) as store:
        if config.episode >= len(store):
            raise ViewError(f"{folder.parent} has {len(store)} episodes, 0 to {len(store) - 1}; not {config.episode}")
        return store.get(config.episode)


def _skill(env: VectorEnv, config: ViewConfig) -> tuple[Actor, str]:
    """What carries a goal or a schema of the run's library out, and the goal."""
    from embodied.repertoire import Repertoire

    run_dir = runs.find(config.run)
    with runs.library(run_dir) as library:
        repertoire = Repertoire.load(library, {})
    by_schema = {name.split(" [")[0]: goal for goal, name in sorted(repertoire.acts.items(), reverse=True)}
    goal = config.skill if config.skill in repertoire.acts else by_schema.get(config.skill, "")
    if not goal:
        known = ", ".join(sorted(repertoire.acts)) or "none yet"
        raise ViewError(f"{run_dir} has no skill {config.skill!r}; its skills: {known}")
    return _fitting(repertoire.actors[repertoire.acts[goal]], env, f"the skill {goal}", config), goal


def _policy(env: VectorEnv, config: ViewConfig) -> Actor:
    from policies import load_policy

    if not Path(config.policy).is_dir():
        raise ViewError(f"policy = {config.policy!r} is neither random nor script nor the directory of a saved policy")
    policy = load_policy(config.policy)
    policy.seed(config.seed)
    return _fitting(policy, env, f"the policy in {config.policy}", config)


def _fitting(policy: Any, env: VectorEnv, what: str, config: ViewConfig) -> Actor:
    """The policy, where it sees and moves as many numbers as the world has."""
    shapes = [space.shape for space in (env.single_observation_space, env.single_action_space)]
    if shapes != [(policy.observation_size,), (policy.action_size,)]:
        raise ViewError(
            f"{what} sees {policy.observation_size} numbers and moves {policy.action_size}; "
            f"{config.env} has observations {shapes[0]} and actions {shapes[1]}"
        )
    return policy
