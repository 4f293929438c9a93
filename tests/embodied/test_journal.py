"""A round is kept whole or not at all, whenever the process dies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embodied import runs
from embodied.core import Episode
from embodied.errors import MissingRunError
from embodied.journal import Journal
from envs.predicates import COLUMNS
from policies.random import RandomPolicy


def episode(number: int) -> Episode:
    generator = np.random.default_rng(number)
    return Episode(
        observations=generator.normal(size=(4, len(COLUMNS))).astype(np.float32),
        actions=generator.normal(size=(3, 5)).astype(np.float32),
        rewards=np.zeros((3, 3), np.float32),
        terminations=np.zeros(3, np.bool_), truncations=np.array([False, False, True]),
        states=generator.normal(size=(1, 5)), state_steps=np.zeros(1, np.int64),
        success=False, goal="lit(lamp)", instruction="turn on the lamp", source="practice", policy="",
        env="Embodied/Tabletop-v0", seed=number, versions={"mujoco": "4.0.0"},
    )  # fmt: skip


def policy(directory: Path, number: int) -> Path:
    RandomPolicy(2, 1, seed=number).save_pretrained(directory)
    return directory


def live_a_round(journal: Journal, number: int) -> None:
    """One committed round: a line, two episodes, a skill, some state."""
    journal.store.extend([episode(10 * number), episode(10 * number + 1)])
    journal.state.steps += 100
    journal.state.history.setdefault("lit(lamp)", []).append([number, 4])
    journal.note("practice", "lit(lamp)", "because", "done", "admitted", number=number)
    with journal.library.round(journal.round) as tx:
        tx.add_skill("lit(lamp)", policy(journal.directory / f"policy-{number}", number))
        journal.seal(tx)


def content(run: Path) -> dict[str, object]:
    """All that a run keeps."""
    with_journal = Journal.open(run, 0.8)
    try:
        return {
            "round": with_journal.round,
            "episodes": [e.hash() for e in with_journal.store.iterate()],
            "ledger": (run / runs.LEDGER).read_bytes(),
            "artifacts": sorted(p.name for p in (run / "artifacts").glob("*/*")),
            "state": with_journal.state,
        }
    finally:
        with_journal.close()


@pytest.fixture
def lived(tmp_path: Path) -> Path:
    """A run of two committed rounds."""
    journal = Journal.open(tmp_path / "run", 0.8)
    for number in range(2):
        live_a_round(journal, number)
    journal.close()
    return tmp_path / "run"


def test_what_was_committed_is_there_again(lived: Path):
    journal = Journal.open(lived, 0.8)
    assert journal.round == 2
    assert journal.state.steps == 200
    assert journal.state.history == {"lit(lamp)": [[0, 4], [1, 4]]}
    assert len(journal.store) == 4
    assert len(journal.library.skills()) == 2
    journal.close()
    lines = [json.loads(line) for line in (lived / runs.LEDGER).read_text().splitlines()]
    assert [(line["round"], line["details"]["number"]) for line in lines] == [(0, 0), (1, 1)]
    assert set(lines[0]) == {"round", "kind", "goal", "why", "result", "outcome", "details"}


def test_a_round_killed_before_its_commit_leaves_nothing(lived: Path):
    before = content(lived)
    journal = Journal.open(lived, 0.8)
    journal.store.extend([episode(77)])
    journal.store.commit()
    journal.state.steps += 10_000
    journal.note("practice", "lit(lamp)", "", "", "lost")
    journal.library.artifacts.put(policy(lived / "orphan", 70))
    journal.close()  # as a killed process leaves it: no round was written
    with (lived / runs.LEDGER).open("ab") as file:
        file.write(b'{"round": 2, "half a li')
    assert content(lived) == before


def test_a_round_that_dies_inside_its_commit_leaves_nothing(lived: Path):
    before = content(lived)
    journal = Journal.open(lived, 0.8)
    journal.store.extend([episode(78)])
    journal.note("practice", "lit(lamp)", "", "", "lost")
    with pytest.raises(KeyboardInterrupt), journal.library.round(journal.round) as tx:
        tx.add_skill("lit(lamp)", policy(lived / "late", 71))
        journal.seal(tx)  # ledger and episodes are on the disk by now
        assert (lived / runs.LEDGER).stat().st_size > len(before["ledger"])  # type: ignore[arg-type]
        raise KeyboardInterrupt
    journal.close()
    assert content(lived) == before


def test_the_very_first_round_leaves_nothing_either(tmp_path: Path):
    journal = Journal.open(tmp_path, 0.8)
    journal.store.extend([episode(1)])
    journal.close()
    (tmp_path / runs.LEDGER).write_bytes(b"something\n")
    empty = content(tmp_path)
    assert (empty["round"], empty["episodes"], empty["ledger"]) == (0, [], b"")


def test_a_round_done_again_is_the_round_that_was_lost(lived: Path, tmp_path: Path):
    whole = Journal.open(tmp_path / "whole", 0.8)
    for number in range(3):
        live_a_round(whole, number)
    whole.close()
    journal = Journal.open(lived, 0.8)
    journal.store.extend([episode(20)])  # half of the third round, then killed
    journal.close()
    journal = Journal.open(lived, 0.8)
    live_a_round(journal, 2)
    journal.close()
    assert runs.digests(lived) == runs.digests(tmp_path / "whole")
    assert (lived / runs.LEDGER).read_bytes() == (tmp_path / "whole" / runs.LEDGER).read_bytes()


def test_scalars_go_to_tensorboard(lived: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    journal = Journal.open(lived, 0.8)
    journal.scalar("mastered", 3)
    journal.publish()
    journal.close()
    events = EventAccumulator(str(lived / "scalars"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("mastered")] == [(200, 3.0)]


def test_episodes_without_their_library_are_not_taken_over(lived: Path):
    (lived / runs.LIBRARY).unlink()
    with pytest.raises(MissingRunError, match="no library"):
        Journal.open(lived, 0.8)
