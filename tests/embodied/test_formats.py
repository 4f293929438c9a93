"""Data sets of other libraries: what goes in comes back to the bit, they read it, and what is broken is said."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embodied.core import Episode
from embodied.data import formats
from embodied.data.dataset import Dataset, DatasetError, episode_of, told

NAMES = {"store": "s", "minari": "m", "lerobot": "l", "robomimic": "r.hdf5", "ogbench": "cube-single-play-v0.npz"}
NEEDS = {"minari": "h5py", "robomimic": "h5py", "lerobot": "pyarrow"}
ENV = "Embodied/Playroom-v0"
FIELDS = ("success", "goal", "instruction", "source", "policy", "env", "seed", "versions")
FORMATS = [
    pytest.param(
        name, marks=pytest.mark.skipif(name in NEEDS and not find_spec(NEEDS[name]), reason=f"needs {NEEDS.get(name)}")
    )
    for name in NAMES
]


def needs(library: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(library) is None, reason=f"needs {library}")


def episode(seed: int = 0, steps: int = 5, widths: tuple[int, ...] = (4, 2, 3, 6), **changed: Any) -> Episode:
    """Numbers of all sizes in every array; widths of observations, actions, rewards and states."""
    rng = np.random.default_rng(seed)
    x, a, k, s = widths

    def numbers(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) * 10.0 ** rng.integers(-12, 12, shape)).astype(np.float32)

    ends = np.zeros((2, steps), np.bool_)
    ends[seed % 2, -1] = True
    values: dict[str, Any] = {
        "observations": numbers(steps + 1, x), "actions": numbers(steps, a), "rewards": numbers(steps, k),
        "terminations": ends[0], "truncations": ends[1], "states": rng.normal(size=(1 + steps // 3, s)),
        "state_steps": 3 * np.arange(1 + steps // 3), "success": bool(seed % 2), "goal": "open(drawer)",
        "instruction": "", "source": "scripted-play", "policy": "", "env": ENV, "seed": seed,
        "versions": {"mujoco": "4.0.0", "embodied": "0.1.0"},
    }  # fmt: skip
    return Episode(**(values | changed))


def dataset(*episodes: Episode, **changed: Any) -> Dataset:
    episodes = episodes or tuple(episode(i, 4 + i) for i in range(5))
    columns = tuple(f"column {i}" for i in range(episodes[0].observations.shape[1]))
    said: dict[str, Any] = {"env": ENV, "kwargs": {"scene": "playroom", "free_starts": True}, "columns": columns}
    return Dataset("memory", len(episodes), lambda: iter(episodes), **(said | changed))


def written(tmp_path: Path, name: str, data: Dataset) -> str:
    place = f"{name}:{tmp_path / NAMES[name]}"
    formats.write(data, place)
    return place


def assert_same(found: Dataset, expected: Dataset) -> None:
    assert (found.count, found.env, found.kwargs, found.columns) == (
        expected.count, expected.env, expected.kwargs, expected.columns,
    )  # fmt: skip
    for got, want in zip(found.load(), expected.load(), strict=True):
        assert got.hash() == want.hash()  # every array, to the bit
        assert all(getattr(got, name) == getattr(want, name) for name in FIELDS)


# ------------------------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1 << 31),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    widths=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.integers(0, 4)),
    text=st.text(max_size=12),
)
def test_an_episode_comes_back_to_the_bit(
    tmp_path: Path, name: str, seed: int, lengths: list[int], widths: tuple[int, ...], text: str
):
    shutil.rmtree(tmp_path / "case", ignore_errors=True)
    episodes = [episode(seed + i, steps, widths, goal=text, instruction=text) for i, steps in enumerate(lengths)]
    data = dataset(*episodes)
    assert_same(formats.read(written(tmp_path / "case", name, data)), data)


@needs("h5py")
@needs("pyarrow")
def test_nothing_is_lost_on_a_tour_through_all_formats(tmp_path: Path):
    data = last = dataset(valid=(1, 3))
    for step, name in enumerate((*NAMES, "store")):
        last = formats.read(written(tmp_path / str(step), name, last))
        assert formats.found(last.source.partition(":")[2])[0] == name
        assert_same(last, data)
        assert last.valid == (1, 3)


# ---------------------------------------------------------------------------------------------------- real libraries

REAL = {
    "minari": """
import minari
found = minari.MinariDataset(f"{place}/data")
assert found.total_episodes == len(want) and found.spec.env_spec.id == "Embodied/Playroom-v0"
assert found.spec.env_spec.kwargs == {"scene": "playroom", "free_starts": True}
for got, (observations, actions) in zip(found.iterate_episodes(), want):
    assert np.array_equal(got.observations, observations) and np.array_equal(got.actions, actions)
    assert got.observations.dtype == np.float32 and len(got.rewards) == len(actions) and "states" in got.infos
assert [m["seed"] for m in found.storage.get_episode_metadata(range(3))] == [0, 1, 2]
""",
    "lerobot": """
from lerobot.datasets.lerobot_dataset import LeRobotDataset
found = LeRobotDataset("local/play", root=place, delta_timestamps={"action": [0.0, 0.05]})
assert found.num_episodes == len(want) and found.fps == 20 and found.meta.stats["action"]["q99"].shape == (2,)
at = 0
for number, (observations, actions) in enumerate(want):
    for t in range(len(actions)):
        item = found[at + t]
        assert np.array_equal(item["observation.state"].numpy(), observations[t])
        assert np.array_equal(item["action"][0].numpy(), actions[t])
        assert item["episode_index"] == number and item["task"] == "open(drawer)"
    at += len(actions)
assert at == len(found)
""",
    "robomimic": """
import robomimic.utils.obs_utils as obs
from robomimic.utils.dataset import SequenceDataset
obs.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["flat"]}})
found = SequenceDataset(place, obs_keys=["flat"], dataset_keys=["actions", "rewards", "dones"], seq_length=1,
                        hdf5_cache_mode=None, load_next_obs=True, filter_by_attribute="train")
at = 0
for observations, actions in want[:-1]:  # the last is for validation
    for t in range(len(actions)):
        item = found[at + t]
        assert np.array_equal(item["obs"]["flat"][0], observations[t])
        assert np.array_equal(item["next_obs"]["flat"][0], observations[t + 1])
        assert np.array_equal(item["actions"][0], actions[t]) and item["dones"][0] == (t == len(actions) - 1)
    at += len(actions)
assert at == len(found)
""",
    "ogbench": """
from ogbench.utils import load_dataset
train, valid = load_dataset(place), load_dataset(place.replace(".npz", "-val.npz"))
for found, some in ((train, want[:-1]), (valid, want[-1:])):
    assert np.array_equal(found["observations"], np.concatenate([x[:-1] for x, _ in some]))
    assert np.array_equal(found["next_observations"], np.concatenate([x[1:] for x, _ in some]))
    assert np.array_equal(found["actions"], np.concatenate([a for _, a in some]))
    assert found["terminals"].sum() == len(some)
""",
}


@pytest.mark.parametrize("name", [name for name in FORMATS if name.values[0] in REAL])
def test_the_real_library_reads_it(tmp_path: Path, name: str):
    if find_spec(name) is None:
        pytest.skip(f"needs the library {name}")
    data = dataset()
    place = written(tmp_path, name, data).partition(":")[2]
    arrays: dict[str, Any] = {
        f"{i}{k}": a for i, e in enumerate(data.load()) for k, a in (("o", e.observations), ("a", e.actions))
    }
    np.savez(tmp_path / "want.npz", **arrays)
    head = f"""
import os
os.environ |= {{"HF_HUB_OFFLINE": "1", "HF_HOME": {str(tmp_path / "hf")!r}}}
import numpy as np
place = {place!r}
with np.load({str(tmp_path / "want.npz")!r}) as file:
    want = [(file[f"{{i}}o"], file[f"{{i}}a"]) for i in range({data.count})]
"""
    done = subprocess.run([sys.executable, "-c", head + REAL[name]], capture_output=True, text=True, timeout=120)
    if "ImportError" in done.stderr or "ModuleNotFoundError" in done.stderr:
        pytest.skip(f"{name} cannot be imported here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


# --------------------------------------------------------------------------------------------- written by others


@needs("h5py")
def test_a_minari_data_set_of_others_gives_its_numbers_and_says_what_is_left_out(tmp_path: Path):
    import h5py

    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "w") as file:
        for i in (0, 10, 2, 1, 3, 4, 5, 6, 7, 8, 9):
            group = file.create_group(f"episode_{i}")
            group.attrs["seed"] = i
            group["observations/place"] = np.full((4, 2), i, np.float64)
            group["observations/mission"] = ["go"] * 4
            group["actions"] = np.arange(3)  # one of several, not a vector
            group["rewards"] = np.arange(3.0)
            group["terminations"], group["truncations"] = np.zeros(3, bool), np.array([False, False, True])
    spec = {"id": "Other-v1", "kwargs": {"size": 8}}
    metadata = {"total_episodes": 11, "data_format": "hdf5", "env_spec": json.dumps(spec), "minari_version": "0.5.3"}
    (tmp_path / "data" / "metadata.json").write_text(json.dumps(metadata))
    found = formats.read(f"minari:{tmp_path}")
    episodes = list(found.load())
    assert [e.seed for e in episodes] == list(range(11)) == [e.observations[0, 0] for e in episodes]
    assert (found.env, found.kwargs, found.columns) == ("Other-v1", {"size": 8}, ("place[0]", "place[1]"))
    assert episodes[3].actions.shape == (3, 1)
    assert episodes[3].states.shape == (1, 0)
    assert episodes[3].source == "external"
    assert "mission" in found.notes[0]


@needs("h5py")
def test_a_robomimic_file_of_others_keeps_states_and_split_and_loses_the_last_action_without_next_obs(tmp_path: Path):
    import h5py

    with h5py.File(tmp_path / "r.hdf5", "w") as file:
        made = {"env_name": "Lift", "type": 1, "env_kwargs": {"robots": "Panda"}}
        file.create_group("data").attrs["env_args"] = json.dumps(made)
        for i in range(3):
            group = file.create_group(f"data/demo_{i}")
            group["obs/eef"], group["obs/joint"] = np.full((4, 2), i, np.float32), np.zeros((4, 1))
            group["actions"], group["states"] = np.ones((4, 2)), np.random.default_rng(i).normal(size=(4, 7))
            group["rewards"], group["dones"] = np.zeros(4), np.array([0, 0, 0, 1])
        file["mask/valid"] = np.array([b"demo_1"])
    found = formats.read(str(tmp_path / "r.hdf5"))
    episodes = list(found.load())
    assert (found.env, found.kwargs, found.valid) == ("Lift", {"robots": "Panda"}, (1,))
    assert found.columns == ("eef[0]", "eef[1]", "joint")
    assert [len(e) for e in episodes] == [3, 3, 3]
    assert episodes[0].states.shape == (4, 7)
    assert any("last action" in note for note in found.notes)
    again = formats.read(written(tmp_path / "again", "robomimic", found))
    assert_same(again, found)


def test_an_ogbench_file_of_others_keeps_its_states_under_their_names(tmp_path: Path):
    rng = np.random.default_rng(0)
    arrays = {}
    for name, ends in (("", (3, 8)), ("-val", (4,))):
        rows = ends[-1] + 1
        arrays = {
            "observations": rng.normal(size=(rows, 3)).astype(np.float32), "actions": np.ones((rows, 2), np.float32),
            "terminals": np.isin(np.arange(rows), ends), "qpos": rng.normal(size=(rows, 4)).astype(np.float32),
            "qvel": rng.normal(size=(rows, 2)), "button_states": rng.integers(0, 2, (rows, 2)),
        }  # fmt: skip
        np.savez(tmp_path / f"scene-play-v0{name}.npz", **arrays)
    found = formats.read(str(tmp_path / "scene-play-v0.npz"))
    assert (found.env, found.count, found.valid) == ("scene-v0", 3, (2,))
    assert [len(e) for e in found.load()] == [3, 4, 4]
    assert next(found.load()).states.shape == (4, 8)
    formats.write(found, f"ogbench:{tmp_path / 'again.npz'}")
    with np.load(tmp_path / "again-val.npz") as again:
        for key in ("observations", "terminals", "qpos", "qvel", "button_states"):
            assert np.array_equal(again[key], arrays[key])
            assert key == "terminals" or again[key].dtype == arrays[key].dtype


@needs("pyarrow")
def test_a_lerobot_data_set_of_others_loses_each_last_action_and_says_so(tmp_path: Path):
    data = dataset()
    place = written(tmp_path, "lerobot", data)
    (tmp_path / NAMES["lerobot"] / "meta" / "embodied.json").unlink()
    found = formats.read(place)
    assert [len(e) for e in found.load()] == [len(e) - 1 for e in data.load()]
    assert next(found.load()).instruction == "open(drawer)"
    assert found.columns == data.columns
    assert "last action" in found.notes[0]


@needs("pyarrow")
def test_pictures_become_one_video_with_a_place_for_each_episode(tmp_path: Path):
    import imageio_ffmpeg
    import pyarrow.parquet as pq

    def pictures(of: Episode) -> list[np.ndarray]:
        return [np.full((32, 48, 3), 8 * t, np.uint8) for t in range(len(of))]

    data = dataset()
    formats.write(data, f"lerobot:{tmp_path / 'l'}", pictures=pictures)
    (video,) = (tmp_path / "l" / "videos").rglob("*.mp4")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(video), "-f", "rawvideo", "-pix_fmt", "rgb24"]
    raw = subprocess.run([*command, "-"], capture_output=True, check=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, 32, 48, 3)
    rows = pq.read_table(tmp_path / "l" / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    begins = rows["videos/observation.images.front/from_timestamp"].to_pylist()
    assert len(frames) == sum(len(e) for e in data.load())
    assert begins == [0.0, 0.2, 0.45, 0.75, 1.1]
    assert abs(float(np.mean(frames[round(20 * begins[2]) + 5])) - 40) < 6
    assert json.loads((tmp_path / "l/meta/info.json").read_text())["features"]["observation.images.front"]["shape"]
    assert_same(formats.read(f"lerobot:{tmp_path / 'l'}"), data)
    with pytest.raises(DatasetError, match="for lerobot alone"):
        formats.write(data, f"store:{tmp_path / 's'}", pictures=pictures)


# ------------------------------------------------------------------------------------------------------- bad input


def test_an_unknown_format_or_place_names_the_valid_ones(tmp_path: Path):
    for text in ("rlds:somewhere", "somewhere"):
        with pytest.raises(DatasetError, match="store, minari, lerobot, robomimic, ogbench"):
            formats.place(text)
    with pytest.raises(DatasetError, match="of no format known"):
        formats.read(str(tmp_path))
    with pytest.raises(DatasetError, match="nothing at"):
        formats.read(f"ogbench:{tmp_path / 'none.npz'}")


@pytest.mark.parametrize("name", FORMATS)
def test_bad_episodes_are_refused_and_nothing_is_left_behind(tmp_path: Path, name: str):
    nan = episode(1)
    nan.observations[2, 3] = np.nan
    other = episode(1, versions={"mujoco": "3.3.0"})
    cases = {
        "episode 1 .*nan in observations column 3 \\('column 3'\\), row 2": dataset(episode(), nan),
        "6 columns of observations, those before have 4": dataset(episode(), episode(1, widths=(6, 2, 3, 6))),
        "mixes physics: episode 1 was made with mujoco 3.3.0": dataset(episode(), other),
        "names 3 columns": dataset(episode(), columns=("a", "b", "c")),
    }
    for message, data in cases.items():
        with pytest.raises(DatasetError, match=message) as error:
            written(tmp_path, name, data)
        assert "\n" not in str(error.value)
        assert not list(tmp_path.iterdir())
    formats.write(dataset(episode(), other), f"{name}:{tmp_path / NAMES[name]}", allow_mixed_physics=True)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_there_is_never_overwritten(tmp_path: Path, name: str):
    place = written(tmp_path, name, dataset())
    with pytest.raises(DatasetError, match="exists already"):
        formats.write(dataset(episode()), place)
    assert_same(formats.read(place), dataset())


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_short_is_one_sentence(tmp_path: Path, name: str):
    place = written(tmp_path, name, dataset())
    whole = tmp_path / NAMES[name]
    files = [file for file in ([whole] if whole.is_file() else whole.rglob("*")) if file.is_file()]
    for file in files:
        content = file.read_bytes()
        if len(content) < 2 or (name == "lerobot" and file.name == "stats.json"):  # these are not read
            continue
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises((DatasetError, RuntimeError)) as error:
            list(formats.read(place).load())
        assert type(error.value).__module__.startswith("embodied.")
        assert "\n" not in str(error.value)
        assert str(tmp_path) in str(error.value)
        file.write_bytes(content)
    assert_same(formats.read(place), dataset())


@needs("h5py")
@pytest.mark.parametrize("name", ["minari", "robomimic"])
def test_a_missing_field_is_named(tmp_path: Path, name: str):
    import h5py

    place = written(tmp_path, name, dataset())
    path = tmp_path / NAMES[name]
    group = "episode_1" if name == "minari" else "data/demo_1"
    with h5py.File(path / "data" / "main_data.hdf5" if name == "minari" else path, "a") as file:
        del file[f"{group}/actions"]
    with pytest.raises(DatasetError, match=f"lacks '{group}/actions'; a "):
        list(formats.read(place).load())


def test_wrong_ogbench_arrays_are_named(tmp_path: Path):
    good = {"observations": np.zeros((4, 2)), "actions": np.zeros((4, 1)), "terminals": np.array([0, 0, 0, 1])}
    cases = {
        "lacks 'actions'": {"observations": good["observations"], "terminals": good["terminals"]},
        "different lengths: 4 of observations, 3 of actions": good | {"actions": np.zeros((3, 1))},
        "no terminal": good | {"terminals": np.zeros(4)},
        "single row": good | {"terminals": np.array([1, 0, 0, 1])},
        "holds no episode": {name: array[:0] for name, array in good.items()},
        "numbers are needed": good | {"observations": np.full((4, 2), "x")},
    }
    for i, (message, arrays) in enumerate(cases.items()):
        np.savez(tmp_path / f"{i}.npz", **arrays)
        with pytest.raises(DatasetError, match=message):
            list(formats.read(f"ogbench:{tmp_path / f'{i}.npz'}").load())


def test_a_description_of_another_version_is_refused():
    with pytest.raises(DatasetError, match="format 2; this version reads format 1"):
        told(dataset().about() | {"format": 2})


def test_an_episode_from_elsewhere_is_external_and_its_seed_unknown():
    found = episode_of(np.zeros((3, 2, 2)), np.zeros(2), np.zeros(2), np.zeros(2), np.array([0, 1]))
    assert (found.source, found.seed, found.observations.shape, found.actions.shape) == ("external", -1, (3, 4), (2, 1))
    assert found.truncations.tolist() == [False, True]
