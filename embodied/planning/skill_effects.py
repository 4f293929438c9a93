"""What skills do, learnt: options of frozen skills are tried everywhere, and a model predicts what they change.

A state is (every block's x y z, the tool from the nearest block x y z, that block's velocity, held): see
`policies.effect_model`. Without velocities the model errs a seventh more: a block swings on. What is learnt from are
options under codes drawn at random, among them to stop, one after the other, so that they begin where others end; half
of the time a code is kept for another option.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from embodied.errors import UsageError
from embodied.training.discovery import Skills
from embodied.training.hierarchy import OPTION, Act, hold, unit
from envs.scenes.discovery import DiscoveryVectorEnv
from envs.scenes.facts import B_V, BLOCK_STRIDE, BLOCKS
from policies.effect_model import EffectModel, EffectModelConfig

__all__ = ["collect", "effect_state", "errors", "learn_effects"]

_STOPS, _KEPT = 0.15, 0.5  # shares of options that stop; that go on with the code before
_FIT_STEPS = 3_000


def effect_state(objects: np.ndarray, velocities: np.ndarray, tool: np.ndarray, held: np.ndarray) -> np.ndarray:
    """States float64[n, 3 B + 7] of objects float64[n, B, 3] (m) and their velocities (m/s), tools float64[n, 3] and
    what is held, [n].
    """
    away = tool[:, None] - objects
    nearest = np.linalg.norm(away, axis=-1).argmin(axis=1)
    rows = np.arange(len(tool))
    parts = objects.reshape(len(tool), -1), away[rows, nearest], velocities[rows, nearest]
    return np.concatenate([*parts, (np.asarray(held) > 0)[:, None]], axis=1)


def state_of(env: Any) -> np.ndarray:
    """The states of all slots of a discovery environment now."""
    objects = env.objects
    columns = BLOCKS + B_V + BLOCK_STRIDE * np.arange(objects.shape[1])[:, None] + np.arange(3)
    return effect_state(objects, env.facts[:, columns], env.facts[:, :3], env.terms[:, 1])


def collect(
    env: Any, act: Act, code_size: int, options: int, *, steps: int = OPTION, seed: int = 0, features: int = 0
) -> dict[str, np.ndarray]:
    """At least so many options tried: states, codes, next_states, fell; a row an option.

    ``env``: a discovery environment in autoreset mode DISABLED, which is reset here. A block that fell, or an episode
    that is over, begins anew.
    """
    draws = np.random.default_rng(seed)
    n, rows, total = env.num_envs, [], 0
    observation, _ = env.reset(seed=int(draws.integers(1 << 31)))
    features = features or observation.shape[1]
    codes = np.zeros((n, code_size), np.float32)
    while total < options:
        drawn = unit(draws.normal(size=codes.shape)) * (draws.random((n, 1)) >= _STOPS)
        codes = np.where(draws.random((n, 1)) < _KEPT, codes, drawn).astype(np.float32)
        before = state_of(env)
        found = hold(env, act, codes, steps, observation, features)
        after, cut = state_of(env), found.truncated & ~found.terminated
        whole = ~cut | (env.elapsed >= env.max_steps)  # cut short by broken physics: no whole option
        rows.append((before[whole], codes[whole], after[whole], found.lost[whole]))
        total += int(whole.sum())
        observation = found.observation
        if found.done.any():
            observation = np.where(found.done[:, None], env.reset(options={"reset_mask": found.done})[0], observation)
    columns = (np.concatenate(column) for column in zip(*rows, strict=True))
    return dict(zip(("states", "codes", "next_states", "fell"), columns, strict=True))


def learn_effects(
    skills: Skills,
    *,
    options: int = 8_000,
    steps: int = OPTION,
    seed: int = 0,
    num_envs: int = 64,
    threads: int = 0,
    gradient_steps: int = _FIT_STEPS,
    world: dict[str, Any] | None = None,
) -> EffectModel:
    """A model of what the skills do, from so many options tried in ``options * steps`` control steps.

    Raises UsageError for skills whose codes are not continuous.
    """
    config = skills.discovery.config
    if config.discrete or config.method == "dusdi":
        raise UsageError(f"the codes of '{config.method}' are discrete; effects are learnt of continuous ones")
    env = DiscoveryVectorEnv(
        num_envs, blocks=skills.settings.blocks, max_steps=16 * steps, autoreset_mode="Disabled", threads=threads,
        **(world or {}),
    )  # fmt: skip
    data = collect(env, skills.act, config.code, options, steps=steps, seed=seed)
    env.close()
    model = EffectModel(
        EffectModelConfig(
            objects=skills.settings.blocks, code=config.code, option=steps, gradient_steps=gradient_steps, seed=seed
        )
    )
    model.fit(data)
    return model


def errors(model: EffectModel, data: dict[str, np.ndarray]) -> dict[str, float]:
    """How good a model is on options it has not seen.

    position: root mean square error of the blocks' positions (m), where nothing fell; unmoved: that of predicting no
    change; fell: share of falls and not-falls told right, each counting half (None of either: 1).
    """
    states, codes = (torch.from_numpy(np.asarray(data[k], np.float32)) for k in ("states", "codes"))
    after, fell, _ = model.predict(states, codes)
    columns = slice(0, 3 * model.config.objects)
    truth, told, stayed = data["next_states"], fell.numpy() > 0.5, ~data["fell"]
    wrong = np.linalg.norm(after.numpy()[stayed, columns] - truth[stayed, columns], axis=1)
    moved = np.linalg.norm(data["states"][stayed, columns] - truth[stayed, columns], axis=1)
    shares = [np.mean(told[truly] == answer) for truly, answer in ((stayed, False), (~stayed, True)) if truly.any()]
    return {
        "position": float(np.sqrt(np.mean(wrong**2))), "median": float(np.median(wrong)),
        "unmoved": float(np.sqrt(np.mean(moved**2))), "fell": float(np.mean(shares)),
    }  # fmt: skip
