"""What every world built from a scene shares: batched physics, control, resets, autoreset, states, pictures.

One control step (20 Hz) is: actions → joint targets (numba), physics on all threads, then one compiled pass over the
batch, shared among the threads, for facts, judging, rewards, features and ends. What an episode is *about* is for the
subclasses: `envs.scenes.playroom` (goals in a scene's words), `envs.scenes.goal_envs` (positions to reach).

A reset's state depends on (seed, slot, that slot's episode count) alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.control import delayed, joint_action, tool_action
from envs.copying import Remade
from envs.scenes.document import SceneError
from envs.scenes.facts import (
    BLOCK_STRIDE,
    BLOCKS,
    JOINTS,
    L_GRIP,
    REACH,
    YAW_LIMIT,
    columns,
    extract,
    latch_count,
    names,
    remember_all,
)
from envs.scenes.randomisation import Randomisation
from envs.scenes.scene import Scene, load
from envs.scenes.starts import draw_starts, start_columns, write_starts
from envs.simulation import Simulation

__all__ = ["ACTIONS", "CONTROL_HZ", "WorldVectorEnv"]

CONTROL_HZ = 20
ACTIONS = {"tool": 5, "joint": 8}  # how many numbers an action has; ``joint``: of the built-in arm


class WorldVectorEnv(Remade, VectorEnv):
    """n copies of a scene. See `reset` and `step` for shapes.

    Args:
        num_envs: n.
        scene: a scene of the library, a YAML file, or one already built.
        control: ``tool`` (Δx, Δy, Δz of 3 cm, Δyaw of 0.15 rad, gripper) or ``joint`` (a step of each joint, gripper).
        max_steps: an episode is truncated after so many control steps.
        terminate_on_success: end an episode when its goal has held for ``hold`` steps.
        randomise: what varies from episode to episode (see `envs.scenes.randomisation`): name -> (low, high).
        autoreset_mode: any of gymnasium's. threads: physics threads, 0 for all cores. sleep: let resting things skip
            physics.

    Raises ValueError, naming the valid choices, for an unknown control or quantity, and SceneError for a broken scene.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        scene: str | Path | Scene = "playroom",
        *,
        blocks: int | None = None,
        control: str = "tool",
        max_steps: int = 150,
        terminate_on_success: bool = True,
        hold: int = 3,
        randomise: Mapping[str, tuple[float, float]] | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        threads: int = 0,
        sleep: bool = True,
        render_mode: str | None = None,
    ):
        if control not in ACTIONS:
            raise ValueError(f"unknown control '{control}'; valid: {', '.join(ACTIONS)}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode '{render_mode}'; valid: rgb_array or None")
        if num_envs < 1 or max_steps < 1 or hold < 1:
            raise ValueError(f"num_envs = {num_envs}, max_steps = {max_steps}, hold = {hold}: all must be at least 1")
        self.scene = scene if isinstance(scene, Scene) else load(scene, blocks)
        if blocks is not None and len(self.scene.blocks) != blocks:  # a scene that was built already
            raise ValueError(f"scene '{self.scene.name}' has {len(self.scene.blocks)} blocks, not {blocks}")
        self.num_envs, self.control, self.max_steps, self.hold = num_envs, control, max_steps, hold
        self.terminate_on_success, self.render_mode = terminate_on_success, render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        physics = f"mujoco {mujoco.__version__}"  # what an episode's figures are comparable under
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode, "physics": physics}
        n, parts = num_envs, self.scene
        self.sizes = (len(parts.blocks), len(parts.slides), len(parts.lamps))
        self.columns = names(*([x.name for x in group] for group in (parts.blocks, parts.slides, parts.lamps)))
        self.simulation = Simulation(parts.compiled(sleep), n, threads)
        self.substeps = max(1, round(1 / (CONTROL_HZ * self.simulation.model.opt.timestep)))
        timestep = self.simulation.model.opt.timestep
        if abs(self.substeps * timestep * CONTROL_HZ - 1) > 1e-6:
            raise SceneError(
                f"{parts.document.source}: timestep = {timestep:g} must divide {1 / CONTROL_HZ} s, a control step"
            )
        self._arm = parts.robot.arrays
        self._home = parts.robot.chain.home
        self._layout = parts.layout.arrays
        self._area = np.asarray(parts.document.area)
        self._workspace = np.asarray(parts.document.workspace).reshape(2, 3)
        self._all = np.arange(n)
        self.facts = np.zeros((n, columns(*self.sizes)))
        self.latches = np.zeros((n, latch_count(*self.sizes)))
        self._qcmd = np.zeros((n, len(self._home)))
        self.lost = np.zeros(n, np.bool_)
        self.elapsed, self._held = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._reached = np.zeros(n, np.bool_)
        self.episodes = np.full(n, -1, np.int64)  # episodes begun since the seed, less one
        self._pending = np.zeros(n, np.bool_)  # next-step mode: to be reset by the next step
        self._seed = int(np.random.SeedSequence().entropy) % (1 << 62)  # type: ignore[operator]
        self._width = ACTIONS["tool"] if control == "tool" else len(self._home) + 1
        self.randomisation = Randomisation(self.simulation, parts, randomise or {}, self._width)
        self._renderer: Any = None
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (self._width,), np.float32)
        self.action_space = batch_space(self.single_action_space, n)

    # -- what the episode is about -------------------------------------------------------------------------------

    @abstractmethod
    def observation(self) -> Any:
        """What every slot sees now, its own copy."""

    @abstractmethod
    def _goals(self, slots: np.ndarray, options: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
        """Gives ``slots`` their goals: (count, codes, place) that starts are drawn for, and placing bool[P]."""

    @abstractmethod
    def _begun(self, slots: np.ndarray, places: np.ndarray) -> None:
        """Starts were written and facts extracted: take over drawn places, and look."""

    @abstractmethod
    def _settle(self, actions: np.ndarray, broken: np.ndarray) -> tuple[np.ndarray, ...]:
        """Facts, judging and rewards of a step: reward float64[n], success, terminated, truncated bool[n]."""

    def _reset_options(self) -> tuple[str, ...]:
        """Options that `reset` takes besides ``reset_mask``."""
        return ()

    def _more_info(self) -> dict[str, np.ndarray]:
        """What else `step` and `reset` report."""
        return {}

    # -- gymnasium -----------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None):
        """Starts new episodes; observations [n, …] and info.

        ``seed`` makes the batch reproducible. ``options``: ``reset_mask`` bool[n] resets only those slots, and what a
        world adds. Raises ValueError for an option there is not.
        """
        options = dict(options or {})
        unknown = set(options) - {"reset_mask", *self._reset_options()}
        if unknown:
            valid = ", ".join(("reset_mask", *self._reset_options()))
            raise ValueError(f"unknown reset option '{sorted(unknown)[0]}'; valid: {valid}")
        if seed is not None:
            first = seed if isinstance(seed, int | np.integer) else seed[0]
            self._seed = int(first) if first is not None else self._seed
            self.episodes[:] = -1
        mask = options.pop("reset_mask", None)
        if mask is not None and np.shape(mask) != (self.num_envs,):
            raise ValueError(f"reset_mask has shape {np.shape(mask)}; ({self.num_envs},) is needed")
        slots = self._all if mask is None else np.flatnonzero(mask)
        self._restart(slots, options)
        self._pending[slots] = False
        return self.observation(), self._info()

    def step(self, actions: np.ndarray):
        """One control step; actions float[n, A] in [-1, 1], clipped.

        Returns observations, rewards float64[n], terminations, truncations bool[n], info: ``success``, ``lost``,
        ``bad_physics`` bool[n], the values drawn by randomisation, and in same-step mode ``final_obs`` [n, …] where
        ``_final_obs`` marks ended slots. A slot whose action is not finite, or whose simulation went bad, is truncated
        and flagged ``bad_physics``; the batch goes on. Raises ValueError for actions of another shape or not numbers.
        """
        actions = self._checked(actions)
        broken = np.asarray(~np.isfinite(actions).all(axis=1))
        if broken.any():
            actions = np.where(broken[:, None], 0.0, actions)
        if self.randomisation.delays:
            delayed(actions, self.randomisation.delay, self.randomisation.past)
        fresh = np.flatnonzero(self._pending)
        s = self.simulation
        commands = (actions, self.facts, self.latches, self._qcmd, s.ctrl, *self._arm[:2])
        if self.control == "tool":
            s.share(tool_action, *commands, self._workspace, YAW_LIMIT)
        else:
            s.share(joint_action, *commands, JOINTS)
        bad = s.step(self.substeps)
        if bad is not None:  # facts keep the last good step's values for bad slots
            broken[bad] = True
            s.clear(bad)
            s.qpos[bad, : len(self._home)] = self._home
        reward, success, terminated, truncated = self._settle(actions, broken)
        if fresh.size:  # next-step mode: this step only resets
            self._restart(fresh, {})
            success[fresh] = terminated[fresh] = truncated[fresh] = broken[fresh] = False
            reward[fresh] = 0.0
        observation = self.observation()
        info = self._info(success, broken)
        done = terminated | truncated
        self._pending[:] = False
        if done.any():
            if self.autoreset_mode == AutoresetMode.SAME_STEP:
                info["final_obs"], info["_final_obs"] = observation, done
                self._restart(np.flatnonzero(done), {})
                observation = self.observation()
            elif self.autoreset_mode == AutoresetMode.NEXT_STEP:
                self._pending[:] = done
        return observation, reward, terminated, truncated, info

    def render(self):
        """Pictures uint8[n, h, w, 3] of every slot, as a tuple (gymnasium's convention)."""
        from envs.rendering import make_renderer

        if self._renderer is None:
            self._renderer = make_renderer(self.simulation.model, 320, 240)
        look = self.randomisation
        pictures = self._renderer.render(
            self.simulation.qpos, self.lit, colours=look.colours_by_geom(), camera_offset=look.camera_offset
        )
        return tuple(pictures[:, 0])

    @property
    def lit(self) -> dict[str, np.ndarray]:
        """Which lamps shine now: geom name -> bool[n], for a renderer."""
        return self.lit_in(self.facts)

    def lit_in(self, facts: np.ndarray) -> dict[str, np.ndarray]:
        """Which lamps shine in rows of facts[n, NX], as `lit`."""
        blocks, slides, lamps = self.sizes
        first = BLOCKS + BLOCK_STRIDE * blocks + 3 * slides
        return {lamp.name: facts[:, first + 3 * k] > 0.5 for k, lamp in enumerate(self.scene.lamps[:lamps])}

    def close_extras(self, **kwargs: Any) -> None:
        self.simulation.close()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # -- state ---------------------------------------------------------------------------------------------------

    def get_state(self, slots: np.ndarray | None = None) -> np.ndarray:
        """Full states float64[m, S]: simulator state, latches and joint commands. See `set_state`."""
        slots = self._all if slots is None else np.asarray(slots)
        return np.concatenate([self.simulation.get_state(slots), self.latches[slots], self._qcmd[slots]], axis=1)

    def set_state(self, states: np.ndarray, slots: np.ndarray | None = None) -> None:
        """Puts slots into states from `get_state`; their goals stay, and what these look back to comes with the state.

        What follows is the same to the last bit only without ``sleep``: what slept then is awake now.
        """
        slots = self._all if slots is None else np.asarray(slots)
        size, latches = self.simulation.state_size, self.latches.shape[1]
        self.simulation.clear(slots)
        self.simulation.set_state(slots, states[:, :size])
        self.latches[slots] = states[:, size : size + latches]
        self._qcmd[slots] = states[:, size + latches :]
        self.randomisation.hold(slots, self.latches[slots, L_GRIP])
        self._extract(slots)
        self._held[slots] = self.elapsed[slots] = 0
        self._reached[slots] = False
        self._begun(slots, self._places(slots))

    @abstractmethod
    def _places(self, slots: np.ndarray) -> np.ndarray:
        """The places float64[m, 4, 2] of the slots' goals."""

    # -- inside --------------------------------------------------------------------------------------------------

    def _checked(self, actions: Any) -> np.ndarray:
        actions = np.asarray(actions)
        if actions.dtype.kind not in "fiub":
            raise ValueError(f"actions are of type {actions.dtype}; numbers in [-1, 1] are needed")
        wanted = (self.num_envs, self._width)
        if actions.shape != wanted:
            raise ValueError(
                f"actions have shape {actions.shape}; '{self.control}' control of {wanted[0]} takes {wanted}"
            )
        return actions.astype(np.float64)

    def _restart(self, slots: np.ndarray, options: Mapping[str, Any]) -> None:
        """Draws and writes new starts for ``slots``."""
        self.episodes[slots] += 1
        count, codes, place, placing = self._goals(slots, options)
        starts = np.zeros((len(slots), start_columns(*self.sizes)))
        crowded = draw_starts(
            self._seed, slots, self.episodes[slots], count, codes, place, placing, self._layout, self._area,
            self._workspace, starts,
        )  # fmt: skip
        if crowded >= 0:
            raise ValueError(
                f"scene '{self.scene.name}' has no room for its {self.sizes[0]} blocks in its area "
                f"{self._area.tolist()} (low x, low y, high x, high y; m); enlarge it or take fewer blocks"
            )
        s = self.simulation
        s.clear(slots)
        write_starts(slots, starts, s.qpos, s.ctrl, self._qcmd, self.latches, self._arm, self._layout)
        self.randomisation.draw(self._seed, slots, self.episodes[slots])
        self.randomisation.hold(slots, self.latches[slots, L_GRIP])
        self._extract(slots)
        remember_all(slots, self.latches, self.facts, self._layout)
        self._held[slots] = self.elapsed[slots] = 0
        self._reached[slots] = False
        self._begun(slots, place)

    def _extract(self, slots: np.ndarray) -> None:
        """Facts of ``slots`` after their simulations were written."""
        s = self.simulation
        extract(slots, s.qpos, s.qvel, self.latches, self.facts, self.lost, self._arm, self._layout, REACH)

    def _info(self, success: np.ndarray | None = None, bad_physics: np.ndarray | None = None) -> dict[str, Any]:
        none = np.zeros(self.num_envs, np.bool_)
        return {
            "success": none if success is None else success,
            "bad_physics": none if bad_physics is None else bad_physics,
            "lost": self.lost.copy(),
            **self.randomisation.info(),
            **self._more_info(),
        }
