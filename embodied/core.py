"""The few types everything flows through: ``Episode``, ``Skill``, ``OperatorCount`` and ``EvalReport``.

All are frozen. T is the number of control steps of an episode, NX the number of fact columns, A of action
dimensions, K of reward terms, S of stored simulator states and NS their size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from embodied.skills.manifest import HandbookFacet, OperatorFacet, PolicyFacet, facets_to_dict
from embodied.skills.statistics import wilson

SOURCES = ("scripted-play", "practice", "evaluation", "ask", "oracle", "external")
EVIDENCE_KINDS = ("simulator", "judge", "language")  # in falling rank; only the first admits a skill
PURPOSES = ("screen", "gate", "confirm", "regression", "smoke", "probe", "canary")  # append only: seeds count in it
LOCAL = "local"  # the principal that learns here
ADMISSION_THRESHOLD = 0.8  # what lower bounds of a success rate must reach, unless configured otherwise
OPERATOR_ROLES = ("precondition", "effect")

# name -> (dtype, rows of an episode of T steps and S states, dimensions)
EPISODE_ARRAYS: dict[str, tuple[str, str, int]] = {
    "observations": ("<f4", "T+1", 2),
    "actions": ("<f4", "T", 2),
    "rewards": ("<f4", "T", 2),
    "terminations": ("|b1", "T", 1),
    "truncations": ("|b1", "T", 1),
    "states": ("<f8", "S", 2),
    "state_steps": ("<i8", "S", 1),
}


class EpisodeError(ValueError):
    """An episode's arrays do not fit each other; the sentence names the array and the shape expected."""


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode, from its reset to its last observation.

    observations float32[T+1, NX] (facts), actions float32[T, A], rewards float32[T, K], terminations and
    truncations bool[T], states float64[S, NS] (full simulator states) taken before the steps in state_steps
    int64[S], the first of which is 0. `goal` is a goal's canonical text, `policy` an artifact's hash or "",
    `env` an environment's id, `seed` what reproduces the reset. EpisodeError where shapes or dtypes do not
    fit.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    states: np.ndarray
    state_steps: np.ndarray
    success: bool
    goal: str
    instruction: str
    source: str
    policy: str
    env: str
    seed: int
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps, states = len(self.actions), len(self.states)
        rows = {"T+1": steps + 1, "T": steps, "S": states}
        for name, (dtype, length, ndim) in EPISODE_ARRAYS.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != ndim or len(array) != rows[length]:
                raise EpisodeError(
                    f"an episode's {name} are {array.dtype}{list(array.shape)}; with {steps} actions and "
                    f"{states} states they must be {np.dtype(dtype)} with {ndim} dimensions and "
                    f"{rows[length]} rows"
                )
        if steps == 0:
            raise EpisodeError("an episode without a single action cannot be kept; drop it")
        if states == 0 or self.state_steps[0] != 0:
            raise EpisodeError("an episode's states must begin with the state at its reset: state_steps[0] must be 0")
        if self.source not in SOURCES:
            raise EpisodeError(f"unknown episode source '{self.source}'; the sources are {', '.join(SOURCES)}")

    def __len__(self) -> int:
        """T, the number of control steps."""
        return len(self.actions)

    def hash(self) -> str:
        """sha256 (hex) over the arrays, the goal and the seed; versions do not count."""
        digest = hashlib.sha256(canonical_json([self.goal, int(self.seed)]).encode())
        for name, (dtype, _, _) in EPISODE_ARRAYS.items():
            array = getattr(self, name)
            digest.update(f"{name}{dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Skill:
    """One immutable version of a skill: a lifted schema and the artifact that carries it out.

    `schema` is lifted literals ("on(?a:block, ?b:block)"), `artifact` the hash of a policy directory,
    `conditioning` how the artifact is told what to do (goal, latent code, adapter), `signature` the typed
    arguments, `parent` the version it was made from; `policy`, `operator` and `handbook` are its facets, where it has
    them (a skill without a policy of its own has the artifact ""). Provenance (who, when, from what data), the
    principal it came from and whether it is tainted are recorded but are not part of the identity.
    """

    schema: str
    artifact: str
    conditioning: Mapping[str, object] = field(default_factory=dict)
    signature: Mapping[str, object] = field(default_factory=dict)
    parent: str | None = None
    provenance: Mapping[str, object] = field(default_factory=dict)
    created_round: int = -1
    policy: PolicyFacet | None = None
    operator: OperatorFacet | None = None
    handbook: HandbookFacet | None = None
    principal: str = LOCAL
    tainted: bool = False

    @property
    def facets(self) -> dict[str, object]:
        """The facets that are there, as JSON values by name."""
        return facets_to_dict(self.policy, self.operator, self.handbook)

    @property
    def version(self) -> str:
        """sha256 (hex) of what the skill is: schema, artifact, conditioning, signature, parent, and facets if any."""
        identity = [self.schema, self.artifact, dict(self.conditioning), dict(self.signature), self.parent]
        identity += [self.facets] if self.facets else []
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


@dataclass(frozen=True)
class OperatorCount:
    """What executions of a skill schema say about one lifted literal ("clear(?b)", "not open(?d)").

    A precondition's `trials` are executions begun with the literal true and `hits` those of them that
    succeeded; an effect's `trials` are successful executions begun with the literal false and `hits` those
    that ended with it true.
    """

    schema: str
    literal: str
    role: str
    trials: int
    hits: int

    def __post_init__(self) -> None:
        if self.role not in OPERATOR_ROLES:
            raise ValueError(f"unknown operator role '{self.role}'; the roles are {', '.join(OPERATOR_ROLES)}")
        if not 0 <= self.hits <= self.trials:
            raise ValueError(
                f"{self.hits} hits of {self.trials} trials of '{self.literal}' cannot be: 0 <= hits <= trials"
            )


@dataclass(frozen=True, eq=False)
class EvalReport:
    """A policy's success on one goal over n fresh episodes: episode i is reset number i under `seed`.

    success bool[n]; lengths int64[n] in control steps and returns float64[n] where they were measured. `kind`
    says who judged ("simulator", "judge" or "language"), `versions` what physics and code it ran on.
    """

    goal: str
    policy: str
    seed: int
    success: np.ndarray
    lengths: np.ndarray | None = None
    returns: np.ndarray | None = None
    kind: str = "simulator"
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in EVIDENCE_KINDS:
            raise ValueError(f"unknown kind of evidence '{self.kind}'; the kinds are {', '.join(EVIDENCE_KINDS)}")
        if self.success.dtype != np.bool_ or self.success.ndim != 1:
            raise ValueError(f"a report's success must be bool[n], not {self.success.dtype}{list(self.success.shape)}")

    @property
    def n(self) -> int:
        """Number of episodes."""
        return len(self.success)

    @property
    def successes(self) -> int:
        """Number of successful episodes."""
        return int(self.success.sum())

    @property
    def rate(self) -> float:
        """Success rate; NaN without episodes."""
        return self.successes / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided 95 % Wilson interval of the success rate."""
        lower, upper = wilson(self.successes, self.n)
        return float(lower), float(upper)

    def summary(self) -> dict[str, object]:
        """Goal, policy, seed, n, successes, rate, interval, kind and versions, ready for JSON."""
        lower, upper = self.interval
        return {
            "goal": self.goal, "policy": self.policy, "seed": self.seed, "kind": self.kind,
            "n": self.n, "successes": self.successes, "rate": self.rate, "lower": lower, "upper": upper,
            "versions": dict(self.versions),
        }  # fmt: skip

    def lines(self) -> Iterator[dict[str, object]]:
        """One dictionary an episode, ready for JSON lines."""
        for i, success in enumerate(self.success):
            line: dict[str, object] = {
                "goal": self.goal,
                "policy": self.policy,
                "seed": self.seed,
                "episode": i,
            }
            line["success"] = bool(success)
            if self.lengths is not None:
                line["length"] = int(self.lengths[i])
            if self.returns is not None:
                line["return"] = float(self.returns[i])
            yield line
