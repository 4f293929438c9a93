"""Recorded play: the same command gives the same bytes, whatever happened on the way, and it can be replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embodied.core import EPISODE_ARRAYS
from embodied.data import formats
from embodied.data.dataset import DatasetError
from embodied.data.recording import Recording, begun, record
from embodied.data.replaying import environment, replay
from embodied.data.store import EpisodeStore
from envs.scenes.play import BEHAVIOURS

SMALL = Recording(steps=300, num_envs=6, length=20, states_every=8)  # two whole blocks, and one of 10 steps


class KilledError(Exception):
    pass


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("recording") / "play"
    told: list[int] = []
    assert record(directory, SMALL, threads=1, at=told.append) == SMALL.total == 300
    assert told == [48, 96, 120, 168, 216, 240, 288, 300]
    return directory


def test_what_is_recorded_is_whole_and_states_come_at_the_start_and_regularly(uninterrupted: Path):
    data = formats.read(str(uninterrupted))
    episodes = list(data.load())
    assert sum(map(len, episodes)) == 300
    assert data.env == "Embodied/Playroom-v0"
    assert data.kwargs["scene"] == "playroom"
    assert "drawer_value" in data.columns
    assert {e.source for e in episodes} == {"scripted-play"}
    assert len({e.seed for e in episodes}) == 3
    for e in episodes:
        assert e.state_steps.tolist() == list(range(0, len(e), 8))
        assert (e.terminations | e.truncations).tolist() == [False] * (len(e) - 1) + [True]
        assert set(e.versions) >= {"mujoco", "embodied"}


@pytest.mark.parametrize("kill_at", [48, 120, 216, 300])
def test_a_killed_recording_goes_on_to_the_same_bytes(tmp_path: Path, uninterrupted: Path, kill_at: int):
    def at(steps: int) -> None:
        if steps == kill_at:
            raise KilledError

    with pytest.raises(KilledError):
        record(tmp_path / "play", SMALL, threads=1, at=at)
    for name in ("actions", "observations", "labels"):  # of a block that was being written
        with (tmp_path / "play" / f"{name}.bin").open("ab") as file:
            file.write(b"torn")
    assert begun(tmp_path / "play", SMALL) == (kill_at - 1) // 120 * 120
    record(tmp_path / "play", SMALL, threads=1)
    assert content(tmp_path / "play") == content(uninterrupted)


def test_more_steps_later_are_the_same_as_at_once(tmp_path: Path, uninterrupted: Path):
    for steps in (60, 200, 300, 300):
        record(tmp_path / "play", replace(SMALL, steps=steps), threads=1)
    found, expected = content(tmp_path / "play"), content(uninterrupted)
    assert found == expected
    with pytest.raises(DatasetError, match="holds 300 steps already, more than the 60"):
        record(tmp_path / "play", replace(SMALL, steps=60))


def test_labels_lie_beside_the_store_row_for_row(uninterrupted: Path):
    labels = np.fromfile(uninterrupted / "labels.bin", np.int8).reshape(-1, 2)
    with EpisodeStore.open(uninterrupted, readonly=True) as store:
        assert len(labels) == len(store.observations)
        last = store.episode_ends - 1
        assert (labels[last] == -1).all()
        behaviours = np.delete(labels[:, 0], last)
        assert not any("behaviour" in column for column in store.columns)
    assert behaviours.min() >= 0
    assert behaviours.max() < len(BEHAVIOURS)
    assert "labels" not in EPISODE_ARRAYS


def test_every_episode_is_reproduced_to_the_bit_and_a_changed_one_is_not(uninterrupted: Path):
    data = formats.read(str(uninterrupted))
    env = environment(data)
    episodes = list(data.load())
    for e in episodes:
        found = replay(env, e)
        assert found.same, found
        assert found.facts
    actions = episodes[0].actions.copy()
    actions[11] = 0.0
    found = replay(env, replace(episodes[0], actions=actions))
    assert (found.same, found.step) == (False, 12)
    assert found.gap > 0
    with pytest.raises(DatasetError, match="no simulator states"):
        replay(env, replace(episodes[0], states=np.zeros((1, 0)), state_steps=np.zeros(1, np.int64)))
    env.close()


def test_kinds_differ_and_other_arguments_or_versions_are_refused(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
):
    before = content(uninterrupted)
    markov = replace(SMALL, kind="markov")
    record(tmp_path / "markov", replace(markov, steps=60), threads=1)
    assert (tmp_path / "markov" / "actions.bin").read_bytes() != before["actions.bin"][: 4 * 5 * 66]
    with pytest.raises(DatasetError, match="recorded with kind=correlated, not markov"):
        record(uninterrupted, markov)
    monkeypatch.setattr("embodied.data.recording.versions", lambda: {"mujoco": "9.9", "embodied": "0.1.0"})
    with pytest.raises(DatasetError, match=r"mujoco .*, not 9\.9"):
        record(uninterrupted, replace(SMALL, steps=400))
    assert content(uninterrupted) == before


def test_what_is_no_recording_is_left_alone(tmp_path: Path, uninterrupted: Path):
    formats.write(formats.read(str(uninterrupted)), f"store:{tmp_path / 'copy'}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "index.jsonl").write_bytes(b"somebody's episodes\n")
    for name, message in (("copy", "was not recorded here"), ("run", "is not empty")):
        before = content(tmp_path / name)
        with pytest.raises(DatasetError, match=message):
            record(tmp_path / name, SMALL)
        assert content(tmp_path / name) == before


def test_missing_labels_and_a_damaged_description_are_said(tmp_path: Path):
    one = replace(SMALL, steps=120)
    record(tmp_path / "play", one, threads=1)
    (tmp_path / "play" / "labels.bin").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"labels\.bin holds 0 rows where the store has 1"):
        record(tmp_path / "play", SMALL, threads=1)
    (tmp_path / "play" / "dataset.json").write_bytes(b"{")
    for act in (lambda: record(tmp_path / "play", SMALL), lambda: formats.read(str(tmp_path / "play"))):
        with pytest.raises(DatasetError, match=r"dataset\.json is damaged"):
            act()
