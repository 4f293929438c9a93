"""Labels of play: few windows, described by what came true in them, and refused where they do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from embodied.data.batches import Batches, Labelled, Recorded
from embodied.data.dataset import DatasetError
from embodied.data.labels import Labels, label_play, phrasings, read_labels, write_labels
from embodied.evaluation.goal_exam import Exam, set_exam, sit_exam
from embodied.evaluation.instruction_exam import WAYS, instructions, told
from embodied.training.offline import OfflineSettings, make_learner, train_offline
from envs.scenes.experts import ScriptedExpert
from envs.scenes.hindsight import came_true
from envs.scenes.playroom import PlayroomVectorEnv
from policies.multi_context import MultiContext
from policies.text import HashedWords


def test_hindsight_agrees_with_the_environments_own_judgement(scene):
    tasks = list(scene.tasks)
    env = PlayroomVectorEnv(len(tasks), max_steps=10_000, terminate_on_success=False, sleep=False)
    which = np.arange(len(tasks))
    env.reset(seed=3, options={"which": which})
    expert, rows, when = ScriptedExpert(env), [env.facts.copy()], np.full(len(which), -1)
    for t in range(1, 121):
        info = env.step(expert.act())[4]
        rows.append(env.facts.copy())
        when = np.where((when < 0) & info["success"], t, when)
    env.close()
    facts = np.stack(rows, axis=1).reshape(-1, rows[0].shape[1])
    start = np.arange(len(which)) * 121
    found = came_true(facts, start, start + 120, tasks, scene)[np.arange(len(which)), which]
    assert (when >= 0).mean() > 0.6
    np.testing.assert_array_equal(np.where(found < 0, -1, found - start), when)


def test_what_held_at_the_start_did_not_come_true(scene):
    rows = np.repeat(set_exam(["open_drawer"], 1, 0).goals, 12, axis=0)
    assert (came_true(rows, np.array([0]), np.array([11]), list(scene.tasks), scene) == -1).all()


def test_few_windows_are_described_always_the_same_and_never_with_a_held_out_sentence(scene, play):
    labels, again = (label_play(play.observations, play.episode_ends, scene, seed=1) for _ in range(2))
    assert labels.texts == again.texts and len(labels) > 5
    np.testing.assert_array_equal(labels.start, again.start)
    assert labels.windows == int(0.01 * play.steps) and labels.covered() <= labels.windows * 65
    episodes = [np.searchsorted(play.episode_ends, rows, side="right") for rows in (labels.start, labels.end)]
    np.testing.assert_array_equal(episodes[0], episodes[1])
    assert (labels.start < labels.end).all() and (labels.end - labels.start <= 64).all()
    sentences = phrasings(scene)
    held_out = {phrasing.held_out for phrasing in sentences.values() if phrasing.unheard}
    assert not held_out & set(labels.texts) and len(held_out) >= 12
    for text in labels.texts:
        assert scene.vocabulary.understand(text) in scene.tasks.values()
    heard = {word for phrasing in sentences.values() for text in phrasing.said for word in text.split()}
    assert all(set(text.split()) <= heard for text in held_out)  # new is how the words go together
    with pytest.raises(ValueError, match=r"share = 0\.5 must lie in"):
        label_play(play.observations, play.episode_ends, scene, share=0.5)


def test_the_scenes_words_do_not_collide(scene):
    sentences = [text for phrasing in phrasings(scene).values() for text in (*phrasing.said, phrasing.held_out)]
    words = {word for text in sentences for word in text.split()} - {"the"}
    assert len(np.unique(HashedWords().encode(sorted(words))[:, 0])) == len(words)


def test_labels_are_written_and_read_again(tmp_path, scene, play):
    labels = label_play(play.observations, play.episode_ends, scene)
    path = tmp_path / "labels.jsonl"
    write_labels(path, labels, play.episode_ends)
    found = read_labels(path, play.episode_ends)
    assert found.texts == labels.texts and found.windows == labels.windows
    np.testing.assert_array_equal(found.start, labels.start)
    np.testing.assert_array_equal(found.end, labels.end)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no label; write one"),
        ('{"windows": 30}\n', "holds no label; write one"),
        ("{", "line 1 is not JSON"),
        ("[1]", "line 1 is not an object with episode, row start, row end, text"),
        ('{"episode": 0, "row start": 1, "row end": 3}', "line 1 lacks 'text'"),
        ('\n{"episode": 0, "row start": 1, "row end": 3, "text": " "}', "line 2: .* and the text not empty"),
        ('{"episode": 0, "row start": 1, "row end": 10, "text": "x"}', "rows 1 to 10 of episode 0 are not there"),
        ('{"episode": 2, "row start": 1, "row end": 3, "text": "x"}', "the data has 2 episodes"),
        ('{"episode": 0, "row start": 3, "row end": 3, "text": "x"}', "rows 3 to 3"),
        ('{"episode": "0", "row start": 3, "row end": 3, "text": "x"}', "must be whole numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused_in_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "labels.jsonl"
    path.write_text(text)
    with pytest.raises(DatasetError, match=sentence):
        read_labels(path, np.array([10, 20]))
    with pytest.raises(DatasetError, match="no labels that can be read"):
        read_labels(tmp_path / "none.jsonl", np.array([10, 20]))


def described(play: Recorded, labels: Labels) -> Recorded:
    words = Labelled(labels.start, labels.end, HashedWords().encode(labels.texts))
    return Recorded(play.observations, play.actions, play.episode_ends, play.encoder, labelled=words)


def test_labelled_rows_lie_in_their_windows_and_leave_the_others_as_they_are(scene, play):
    labels = label_play(play.observations, play.episode_ends, scene)
    data = described(play, labels)
    spec = make_learner("multi-context", data, hidden=(8,), chunk=4, execute=4).spec
    batch, without = (Batches(which, spec, 32, 0, horizon=40).batch(3) for which in (data, play))
    assert batch["words"].shape == (8, 16) and batch["labelled_actions"].shape == (8, 4, 5)
    assert set(batch) - set(without) == {"words", "labelled_features", "labelled_actions"}
    for name, array in without.items():
        np.testing.assert_array_equal(batch[name], array)
    states = play.encoder.states(play.observations)
    for row, words in zip(batch["labelled_features"], batch["words"], strict=True):
        moments = np.flatnonzero((states == row[: play.encoder.state_size]).all(1))
        fitting = (HashedWords().encode(labels.texts) == words).all(1)
        assert any((labels.start[fitting] <= m).any() and (m < labels.end[fitting]).any() for m in moments)


def test_what_is_seldom_said_is_drawn_more_often_than_it_is_said():
    words = np.array([[1]] * 90 + [[2]] * 10)
    window, now = Labelled(np.arange(100) * 5, np.arange(100) * 5 + 3, words).draw(4000, np.random.default_rng(0))
    assert abs((window >= 90).mean() - 0.25) < 0.03  # the roots of 10 and 90
    assert set((now - 5 * window).tolist()) == {0, 1, 2}


def test_an_exam_in_english_is_sat_without_sight_of_the_goal(tmp_path, scene, play):
    data = described(play, label_play(play.observations, play.episode_ends, scene))
    learner = make_learner("multi-context", data, hidden=(8,), context_hidden=(8,), text_hidden=8, chunk=4, execute=4)
    result = train_offline(learner, data, OfflineSettings(updates=3, batch=16, horizon=40), tmp_path)
    assert isinstance(result.policy, MultiContext)
    exam = set_exam(["open_drawer", "push_red"], 2, 5)
    sentences = phrasings(scene)
    for way in WAYS:
        texts = instructions(exam, sentences, way)
        assert len(texts) == 4 and texts == instructions(exam, sentences, way)
        own = [scene.vocabulary.understand(text) == exam.texts[k] for text, k in zip(texts, exam.which, strict=True)]
        assert all(own) if way != "another task's" else not any(own)
    texts = instructions(exam, sentences, "held out")
    blind = Exam(exam.tasks, exam.texts, exam.which, exam.states, np.full_like(exam.goals, np.nan), exam.seed)
    steps = []
    for which in (exam, blind):
        act = told(result.policy, data.encoder, texts, HashedWords(), deterministic=True)
        steps.append(sit_exam(act, which, steps=10).steps)
    np.testing.assert_array_equal(steps[0], steps[1])
    with pytest.raises(ValueError, match="unknown way 'sung'"):
        instructions(exam, sentences, "sung")
