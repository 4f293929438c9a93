"""Quarantine: a broken episode can be replayed, a broken file is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embodied.data.quarantine import Incident, QuarantineError, dump, load


def incident() -> Incident:
    states = np.arange(12.0).reshape(2, 6)
    states[1, 3] = np.nan
    return Incident(
        model="Embodied/Tabletop-v0", seed=2**60, states=states, state_steps=np.array([0, 5]),
        actions=np.ones((9, 4), np.float32), reason="NaN in states", goal="open(drawer)",
        versions={"mujoco": "4.0"},
    )  # fmt: skip


def test_an_incident_comes_back_bit_for_bit_under_the_same_name(tmp_path: Path) -> None:
    path = dump(tmp_path / "quarantine", incident())
    assert dump(tmp_path / "quarantine", incident()) == path
    back = load(path)
    for name in ("states", "state_steps", "actions"):
        np.testing.assert_array_equal(getattr(back, name), getattr(incident(), name))
    for name in ("model", "seed", "reason", "goal", "versions"):
        assert getattr(back, name) == getattr(incident(), name)


def test_a_broken_or_foreign_file_is_one_clear_error(tmp_path: Path) -> None:
    path = dump(tmp_path, incident())
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole.replace(b"states", b"stades"), b"no zip at all"):
        path.write_bytes(content)
        with pytest.raises(QuarantineError, match="is not a readable incident"):
            load(path)
    np.savez(tmp_path / "other.npz", meta=np.array([{"format": 1}], object))  # a pickle: never opened
    for name in ("other.npz", "missing.npz"):
        with pytest.raises(QuarantineError, match=name):
            load(tmp_path / name)
