"""Episodes in which the physics broke, kept aside so that a person can replay them.

The store takes no NaN. What broke goes into one ``.npz`` a case, without pickles: which model and version,
the seed, the simulator states and the actions that led there.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embodied.core import Episode, canonical_json
from embodied.data.durable import replace_file

FORMAT = 1


class QuarantineError(RuntimeError):
    """A quarantine file cannot be read; the sentence names it and what is wrong."""


@dataclass(frozen=True, eq=False)
class Incident:
    """What it takes to replay a broken episode.

    `model` is the environment's id and `versions` what it ran on; states float64[S, NS] precede the steps in
    state_steps int64[S]; actions float32[T, A] from step 0. Values may be NaN: that is the point.
    """

    model: str
    seed: int
    states: np.ndarray
    state_steps: np.ndarray
    actions: np.ndarray
    reason: str = ""
    goal: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_episode(cls, episode: Episode, reason: str) -> Incident:
        """The incident of an episode that the store refused."""
        return cls(
            model=episode.env, seed=episode.seed, states=episode.states, state_steps=episode.state_steps,
            actions=episode.actions, reason=reason, goal=episode.goal, versions=episode.versions,
        )  # fmt: skip


def dump(directory: str | Path, incident: Incident) -> Path:
    """Write an incident into a directory (made when missing) and return its path; the same incident, the same
    name.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    meta = {
        "format": FORMAT, "model": incident.model, "seed": int(incident.seed), "reason": incident.reason,
        "goal": incident.goal, "versions": dict(incident.versions),
    }  # fmt: skip
    arrays = {
        "meta": np.frombuffer(canonical_json(meta).encode(), np.uint8),
        "states": np.asarray(incident.states, np.float64),
        "state_steps": np.asarray(incident.state_steps, np.int64),
        "actions": np.asarray(incident.actions, np.float32),
    }
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(np.ascontiguousarray(array).tobytes())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    path = directory / f"incident-{digest.hexdigest()[:16]}.npz"
    replace_file(path, buffer.getvalue())
    return path


def load(path: str | Path) -> Incident:
    """Read an incident back; QuarantineError where the file is missing, damaged or something else."""
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("meta", "states", "state_steps", "actions")}
        meta = json.loads(arrays["meta"].tobytes())
        if meta["format"] != FORMAT:
            raise QuarantineError(f"{path} is of format {meta['format']}; this version reads format {FORMAT}")
        states, steps, actions = arrays["states"], arrays["state_steps"], arrays["actions"]
        if states.ndim != 2 or actions.ndim != 2 or steps.shape != states.shape[:1]:
            raise ValueError(f"its arrays have shapes {states.shape}, {steps.shape} and {actions.shape}")
        return Incident(
            model=str(meta["model"]), seed=int(meta["seed"]), reason=str(meta["reason"]),
            goal=str(meta["goal"]), versions=dict(meta["versions"]), states=states, state_steps=steps,
            actions=actions,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise QuarantineError(
            f"{path} is not a readable incident ({error}); it cannot be replayed, delete it"
        ) from error
