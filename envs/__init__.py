"""The worlds. Importing this registers the environments by id and imports neither mujoco nor numba."""

from __future__ import annotations

from gymnasium.envs import registration

DISTRIBUTION = "embodied-repertoire"

WORLDS = {  # name -> module and classes of the single and of the vector environment
    "Tabletop": ("envs.vector", "TabletopEnv", "TabletopVectorEnv"),
    "Playroom": ("envs.scenes.playroom", "PlayroomEnv", "PlayroomVectorEnv"),
    "Discovery": ("envs.scenes.discovery", "DiscoveryEnv", "DiscoveryVectorEnv"),
    **{
        name: ("envs.scenes.goal_envs", f"{name}Env", f"{name}VectorEnv")
        for name in ("Reach", "Push", "PickPlace", "Stack", "DrawerPlace", "Rearrange")
    },
}

for _name, (_module, _single, _vector) in WORLDS.items():
    if f"Embodied/{_name}-v0" not in registration.registry:
        registration.register(
            id=f"Embodied/{_name}-v0",
            entry_point=f"{_module}:{_single}",
            vector_entry_point=f"{_module}:{_vector}",
        )
