"""Play in the library: goals that play brought about, the states they stand for, and the gate; little is learnt."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from embodied import runs
from embodied.asking import AskError, ask
from embodied.cli.schema import AskConfig
from embodied.data.recorded import load_recorded
from embodied.data.recording import Recording, record
from embodied.errors import ConfigError
from embodied.planning.discovered import Options
from embodied.skills.gate import GateConfig
from embodied.training.offline import OfflineSettings, make_learner, train_offline
from embodied.training.played import Exemplars, keep_played, played_goals
from embodied.training.segments import begun, truth
from envs.scenes.scene import load
from envs.scenes.words import Term

SCENE = load("playroom")


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory):
    place = tmp_path_factory.mktemp("play")
    record(place / "store", Recording(steps=20_000, num_envs=80, length=250), threads=1)
    return load_recorded(f"store:{place / 'store'}")


@pytest.fixture(scope="module")
def found(play):
    return played_goals(play, SCENE, most=6, gradient_steps=150)


def holds(goal: str, before: np.ndarray, after: np.ndarray) -> bool:
    terms = SCENE.vocabulary.parse(goal)
    seen = begun(SCENE, np.stack([before, after]))[None]
    return bool(
        (truth(SCENE, seen, [Term(t.predicate, t.args) for t in terms])[0] == [t.positive for t in terms]).all()
    )


def test_goals_are_what_play_brought_about_and_their_states_make_them_true(play, found) -> None:
    exemplars, owners = found
    assert len(exemplars) == 6 and exemplars.keys() == owners.keys()
    starts = np.asarray(play.observations[np.r_[0, play.episode_ends[:24]]], np.float64)
    share = {}
    for goal, shown in exemplars.items():
        if goal.startswith("holding"):  # that is the gripper's to do: no state of the block alone holds it
            continue
        fresh = [i for i, row in enumerate(starts) if not holds(goal, row, row)]
        goals = shown.goals(SCENE, starts[fresh])
        assert goals.shape == starts[fresh].shape
        share[goal] = np.mean([holds(goal, starts[i], after) for i, after in zip(fresh, goals, strict=True)])
    assert np.mean(list(share.values())) > 0.8, share


def test_a_goal_state_changes_the_thing_alone(play, found) -> None:
    shown = next(iter(found[0].values()))
    start = np.asarray(play.observations[:1], np.float64)
    changed = set(np.flatnonzero((shown.goals(SCENE, start) != start)[0]).tolist())
    from envs.scenes.subgoals import Subgoals

    subgoals = Subgoals(SCENE)
    own = subgoals.columns(shown.which)
    peaks = {
        i for k in range(len(SCENE.blocks)) for i in range(subgoals.columns(k).start, subgoals.columns(k).stop)
    }  # heights on the way are those of now
    assert changed <= set(range(own.start, own.stop)) | peaks and changed & set(range(own.start, own.stop))


def test_exemplars_survive_json_and_damage_is_named(found) -> None:
    for shown in found[0].values():
        again = Exemplars.from_dict(shown.to_dict())
        assert (again.goal, again.which, again.beside) == (shown.goal, shown.which, shown.beside)
        np.testing.assert_allclose(again.ends, shown.ends, atol=1e-4)
    broken = next(iter(found[0].values())).to_dict() | {"ends": [[float("nan")]]}
    with pytest.raises(ConfigError, match="exemplars cannot be read"):
        Exemplars.from_dict(broken)


def test_what_passes_the_gate_is_kept_with_operators_and_names_and_asked_for(play, tmp_path: Path) -> None:
    learner = make_learner("flow-bc", play, hidden=(16,), execute=8)
    train_offline(learner, play, OfflineSettings(updates=2, batch=16), tmp_path)
    with pytest.raises(AskError, match="embodied skills gate"):
        ask("open the drawer", tmp_path, AskConfig(run=str(tmp_path), video="none"), Console(quiet=True))
    lines: list[str] = []
    everything = GateConfig(threshold=0.0, screen=2, n=2, confirm=2)  # this policy can do nothing
    goals = keep_played(tmp_path, play, gate=everything, steps=8, say=lines.append, most=2, gradient_steps=150)
    assert goals == keep_played(tmp_path, play, gate=everything, steps=8)  # it has been there
    with runs.library(tmp_path) as library:
        entries = library.mastered()
        # the library has its own threshold, and no gate can lower it
        assert [entry.goal for entry in entries] == goals
        skills = library.skills()
        assert len(skills) == 2 and all(skill.provenance["from"] == "play" for skill in skills)
        assert all(library.operators(skill.schema) for skill in skills)
    assert not goals and not Options.load(tmp_path).known
    said = Console(file=io.StringIO())
    with pytest.raises(AskError, match="no skill that passed the gate"):
        ask("open the drawer", tmp_path, AskConfig(run=str(tmp_path), video="none"), said)
