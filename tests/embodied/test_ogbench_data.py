"""Files in OGBench's format: read, refused where damaged, and made with its oracles where it is installed."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embodied.data.dataset import DatasetError
from embodied.data.ogbench import record
from embodied.data.recorded import load_recorded
from envs.suites import SuiteError

LENGTHS = (4, 2, 5)


def columns() -> dict[str, np.ndarray]:
    rng, rows = np.random.default_rng(0), sum(LENGTHS)
    terminals = np.zeros(rows, np.bool_)
    terminals[np.cumsum(LENGTHS) - 1] = True
    return {
        "observations": rng.normal(size=(rows, 3)),
        "actions": rng.uniform(-1, 1, (rows, 2)),
        "terminals": terminals,
    }


def write(path: Path, **changes: Any) -> Path:
    kept = {name: value for name, value in (columns() | changes).items() if value is not None}
    np.savez_compressed(path, **kept)  # type: ignore[arg-type]
    return path


def flat(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data = load_recorded(str(path))
    return data.observations, data.actions, data.episode_ends


def test_a_file_becomes_flat_episodes(tmp_path: Path):
    observations, actions, ends = flat(write(tmp_path / "a.npz", terminals=columns()["terminals"].astype(np.float32)))
    assert ends.tolist() == [4, 6, 11] and ends.dtype == np.int64
    assert observations.dtype == actions.dtype == np.float32
    np.testing.assert_allclose(observations, columns()["observations"], rtol=1e-6)
    last = ends - 1
    assert (actions[last] == 0).all()  # they led nowhere
    kept = np.setdiff1d(np.arange(11), last)
    np.testing.assert_allclose(actions[kept], columns()["actions"][kept], rtol=1e-6)


def test_what_is_no_data_set_is_refused_in_one_sentence(tmp_path: Path):
    path = tmp_path / "a.npz"
    with pytest.raises(DatasetError, match="there is nothing at"):
        flat(path)
    whole = write(path).read_bytes()
    array = BytesIO()
    np.save(array, np.zeros(3))
    for damaged in (b"", b"no archive", whole[:-50], whole[:200] + b"0" + whole[201:], array.getvalue()):
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"a\.npz cannot be read \(.*\): it was cut short, is damaged, or"):
            flat(path)
    broken = columns()["observations"]
    broken[7, 1] = np.nan
    wrong = {
        r"a\.npz lacks 'terminals'; an OGBench file has observations, actions and terminals": {"terminals": None},
        r"different lengths: 11 of observations, 3 of actions": {"actions": np.zeros((3, 2))},
        "its last row is no terminal": {"terminals": np.append(columns()["terminals"][:-1], False)},
        "an episode of a single row": {"terminals": columns()["terminals"] | (np.arange(11) == 4)},
        "episode 2 .*nan in observations column 1, row 1": {"observations": broken},
    }
    for sentence, changes in wrong.items():
        with pytest.raises(DatasetError, match=sentence) as error:
            flat(write(path, **changes))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("task", "kind"), [("cube-single", "play"), ("scene", "noisy"), ("puzzle-3x3", "play")])
def test_episodes_are_recorded_with_ogbenchs_oracles(task: str, kind: str, tmp_path: Path):
    ogbench = pytest.importorskip("ogbench", reason="the extra [suites] is not installed")
    heard: list[int] = []
    path = record(tmp_path / "made", task, kind=kind, episodes=2, steps=30, seed=4, on_episode=heard.append)
    assert path.name == "made.npz" and heard == [1, 2]
    observations, actions, ends = flat(path)
    assert ends.tolist() == [31, 62] and actions.shape == (62, 5) and np.abs(actions).max() <= 1
    assert np.abs(np.diff(observations[:31], axis=0)).max() > 0.1  # the arm moves
    with np.load(path) as file:
        assert set(file) - {"button_states"} == {"observations", "actions", "terminals", "qpos", "qvel"}
        assert ("button_states" in file) == (task != "cube-single")
    theirs = ogbench.load_dataset(str(path))
    np.testing.assert_array_equal(theirs["observations"][:30], observations[:30])
    np.testing.assert_array_equal(theirs["next_observations"][:30], observations[1:31])
    np.testing.assert_array_equal(theirs["actions"][30:], actions[31:61])
    again = record(tmp_path / "again.npz", task, kind=kind, episodes=1, steps=30, seed=4)
    np.testing.assert_array_equal(flat(again)[0], observations[:31])
    other = record(tmp_path / "other.npz", task, kind=kind, episodes=1, steps=30, seed=5)
    assert not np.array_equal(flat(other)[0], observations[:31])


def test_an_unknown_task_or_kind_is_refused(tmp_path: Path):
    pytest.importorskip("ogbench", reason="the extra [suites] is not installed")
    with pytest.raises(SuiteError, match="OGBench has no data of 'cube'; it has of cube-double, "):
        record(tmp_path / "a", "cube")
    with pytest.raises(SuiteError, match="kind = 'expert' must be one of play, noisy"):
        record(tmp_path / "a", kind="expert")
