"""Planning over the codes of frozen skills: goals are reached without any further learning.

A plan is up to L codes, then to stop. With the learnt effects (`policies.effect_model`) a plan costs, for the block
that shall be somewhere,

    |p_k - goal| + 0.15 P(something fell) + 0.5 (members' spread) + 0.01 k        (m)

of its best length k, where p_k is where the block is predicted to come to rest after k options and a stop. To stop now,
k = 0, is only for where it is predicted to come to rest near enough. The first option of the best plan is carried out,
and then it is planned anew. ``cem`` draws plans about those that were best so far (de Boer et al. 2005), ``random``
draws them once, from everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from embodied.errors import UsageError
from embodied.planning.skill_effects import state_of
from embodied.training.hierarchy import Act, hold, unit
from envs.scenes.discovery_tasks import DiscoveryTaskVectorEnv
from policies.effect_model import EffectModel

__all__ = ["MODES", "Planner", "PlannerConfig", "Reached", "reach"]

METHODS = ("cem", "random")
MODES = (*METHODS, "straight", "once", "chance")
_FALL, _SPREAD, _OPTION = 0.15, 0.5, 0.01  # m that a fall, a metre of the members' spread, an option costs


@dataclass(frozen=True)
class PlannerConfig:
    """How it is planned. length: L; plans: drawn in each round; rounds and elites (share kept): of ``cem``.

    near: m from the goal within which it may be stopped, and is at once where the block is there already.
    """

    method: str = "cem"
    length: int = 6
    plans: int = 64
    rounds: int = 3
    elites: float = 0.15
    near: float = 0.035
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"unknown planning method '{self.method}'; valid: {', '.join(METHODS)}")
        if min(self.length, self.plans, self.rounds) < 1 or not 0 < self.elites <= 1:
            raise UsageError(
                f"length = {self.length}, plans = {self.plans}, rounds = {self.rounds} must be at least 1, "
                f"elites = {self.elites} in (0, 1]"
            )


class Planner:
    """Chooses codes for many slots at once."""

    def __init__(self, model: EffectModel, config: PlannerConfig | None = None) -> None:
        self.model, self.config = model, config or PlannerConfig()
        self._generator = torch.Generator().manual_seed(self.config.seed)

    @torch.no_grad()
    def codes(self, states: np.ndarray, goals: np.ndarray, block: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The codes to act under next float32[n, Z], zeros to stop, and what the plans are predicted to cost [n] (m).

        states float[n, S] as `EffectModel` takes them; goals float[n, 3] (m): where ``block`` shall come to rest.
        """
        config, n = self.config, len(states)
        plans, shape = config.plans, (config.length, self.model.config.code)
        now = torch.from_numpy(np.asarray(states, np.float32))
        goal = torch.from_numpy(np.asarray(goals, np.float32))
        mean, spread = torch.zeros(n, 1, *shape), torch.ones(n, 1, *shape)
        rows = torch.arange(n)
        best, least = torch.zeros(n, shape[1]), torch.full((n,), torch.inf)
        for _ in range(config.rounds if config.method == "cem" else 1):
            drawn = mean + spread * torch.randn(n, plans, *shape, generator=self._generator)
            drawn = drawn / drawn.norm(dim=-1, keepdim=True).clamp(min=1e-6)
            cost, length = self._cost(now, drawn, goal, block)
            chosen = cost.argmin(dim=1)
            first = drawn[rows, chosen, 0] * (length[rows, chosen] > 0)[:, None]
            better = cost[rows, chosen] < least
            best = torch.where(better[:, None], first, best)
            least = torch.where(better, cost[rows, chosen], least)
            kept = cost.topk(max(2, round(config.elites * plans)), dim=1, largest=False).indices
            elite = drawn[rows[:, None], kept]
            mean, spread = elite.mean(1, keepdim=True), elite.std(1, keepdim=True).clamp(min=0.1)
        away = (now[:, 3 * block : 3 * block + 3] - goal).norm(dim=-1)
        best[away < config.near] = 0.0
        return best.numpy(), least.numpy()

    def _cost(
        self, now: torch.Tensor, plans: torch.Tensor, goal: torch.Tensor, block: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of plans [n, p, L, Z]: cost [n, p] at the best length, and that length [n, p], 0 … L."""
        n, p, length, size = plans.shape
        state = now.repeat_interleave(p, dim=0)
        wanted = goal.repeat_interleave(p, dim=0)
        stop = torch.zeros(n * p, size)
        risk, doubt = torch.zeros(n * p), torch.zeros(n * p)
        costs = []
        for k in range(length + 1):
            rest, fell, spread = self.model.predict(state, stop)
            away = (rest[:, 3 * block : 3 * block + 3] - wanted).norm(dim=-1)
            if k == 0:
                away = torch.where(away < self.config.near, away, away + 1.0)
            costs.append(away + _FALL * (1 - (1 - risk) * (1 - fell)) + _SPREAD * (doubt + spread) + _OPTION * k)
            if k < length:
                state, fell, spread = self.model.predict(state, plans[:, :, k].reshape(n * p, size))
                risk, doubt = 1 - (1 - risk) * (1 - fell), doubt + spread
        cost, best = torch.stack(costs).min(dim=0)
        return cost.view(n, p), best.view(n, p)


@dataclass(frozen=True)
class Reached:
    """What came of goals: success bool[n], fell bool[n], away float64[n] (m, at the end), options int64[n]."""

    success: np.ndarray
    fell: np.ndarray
    away: np.ndarray
    options: np.ndarray
    start: np.ndarray  # float64[n]: m, at the start

    def summary(self) -> dict[str, float]:
        """Shares and medians, ready for JSON."""
        return {
            "success": float(self.success.mean()), "fell": float(self.fell.mean()), "n": len(self.success),
            "away": float(np.median(self.away)), "options": float(np.mean(self.options)),
            "start": float(np.median(self.start)),
        }  # fmt: skip


def reach(
    env: Any, act: Act, mode: str, model: EffectModel, *, seed: int = 0, config: PlannerConfig | None = None,
    on_step: Any = None,
) -> Reached:  # fmt: skip
    """Goals of a place task gone for from the starts that ``seed`` draws, once a slot.

    Args:
        env: a `DiscoveryTaskVectorEnv` of task ``place`` in autoreset mode DISABLED.
        mode: ``cem`` or ``random``: it is planned; ``straight``: a code as the direction to the goal, anew for every
            option, and to stop when near, without a model (codes as wide as the plane alone); ``once``: that code for
            the whole episode; ``chance``: a code at random for every option.
        on_step: called with each control step's info.
    """
    if mode not in MODES:
        raise UsageError(f"unknown mode '{mode}'; valid: {', '.join(MODES)}")
    size = model.config.code
    if mode in ("straight", "once") and size != 2:
        raise UsageError(f"mode '{mode}' takes codes for directions in the plane; these have {size} numbers")
    given = config or PlannerConfig(seed=seed)
    planner = Planner(model, replace(given, method=mode)) if mode in METHODS else None
    draws = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    n = env.num_envs
    start = np.linalg.norm(env.objects[:, 0] - env.goal, axis=1)
    first = unit((env.goal - env.objects[:, 0])[:, :2])
    success, fell, done = np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    away, options = start.copy(), np.zeros(n, np.int64)
    for _ in range(env.max_steps // model.config.option):
        toward = env.goal - env.objects[:, 0]
        if planner is not None:
            codes, _ = planner.codes(state_of(env), env.goal)
        elif mode == "once":
            codes = first
        elif mode == "straight":
            codes = unit(toward[:, :2]) * (np.linalg.norm(toward, axis=1, keepdims=True) >= given.near)
        else:
            codes = unit(draws.normal(size=(n, size)))
        codes = np.where(done[:, None], 0.0, codes).astype(np.float32)
        found = hold(env, act, codes, model.config.option, observation, env.skill_features, on_step)
        observation = found.observation
        success |= found.success & ~done
        fell |= found.lost & ~done
        away = np.where(done, away, np.linalg.norm(found.objects[:, 0] - env.goal, axis=1))
        options += ~done & np.any(codes != 0.0, axis=1)
        done |= found.done
        if done.all():
            break
    return Reached(success, fell, away, options, start)


def goals_env(slots: int, *, blocks: int = 1, max_steps: int = 80, threads: int = 0) -> DiscoveryTaskVectorEnv:
    """The goals that `reach` is measured on: drawn 8 to 25 cm from the block, anywhere on the table."""
    return DiscoveryTaskVectorEnv(
        slots, task="place", blocks=blocks, max_steps=max_steps, autoreset_mode="Disabled", threads=threads
    )
