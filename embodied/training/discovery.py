"""Skills discovered without a task: one policy of many skills, told apart by codes, one critic a reward.

SLIM (arXiv 2402.00823): reach the objects, move them as the code says, stay safe; each reward has a critic of its own
and what they say is normalised before it is added up (`policies.multi_critic`). Other ways of adding up, other
discovery rewards and other sets of rewards are the same code, to be compared with.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from embodied.data.durable import replace_file
from embodied.errors import ConfigError, UsageError
from envs.scenes.discovery import COSTS, TERMS, DiscoveryVectorEnv
from policies.coded import SAFETY, SKILL, CodedVectorEnv
from policies.discovery import Discovery, DiscoveryConfig
from policies.multi_critic_ppo import MultiCriticPPO, MultiCriticPPOConfig
from policies.practice import train_ppo

__all__ = ["COMBINE", "METHODS", "DiscoverySettings", "Skills", "discover", "make_skills", "settings_of"]

STRETCH = 20  # rollouts; each stretch begins with fresh episodes, and can be gone on from after a kill
POLICY, CODES, STATE, CURVE = "policy", "codes", "state.json", "curve.jsonl"

COMBINE = {
    "normalized_advantages": "multi",
    "sum": "sum",
    "weighted_sum": "sum",
    "normalized_rewards": "normalized_sum",
    "lagrangian": "lagrangian",
}
"""How rewards are combined, by its name here -> `MultiCriticPPOConfig.critic`."""


@dataclass(frozen=True)
class DiscoverySettings:
    """What decides a discovery. weights and scales: reward name -> factor of its advantage, of the reward itself."""

    blocks: int = 1
    combine: str = "normalized_advantages"
    rewards: tuple[str, ...] = ("reach", SKILL, SAFETY)
    weights: Mapping[str, float] = field(default_factory=lambda: {SAFETY: 0.3})
    scales: Mapping[str, float] = field(default_factory=dict)
    skill: Mapping[str, Any] = field(default_factory=dict)  # `DiscoveryConfig`, less objects and seed
    steps: int = 480_000
    num_envs: int = 128
    rollout: int = 40
    discount: float = 0.97
    floor: float = 0.5  # of an advantage's spread, as a share of the spread of all its returns so far
    seed: int = 0

    def __post_init__(self) -> None:
        if self.combine not in COMBINE:
            raise UsageError(f"unknown rule '{self.combine}' to combine rewards; valid: {', '.join(COMBINE)}")
        valid = (SKILL, SAFETY, *TERMS, *COSTS)
        for name in (*self.rewards, *self.weights, *self.scales):
            if name not in valid:
                raise UsageError(f"there is no reward '{name}'; valid: {', '.join(valid)}")
        if not self.rewards:
            raise UsageError(f"no rewards given; valid: {', '.join(valid)}")
        for name in (*self.weights, *self.scales):
            if not all(math.isfinite(factors.get(name, 1.0)) for factors in (self.weights, self.scales)):
                raise UsageError(f"weight and scale of '{name}' must be finite numbers")
        least = {"blocks": 1, "num_envs": 1, "rollout": 1, "steps": 0, "floor": 0.0}
        for name, low in least.items():
            if not low <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} = {getattr(self, name)} must be at least {low}")
        if not 0 <= self.discount < 1:
            raise UsageError(f"discount = {self.discount} must lie in [0, 1)")
        for name in ("objects", "seed"):
            if name in self.skill:
                raise UsageError(f"skill has no '{name}' of its own; it follows from the settings' blocks and seed")
        if self.weights and not any(self.weights.get(name, 1.0) for name in self.rewards):
            raise UsageError(f"all weights are zero ({dict(self.weights)}); nothing would be learnt")


# what a method is, besides its discovery reward; those of the field have the skill's reward alone
METHODS: dict[str, dict[str, Any]] = {
    "slim": {},
    "metra": {"rewards": (SKILL,), "skill": {"method": "metra"}},
    "lsd": {"rewards": (SKILL,), "skill": {"method": "lsd"}},
    "csd": {"rewards": (SKILL,), "skill": {"method": "csd"}},
    "diayn": {"rewards": (SKILL,), "skill": {"method": "diayn"}},
    "dusdi": {"rewards": (SKILL,), "skill": {"method": "dusdi"}},
    "rnd": {"rewards": (SKILL,), "skill": {"method": "rnd"}},
    "random": {"rewards": (SKILL,), "skill": {"method": "random"}, "steps": 0},
}


def settings_of(method: str, **settings: Any) -> DiscoverySettings:
    """The settings of a method of `METHODS`, with some of one's own. Raises UsageError for a method there is not."""
    if method not in METHODS:
        raise UsageError(f"unknown method '{method}'; valid: {', '.join(METHODS)}")
    own = {k: v for k, v in METHODS[method].items() if k not in settings}
    if "skill" in settings:
        settings["skill"] = dict(METHODS[method].get("skill", {})) | dict(settings["skill"])
    return DiscoverySettings(**own, **settings)


@dataclass
class Skills:
    """A policy of skills with what draws its codes; the curve has a row for every rollout."""

    policy: MultiCriticPPO
    discovery: Discovery
    settings: DiscoverySettings
    curve: list[dict[str, float]] = field(default_factory=list)

    def act(self, observation: np.ndarray, codes: np.ndarray, deterministic: bool = True) -> np.ndarray:
        """Actions float32[n, 5] for observations float32[n, F] under codes float32[n, Z]."""
        seen = np.concatenate([observation, codes], axis=1, dtype=np.float32)
        return self.policy.predict(seen, deterministic=deterministic)[0]

    def save(self, folder: Path) -> None:
        """To a folder, with all that learning needs to go on bit for bit.

        What was there is replaced when all is written: the state names the policy's and the codes' directories.
        """
        folder.mkdir(parents=True, exist_ok=True)
        number = len(self.curve)
        names = {"policy": f"{POLICY}-{number}", "codes": f"{CODES}-{number}"}
        self.policy.save_training(folder / names["policy"])
        self.discovery.save(folder / names["codes"])
        lines = "".join(json.dumps(row) + "\n" for row in self.curve)
        replace_file(folder / CURVE, lines.encode())
        replace_file(folder / STATE, json.dumps(names | {"settings": asdict(self.settings), "rows": number}).encode())
        for old in folder.iterdir():
            if old.is_dir() and old.name.split("-")[0] in (POLICY, CODES) and old.name not in names.values():
                shutil.rmtree(old)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """From a folder. Raises CheckpointError, or ConfigError for a folder without skills."""
        try:
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            lines = (folder / CURVE).read_text(encoding="utf-8").splitlines()[: state["rows"]]
            settings = DiscoverySettings(**state["settings"] | {"rewards": tuple(state["settings"]["rewards"])})
            curve = [json.loads(line) for line in lines]
            names = state["policy"], state["codes"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{folder} holds no discovered skills, or they are damaged: {error}") from error
        policy = MultiCriticPPO.load_training(folder / names[0])
        return cls(policy, Discovery.load(folder / names[1]), settings, curve)


def make_skills(settings: DiscoverySettings, features: int, actions: int) -> Skills:
    """Skills that nothing has been learnt of yet. Raises UsageError for settings that cannot be."""
    try:
        given: dict[str, Any] = {"objects": settings.blocks, "seed": settings.seed} | dict(settings.skill)
        discovery = Discovery(DiscoveryConfig(**given))
    except (TypeError, ValueError) as error:
        raise UsageError(f"skill = {dict(settings.skill)}: {error}") from error
    costs = tuple(name for name in settings.rewards if name == SAFETY or name in COSTS)
    rule = COMBINE[settings.combine]
    if rule == "lagrangian" and not costs:
        raise UsageError(f"a lagrangian needs a cost among its rewards ({', '.join(settings.rewards)}), such as safety")
    policy = MultiCriticPPO(
        MultiCriticPPOConfig(
            features + discovery.config.code, actions, settings.rewards,
            weights=tuple(float(settings.weights.get(name, 1.0)) for name in settings.rewards),
            discounts=(settings.discount,), critic=rule, costs=costs if rule == "lagrangian" else (),  # type: ignore[arg-type]
            cost_limit=0.005, advantage_floor=0.0 if rule == "multi" else 1e-3, relative_floor=settings.floor,
            critic_hidden=(128, 128), initial_std=0.6, epochs=4, minibatch=1280, gripper_limit=0.7, gripper_std=0.3,
            seed=settings.seed,
        )
    )  # fmt: skip
    return Skills(policy, discovery, settings)


def discover(
    settings: DiscoverySettings,
    folder: Path | None = None,
    threads: int = 0,
    on_iteration: Callable[[Skills], None] | None = None,
    world: Mapping[str, Any] | None = None,
) -> Skills:
    """Skills learnt in ``settings.steps`` environment steps; ``world``: further arguments of the environment, and as
    ``kind`` another one that says the same.

    With a ``folder`` they are kept there, and gone on with after a kill as if there had been none. Raises ConfigError
    where it holds skills of other settings, and UsageError for settings that cannot be.
    """
    torch.set_float32_matmul_precision("medium")  # twice as fast, and as exact, on CPUs without matrix units
    if folder is not None and (folder / STATE).exists():
        skills = Skills.load(folder)
        if json.dumps(asdict(skills.settings), sort_keys=True) != json.dumps(asdict(settings), sort_keys=True):
            raise ConfigError(f"{folder} holds skills of other settings; choose another folder, or restore them")
    else:
        env = _world(settings, world, threads)
        skills = make_skills(settings, env.single_observation_space.shape[0], env.single_action_space.shape[0])  # type: ignore[index]
        env.close()
    rollouts = math.ceil(settings.steps / (settings.rollout * settings.num_envs))
    if rollouts == 0 and skills.policy.networks.norm.count == 0:  # random: acts as it was made
        env = _world(settings, world, threads)
        coded = _coded(env, skills)
        skills.policy.networks.norm.update(torch.from_numpy(coded.reset(seed=settings.seed)))
        env.close()
    while len(skills.curve) < rollouts:
        _stretch(skills, min(STRETCH, rollouts - len(skills.curve)), threads, on_iteration, world)
        if folder is not None:
            skills.save(folder)
    if folder is not None and not (folder / STATE).exists():
        skills.save(folder)
    return skills


def _world(settings: DiscoverySettings, world: Mapping[str, Any] | None, threads: int) -> Any:
    given = dict(world or {})
    kind = given.pop("kind", DiscoveryVectorEnv)
    return kind(settings.num_envs, blocks=settings.blocks, threads=threads, **given)


def _coded(env: Any, skills: Skills) -> CodedVectorEnv:
    settings = skills.settings
    return CodedVectorEnv(env, skills.discovery, settings.rewards, TERMS, COSTS, settings.scales)


def _stretch(
    skills: Skills,
    rollouts: int,
    threads: int,
    on_iteration: Callable[[Skills], None] | None,
    world: Mapping[str, Any] | None,
) -> None:
    """So many rollouts, learnt from, in episodes begun anew; what they are follows from where the curve stands."""
    settings, first = skills.settings, len(skills.curve)
    draws = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(first,)))
    env = _world(settings, world, threads)
    coded = _coded(env, skills)
    observation = coded.reset(seed=int(draws.integers(1 << 31)))
    env.elapsed[:] = draws.integers(0, env.max_steps, env.num_envs)  # episodes end at all times

    def note(metrics: dict[str, float]) -> None:
        means, hits = coded.take_costs()
        size = settings.rollout * settings.num_envs
        row = metrics | {"iteration": len(skills.curve), "steps": (len(skills.curve) + 1) * size}
        row |= {f"skill_{k}": v for k, v in skills.discovery.update().items()}
        row |= {f"cost/{name}": float(v) for name, v in zip(COSTS, means, strict=True)}
        row |= {f"violation/{name}": float(v) for name, v in zip(COSTS, hits, strict=True)}
        skills.curve.append(row)
        if on_iteration is not None:
            on_iteration(skills)

    size = settings.rollout * settings.num_envs
    train_ppo(skills.policy, coded, rollouts * size, note, settings.rollout, observation=observation)
    env.close()
