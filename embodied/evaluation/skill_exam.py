"""What discovered skills do: many codes from one start, and what came of the objects.

Every code acts once, by the policy's means, from the very same state, so that what is covered is the skills' doing and
not the starts'. Bins are of the plane, wherever a block is above the table: one carried beyond its edge counts, one
that fell off does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied.training.discovery import Skills
from envs.scenes.discovery import COSTS, DiscoveryVectorEnv
from envs.scenes.facts import B_BOTTOM, BLOCK_STRIDE, BLOCKS

__all__ = ["BINS", "SkillExam", "sit"]

CODES = 50
BINS = (0.05, 0.10)  # m
MOVED, LIFTED = 0.02, 0.03  # m from which a block counts as moved; as lifted
_INTERIOR = 0.05  # m from the table's edges


@dataclass(frozen=True)
class SkillExam:
    """The outcome. codes float32[n, Z]; path float64[T + 1, n, B, 3] (m); tool float64[T + 1, n, 3] (m);

    states float64[T + 1, n, S]: simulator states, for pictures; costs float64[T, n, C]; alive bool[T + 1, n]: until a
    block fell.
    """

    codes: np.ndarray
    path: np.ndarray
    tool: np.ndarray
    states: np.ndarray
    costs: np.ndarray
    alive: np.ndarray
    lifted: np.ndarray  # float64[n]: highest clearance of any block, m
    table: tuple[float, float, float, float]

    @property
    def change(self) -> np.ndarray:
        """float64[n, B, 3]: where each block ended, from where it began (m)."""
        return self.path[-1] - self.path[0]

    def bins(self, width: float) -> list[int]:
        """Distinct bins of the plane that each block was in, over all codes, while it had not fallen."""
        return [len(self.visited(b, width)[0]) for b in range(self.path.shape[2])]

    def visited(self, block: int, width: float) -> tuple[np.ndarray, np.ndarray]:
        """Bins of the plane a block was in, not fallen: their numbers int64[m, 2], by how many codes int64[m]."""
        step, code = np.nonzero(self.path[:, :, block, 2] > 0.0)
        cells = np.floor(self.path[step, code, block, :2] / width + 1e-9).astype(int)
        each = np.unique(np.concatenate([code[:, None], cells], axis=1), axis=0)
        return np.unique(each[:, 1:], axis=0, return_counts=True)

    def summary(self) -> dict[str, Any]:
        """Coverage, interaction, interior reach, alignment, lifting and violations, ready for JSON.

        coverage: bins of all blocks together; interaction, lift: share of codes that move, that lift a block;
        interior: share that end with a moved block on the table 5 cm and more from its edges; alignment: mean cosine of
        a code and the blocks' change in the plane, where a code has its size; violation: share of steps with any of
        a cost, by cost, and ``any``.
        """
        change = self.change
        moved = np.linalg.norm(change[..., :2], axis=-1) > MOVED
        low_x, low_y, high_x, high_y = self.table
        end = self.path[-1]
        inside = (end[..., 0] > low_x + _INTERIOR) & (end[..., 0] < high_x - _INTERIOR)
        inside &= (end[..., 1] > low_y + _INTERIOR) & (end[..., 1] < high_y - _INTERIOR) & (end[..., 2] > 0.0)
        flat = change[..., :2].reshape(len(change), -1)
        alignment = None
        if flat.shape[1] == self.codes.shape[1]:
            length = np.maximum(1e-6, np.linalg.norm(flat, axis=1) * np.linalg.norm(self.codes, axis=1))
            alignment = float(((flat * self.codes).sum(axis=1) / length).mean())
        alive = self.alive[:-1]
        steps = max(1, int(alive.sum()))
        hits = (self.costs > 0) & alive[..., None]
        return {
            **{f"coverage{100 * width:02.0f}": sum(self.bins(width)) for width in BINS},
            "interaction": float(moved.any(axis=1).mean()),
            "moved": moved.mean(axis=0).tolist(),
            "interior": float((inside & moved).any(axis=1).mean()),
            "alignment": alignment,
            "lift": float((self.lifted > LIFTED).mean()),
            "violation": {name: float(hits[..., k].sum() / steps) for k, name in enumerate(COSTS)}
            | {"any": float(hits.any(axis=-1).sum() / steps)},
            "cost": {name: float(self.costs[..., k].sum() / steps) for k, name in enumerate(COSTS)},
            "fell": float((~self.alive[-1]).mean()),
        }


def sit(
    skills: Skills,
    seed: int,
    codes: np.ndarray | None = None,
    threads: int = 0,
    steps: int = 80,
    world: Mapping[str, Any] | None = None,
) -> SkillExam:
    """Every code (`CODES` of them where none are given) from the one start that ``seed`` draws.

    Random skills act by chance, as what they are compared with does not.
    ``world``: further arguments of the environment, as for `discover`.
    """
    codes = skills.discovery.codes(CODES, seed).numpy() if codes is None else np.asarray(codes, np.float32)
    n, deterministic = len(codes), skills.discovery.config.method != "random"
    env = DiscoveryVectorEnv(
        n, blocks=skills.settings.blocks, max_steps=steps, autoreset_mode="Disabled", threads=threads, sleep=False,
        **dict(world or {}),
    )  # fmt: skip
    env.reset(seed=seed)
    env.set_state(np.repeat(env.get_state(np.array([0])), n, axis=0))
    observation = env.observation()
    bottoms = BLOCKS + B_BOTTOM + BLOCK_STRIDE * np.arange(env.sizes[0])
    path, tool, states, costs = [env.objects], [env.facts[:, :3].copy()], [env.get_state()], []
    alive, lifted = [np.ones(n, np.bool_)], np.zeros(n)
    for _ in range(steps):
        observation, _, terminated, _, info = env.step(skills.act(observation, codes, deterministic))
        now = alive[-1]
        costs.append(np.where(now[:, None], info["costs"], 0.0))
        path.append(np.where(now[:, None, None], info["objects"], path[-1]))
        tool.append(np.where(now[:, None], env.facts[:, :3], tool[-1]))
        states.append(np.where(now[:, None], env.get_state(), states[-1]))
        lifted = np.maximum(lifted, np.where(now, env.facts[:, bottoms].max(axis=1), 0.0))
        alive.append(now & ~terminated)
    table = env.scene.document.table or (-1.0, -1.0, 1.0, 1.0)
    env.close()
    return SkillExam(
        codes, np.array(path), np.array(tool), np.array(states), np.array(costs), np.array(alive), lifted, table
    )
