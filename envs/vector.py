"""`Embodied/Tabletop-v0`: the table-top as a native gymnasium ``VectorEnv``, and the single environment, n = 1 of it.

One control step (20 Hz) is: actions → joint targets (numba), physics on all threads (``mujoco.batch``), facts,
predicates, reward terms and features (numba). A reset's state depends on (seed, slot, that slot's episode count) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.control import joint_action, tool_action
from envs.copying import Remade
from envs.goal_clock import GoalClock
from envs.goals import Goal
from envs.kinematics import Chain
from envs.observations import FEATURES, GOAL_DIM, GROUPS, LIMIT
from envs.playroom.resets import START_COLUMNS, draw_kept, draw_starts
from envs.playroom.robot import DRIVE, HOME
from envs.playroom.scene import TIMESTEP, build_model
from envs.predicates import BLOCK, BLOCK_STRIDE, COLUMNS, DRAWER, JOINTS, LAMP
from envs.rewards import COSTS, REWARD_TERMS
from envs.settle import begin, look, settle
from envs.simulation import Simulation
from envs.single import TabletopEnv
from envs.step import LATCHES, WORKSPACE_HIGH, WORKSPACE_LOW, YAW_LIMIT, extract, write_starts

if TYPE_CHECKING:
    from envs.playroom.oracle import ScriptedOracle

__all__ = ["CONTROL_HZ", "DEFAULT_GOALS", "ENV_ID", "TabletopEnv", "TabletopVectorEnv"]

ENV_ID = "Embodied/Tabletop-v0"
CONTROL_HZ = 20
SUBSTEPS = round(1 / (CONTROL_HZ * TIMESTEP))
DEFAULT_GOALS = (
    "open(drawer)", "closed(drawer)", "lit(lamp)", "lifted(red)", "placed(red, anywhere)", "inside(red, drawer)",
)  # fmt: skip
ACTIONS = {"tool": 5, "joint": 8}
OBSERVATIONS = ("flat", "dict")
_WORKSPACE = np.stack([WORKSPACE_LOW, WORKSPACE_HIGH])
_TOLERANCE = np.array([0.03, 0.03, 0.03, 0.03])  # dict goals: m for blocks and drawer; the lamp is 0 or 1


class TabletopVectorEnv(Remade, VectorEnv):
    """n table-tops. See `reset` and `step` for shapes.

    Args:
        num_envs: n.
        goals: goal texts; an episode's goal is drawn from them by (seed, slot, episode).
        control: ``tool`` (Δx, Δy, Δz of 3 cm, Δyaw of 0.15 rad, gripper) or ``joint`` (seven steps, gripper).
        observation: ``flat`` features float32[n, FEATURES], or ``dict`` (observation, achieved_goal, desired_goal).
        max_steps: an episode is truncated after so many control steps.
        terminate_on_success: end an episode when its goal has held for ``hold`` steps.
        reward_weights: weights of the reward terms (task, reach, safety) in the scalar reward of flat observations.
        free_starts: draw starts without regard to the goal (it may hold already, or be out of reach of one skill).
        kept: (states float64[k, S], facts float64[k, NX]) that experience left: a share ``kept_share`` of the episodes
            begins there, wherever the goal is still to be reached and can be; a state's facts are those of its moment.
        threads: physics threads, 0 for all cores. sleep: let resting objects skip physics.

    Raises ValueError, naming the valid choices, for an unknown control, observation or goal.
    """

    def __init__(
        self,
        num_envs: int = 1,
        goals: str | Sequence[str] = DEFAULT_GOALS,
        *,
        control: str = "tool",
        observation: str = "flat",
        max_steps: int = 120,
        terminate_on_success: bool = True,
        hold: int = 5,
        reward_weights: tuple[float, float, float] = (1.0, 0.5, 0.5),
        free_starts: bool = False,
        kept: tuple[np.ndarray, np.ndarray] | None = None,
        kept_share: float = 0.5,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        threads: int = 0,
        sleep: bool = True,
        render_mode: str | None = None,
    ):
        if control not in ACTIONS:
            raise ValueError(f"unknown control '{control}'; valid: {', '.join(ACTIONS)}")
        if observation not in OBSERVATIONS:
            raise ValueError(f"unknown observation '{observation}'; valid: {', '.join(OBSERVATIONS)}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode '{render_mode}'; valid: rgb_array or None")
        self.num_envs = num_envs
        self.control, self.observation_kind, self.max_steps = control, observation, max_steps
        self.terminate_on_success, self.free_starts = terminate_on_success, free_starts
        self.reward_weights = np.asarray(reward_weights, np.float64)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {
            "autoreset_mode": self.autoreset_mode, "render_fps": CONTROL_HZ, "render_modes": ["rgb_array"],
            "physics": f"mujoco {mujoco.__version__}",
        }  # fmt: skip
        self.render_mode = render_mode
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (ACTIONS[control],), np.float32)
        flat = gym.spaces.Box(-LIMIT, LIMIT, (FEATURES,), np.float32)
        goal_box = gym.spaces.Box(-10.0, 10.0, (GOAL_DIM + GROUPS,), np.float64)
        self.single_observation_space = (
            flat
            if observation == "flat"
            else gym.spaces.Dict({"observation": flat, "achieved_goal": goal_box, "desired_goal": goal_box})
        )
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

        self.simulation = Simulation(build_model(sleep), num_envs, threads)
        self.chain = Chain.from_model(self.simulation.model, HOME)
        self._chain = self.chain.arrays
        n = num_envs
        self._all = np.arange(n)
        self.clock = GoalClock(n, hold)
        self.distance, self.elapsed = self.clock.distance, self.clock.elapsed
        self.facts = np.zeros((n, len(COLUMNS)))
        self.latches = np.zeros((n, LATCHES))
        self._qcmd = np.zeros((n, 7))
        self.terms = np.zeros((n, len(REWARD_TERMS)))
        self.costs = np.zeros((n, len(COSTS)))
        self.lost = np.zeros(n, np.bool_)
        self.targets, self.mask = np.zeros((n, GOAL_DIM)), np.zeros((n, GROUPS))
        self.role = np.zeros(n, np.int64)
        self._features = np.zeros((n, FEATURES), np.float32)
        s = self.simulation
        self._physics = (s.qpos, s.qvel, self.latches, self.facts, self.lost, *self._chain[:2])
        self._seen = (
            self.distance, self.terms, self.costs, self.targets, self.mask, self.role, self._features,
        )  # fmt: skip
        self.episodes = np.full(n, -1, np.int64)  # episodes begun since the seed, less one
        self._pending = np.zeros(n, np.bool_)  # next-step mode: to be reset by the next step
        self._seed = int(np.random.SeedSequence().entropy) % (1 << 62)  # type: ignore[operator]
        self._renderer: Any = None
        self._kept, self._kept_share = kept, kept_share if kept is not None and len(kept[0]) else 0.0
        self.set_goals(goals)

    # -- goals ---------------------------------------------------------------------------------------------------

    def set_goals(self, goals: str | Sequence[str]) -> None:
        """Sets the goals that later episodes draw from; running episodes keep theirs until they are reset."""
        self.clock.set_goals(goals)

    @property
    def goals(self) -> list[Goal]:
        """What later episodes draw from."""
        return self.clock.goals

    def assign_goals(self, which: Sequence[int] | np.ndarray, slots: np.ndarray | None = None) -> None:
        """Gives running slots a goal of `goals` (indices ``which``) where they stand: a new option begins, no reset."""
        slots = self._all if slots is None else np.asarray(slots)
        self.clock.give(slots, which)
        self._begin(slots)
        self.clock.load(slots, self._seed, self.episodes, self.facts)
        self._look(slots)

    def goal_text(self, slot: int) -> str:
        """The goal of a slot's running episode."""
        return self.clock.text(slot)

    def _begin(self, slots: np.ndarray) -> None:
        """Starts the goal clock of ``slots``: stage, steps, hold count and peaks."""
        begin(slots, self.latches, self.facts, self.clock.arrays)

    # -- gymnasium -----------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None):
        """Starts new episodes; observations [n, …] and info.

        ``seed`` makes the batch reproducible. ``options``: ``reset_mask`` bool[n] resets only those slots;
        ``goals`` replaces `goals` first; ``which`` int[n] fixes each slot's goal index for this episode.
        """
        options = options or {}
        unknown = set(options) - {"reset_mask", "goals", "which"}
        if unknown:
            raise ValueError(f"unknown reset option '{sorted(unknown)[0]}'; valid: reset_mask, goals, which")
        if seed is not None:
            first = seed if isinstance(seed, int | np.integer) else seed[0]
            self._seed = int(first) if first is not None else self._seed
            self.episodes[:] = -1
        if "goals" in options:
            self.set_goals(options["goals"])
        mask = options.get("reset_mask")
        slots = self._all if mask is None else np.flatnonzero(mask)
        self._restart(slots, options.get("which"))
        self._pending[slots] = False
        self.terms[slots] = self.costs[slots] = 0.0
        self._look(slots)
        return self.observation(), self._info()

    def step(self, actions: np.ndarray):
        """One control step; actions float[n, A] in [-1, 1], clipped.

        Returns observations, rewards float64[n], terminations, truncations bool[n], info. ``info`` (arrays over n):
        ``success``, ``reward_terms`` [n, 3], ``costs`` [n, 6], ``lost``, ``bad_physics``; in same-step mode
        ``final_obs`` [n, …] and ``_final_obs`` mark ended slots. A simulation that went bad (NaN) is truncated and
        flagged, and the batch goes on.
        """
        actions, width = np.asarray(actions, np.float64).reshape(self.num_envs, -1), ACTIONS[self.control]
        if actions.shape[1] != width:
            raise ValueError(f"actions have {actions.shape[1]} columns; '{self.control}' control takes {width}")
        broken = np.asarray(~np.isfinite(actions).all(axis=1))
        if broken.any():
            actions = np.where(broken[:, None], 0.0, actions)
        fresh = np.flatnonzero(self._pending)
        commands = (actions, self.facts, self.latches, self._qcmd, self.simulation.ctrl)
        if self.control == "tool":
            self.simulation.share(tool_action, *commands, self._chain, DRIVE, _WORKSPACE, YAW_LIMIT)
        else:
            self.simulation.share(joint_action, *commands, self._chain, DRIVE, JOINTS)
        bad = self.simulation.step(SUBSTEPS)
        if bad is not None:  # facts keep the last good step's values for bad slots
            broken[bad] = True
            self.simulation.clear(bad)
            self.simulation.qpos[bad, :7] = HOME
        ends = np.zeros(self.num_envs), *(np.zeros(self.num_envs, np.bool_) for _ in range(3))
        rules = (
            self._seed, self.episodes, self.clock.hold, self.reward_weights, self.terminate_on_success, self.max_steps,
        )  # fmt: skip
        self.simulation.share(settle, self._physics, rules, self.clock.arrays, self._seen, ends, actions, broken)
        reward, success, terminated, truncated = ends
        if fresh.size:  # next-step mode: this step only resets
            self._restart(fresh)
            success[fresh] = terminated[fresh] = truncated[fresh] = False
            reward[fresh] = 0.0
            self.terms[fresh] = 0.0
            self._look(fresh)
        observation = self.observation()
        if self.observation_kind == "dict":
            reward = self.compute_reward(observation["achieved_goal"], observation["desired_goal"], {})
            reward[fresh] = 0.0
        info = self._info(success=success, bad_physics=broken)
        done = terminated | truncated
        self._pending[:] = False
        if done.any():
            if self.autoreset_mode == AutoresetMode.SAME_STEP:
                info["final_obs"], info["_final_obs"] = observation, done
                over = np.flatnonzero(done)
                self._restart(over)
                self._look(over)
                observation = self.observation()
            elif self.autoreset_mode == AutoresetMode.NEXT_STEP:
                self._pending[:] = done
        return observation, reward, terminated, truncated, info

    def render(self):
        """Pictures uint8[n, h, w, 3] of every slot, as a tuple (gymnasium's convention)."""
        from envs.rendering import make_renderer

        if self._renderer is None:
            self._renderer = make_renderer(self.simulation.model, 240, 240)
        return tuple(self._renderer.render(self.simulation.qpos, self.lit)[:, 0])

    @property
    def lit(self) -> dict[str, np.ndarray]:
        """Which lamps shine now: geom name -> bool[n], for a renderer."""
        return {"lamp": self.facts[:, LAMP] > 0.5}

    def scripted_policy(self) -> ScriptedOracle:
        """What acts towards each slot's goal by a script; it takes ``tool`` control."""
        from envs.playroom.oracle import ScriptedOracle

        return ScriptedOracle(self)

    def close_extras(self, **kwargs: Any) -> None:
        self.simulation.close()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def observation(self) -> Any:
        """What every slot sees now, as `reset` and `step` return it; its own copy."""
        flat = self._features.copy()
        if self.observation_kind == "flat":
            return flat
        achieved = np.ones((self.num_envs, GOAL_DIM + GROUPS))
        achieved[:, 0:3] = self.facts[:, BLOCK : BLOCK + 3]
        achieved[:, 3:6] = self.facts[:, BLOCK + BLOCK_STRIDE : BLOCK + BLOCK_STRIDE + 3]
        achieved[:, 6], achieved[:, 7] = self.facts[:, DRAWER], self.facts[:, LAMP]
        return {
            "observation": flat,
            "achieved_goal": achieved,
            "desired_goal": np.concatenate([self.targets, self.mask], axis=1),
        }

    # -- state ---------------------------------------------------------------------------------------------------

    def get_state(self, slots: np.ndarray | None = None) -> np.ndarray:
        """Full states float64[m, S]: simulator state, latches and joint commands. See `set_state`."""
        slots = self._all if slots is None else np.asarray(slots)
        return np.concatenate([self.simulation.get_state(slots), self.latches[slots], self._qcmd[slots]], axis=1)

    def set_state(self, states: np.ndarray, slots: np.ndarray | None = None) -> None:
        """Puts slots into states from `get_state`, keeping their goals, whose clock starts anew."""
        slots = self._all if slots is None else np.asarray(slots)
        self._resume(slots, states)
        self._begin(slots)
        self._look(slots)

    def resume(self, slots: np.ndarray, states: np.ndarray, which: np.ndarray, places: np.ndarray) -> None:
        """Begins episodes in states float64[m, S] from `get_state`, with goals ``which`` int64[m] and their places.

        places float64[m, 4, 2]: rows of ``clock.codes.place``, as they were where the state was taken.
        """
        self.clock.give(slots, which)
        self.clock.codes.place[slots] = places
        self.set_state(states, slots)

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> Any:
        """0 where every group that the desired goal speaks of is reached, else -1; goals float[…, 12], vectorised."""
        achieved, desired = np.asarray(achieved_goal), np.asarray(desired_goal)
        gap = np.abs(achieved[..., :GOAL_DIM] - desired[..., :GOAL_DIM])
        off = np.stack(
            [
                np.linalg.norm(gap[..., 0:3], axis=-1) - _TOLERANCE[0],
                np.linalg.norm(gap[..., 3:6], axis=-1) - _TOLERANCE[1],
                gap[..., 6] - _TOLERANCE[2],
                gap[..., 7] - 0.5,
            ],
            axis=-1,
        )
        reached = np.all((off <= 0) | (desired[..., GOAL_DIM:] < 0.5), axis=-1)
        return np.where(reached, 0.0, -1.0)

    # -- inside --------------------------------------------------------------------------------------------------

    def _restart(self, slots: np.ndarray, which: Sequence[int] | np.ndarray | None = None) -> None:
        """Draws and writes new starts for ``slots``."""
        self.episodes[slots] += 1
        if which is None:
            which = (slots + self.episodes[slots] * 7919 + self._seed % len(self.goals)) % len(self.goals)
        elif len(which) == self.num_envs:
            which = np.asarray(which)[slots]
        self.clock.give(slots, which)
        book = self.clock.codes
        count, codes, place = book.count[slots], book.codes[slots], book.place[slots]
        chosen = np.full(len(slots), -1)
        if self._kept is not None and self._kept_share > 0:
            facts = self._kept[1]
            draw_kept(self._seed, slots, self.episodes[slots], self._kept_share, facts, count, codes, place, chosen)
        drawn = chosen < 0
        if not drawn.all():
            self._resume(slots[~drawn], self._kept[0][chosen[~drawn]])  # type: ignore[index]
        if drawn.any():
            some, spots = slots[drawn], place[drawn]
            starts = np.zeros((len(some), START_COLUMNS))
            what = (count[drawn], codes[drawn], spots, len(COLUMNS))
            seen = np.zeros_like(what[0]) if self.free_starts else what[0]
            draw_starts(self._seed, some, self.episodes[some], seen, *what[1:], starts)
            if self.free_starts:  # places of the goal still have to be drawn
                draw_starts(self._seed + 1, some, self.episodes[some], *what, starts.copy())
            place[drawn] = spots
            self._write(some, starts)
        self._begin(slots)
        book.place[slots] = place

    def _write(self, slots: np.ndarray, starts: np.ndarray) -> None:
        """Puts simulations into drawn starts."""
        s = self.simulation
        s.clear(slots)
        write_starts(slots, starts, s.qpos, s.ctrl, self._qcmd, self.latches, *self._chain)
        self._extract(slots)

    def _resume(self, slots: np.ndarray, states: np.ndarray) -> None:
        """Puts simulations into states from `get_state`."""
        size = self.simulation.state_size
        self.simulation.clear(slots)
        self.simulation.set_state(slots, states[:, :size])
        self.latches[slots] = states[:, size : size + LATCHES]
        self._qcmd[slots] = states[:, size + LATCHES :]
        self._extract(slots)

    def _extract(self, slots: np.ndarray) -> None:
        """Facts of ``slots`` (the others' latches must not see a second look at the same step)."""
        extract(slots, *self._physics)

    def _look(self, slots: np.ndarray) -> None:
        """Distances and features of ``slots`` after starts or goals changed, without moving any clock."""
        look(slots, self.facts, self.clock.arrays, self._seen)

    def _info(self, success: np.ndarray | None = None, bad_physics: np.ndarray | None = None) -> dict[str, Any]:
        none = np.zeros(self.num_envs, np.bool_)
        return {
            "success": none if success is None else success,
            "bad_physics": none if bad_physics is None else bad_physics,
            "lost": self.lost.copy(),
            "reward_terms": self.terms.copy(),
            "costs": self.costs.copy(),
        }
