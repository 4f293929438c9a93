"""States that experience left, kept to begin practice from.

A skill that is only ever practised from tidy starts fails where it is used: right after another skill, with the arm
wherever that one ended, or after its own failure. So the states in which executions ended, well or badly, are kept, and
part of the practice begins there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from embodied.data.durable import replace_file
from embodied.errors import MissingRunError
from envs.vector import TabletopVectorEnv

__all__ = ["CAPACITY", "KeptStates"]

CAPACITY = 6000  # states; the oldest go first


@dataclass
class KeptStates:
    """States float64[k, S] of `TabletopVectorEnv.get_state` and their facts float64[k, NX], oldest first."""

    states: list[np.ndarray] = field(default_factory=list)
    facts: list[np.ndarray] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.states)

    def look(self, env: TabletopVectorEnv, slots: np.ndarray) -> None:
        """Keeps the present states of ``slots``, save those that lost a block or are not finite."""
        slots = np.asarray(slots)[~env.lost[slots]]
        for state, facts in zip(env.get_state(slots), env.facts[slots], strict=True):
            if np.isfinite(state).all() and np.isfinite(facts).all():
                self.states.append(state)
                self.facts.append(facts.copy())
        del self.states[:-CAPACITY], self.facts[:-CAPACITY]

    def arrays(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(states, facts) as the environment takes them; None where nothing is kept."""
        return (np.stack(self.states), np.stack(self.facts)) if self.states else None

    def save(self, path: Path) -> None:
        """Writes the file in one step: the old one or the new one is there, never half of it."""
        found = self.arrays() or (np.zeros((0, 0)), np.zeros((0, 0)))
        replace_file(path, safetensors.numpy.save(dict(zip(("states", "facts"), found, strict=True))))

    @classmethod
    def load(cls, path: Path) -> KeptStates:
        """Reads what `save` wrote. Raises MissingRunError where the file is gone or damaged."""
        try:
            found = safetensors.numpy.load(path.read_bytes())
            return cls(list(found["states"]), list(found["facts"]))
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            raise MissingRunError(f"the run's kept states {path} cannot be read ({error}); name another run") from error
