"""The worlds. Importing this registers the environments by id and imports neither mujoco nor numba."""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

DISTRIBUTION = "embodied-repertoire"

if "Embodied/Tabletop-v0" not in registry:
    register(
        id="Embodied/Tabletop-v0",
        entry_point="envs.vector:TabletopEnv",
        vector_entry_point="envs.vector:TabletopVectorEnv",
    )
