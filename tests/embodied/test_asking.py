"""Asking: what is said, what is filmed, what is refused; a scripted expert stands in for skills."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from embodied import asking, runs
from embodied.asking import AskError, ask, say
from embodied.cli.schema import AskConfig, RenderConfig
from embodied.errors import UsageError
from embodied.planning import execute
from embodied.planning.execute import OptionRecord, Outcome, Step
from embodied.repertoire import Repertoire
from embodied.skills.library import SkillLibrary
from embodied.viz import video
from embodied.viz.film import Recorder, somewhere
from envs.goals import Goal, GoalError, UnknownWordError, impossible_reason, schema_of
from envs.playroom.oracle import ScriptedOracle

RENDER = RenderConfig(backend="rays", width=48, height=36)


class Expert:
    """The scripted expert as a skill; it is bound to the environment that is carried out on."""

    def bind(self, env):
        self.oracle = ScriptedOracle(env)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self.oracle.act(), state


class Experts(Repertoire):
    def planner(self):
        def plan(state, rest, failed):
            wanted = [x for stage in rest.stages for x in stage if not x.holds(state)]
            missing = [x for x in wanted if schema_of(Goal.of(x)) not in self.actors]
            if missing:
                return f"I have no skill that achieves {missing[0]}"
            return [Step(schema_of(Goal.of(x)), str(x)) for x in wanted]

        return plan


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory whose skills open and close the drawer and switch the lamp."""
    schemas = ("open(drawer)", "closed(drawer)", "lit(lamp)")
    monkeypatch.setattr(asking, "_repertoire", lambda _: Experts({schema: Expert() for schema in schemas}))
    original = execute.carry_out

    def bound(goals, skills, plan, seed, *, threads=1, **options):
        env = execute.make_env(skills, len(goals), threads)
        for skill in skills.values():
            skill.bind(env)
        return original(goals, skills, plan, seed, env=env, **options)

    monkeypatch.setattr(execute, "carry_out", bound)
    return tmp_path / "run"


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_a_request_is_carried_out_filmed_and_answered(run: Path):
    out = console()
    config = AskConfig(seed=1, video=str(run / "done.gif"), render=RENDER)
    answer = ask("please turn the lamp off, then open the drawer", run, config, out)
    assert answer.success
    assert [path.name for path in answer.videos] == ["done.gif", "done.png"]
    with Image.open(answer.videos[0]) as film:
        assert film.size == (48, 36)
        assert getattr(film, "n_frames", 1) >= answer.outcome.steps // 2
    printed = out.file.getvalue()  # type: ignore[attr-defined]
    assert answer.text in printed
    assert "done.gif" in printed
    assert answer.text.startswith("I planned to ")
    assert "the drawer is open" in answer.text
    assert answer.outcome.holds == {"not lit(lamp)": True, "open(drawer)": True}


def test_the_video_goes_where_it_is_wanted(run: Path):
    config = AskConfig(seed=1, render=RENDER)
    (film, strip) = ask("open the drawer!", run, config, console()).videos
    suffix = ".mp4" if video.ffmpeg_works() else ".gif"
    assert film == run / runs.VIDEOS / f"ask-open-the-drawer-seed1{suffix}"
    assert strip == film.with_suffix(".png")
    assert film.stat().st_size > 0
    assert ask("open the drawer", run, AskConfig(seed=1, video="none"), console()).videos == ()
    with pytest.raises(UsageError, match=r"\.mp4 or \.gif"):
        ask("open the drawer", run, AskConfig(video="film.avi"), console())


def test_what_has_no_plan_names_the_missing_skill_and_makes_no_video(run: Path):
    answer = ask("put the red block on the blue block", run, AskConfig(render=RENDER), console())
    assert not answer.success
    assert answer.text == "I cannot do that: I have no skill that achieves on(red, blue)."
    assert answer.videos == ()


@pytest.mark.parametrize(
    ("words", "error", "match"),
    [
        ("waltz with the lamp", UnknownWordError, "waltz"),
        ("the red block", GoalError, "I can"),
        ("put the red block on the blue block and the blue block on the red block", AskError, "impossible"),
    ],
)
def test_what_cannot_be_read_or_cannot_be_is_one_sentence(run: Path, words: str, error: type, match: str):
    with pytest.raises(error, match=match) as caught:
        ask(words, run, AskConfig(), console())
    assert "\n" not in str(caught.value)


def test_a_run_without_skills_says_so(tmp_path: Path):
    with pytest.raises(AskError, match="has no skill yet"):
        ask("open the drawer", tmp_path, AskConfig(), console())
    SkillLibrary.open(tmp_path / runs.LIBRARY).close()
    with pytest.raises(AskError, match="has no skill yet"):
        ask("open the drawer", tmp_path, AskConfig(), console())


def test_the_answer_says_plan_deed_and_what_holds():
    outcome = Outcome(
        "closed(drawer) & inside(red, drawer)", success=False, steps=90, replans=1,
        plans=[["open(drawer)", "inside(red, drawer)", "closed(drawer)"], ["closed(drawer)"]],
        options=[OptionRecord("s", "open(drawer)", {}, {}, True, 30),
                 OptionRecord("s", "closed(drawer)", {}, {}, False, 60)],
        reason="no plan left to try", holds={"closed(drawer)": False, "inside(red, drawer)": True},
    )  # fmt: skip
    said = say("put the red block in the drawer and close it", outcome)
    assert said.startswith("I planned to open the drawer, then ")
    assert "planned anew once" in said
    assert "the drawer is not closed" in said
    assert "no plan left to try" in said


def test_a_place_is_drawn_for_anywhere_and_frames_are_those_of_the_slot():
    rng = np.random.default_rng(0)
    goal = Goal.parse("placed(red, anywhere) & placed(blue, left)")
    for _ in range(5):
        named = somewhere(goal, rng)
        assert "anywhere" not in str(named)
        assert impossible_reason(named) is None
    assert somewhere(Goal.parse("lit(lamp)"), rng) == Goal.parse("lit(lamp)")

    class Drawn:
        def render(self, qpos, lit):
            return np.repeat(qpos[:, None, :1, None, None], 3, axis=4).astype(np.uint8)

    recorder = Recorder(
        qpos=[np.array([[k], [100 + k]]) for k in range(20)], lit=[{"lamp": np.zeros(2, bool)}] * 20,
        goals=[["", "open(drawer)"]] * 20,
    )  # fmt: skip
    frames, doing = recorder.frames(Drawn(), 1, 4)  # type: ignore[arg-type]
    assert frames[:, 0, 0, 0].tolist() == [100, 101, 102, 103, 104, 105, 106]
    assert set(doing) == {"open the drawer"}
