"""``embodied view``: who acts is found, a video and a strip show it, and a window is used where there is one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from embodied import cli, runs
from embodied.cli.config import compose
from embodied.cli.schema import RenderConfig, ViewConfig
from embodied.core import Episode, EvalReport
from embodied.data.store import EpisodeStore
from embodied.skills.library import SkillLibrary
from embodied.viz import view as looking
from embodied.viz.acting import ViewError, make_show
from envs.observations import FEATURES
from envs.registry import make_vector
from policies.random import RandomPolicy

SMALL = RenderConfig(backend="rays", width=48, height=32)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with one skill, and one episode of ten steps towards the lamp."""
    directory = tmp_path / "runs" / "first"
    RandomPolicy(FEATURES, 5).save_pretrained(tmp_path / "policy")
    with SkillLibrary.open(directory / runs.LIBRARY) as library, library.round(0) as tx:
        skill = tx.add_skill("open(?a:drawer)", tmp_path / "policy")
        for purpose in ("gate", "confirm"):
            tx.add_evidence(skill.version, purpose, EvalReport("open(drawer)", "", len(purpose), np.ones(200, bool)))
        tx.seal(ledger_offset=0, store_offsets={})
    env = make_vector("tabletop", 1, goals="lit(lamp)")
    env.reset(seed=5)
    states = env.get_state()  # type: ignore[attr-defined]
    actions = np.tile(np.array([1, 0, 0, 0, 1], np.float32), (10, 1))
    facts = np.zeros((11, 3), np.float32)
    ends = np.zeros(10, np.bool_)
    with EpisodeStore.open(directory / runs.EPISODES) as store:
        store.append(
            Episode(
                facts, actions, np.zeros((10, 1), np.float32), ends, ends, states, np.zeros(1, np.int64), False,
                "lit(lamp)", "", "practice", "", "Embodied/Tabletop-v0", 5,
            )
        )  # fmt: skip
        store.commit()
    env.close()
    return directory


def config(**values) -> ViewConfig:
    return ViewConfig(render=SMALL, **values)


def test_without_a_screen_a_video_and_a_strip_are_written_and_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(looking.sys, "platform", "linux")
    monkeypatch.chdir(tmp_path)
    small = ["render.width=64", "render.height=48", "render.backend=rays"]
    assert cli.main(["view", "steps=12", "policy=script", "goal=lit(lamp)", *small]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "video" in lines[0] and "DISPLAY is not set" in lines[0] and "script" in lines[0]
    written = [Path(line) for line in lines[1:]]
    assert [path.suffix for path in written] == [".mp4", ".png"] and all(path.stat().st_size for path in written)
    strip = np.asarray(Image.open(written[1]))
    assert strip.shape[1] > 4 * 64 and strip.shape[0] > 3 * 48
    first, last = strip[:48, :64].astype(int), strip[-64:-16, -64:].astype(int)
    assert first.std() > 10 and np.abs(first - last).max() > 30  # the scene, and the arm has moved


def test_a_named_file_means_a_video_even_with_a_screen(tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "screen", lambda: (True, "there is a screen"))
    said: list[str] = []
    seen = looking.view(config(steps=3, out=str(tmp_path / "a" / "look.gif"), camera="top"), said.append)
    assert (seen.how, seen.steps, seen.reason) == ("video", 3, "out names a file")
    assert [path.name for path in seen.files] == ["look.gif", "look.png"] and len(said) == 3


def test_who_acts(run: Path, tmp_path: Path):
    chance = make_show(config(seed=3))
    again = make_show(config(seed=3))
    for _ in range(3):
        chance.step()
        again.step()
    assert (chance.observation == again.observation).all() and chance.who == "random actions"
    skill = make_show(config(skill="open(drawer)", run=str(run)))
    assert skill.goal == "open(drawer)" and "open(drawer)" in skill.who
    assert make_show(config(skill="open(?a:drawer)", run=str(run))).goal == "open(drawer)"
    saved = make_show(config(policy=str(tmp_path / "policy")))
    saved.step()
    script = make_show(config(policy="script", goal="lit(lamp)"))
    while not script.successes and script.episodes < 3:
        script.step()
    assert script.successes and set(script.lit) == {"lamp"}


def test_a_recorded_episode_happens_again(run: Path, tmp_path: Path):
    show = make_show(config(episode=0, run=str(run)))
    env = make_vector("tabletop", 1, goals="lit(lamp)")
    env.reset(seed=5)
    assert show.steps == 10 and show.goal == "lit(lamp)" and "practice" in show.who
    for _ in range(10):
        show.step()
        env.step(np.array([[1, 0, 0, 0, 1]], np.float32))
    seen, expected = (e.simulation.qpos for e in (show.env, env))  # type: ignore[attr-defined]
    assert np.allclose(seen, expected, atol=1e-9)
    seen = looking.view(config(episode=0, run=str(run), out=str(tmp_path / "again.gif")), lambda line: None)
    assert seen.steps == 10


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"policy": "nowhere"}, "neither random nor script"),
        ({"policy": "script", "skill": "open(drawer)"}, "policy and skill were given"),
        ({"skill": "fly"}, "its skills: open\\(drawer\\)"),
        ({"episode": 1}, "has 1 episodes, 0 to 0; not 1"),
        ({"out": "film.avi"}, ".mp4 or .gif"),
        ({"policy": "tiny"}, "sees 4 numbers and moves 2"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(run: Path, monkeypatch, values, words):
    monkeypatch.chdir(run.parent.parent)
    RandomPolicy(4, 2).save_pretrained("tiny")
    with pytest.raises(ViewError, match=words):
        looking.view(config(**{"run": str(run)} | values), lambda line: None)


def test_a_goal_can_be_typed_as_it_is():
    assert compose(ViewConfig, ["goal=on(red, blue)", "skill=open(drawer)"]).goal == "on(red, blue)"


def test_the_viewer_follows_the_world_and_pauses(monkeypatch):
    """With a window of straw: ten rounds, of which four are paused and one of these is stepped."""
    from mujoco import viewer

    class Window:
        def __init__(self, model, data, key_callback):
            self.data, self.key, self.rounds, self.seen = data, key_callback, 0, []
            self.perturb = looking_perturb()
            window.append(self)

        def is_running(self) -> bool:
            self.rounds += 1
            if self.rounds in (4, 8):
                self.key(looking.SPACE)
            if self.rounds == 6:
                self.key(looking.RIGHT)
            return self.rounds <= 10

        def lock(self):
            return self

        def sync(self) -> None:
            self.seen.append((self.data.time, self.data.qpos.copy()))

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None:
            pass

    def looking_perturb():
        import mujoco

        return mujoco.MjvPerturb()

    window: list[Window] = []
    monkeypatch.setattr(viewer, "launch_passive", Window)
    monkeypatch.setattr(looking, "screen", lambda: (True, "there is a screen"))
    monkeypatch.setattr(looking, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda seconds: None))
    said: list[str] = []
    seen = looking.view(config(policy="script", goal="lit(lamp)"), said.append)
    assert (seen.how, seen.steps) == ("viewer", 7) and "space pauses" in said[0]
    times = [round(t, 2) for t, _ in window[0].seen]
    assert times == [0.05, 0.1, 0.15, 0.15, 0.15, 0.2, 0.2, 0.25, 0.3, 0.35]
    assert (window[0].seen[0][1] != window[0].seen[-1][1]).any()
