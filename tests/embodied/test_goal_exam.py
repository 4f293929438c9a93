"""Goals as states: the exam is what the expert can do, the same for everyone, and judged by the tasks' own words."""

import numpy as np
import pytest

from embodied.data.batches import Batches, Concatenated
from embodied.evaluation.goal_exam import acting, chains, set_exam, sit_exam
from embodied.training.offline import OfflineSettings, load_goal_policy, make_learner, train_offline
from envs.scenes.facts import B_BOTTOM, B_PEAK, BLOCK_STRIDE, BLOCKS
from policies.offline import BatchSpec


def test_features_of_a_goal_that_holds_ask_for_nothing(scene, play):
    encoder = play.encoder
    rows = play.observations[::37].copy()
    rows = encoder.hindsight(rows, np.arange(len(rows)), np.arange(len(rows)))
    found = encoder.features(rows, rows)
    assert found.shape == (len(rows), encoder.feature_size) and found.dtype == np.float32
    assert not found[:, encoder.state_size :].any()
    np.testing.assert_array_equal(found[:, : encoder.state_size], encoder.states(rows))


def test_the_goals_robot_does_not_count_but_its_things_do(play):
    now, goal = play.observations[:1], play.observations[50:51]
    other = goal.copy()
    other[:, :BLOCKS] += 0.1
    np.testing.assert_array_equal(play.encoder.features(now, goal), play.encoder.features(now, other))
    other[:, BLOCKS] += 0.05
    assert (play.encoder.features(now, goal) != play.encoder.features(now, other)).any()


def test_a_block_that_is_to_be_carried_is_told_from_one_that_is_to_be_swept(play):
    facts = play.observations[:3].copy()
    bottom, peak = BLOCKS + B_BOTTOM, BLOCKS + B_PEAK
    facts[:, bottom] = [0.0, 0.12, 0.0]
    facts[2, BLOCKS] += 0.1
    carried = play.encoder.hindsight(facts, np.array([0]), np.array([2]))
    swept = play.encoder.hindsight(facts[[0, 2]], np.array([0]), np.array([1]))
    assert carried[0, peak] == np.float32(0.12) and swept[0, peak] == 0.0
    found = [play.encoder.features(facts[:1], goal)[0] for goal in (carried, swept)]
    assert (found[0] != found[1]).sum() == 2  # among the block's own, and in the place of what is nearest
    other = play.encoder.hindsight(facts, np.array([2]), np.array([0]))
    assert other[0, peak] == facts[0, bottom]


def test_what_shall_change_nearest_to_the_tool_stands_in_one_place(scene, play):
    encoder = play.encoder
    focus = slice(encoder.feature_size - 39, None)
    now = play.observations[:1].copy()
    same = []
    for b in range(2):
        goal = now.copy()
        goal[0, BLOCKS + BLOCK_STRIDE * b] += 0.06
        same.append(encoder.features(now, goal)[0, focus])
    assert same[0][0] == same[1][0] == 1.0 and (same[0] != same[1]).any()
    np.testing.assert_allclose(same[0][9:12], [0.36, 0, 0], atol=1e-5)


def test_batches_hold_what_a_spec_asks_for_and_depend_on_their_number_alone(play):
    spec = BatchSpec(chunk=8, window=8, futures=True, values=True, waypoint=10)
    batches, again = Batches(play, spec, 32, 3, horizon=40), Batches(play, spec, 32, 3, horizon=40)
    batches.batch(0)
    first, second = batches.batch(5), again.batch(5)
    f, s = play.encoder.feature_size, play.encoder.state_size
    shapes = {"features": (32, f), "actions": (32, 8, 5), "window": (32, 8, f), "futures": (32, 8, s)}
    for name, shape in shapes.items():
        assert first[name].shape == shape
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    np.testing.assert_array_equal(first["window"][:, 0], first["features"])
    np.testing.assert_array_equal(first["window"][:, 1, :s], first["futures"][:, 0])
    np.testing.assert_array_equal(first["masks"], -first["rewards"])
    with pytest.raises(ValueError, match="windows of 8 steps need a horizon"):
        Batches(play, spec, 32, 3, horizon=5)


def test_concatenated_features_are_standardised():
    rows = np.random.default_rng(0).normal([3, -1, 5], [2, 0.5, 0], (500, 3)).astype(np.float32)
    encoder = Concatenated.of(rows)
    found = encoder.features(rows, rows[::-1])
    assert found.shape == (500, 6)
    np.testing.assert_allclose(found[:, :2].std(0), 1, atol=1e-3)


def test_an_exam_is_drawn_alike_and_its_expert_passes_it(scene):
    tasks = ["open_drawer", "push_red"]
    exam, again = set_exam(tasks, 3, 5), set_exam(tasks, 3, 5)
    np.testing.assert_array_equal(exam.states, again.states)
    np.testing.assert_array_equal(exam.goals, again.goals)
    assert (exam.which == [0, 0, 0, 1, 1, 1]).all()
    idle = sit_exam(lambda facts, goals: np.zeros((len(facts), 5)), exam, steps=5)
    assert not idle.success.any() and (idle.steps == 5).all() and idle.rate == 0
    with pytest.raises(ValueError, match="unknown disturbance 'shove'"):
        sit_exam(lambda facts, goals: np.zeros((len(facts), 5)), exam, disturb="shove")


def test_chains_speak_of_no_thing_twice(scene):
    for depth in (2, 3):
        found = chains(scene, depth)
        assert len(found) == 18 and len(set(found)) == 18
        assert all(text.count("&") == depth - 1 for text in found)
    exam = set_exam(chains(scene, 2)[:2], 1, 0, depth=2)
    assert exam.depth == 2 and len(exam.texts) == 2


def test_a_training_stopped_and_called_again_ends_with_the_same_policy(play, tmp_path):
    def fresh():
        return make_learner("flow-bc", play, hidden=(16,), chunk=4, execute=4)

    whole = train_offline(fresh(), play, OfflineSettings(updates=30, batch=16, save_every=10), tmp_path / "a")
    policy = fresh()

    class Stop(Exception):
        pass

    plain, calls = policy.update, []

    def failing(batch):
        calls.append(1)
        if len(calls) == 17:
            raise Stop
        return plain(batch)

    policy.update = failing
    with pytest.raises(Stop):
        train_offline(policy, play, OfflineSettings(updates=30, batch=16, save_every=10), tmp_path / "b")
    again = train_offline(fresh(), play, OfflineSettings(updates=30, batch=16, save_every=10), tmp_path / "b")
    for name, array in whole.policy.arrays().items():
        np.testing.assert_array_equal(array, again.policy.arrays()[name])
    assert (tmp_path / "a" / "log.jsonl").read_bytes() == (tmp_path / "b" / "log.jsonl").read_bytes()
    policy, encoder = load_goal_policy(tmp_path / "a")
    act = acting(policy, encoder, deterministic=True)
    assert act(play.observations[:3], play.observations[10:13]).shape == (3, 5)
