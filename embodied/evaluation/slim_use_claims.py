"""How the claim about the use of skills (slim.d) is measured; what is claimed: `embodied.evaluation.claims`.

Tasks are those of `envs.scenes.discovery_tasks`. The arm with skills discovers them once a seed, for all tasks, and
learns a policy of their codes; flat arms learn the same tasks by control steps, as many as discovery and policy took
together. Flat arms are measured along the way too, at the steps that the policy of codes took: what they are worth
where discovery counts nothing. Every measurement has the same starts, which no training has seen. Beside it stand
skills used without any learning, by planning, and codes by chance.

Finished rows stand in ``docs/results/slim.d.arms.json`` by "task: arm" and seed, and count again while versions and
settings are the same, so the table can be filled in parts: no further training begins after an hour.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from embodied.evaluation.arms import fill, kept, matching, table_path
from embodied.evaluation.claims import Context, Measurement, versions
from embodied.planning.code_planning import MODES, goals_env, reach
from embodied.planning.skill_effects import learn_effects
from embodied.skills.statistics import bootstrap_interval
from embodied.training.discovery import DiscoverySettings, Skills, discover, settings_of
from embodied.training.hierarchy import OPTION, learn_over, measure, over_skills
from envs.scenes.discovery_tasks import TASK_TERMS, TASKS, DiscoveryTaskVectorEnv
from policies.multi_critic_ppo import MultiCriticPPO, MultiCriticPPOConfig
from policies.multi_critic_sac import MultiCriticSAC, MultiCriticSACConfig
from policies.practice import train_ppo, train_sac
from policies.sb3_learners import make_learner
from policies.sb3_vec_env import SB3VecEnv

__all__ = ["FLAT", "KEPT", "hierarchy"]

KEPT = "slim.d.arms.json"
OVER, PLANNED = "PPO over skills", "skills, planned"
HEADLINE = "place"
TEST_SEED = 20_261_141
BUDGET = 3_600.0  # seconds after which no further training begins
SLOTS = 64
Along = Callable[[int, Callable[[np.ndarray], np.ndarray]], None]


@dataclass(frozen=True)
class Budget:
    """Control steps: of discovery, of a policy over skills (flat arms have both together), of options tried to plan."""

    discovery: int = 400_000
    policy: int = 200_000
    options: int = 8_000
    episodes: int = 200

    @property
    def total(self) -> int:
        return self.discovery + self.policy


FULL, QUICK = Budget(), Budget(10_240, 5_120, 640, 16)


# ---- flat arms: each learns a task and calls ``along`` with (steps, act) now and then


def _flat_env(task: str, **more: Any) -> DiscoveryTaskVectorEnv:
    return DiscoveryTaskVectorEnv(SLOTS, task=task, **more)


def _ppo(task: str, steps: int, seed: int, along: Along) -> None:
    env = _flat_env(task)
    size = env.single_observation_space.shape[0]  # type: ignore[index]
    policy = MultiCriticPPO(
        MultiCriticPPOConfig(
            size, 5, TASK_TERMS, critic_hidden=(128, 128), gripper_limit=0.7, gripper_std=0.3, seed=seed
        )
    )

    def note(metrics: dict[str, float]) -> None:
        along(int(metrics["steps"]), lambda seen: policy.predict(seen, deterministic=True)[0])

    train_ppo(policy, env, steps, note, rollout_length=40, seed=seed)
    env.close()


def _sac(task: str, steps: int, seed: int, along: Along) -> None:
    env = _flat_env(task)
    size = env.single_observation_space.shape[0]  # type: ignore[index]
    policy = MultiCriticSAC(
        MultiCriticSACConfig(size, 5, TASK_TERMS, learning_rate=1e-3, target_rate=0.02, replay_size=steps, seed=seed)
    )

    def note(metrics: dict[str, float]) -> None:
        along(int(metrics["steps"]), lambda seen: policy.predict(seen, deterministic=True)[0])

    train_sac(policy, env, steps, note, updates_per_step=0.05, seed=seed)
    env.close()


def _sb3(algorithm: str, settings: dict[str, Any], goals: bool = False) -> Callable[[str, int, int, Along], None]:
    def learn(task: str, steps: int, seed: int, along: Along) -> None:
        env = _flat_env(task, goals=goals)
        own = settings | ({"buffer_size": steps + 2 * SLOTS} if algorithm == "sac" else {})
        again = {"n_sampled_goal": 4} if goals else None
        model = make_learner(algorithm, SB3VecEnv(env), own, seed=seed, normalise=True, hindsight=again)
        normal, done = model.get_vec_normalize_env(), 0
        assert normal is not None

        def act(seen: Any) -> np.ndarray:
            return model.predict(normal.normalize_obs(seen), deterministic=True)[0]

        for part in (steps // 3, steps - steps // 3):
            model.learn(part, reset_num_timesteps=False)
            done += part
            along(done, act)
        env.close()

    return learn


_SAC = {
    "learning_rate": 1e-3, "gamma": 0.95, "tau": 0.02, "gradient_steps": 4, "train_freq": 1, "batch_size": 256,
    "learning_starts": SLOTS * 81,
}  # fmt: skip
FLAT: dict[str, Callable[[str, int, int, Along], None]] = {
    "PPO": _ppo,
    "PPO of stable-baselines3": _sb3("ppo", {"n_steps": 64, "batch_size": 512, "gamma": 0.95}),
    "SAC": _sac,
    "SAC+HER of stable-baselines3": _sb3("sac", _SAC, goals=True),
}
"""Name → the training of a flat arm. Hindsight is for tasks whose goal is a place."""


# ---- the measurement


def hierarchy(context: Context) -> Measurement:
    """slim.d: success of PPO over frozen skills less that of the best flat arm at as many steps in all, task place."""
    seeds = context.seeds_or(1 if context.quick else 5)
    budget = QUICK if context.quick else FULL
    flat = ("PPO", "SAC+HER of stable-baselines3") if context.quick else tuple(FLAT)
    tasks = (HEADLINE,) if context.quick else TASKS
    wanted = [
        (task, arm, seed)
        for task in tasks
        for seed in seeds
        for arm in (OVER, *flat, PLANNED)
        if not (task != HEADLINE and (arm == PLANNED or "HER" in arm))
    ]
    missing = _fill(context, wanted, budget)
    abouts = {_key(task, arm): _about(task, arm, budget) for task, arm, _ in wanted}
    table, left_out = matching(kept(table_path(context, KEPT)), abouts)
    names = {str(seed) for seed in seeds}
    table = {arm: {s: row for s, row in rows.items() if s in names} for arm, rows in table.items()}
    rows = {name: _summary(found) for name, found in table.items() if found}
    over = table.get(_key(HEADLINE, OVER), {})
    rivals = {arm: table.get(_key(HEADLINE, arm), {}) for arm in flat}
    rivals = {arm: found for arm, found in rivals.items() if found}
    details: dict[str, Any] = {
        "arms": rows, "missing": missing, "left out": left_out, "kept": KEPT, "steps": asdict(budget),
    }  # fmt: skip
    if not over or not rivals:
        return Measurement(float("nan"), None, seeds, 0, {"all arms, tasks and seeds": False}, details)
    means = {arm: float(np.mean([row["success"] for row in found.values()])) for arm, found in rivals.items()}
    best = max(means, key=lambda arm: means[arm])
    both = [seed for seed in over if seed in rivals[best]]
    gains = [over[seed]["success"] - rivals[best][seed]["success"] for seed in both]
    details |= {"best flat arm": best, "by seed": gains}
    conditions = {"all arms, tasks and seeds": not missing}
    if not gains:
        return Measurement(float("nan"), None, seeds, 0, conditions, details)
    interval = bootstrap_interval(gains, statistic=np.mean) if len(gains) > 1 else None
    if not context.quick:
        conditions["the interval lies above 0"] = interval is not None and interval[0] > 0.0
    return Measurement(float(np.mean(gains)), interval, seeds, len(gains), conditions, details)


def _key(task: str, arm: str) -> str:
    return f"{task}: {arm}"


def _about(task: str, arm: str, budget: Budget) -> dict[str, Any]:
    """What a row is measured with, ready for JSON."""
    about: dict[str, Any] = {"budget": asdict(budget), "test": TEST_SEED, "option": OPTION}
    if arm in (OVER, PLANNED):
        about["skills"] = asdict(_settings(budget, 0)) | {"seed": "the row's"}
    return json.loads(json.dumps(about | {"task": task, "arm": arm}))


def _settings(budget: Budget, seed: int) -> DiscoverySettings:
    return settings_of("slim", steps=budget.discovery, seed=seed)


def _skills(context: Context, budget: Budget, seed: int) -> Skills:
    """The skills of a seed, discovered now or found below ``context.out``."""
    settings = _settings(budget, seed)
    about = json.dumps([asdict(settings), versions()], sort_keys=True)
    digest = hashlib.sha256(about.encode()).hexdigest()[:8]
    return discover(settings, context.out / "slim.d" / f"skills-seed{seed}-{digest}")


def _fill(context: Context, wanted: list[tuple[str, str, int]], budget: Budget) -> list[str]:
    """Measures what has no row yet, as far as the time reaches; what is missing then."""
    parts = {(_key(task, arm), seed): (task, arm) for task, arm, seed in wanted}
    abouts = {key: _about(*part, budget) for key, part in parts.items()}

    def measure(name: str, seed: int) -> dict[str, Any]:
        began = time.monotonic()
        row = _run(context, *parts[name, seed], seed, budget)
        seconds = time.monotonic() - began
        context.say(f"   success {row['success']:.2f} after {seconds:.0f} s")
        return {"seconds": seconds} | row

    return fill(table_path(context, KEPT), abouts, measure, BUDGET, context.say)


def _run(context: Context, task: str, arm: str, seed: int, budget: Budget) -> dict[str, Any]:
    """A row: success of the last policy on fresh episodes, and along the way."""
    torch.set_float32_matmul_precision("medium")
    if arm == PLANNED:
        skills = _skills(context, budget, seed)
        model = learn_effects(skills, options=budget.options, seed=seed)
        env = goals_env(budget.episodes, blocks=skills.settings.blocks)
        modes = {mode: reach(env, skills.act, mode, model, seed=TEST_SEED).summary() for mode in MODES}
        env.close()
        return {"success": modes["cem"]["success"], "n": budget.episodes, "modes": modes}
    if arm == OVER:
        skills = _skills(context, budget, seed)
        policy = learn_over(skills, task, budget.policy, seed=seed)
        test = over_skills(skills, budget.episodes, task)
        success = measure(test, lambda seen: policy.predict(seen, deterministic=True)[0], TEST_SEED)
        test.close()
        steps = budget.total
        return {"success": float(success.mean()), "n": len(success), "curve": [[steps, float(success.mean())]]}
    test = DiscoveryTaskVectorEnv(budget.episodes, task=task, goals="HER" in arm)
    marks, curve = [budget.policy, budget.total], []

    def along(steps: int, act: Callable[[np.ndarray], np.ndarray]) -> None:
        while marks and steps >= marks[0]:
            marks.pop(0)
            curve.append([steps, float(measure(test, act, TEST_SEED).mean())])

    FLAT[arm](task, budget.total, seed, along)
    test.close()
    return {"success": curve[-1][1], "n": budget.episodes, "curve": curve}


def _summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Of an arm's rows by seed: mean success with a bootstrap interval, and what it was along the way."""
    values = [row["success"] for row in rows.values()]
    found: dict[str, Any] = {"success": float(np.mean(values)), "by_seed": values}
    if len(values) > 1:
        found["interval"] = bootstrap_interval(values, statistic=np.mean)
    curves = [row["curve"] for row in rows.values() if "curve" in row]
    if curves:
        found["curve"] = np.mean(curves, axis=0).tolist()
    modes = [row["modes"] for row in rows.values() if "modes" in row]
    if modes:
        found["modes"] = {name: float(np.mean([row[name]["success"] for row in modes])) for name in modes[0]}
    return found
