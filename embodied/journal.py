"""What a run leaves behind besides its skills: the ledger of decisions, its scalars, and the loop's own state.

A round is kept whole or not at all. Its ledger lines and episodes are written and synced first; then one transaction of
the library records where they end, together with the loop's state. What a killed process left past that mark is cut off
when the run is opened again.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embodied import runs
from embodied.data.store import EpisodeStore
from embodied.errors import MissingRunError
from embodied.skills.library import Round, SkillLibrary
from envs.predicates import COLUMNS

__all__ = ["Journal", "LoopState"]


@dataclass
class LoopState:
    """All the loop remembers between rounds, as JSON values."""

    steps: int = 0  # environment steps so far
    seconds: float = 0.0  # of work so far
    episodes: int = 0
    finished: bool = False
    play: str = ""  # folder of the play policy in the run
    mastered: list[dict[str, float]] = field(default_factory=list)  # steps, seconds, count
    curves: dict[str, list[list[int]]] = field(default_factory=dict)  # schema → [steps, successes, n]
    history: dict[str, list[list[int]]] = field(default_factory=dict)  # goal → [successes, n], oldest first
    operators: dict[str, Any] = field(default_factory=dict)  # schema → Operator.to_dict
    practice: dict[str, dict[str, Any]] = field(default_factory=dict)  # schema → directory, steps, from
    recent: list[str] = field(default_factory=list)  # proposals, oldest first
    kept: str = ""  # file of kept states in the run
    chained: dict[str, list[float]] = field(default_factory=dict)  # goal → [successes, n] within plans, fading
    hard: dict[str, Any] = field(default_factory=dict)  # frozen hard goals and what practice was paid (proposer=soar)
    discovered: dict[str, list[float]] | None = None  # goal → a code that brings it about; None: nothing discovered
    reached: dict[str, int] = field(default_factory=dict)  # goals reached by whatever was tried (relabelled)


class Journal:
    """An open run directory: library, episodes, ledger, state. Made by `Journal.open`."""

    def __init__(self, directory: Path, library: SkillLibrary, store: EpisodeStore, state: LoopState):
        self.directory, self.library, self.store, self.state = directory, library, store, state
        self.lines: list[dict[str, Any]] = []
        self._scalars: list[tuple[str, float]] = []
        self._began = time.monotonic() - state.seconds

    @classmethod
    def open(cls, directory: Path, threshold: float) -> Journal:
        """Opens or creates a run's files and drops whatever a killed round left in them."""
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / runs.LIBRARY).exists() and (directory / runs.EPISODES).exists():
            raise MissingRunError(f"{directory} has episodes but no library: it was removed; name another run")
        library = SkillLibrary.open(directory / runs.LIBRARY, threshold=threshold)
        last = library.last_round
        ledger = directory / runs.LEDGER
        ledger.touch()
        os.truncate(ledger, last.ledger_offset if last else 0)
        store = EpisodeStore.open(directory / runs.EPISODES, last.store_offsets if last else {}, columns=COLUMNS)
        state = LoopState(**last.state) if last else LoopState()
        library.gc()
        return cls(directory, library, store, state)

    @property
    def round(self) -> int:
        """The round to do next."""
        return self.library.next_round

    def note(self, kind: str, goal: str, why: str, result: str, outcome: str, **details: Any) -> None:
        """A line for the ledger, kept with the round."""
        self.lines.append(
            {
                "round": self.round, "kind": kind, "goal": goal, "why": why, "result": result, "outcome": outcome,
                "details": details,
            }
        )  # fmt: skip

    def scalar(self, name: str, value: float) -> None:
        """A scalar at the round's final step count."""
        self._scalars.append((name, float(value)))

    def seal(self, tx: Round) -> None:
        """Makes the round's ledger lines and episodes durable and seals the transaction with where they end."""
        self.state.seconds = time.monotonic() - self._began
        with (self.directory / runs.LEDGER).open("ab") as file:
            for line in self.lines:
                file.write((json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
            offset = file.tell()
        tx.seal(ledger_offset=offset, store_offsets=self.store.commit(), state=asdict(self.state))
        self.lines = []

    def publish(self) -> None:
        """Writes the committed round's scalars for TensorBoard."""
        from torch.utils.tensorboard.writer import SummaryWriter

        writer = SummaryWriter(str(self.directory / "scalars"), max_queue=1000)
        for name, value in self._scalars:
            writer.add_scalar(name, value, self.state.steps)
        writer.close()
        self._scalars = []

    def close(self) -> None:
        self.store.close()
        self.library.close()
