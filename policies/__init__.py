"""What acts, and how it learns: one algorithm a file.

Nothing heavy is imported here: `REGISTRY` names every kind of policy by a short key, as a string, and a
class is loaded when it is asked for. Checkpoints store the key and never an import path.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policies.base import LearnablePolicy as LearnablePolicy
    from policies.base import Policy as Policy
    from policies.base import load_policy as load_policy

DISTRIBUTION = "embodied-repertoire"
"""The distribution this package belongs to: other distributions may own the same import name."""

REGISTRY: dict[str, str] = {
    "random": "policies.random:RandomPolicy",
    "multi-critic-ppo": "policies.multi_critic_ppo:MultiCriticPPO",
    "multi-critic-sac": "policies.multi_critic_sac:MultiCriticSAC",
    "beso": "policies.beso:BESO",
    "flow-bc": "policies.flow_bc:FlowBC",
    "flow-adapters": "policies.adapters:FlowAdapters",
    "gcbc": "policies.gcbc:GCBC",
    "multi-context": "policies.multi_context:MultiContext",
    "latent-plans": "policies.latent_plans:LatentPlans",
    "act": "policies.act:ACT",
    "act-jepa": "policies.act_jepa:ACTJEPA",
    "gcivl": "policies.gcivl:GCIVL",
    "gciql": "policies.gciql:GCIQL",
    "hiql": "policies.hiql:HIQL",
    "sb3": "policies.sb3:SB3Policy",
    "discrete-ppo": "policies.discrete_ppo:DiscretePPO",
    "viewed": "policies.viewed:Viewed",
}
"""Registry key -> "module:class". Add an entry to make a new kind of policy loadable."""

__all__ = ["DISTRIBUTION", "REGISTRY", "LearnablePolicy", "Policy", "load_policy", "policy_class"]


def policy_class(key: str) -> Any:
    """The class registered under `key`; ValueError naming the valid keys for any other."""
    if key not in REGISTRY:
        raise ValueError(f"Unknown policy type {key!r}; valid types: {', '.join(sorted(REGISTRY))}.")
    module, _, name = REGISTRY[key].partition(":")
    return getattr(importlib.import_module(module), name)


def __getattr__(name: str) -> Any:
    if name in ("LearnablePolicy", "Policy", "load_policy"):
        return getattr(importlib.import_module("policies.base"), name)
    raise AttributeError(f"module 'policies' has no attribute {name!r}")
