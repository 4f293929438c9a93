"""``embodied data``: record, convert, inspect, stats and replay, as a person calls them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from embodied import cli
from embodied.data import formats
from embodied.data.dataset import Dataset
from embodied.data.store import EpisodeStore

RECORD = ("steps=160", "num_envs=4", "length=20", "states_every=10", "threads=1")


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["data", *words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "play"
    assert cli.main(["data", "record", *RECORD, f"out={out}"]) == 0
    return out


def test_recording_shows_its_progress_and_does_nothing_twice(play: Path, capsys: pytest.CaptureFixture[str]):
    before = (play / "observations.bin").stat().st_mtime_ns
    code, out, _ = call(capsys, "record", *RECORD, f"out={play}")
    assert code == 0
    assert "100% of 160 env steps" in out
    assert "holds 160 steps of correlated play" in out
    assert (play / "observations.bin").stat().st_mtime_ns == before


def test_a_data_set_is_inspected(play: Path, capsys: pytest.CaptureFixture[str]):
    code, out, _ = call(capsys, "inspect", str(play))
    assert code == 0
    assert "Embodied/Playroom-v0" in out
    assert "scripted-play 8" in out
    assert "problems        none" in out
    code, out, _ = call(capsys, "inspect", f"store:{play}", "--json")
    found = json.loads(out)
    assert (code, found["episodes"], found["steps"], found["states"]) == (0, 8, 160, 16)
    assert found["arguments"]["free_starts"] is True
    assert set(found["versions"]) >= {"mujoco", "embodied"}


def test_problems_are_named_and_give_exit_code_1(play: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = formats.read(str(play))
    one, two, *_ = data.load()
    two = type(two)(**{**vars(two), "versions": {"mujoco": "1.0"}})
    mixed = Dataset("memory", 2, lambda: iter([one, two]), data.env, data.kwargs, data.columns)
    formats.write(mixed, f"store:{tmp_path / 'mixed'}", allow_mixed_physics=True)
    code, out, _ = call(capsys, "inspect", str(tmp_path / "mixed"))
    assert code == 1
    assert "it mixes physics: 1 episodes with mujoco 4.0.0, 1 episodes with mujoco 1.0" in out
    code, _, err = call(
        capsys, "convert", f"from=store:{tmp_path / 'mixed'}", f"to=ogbench:{tmp_path / 'o-play-v0.npz'}"
    )
    assert code == 1
    assert "allow_mixed_physics=true" in err
    assert not (tmp_path / "o-play-v0.npz").exists()
    column = tmp_path / "mixed" / "actions.bin"
    column.write_bytes(b"\xff" + column.read_bytes()[1:])
    code, out, _ = call(capsys, "inspect", str(tmp_path / "mixed"))
    assert code == 1
    assert "do not match their checksum" in out


def test_statistics_are_those_of_all_rows(play: Path, capsys: pytest.CaptureFixture[str]):
    code, out, _ = call(capsys, "stats", str(play), "--json")
    found = json.loads(out)
    with EpisodeStore.open(play, readonly=True) as store:
        column = store.observations[:, store.columns.index("tool_z")].astype(np.float64)
        rows = np.delete(store.actions, store.episode_ends - 1, axis=0).astype(np.float64)
    for name, expected in (("tool_z", column), ("actions[2]", rows[:, 2])):
        row = found["columns"][name]
        wanted = [expected.mean(), expected.std(), expected.min(), expected.max()]
        assert [row[key] for key in ("mean", "std", "min", "max")] == pytest.approx(wanted, rel=1e-9)
    assert (code, found["length"]) == (0, {"mean": 20.0, "std": 0.0, "min": 20, "max": 20})
    code, out, _ = call(capsys, "stats", str(play))
    assert code == 0
    assert "tool_z" in out


@pytest.mark.parametrize("name", ["ogbench:b-play-v0.npz", "minari:b-v0", "robomimic:b.hdf5", "lerobot:b"])
def test_there_and_back_is_the_same_and_replays(
    play: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    if not name.startswith("ogbench") and not (find_spec("h5py") and find_spec("pyarrow")):
        pytest.skip("needs h5py and pyarrow")
    form, _, file = name.partition(":")
    there = f"{form}:{tmp_path / file}"
    assert call(capsys, "convert", f"from=store:{play}", f"to={there}")[0] == 0
    assert call(capsys, "convert", f"from={there}", f"to=store:{tmp_path / 'back'}")[0] == 0
    for column in play.glob("*.bin"):
        if column.name != "labels.bin":
            assert (tmp_path / "back" / column.name).read_bytes() == column.read_bytes()
    code, out, _ = call(capsys, "replay", there, "episode=5")
    assert code == 0
    assert "20 steps replayed; 2 states and 21 observations are the same to the last bit" in out


def test_a_replay_says_where_it_departs_and_which_versions_differ(
    play: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = formats.read(str(play))
    first = data.first()
    actions = first.actions.copy()
    actions[5] *= -1
    changed = type(first)(**{**vars(first), "actions": actions, "versions": {"mujoco": "3.3.0"}})
    formats.write(
        Dataset("memory", 1, lambda: iter([changed]), data.env, data.kwargs, data.columns), f"store:{tmp_path / 's'}"
    )
    code, out, _ = call(capsys, "replay", str(tmp_path / "s"))
    assert code == 1
    assert "other version: mujoco 3.3.0 recorded, " in out
    assert "episode 0 departs after step 6 of 20, by" in out
    code, out, _ = call(capsys, "replay", str(tmp_path / "s"), "--json")
    assert (code, json.loads(out)["step"]) == (1, 6)
    code, _, err = call(capsys, "replay", str(tmp_path / "s"), "episode=1")
    assert code == 1
    assert "it holds 1" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "record|convert|inspect|stats|replay"),
        (("recrod",), "did you mean 'record'"),
        (("record", "episode=3"), "takes no key 'episode'; its keys are: env, scene, kind"),
        (("record", "kind=random"), "correlated, markov"),
        (("inspect",), "embodied data inspect PATH"),
        (("convert", "from=store:a"), "from=FORMAT:PATH to=FORMAT:PATH"),
        (("convert", "frm=store:a"), "unknown key 'frm'"),
        (("convert", "from=store:a", "to=rlds:b"), "store, minari, lerobot, robomimic, ogbench"),
        (("convert", "from=rlds:a", "to=store:b"), "store, minari, lerobot, robomimic, ogbench"),
        (("inspect", "nowhere"), "there is nothing at nowhere"),
    ],
)
def test_a_wrong_call_is_one_sentence(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]):
    code, out, err = call(capsys, *words)
    assert code in (1, 2)
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert message in err
