"""Play with pictures: recorded to the same bytes whatever happened, learnt from alone, and looked at when acting."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embodied import cli
from embodied.data import formats
from embodied.data.batches import Batches, Recorded
from embodied.data.dataset import DatasetError
from embodied.data.pictures import DRAWN, PICTURES, Eyes, Pixels, Seen
from embodied.data.recorded import load_recorded
from embodied.data.recording import Recording, begun, record
from embodied.data.replaying import environment
from embodied.evaluation import exams
from embodied.evaluation.goal_exam import Exam, Seeing, exam_env
from embodied.training.offline import load_goal_policy, make_learner
from envs.rendering import RenderError
from envs.scenes.facts import BLOCKS
from envs.scenes.scene import load
from policies.offline import BatchSpec

ROOM = """\
name: one block
area: [0.38, -0.12, 0.58, 0.16]
objects:
  red: {type: box, size: [0.045, 0.045, 0.045], colour: [0.86, 0.18, 0.16], says: red block}
cameras:
  front: {pos: [1.0, 0.02, 0.55], target: [0.46, 0.02, 0.06], fovy: 42}
tasks:
  lift: lifted(red)
"""
SIZE = 20


class KilledError(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "block.yaml"
    path.write_text(ROOM)
    return path


@pytest.fixture(scope="module")
def wanted(room: Path) -> Recording:
    """Two whole blocks of 80 steps, and one of 40."""
    return Recording(200, num_envs=4, length=20, states_every=8, scene=str(room), pictures=SIZE)


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory, wanted: Recording) -> Path:
    path = tmp_path_factory.mktemp("play") / "seen"
    record(path, wanted, threads=1)
    return path


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# -- recording -----------------------------------------------------------------------------------------------------


def test_every_row_has_the_picture_of_its_moment(play: Path):
    data = load_recorded(str(play), encoder="pixels")
    assert data.pictures is not None
    assert data.pictures.shape == (len(data.observations), SIZE, SIZE, 3) and data.pictures.dtype == np.uint8
    assert not data.pictures.flags.owndata  # mapped
    env = environment(formats.read(str(play)))
    eyes = Eyes(env, (SIZE, SIZE), threads=1)
    for number, episode in enumerate(formats.read(str(play)).load()):
        first = int(data.episode_ends[number - 1]) if number else 0
        for state, step in zip(episode.states, episode.state_steps, strict=True):
            env.set_state(state[None])
            drawn = eyes.see(env.simulation.qpos, env.facts)[0]
            np.testing.assert_array_equal(data.pictures[first + step], drawn)
    eyes.close()
    env.close()
    assert len({picture.tobytes() for picture in data.pictures}) > 150


@pytest.mark.parametrize("kill_at", [32, 80, 160])
def test_a_killed_recording_goes_on_to_the_same_pictures(kill_at: int, tmp_path: Path, play: Path, wanted: Recording):
    def at(steps: int) -> None:
        if steps == kill_at:
            raise KilledError

    with pytest.raises(KilledError):
        record(tmp_path / "play", wanted, threads=1, at=at)
    for name in (PICTURES, "observations.bin", "labels.bin"):  # of a block that was being written
        with (tmp_path / "play" / name).open("ab") as file:
            file.write(b"torn")
    assert begun(tmp_path / "play", wanted) == (kill_at - 1) // 80 * 80
    record(tmp_path / "play", wanted, threads=1)
    assert content(tmp_path / "play") == content(play)


def test_more_steps_later_have_the_same_pictures_and_other_sizes_are_refused(
    tmp_path: Path, play: Path, wanted: Recording
):
    for steps in (100, 200):
        record(tmp_path / "play", replace(wanted, steps=steps), threads=1)
    assert content(tmp_path / "play") == content(play)
    with pytest.raises(DatasetError, match="recorded with pictures=20 from front, not 24 from front; ask for the same"):
        record(play, replace(wanted, pictures=24))
    with pytest.raises(DatasetError, match="recorded with pictures=20 from front, not none"):
        record(play, replace(wanted, pictures=0))


def test_the_rest_of_a_store_knows_nothing_of_its_pictures(tmp_path: Path, play: Path, wanted: Recording):
    record(tmp_path / "plain", replace(wanted, pictures=0), threads=1)
    plain, seen = content(tmp_path / "plain"), content(play)
    assert set(seen) - set(plain) == {PICTURES, DRAWN}
    assert all(seen[name] == plain[name] for name in plain if name != "dataset.json")
    assert (
        "pictures" not in json.loads(plain["dataset.json"])["recording"]
    )  # as of those recorded before there were any
    assert any(PICTURES in note for note in formats.read(str(play)).notes)


# -- what is wrong -------------------------------------------------------------------------------------------------


def broken(play: Path, place: Path, **said: Any) -> Path:
    shutil.copytree(play, place)
    found = json.loads((place / DRAWN).read_bytes()) | said
    (place / DRAWN).write_text(json.dumps(found))
    return place


def test_pictures_that_are_missing_cut_short_or_odd_are_one_sentence(tmp_path: Path, play: Path, wanted: Recording):
    record(tmp_path / "plain", replace(wanted, steps=80, pictures=0), threads=1)
    short = broken(play, tmp_path / "short")
    with (short / PICTURES).open("r+b") as file:
        file.truncate(1_000)
    damaged = broken(play, tmp_path / "damaged")
    (damaged / DRAWN).write_text("{")
    file = f"robomimic:{tmp_path / 'play.hdf5'}"
    formats.write(formats.read(str(play)), file)
    for place, words in (
        (tmp_path / "plain", r"holds no pictures; play is recorded with them by embodied data record pictures=48"),
        (short, r"holds 0 whole pictures of 20x20 where the store has 212 rows: it was cut short"),
        (damaged, r"pictures\.json is damaged"),
        (broken(play, tmp_path / "flat", shape=[400, 3]), r"tells of pictures \[400, 3\] of uint8; they must be"),
        (broken(play, tmp_path / "grey", shape=[20, 20, 1]), r"\[20, 20, 1\]"),
        (broken(play, tmp_path / "wide", dtype="float32"), r"of float32; they must be .* of uint8"),
        (broken(play, tmp_path / "small", shape=[4, 4, 3]), r"pictures of 4x4; 9 pixels a side are the least"),
        (file, r"holds no pictures of a scene"),
    ):
        with pytest.raises(DatasetError, match=words) as caught:
            load_recorded(str(place), encoder="pixels")
        assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match=r"'play:900' is played without pictures; record play by .*pictures=48"):
        load_recorded("play:900", encoder="pixels")
    with pytest.raises(DatasetError, match="unknown encoder 'sound'; valid: state, pixels, blind"):
        load_recorded(str(play), encoder="sound")


def test_sizes_cameras_and_learners_that_cannot_be_are_one_sentence(tmp_path: Path, play: Path, wanted: Recording):
    for size in (5, 1_000):
        with pytest.raises(DatasetError, match=f"pictures = {size} must be 0, for none, or 9 to 512"):
            replace(wanted, pictures=size)
    with pytest.raises(RenderError, match="no camera 'behind'; its cameras are: 'front'"):
        record(tmp_path / "play", replace(wanted, camera="behind"))
    data = load_recorded(str(play), encoder="pixels")
    with pytest.raises(ValueError, match=r"'hiql' has no eyes; from pictures learn: act, act-jepa, .*flow-bc, gcbc"):
        make_learner("hiql", data)
    other = Seen(data.observations[:2], np.zeros((2, 24, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="pictures of 32x24 pixels were given where 20x20 are learnt"):
        data.encoder.features(other, other)
    with pytest.raises(ValueError, match="no simulator states of its goals"):
        env = exam_env(1, ["lifted(red)"], wanted.scene, threads=1)
        exam = Exam(("lift",), ("lifted(red)",), np.zeros(1, int), env.get_state(), env.facts, 0, scene=wanted.scene)
        Seeing(make_learner("gcbc", data), data.encoder, 1).begin(env, exam)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "record", "pictures=true"], "pictures=48 has 48 pixels a side"),
        (["data", "convert", "from=store:a", "to=lerobot:b", "pictures=48"], "pictures=48 is a size, for record"),
        (["train", "policy=flow_bc", "data=x", "encoder=sound"], "state, pixels, blind"),
        (["train", "encoder=pixels"], "encoder=pixels is no key of policy=sb3/sac_her"),
    ],
)
def test_a_wrong_command_is_one_sentence(words: list[str], message: str, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) != 0
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


# -- features and batches ------------------------------------------------------------------------------------------


def test_features_are_the_picture_the_tool_and_the_goals_picture_or_blank(play: Path):
    data, blind = (load_recorded(str(play), encoder=name) for name in ("pixels", "blind"))
    assert data.pictures is not None
    now, goal, each = np.array([3, 30]), np.array([9, 36]), 3 * SIZE**2
    found = data.encoder.features(data.moments[now], data.moments[goal])
    np.testing.assert_array_equal(found[:, :each], data.pictures[now].reshape(2, -1))
    np.testing.assert_array_equal(found[:, -each:], data.pictures[goal].reshape(2, -1))
    own = load_recorded(str(play)).encoder.states(data.observations[now])[:, :14]
    np.testing.assert_array_equal(found[:, each:-each], own)
    none = blind.encoder.features(blind.moments[now], blind.moments[goal])
    np.testing.assert_array_equal(none[:, each:-each], own)
    assert not none[:, :each].any() and not none[:, -each:].any()


def test_batches_of_pictures_are_rows_of_the_map_and_the_same_goals_as_of_states(play: Path):
    data = load_recorded(str(play), encoder="pixels")
    spec = BatchSpec(chunk=4, window=4, futures=True)
    found = Batches(data, spec, 16, 0, horizon=10).batch(3)
    size = data.encoder.feature_size
    assert found["features"].shape == (16, size) and found["window"].shape == (16, 4, size)
    assert found["futures"].shape == (16, 4, data.encoder.state_size)
    np.testing.assert_array_equal(found["window"][:, 0], found["features"])
    states = Batches(load_recorded(str(play)), spec, 16, 0, horizon=10).batch(3)
    np.testing.assert_array_equal(states["actions"], found["actions"])


# -- learning ------------------------------------------------------------------------------------------------------

REACH = 14  # steps


def reaching(env: Any) -> np.ndarray:
    """Actions that bring the tool over the block, in the plane."""
    away = env.facts[:, BLOCKS : BLOCKS + 2] - env.facts[:, :2]
    rest = np.tile([0.0, 0.0, 1.0], (len(away), 1))
    return np.concatenate([np.clip(away / 0.03, -1, 1), rest], axis=1)


def reached(env: Any) -> np.ndarray:
    return np.linalg.norm(env.facts[:, BLOCKS : BLOCKS + 2] - env.facts[:, :2], axis=1) < 0.035


@pytest.fixture(scope="module")
def reaches(room: Path) -> Recorded:
    """240 ways to a block at a random place."""
    n = 240
    env = exam_env(n, ["lifted(red)"], str(room), threads=1)
    env.reset(seed=1)
    eyes = Eyes(env, (SIZE, SIZE), threads=1)
    facts, pictures, actions = [], [], []
    for t in range(REACH + 1):
        facts.append(env.facts.astype(np.float32))
        pictures.append(eyes.see(env.simulation.qpos, env.facts))
        actions.append(reaching(env) * (t < REACH))
        if t < REACH:
            env.step(actions[-1])
    assert reached(env).mean() > 0.95
    env.close()
    eyes.close()
    flat = [np.stack(rows, axis=1).reshape(n * (REACH + 1), *rows[0].shape[1:]) for rows in (facts, actions, pictures)]
    ends = (REACH + 1) * np.arange(1, n + 1)
    encoder = Pixels(load(str(room)), (SIZE, SIZE))
    return Recorded(flat[0], flat[1].astype(np.float32), ends, encoder, pictures=flat[2])


def success(data: Recorded, room: Path) -> float:
    """Share of 60 fresh places that are reached after a short training, from the picture of the block and the arm."""
    settings = {"hidden": (64,), "chunk": 4, "execute": 4, "learning_rate": 2e-3, "warmup": 20, "gradient_steps": 240}
    learner = make_learner("gcbc", data, **settings)
    batches = Batches(data, learner.spec, 64, 0, horizon=REACH)
    for i in range(240):
        learner.update(batches.batch(i))
    env = exam_env(60, ["lifted(red)"], str(room), threads=1)
    env.reset(seed=77)
    starts, which = env.get_state(), np.zeros(60, int)
    for _ in range(REACH):
        env.step(reaching(env))
    exam = Exam(("lift",), ("lifted(red)",), which, starts, env.facts.copy(), 77, scene=str(room), ends=env.get_state())
    act = Seeing(learner, data.encoder, 1)  # type: ignore[arg-type]
    act.begin(env, exam)
    env.set_state(starts)
    looks: list[int] = []
    see = act.eyes.see
    act.eyes.see = lambda *args: looks.append(1) or see(*args)  # type: ignore[method-assign]
    for _ in range(REACH + 6):
        env.step(act(env.facts, exam.goals))
    assert len(looks) == (0 if act.encoder.blind else 5)  # once for each chunk
    found = float(reached(env).mean())
    env.close()
    act.eyes.close()
    return found


def test_to_reach_a_block_is_learnt_from_pictures_and_not_by_the_blind(reaches: Recorded, room: Path):
    blind = replace(reaches, encoder=Pixels(load(str(room)), (SIZE, SIZE), blind=True))
    rates = success(reaches, room), success(blind, room)
    assert rates[0] > 0.55 and rates[1] < 0.25, rates


@pytest.mark.parametrize("learner", ["flow_bc", "gcbc", "act", "act_jepa"])
def test_the_commands_record_learn_and_examine(learner: str, play: Path, tmp_path: Path, monkeypatch, capsys):
    plain = exams.sit_exam
    monkeypatch.setattr(exams, "sit_exam", lambda *args, **kwargs: plain(*args, steps=9, **kwargs))
    small = "policy.width=16" if "act" in learner else "policy.hidden=[16]"
    words = ["train", f"policy={learner}", f"data={play}", "encoder=pixels", "updates=2", "batch=4", "horizon=10"]
    asked = "questions=1" if learner == "flow_bc" else "questions=0"
    assert cli.main([*words, small, asked, "policy.chunk=4", "policy.execute=4", "threads=1", f"out={tmp_path}"]) == 0
    said = json.loads((tmp_path / "encoder.json").read_text())
    assert (said["kind"], said["image"], said["blind"]) == ("pixels", [SIZE, SIZE], False)
    policy, encoder = load_goal_policy(tmp_path)
    data = load_recorded(str(play), encoder="pixels")
    actions, _ = policy.predict(encoder.features(data.moments[:3], data.moments[5:8]))
    assert actions.shape == (3, 5)
    if learner == "flow_bc":
        kept = json.loads((tmp_path / "exam.json").read_text())
        assert cli.main(["eval", "env=playroom", f"policy={tmp_path}", "episodes=1", f"out={tmp_path / 'again'}"]) == 0
        again = json.loads((tmp_path / "again.json").read_text())
        assert again["by_task"] == kept["by_task"] and again["n"] == 1
        assert "lift" in capsys.readouterr().out
