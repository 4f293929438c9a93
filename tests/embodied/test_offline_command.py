"""``embodied train`` from recorded episodes and its exam: what is left, what goes on, what is refused."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from rich.console import Console

from embodied import cli
from embodied.cli import offline_learners
from embodied.cli.config import choices, compose, config_dir
from embodied.cli.fields import leaves
from embodied.cli.learners import OFFLINE_LEARNERS, PPOConfig, TrainConfig
from embodied.cli.schema import EvalConfig
from embodied.data import formats, recorded
from embodied.data.batches import Concatenated, Recorded
from embodied.data.dataset import Dataset, DatasetError
from embodied.data.recorded import load_recorded
from embodied.errors import ConfigError
from embodied.evaluation import exams
from embodied.evaluation.environments import PolicyError
from embodied.training import recorded as training
from embodied.training.learners import TrainingError
from embodied.training.offline import load_goal_policy, make_learner
from envs.scenes.goal_states import GoalStates
from policies import policy_class
from policies.act_jepa import COLLAPSE
from policies.chunks import PRECISIONS
from policies.gciql import ACTORS
from policies.latent_plans import DECODERS, LatentPlans
from policies.plan_spaces import PLAN_SPACES

TINY: dict[str, dict[str, Any]] = {
    "act": {"width": 16}, "act_jepa": {"width": 16}, "latent_plans": {"decoder": "chunk", "hidden": [16]},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "PLAY", tmp_path_factory.mktemp("runs") / "data")
        return recorded.play_store("play:2_000", 0, 1)


@pytest.fixture(scope="module")
def data(play: Path) -> Recorded:
    return load_recorded(str(play))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exams of two tasks, eight steps of sitting."""
    plain = exams.sit_exam
    monkeypatch.setattr(exams, "chains", lambda scene, depth: ("open(drawer) & lit(red_lamp)",))
    monkeypatch.setattr(exams, "set_exam", _two_tasks(exams.set_exam))
    monkeypatch.setattr(exams, "sit_exam", lambda *args, **kwargs: plain(*args, steps=8, **kwargs))


def _two_tasks(plain: Any) -> Any:
    return lambda tasks, *args, **kwargs: plain([t for t in tasks if t in ("push_red", "open_drawer")], *args, **kwargs)


def small(play: Path, out: Path, learner: str = "flow_bc", **values: Any) -> TrainConfig:
    policy = OFFLINE_LEARNERS[learner](**TINY.get(learner, {"hidden": [16]}))
    defaults = {"data": f"store:{play}", "updates": 3, "batch": 8, "questions": 0, "threads": 1, "out": str(out)}
    return TrainConfig(**{**defaults, "policy": policy, **values})


def quiet() -> Console:
    return Console(quiet=True)


# -- configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OFFLINE_LEARNERS)
def test_every_key_is_one_of_the_policys_own_and_the_file_offers_the_schemas_values(name: str):
    kind = OFFLINE_LEARNERS[name]
    own = {item.name for item in fields(policy_class(kind.algorithm).config_class)}
    assert {item.name for item in fields(kind)} - set(kind.apart) <= own
    config = compose(TrainConfig, [f"policy={name}", "data=play:9", "policy.learning_rate=0.5"])
    assert config.policy == kind(learning_rate=0.5)  # type: ignore[call-arg]
    assert config.env == ""
    assert f"/{kind.__name__}_schema@_here_" in (config_dir() / "policy" / f"{name}.yaml").read_text()


def test_the_learners_offered_and_their_choices_are_those_there_are():
    assert sorted(OFFLINE_LEARNERS) == choices("policy")
    assert offline_learners.PRECISIONS == PRECISIONS
    assert tuple(PLAN_SPACES) == offline_learners.PLANS
    assert (offline_learners.DECODERS, offline_learners.COLLAPSE) == (DECODERS, COLLAPSE)
    assert offline_learners.ACTORS == ACTORS
    assert all(item.metadata["meaning"] for kind in OFFLINE_LEARNERS.values() for item, _ in leaves(kind).values())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["policy=flow_bc"], ("policy=flow_bc learns from recorded episodes", "data=play:200_000")),
        (["policy=sb3/ppo", "data=play:9"], ("data=play:9 is no key of policy=sb3/ppo", "num_envs")),
        (["updates=9"], ("updates=9", "sb3/sac_her")),
        (["policy=gcbc", "data=play:9", "steps=9"], ("steps=9 is no key of policy=gcbc", "updates")),
        (["policy=beso", "data=play:9", "policy.beta=9"], ("policy.beta", "policy.guidance")),
        (["policy=latent_plans", "data=play:9", "policy.plan=vector"], ("vector", "gaussian, categorical")),
    ],
)
def test_what_does_not_belong_together_is_one_sentence(overrides: list[str], words: tuple[str, ...]):
    with pytest.raises(ConfigError) as caught:
        compose(TrainConfig, overrides)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)
    assert TrainConfig(policy=PPOConfig()).env == "reach"


def test_the_help_lists_these_learners_too(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for name, kind in OFFLINE_LEARNERS.items():
        assert f"policy={name}: {(kind.__doc__ or '').splitlines()[0]}" in text
    assert all(word in text for word in ("free_nats", "guidance", "waypoint", "collapse"))


# -- data ----------------------------------------------------------------------------------------------------------


def test_play_is_mapped_with_the_scenes_features_and_recorded_once(play: Path, data: Recorded, monkeypatch):
    assert isinstance(data.encoder, GoalStates)
    assert not data.observations.flags.owndata
    assert data.about["env"] == "Embodied/Playroom-v0"
    assert (data.about["scene"], data.about["episodes"], data.steps) == ("playroom", 128, 2048)
    monkeypatch.setattr(recorded, "PLAY", play.parent)
    monkeypatch.setattr(recorded, "record", None)  # would fail if it was called
    assert load_recorded("play:2000").about == data.about
    for text in ("play:", "play:-1", "play:much"):
        with pytest.raises(DatasetError, match="is not play:STEPS"):
            load_recorded(text)


def test_other_formats_are_the_same_numbers_in_memory(play: Path, data: Recorded, tmp_path):
    formats.write(formats.read(str(play)), f"robomimic:{tmp_path / 'play.hdf5'}")
    found = load_recorded(f"robomimic:{tmp_path / 'play.hdf5'}")
    assert isinstance(found.encoder, GoalStates)
    assert found.observations.flags.owndata
    for name in ("observations", "actions", "episode_ends"):
        np.testing.assert_array_equal(getattr(found, name), getattr(data, name))


def points(path: Path, rows: int = 12, value: float = 0.5) -> str:
    """A file as OGBench's, of three episodes in a plane."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(3 * rows, 2)).astype(np.float32)
    observations[rows] = value
    terminals = np.arange(1, 3 * rows + 1) % rows == 0
    actions = rng.uniform(-1, 1, (3 * rows, 2)).astype(np.float32)
    np.savez(path, observations=observations, actions=actions, terminals=terminals.astype(np.float32))
    return f"ogbench:{path}"


def test_anything_else_is_present_and_goal_side_by_side_without_episodes_for_validation(tmp_path: Path):
    points(tmp_path / "cube-single-play-v0-val.npz")
    found = load_recorded(points(tmp_path / "cube-single-play-v0.npz"))
    assert isinstance(found.encoder, Concatenated)
    assert (found.encoder.feature_size, found.about["env"], found.steps) == (4, "ogbench/cube-single", 33)
    assert not found.actions[found.episode_ends - 1].any()


def test_broken_and_mixed_data_are_refused_in_one_sentence(play: Path, tmp_path: Path):
    with pytest.raises(DatasetError, match=r"episode 1 .* holds nan in observations column 0"):
        load_recorded(points(tmp_path / "broken.npz", value=np.nan))
    with pytest.raises(DatasetError, match="nothing at"):
        load_recorded(f"store:{tmp_path / 'none'}")
    whole = formats.read(str(play))
    one, two, *_ = whole.load()
    two = type(two)(**{**vars(two), "versions": {"mujoco": "1.0"}})
    mixed = Dataset("memory", 2, lambda: iter([one, two]), whole.env, whole.kwargs, whole.columns)
    formats.write(mixed, f"store:{tmp_path / 'mixed'}", allow_mixed_physics=True)
    with pytest.raises(DatasetError, match=r"mixes physics.*allow_mixed_physics=true"):
        load_recorded(f"store:{tmp_path / 'mixed'}")
    assert load_recorded(f"store:{tmp_path / 'mixed'}", allow_mixed_physics=True).about["episodes"] == 2


# -- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OFFLINE_LEARNERS)
def test_every_learner_learns_from_its_configuration(
    name: str, play: Path, data: Recorded, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(training, "load_recorded", lambda *_, **__: data)
    config = small(play, tmp_path, name, updates=2, horizon=20)
    if name == "multi_context":  # one window in a hundred of so little play does nothing that has a name
        with pytest.raises(DatasetError, match="no task of the scene came true in the 20 windows"):
            training.train(config, quiet())
        line = {"episode": 0, "row start": 2, "row end": 9, "text": "pick up the red cube"}
        (tmp_path / training.LABELS).write_text(json.dumps(line) + "\n")
    config.policy.learning_rate = 2e-3  # type: ignore[attr-defined]
    training.train(config, quiet())
    policy, encoder = load_goal_policy(tmp_path)
    assert policy.registry_key == config.policy.algorithm
    assert policy.config_dict()["learning_rate"] == 2e-3
    actions, _ = policy.predict(encoder.features(data.observations[:3], data.observations[5:8]))
    assert actions.shape == (3, 5)


def test_a_training_ends_with_its_exam_and_the_same_command_says_so(play: Path, tmp_path: Path, short, capsys):
    words = ["train", "policy=flow_bc", f"data={play}", "updates=3", "batch=8", "questions=2", "threads=1",
             "policy.hidden=[8]", f"out={tmp_path / 'a'}"]  # fmt: skip
    assert cli.main(words) == 0
    first = capsys.readouterr().out
    assert "flow-bc from 2,048 steps" in first
    assert "open_drawer" in first and "[" in first
    found = json.loads((tmp_path / "a" / "exam.json").read_text())
    assert list(found["by_task"]) == ["open_drawer", "push_red"]
    assert (found["n"], found["seed"], found["scene"]) == (4, training.EXAM_SEED, "playroom")
    assert {"lower", "upper", "successes", "n"} <= found["by_task"]["push_red"].keys()
    assert {"mujoco", "embodied"} <= found["versions"].keys()
    assert len((tmp_path / "a" / "exam.jsonl").read_text().splitlines()) == 4
    summary = (tmp_path / "a" / "summary.json").read_bytes()
    assert cli.main(words) == 0
    assert "finished already" in capsys.readouterr().out
    assert json.loads((tmp_path / "a" / "summary.json").read_bytes()) == json.loads(summary)
    assert cli.main([*words, "policy.chunk=9"]) == 2
    assert "other settings: chunk (was 16, is 9); choose another out" in capsys.readouterr().err


def test_a_training_that_was_killed_goes_on_to_its_exam(play: Path, tmp_path: Path, short, monkeypatch):
    whole = training.train(small(play, tmp_path / "whole", questions=2), quiet())

    def killed(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exams, "examine", killed)
        with pytest.raises(KeyboardInterrupt):
            training.train(small(play, tmp_path / "killed", questions=2), quiet())
    again = training.train(small(play, tmp_path / "killed", questions=2), quiet())
    assert not again.finished_before
    assert again.exam is not None and whole.exam is not None
    assert again.exam["by_task"] == whole.exam["by_task"]
    model = Path("policy", "model.safetensors")
    assert (tmp_path / "killed" / model).read_bytes() == (tmp_path / "whole" / model).read_bytes()


def test_settings_that_do_not_fit_the_data_are_refused_before_anything_is_written(play: Path, tmp_path: Path):
    file = points(tmp_path / "points-play-v0.npz")
    for values, words in (
        ({"learner": "latent_plans", "data": file}, "windows need 15 steps, but the longest episode has 11"),
        ({"learner": "latent_plans", "horizon": 5}, "windows of 16 steps need a horizon as long"),
        ({"env": "playroom", "data": file, "questions": 1}, "no facts of a playroom's scene"),
        ({"env": "tabletop", "questions": 1}, r"env=tabletop has no exam .* playroom, ogbench/TASK"),
        ({"world": {"scene": "x"}, "questions": 1}, "takes no world. arguments"),
    ):
        with pytest.raises(TrainingError, match=words):
            training.train(small(play, tmp_path / "out", **values), quiet())
    assert not (tmp_path / "out").exists()
    assert training.train(small(play, tmp_path / "out", data=file, questions=1), quiet()).exam is None


def test_the_folder_is_named_after_data_learner_and_seed():
    names = {"play:200_000": "play-200_000", "store:data/my play": "my-play", "a/cube-play-v0.npz": "cube-play-v0"}
    for text, name in names.items():
        config = TrainConfig(policy=OFFLINE_LEARNERS["gcbc"](), data=text, seed=3)
        assert training.folder_of(config) == Path("runs", "train", f"{name}-gcbc-seed3")


# -- the exam ------------------------------------------------------------------------------------------------------


def test_chance_and_expert_sit_the_same_exam(short, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.undo()  # the expert needs its time
    monkeypatch.setattr(exams, "set_exam", _two_tasks(exams.set_exam))
    rows = {}
    for policy in ("random", "expert"):
        words = [f"policy={policy}", "exam=true", "episodes=1", f"out={tmp_path / policy}", "threads=1"]
        assert cli.main(["eval", "env=playroom", *words]) == 0
        rows[policy] = json.loads((tmp_path / f"{policy}.json").read_text())
    assert rows["expert"]["rate"] == 1.0 and rows["expert"]["mean_steps"] > 5
    assert rows["expert"]["seed"] == rows["random"]["seed"] == 1_000
    lines = [(tmp_path / f"{policy}.jsonl").read_text().splitlines() for policy in rows]
    seeds = [[json.loads(line)["seed"] for line in found] for found in lines]
    assert seeds[0] == seeds[1]
    assert "open_drawer" in capsys.readouterr().out


def test_a_trainings_policy_sits_deeper_and_disturbed_exams_with_its_own_or_others_plans(
    play: Path, data: Recorded, tmp_path: Path, short, monkeypatch
):
    monkeypatch.setattr(training, "load_recorded", lambda *_, **__: data)
    training.train(small(play, tmp_path / "plans", "latent_plans"), quiet())
    training.train(small(play, tmp_path / "flow"), quiet())
    for plan in ("prior", "shuffled"):
        found = exams.examine(tmp_path / "plans", questions=1, plan=plan, disturb="push", threads=1).summary()
        assert (found["plan"], found["disturb"], found["n"]) == (plan, "push", 2)
    for policy in (str(tmp_path / "flow"), "random"):
        with pytest.raises(PolicyError, match="plan=shuffled is about policies of latent plans"):
            exams.examine(policy, plan="shuffled")
    with pytest.raises(PolicyError, match="there is no policy 'nobody': give random, expert"):
        exams.examine("nobody")


def test_shuffled_plans_are_others_and_all_are_followed(data: Recorded):
    policy = make_learner("latent-plans", data, hidden=(8,), chunk=4, execute=2, decoder="chunk")
    assert isinstance(policy, LatentPlans)
    proposed, given = [], []
    propose, give = policy.propose, policy.give
    policy.propose = lambda *a: proposed.append(propose(*a)) or proposed[-1]  # type: ignore[method-assign]
    policy.give = lambda plan, state=None: given.append(plan) or give(plan, state)  # type: ignore[method-assign]
    act = exams.shuffled(policy, data.encoder, 0)
    for t in range(4):
        act(data.observations[t : t + 6], data.observations[20:26])
    assert len(given) == 2
    for plans, handed in zip(proposed[::2], given, strict=True):
        same = (plans[:, None] == handed[None]).all(-1)
        assert (same.sum(0) == 1).all() and (same.sum(1) == 1).all() and not same.diagonal().any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env=playroom", "depth=2"], "depth=2 is about an exam"),
        (["env=tabletop", "exam=true"], "exam=true is of the playroom"),
        (["env=playroom", "exam=true", "plan=last"], "plan = 'last' is not one of: prior, shuffled, posterior"),
        (["env=playroom", "exam=true", "disturb=shove"], "none, push, move"),
        (["env=playroom", "exam=true", "depth=4"], "[1, 3]"),
    ],
)
def test_a_wrong_exam_is_one_sentence(words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["eval", *words]) == 2
    assert message in capsys.readouterr().err
    assert EvalConfig().exam is False


class Plane(VectorEnv):
    """A point that stays where it is for three steps: goal, then state. Goal 2 holds there, whatever is done."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, name: str, num_envs: int, goals: Any = (), threads: int = 0) -> None:
        self.num_envs, self.goals, self.taken = num_envs, np.resize(np.array(goals), num_envs), 0
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros((self.num_envs, 4), np.float32), {}

    def step(self, actions: np.ndarray) -> Any:
        self.taken += 1
        ends = np.full(self.num_envs, self.taken % 3 == 0)
        return self.reset()[0], np.zeros(len(ends)), ~ends & False, ends, {"success": ends & (self.goals == 2)}


def test_ogbenchs_goals_are_asked_of_what_was_learnt_from_its_file(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("envs.suites.library", lambda name: None)
    monkeypatch.setattr("embodied.evaluation.environments.make_vector", Plane)
    file = points(tmp_path / "cube-single-play-v0.npz")
    found = training.train(small(tmp_path, tmp_path / "a", "gcivl", data=file, questions=2), quiet())
    assert found.exam is not None
    assert (found.exam["n"], len(found.exam["goals"])) == (10, 5)
    kept = json.loads((tmp_path / "a" / "exam.json").read_text())
    assert kept["goals"] == found.exam["goals"] and [goal["successes"] for goal in kept["goals"]] == [0, 2, 0, 0, 0]
    words = ["env=ogbench/cube-single", f"policy={tmp_path / 'a'}", "episodes=1", f"out={tmp_path / 'b'}"]
    assert cli.main(["eval", *words]) == 0
    assert "goal" in capsys.readouterr().out
    assert json.loads((tmp_path / "b.json").read_text())["n"] == 5
