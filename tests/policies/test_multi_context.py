"""A policy told by goals nearly always and by words seldom: both reach the same flow, and words see no goal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policies import load_policy
from policies.multi_context import MultiContext, MultiContextConfig
from policies.text import BUCKETS, HashedWords, WordReader

TEXTS = ("go left", "go right")


def make(**changes: Any) -> MultiContext:
    settings: dict[str, Any] = {
        "feature_size": 5, "state_size": 3, "action_size": 2, "chunk": 4, "execute": 4, "hidden": (64, 64),
        "context_hidden": (32,), "text_hidden": 32, "context_size": 16, "text_size": 8, "learning_rate": 3e-3,
        "warmup": 20, "gradient_steps": 300,
    }  # fmt: skip
    return MultiContext(MultiContextConfig(**(settings | changes)))


def world(rng: np.random.Generator, size: int, labelled: int = 0) -> dict[str, np.ndarray]:
    """Goals are on one side or the other, in column 3; what is told says which."""
    side = rng.choice([-1.0, 1.0], size + labelled)
    features = rng.normal(size=(size + labelled, 5)).astype(np.float32)
    features[:, 3] = side
    actions = np.broadcast_to(side[:, None, None] * [0.8, 1.0], (size + labelled, 4, 2)).astype(np.float32)
    batch = {"features": features[:size], "actions": actions[:size]}
    if labelled:
        words = HashedWords().encode([TEXTS[int(s > 0)] for s in side[size:]])
        batch |= {"labelled_features": features[size:], "labelled_actions": actions[size:], "words": words}
    return batch


@pytest.fixture(scope="module")
def trained() -> MultiContext:
    policy, rng = make(), np.random.default_rng(0)
    first = policy.update(world(rng, 128, 16))
    for _ in range(299):
        last = policy.update(world(rng, 128, 16))
    assert last["goal_error"] < 0.5 * first["goal_error"] and last["text_error"] < 0.5 * first["text_error"]
    assert last["alignment"] < 0.3 < first["alignment"]
    return policy


def test_words_and_goals_lead_the_same_way(trained):
    features = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    side = np.resize([-1.0, 1.0], 40)
    told = trained.instruct(HashedWords().encode([TEXTS[int(s > 0)] for s in side]))
    action, _ = trained.predict(features, told)
    assert (np.sign(action[:, 0]) == side).mean() > 0.9
    features[:, 3] = side
    action, _ = trained.predict(features)
    assert (np.sign(action[:, 0]) == side).mean() > 0.9


def test_a_slot_that_was_told_never_sees_the_goal(trained):
    features = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    other = features.copy()
    other[:, 3:] = np.nan
    words = HashedWords().encode(["go left"] * 4)
    noise = np.random.default_rng(3).normal(size=(4, trained.noise_size)).astype(np.float32)
    first, second = (trained.sample_told(rows, words, noise) for rows in (features, other))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(trained.sample(features, noise), first)


def test_texts_learn_nothing_from_the_goals_columns():
    """Without alignment, which alone looks at a labelled row's goal, other goal columns leave an update the same."""
    policies = [make(alignment=0.0, hidden=(8,)) for _ in range(2)]
    for i in range(3):
        batch = world(np.random.default_rng(i), 16, 8)
        policies[0].update(batch)
        changed = batch["labelled_features"].copy()
        changed[:, 3:] = 7.0
        policies[1].update(batch | {"labelled_features": changed})
    for name, array in policies[0].arrays().items():
        np.testing.assert_array_equal(array, policies[1].arrays()[name])


def test_slots_are_told_one_by_one_and_keep_to_it(trained):
    features = np.zeros((3, 5), np.float32)
    features[:, 3] = 1.0
    _, state = trained.predict(features)
    before = {name: array.copy() for name, array in state.items()}
    told = trained.instruct(HashedWords().encode(["go left"]), state, np.array([1]))
    for name in state:
        np.testing.assert_array_equal(state[name], before[name])
    action, later = trained.predict(features, told, np.array([False, True, False]))
    assert later["told"].tolist() == [False, True, False]
    assert action[1, 0] < 0 < action[0, 0] and later["position"].tolist() == [2, 1, 2]
    np.testing.assert_array_equal(action[[0, 2]], before["chunk"][[0, 2], 1])


def test_play_without_any_label_is_learnt_from_goals_alone():
    policy = make(hidden=(8,))
    found = policy.update(world(np.random.default_rng(0), 16))
    assert "text_error" not in found and found["loss"] == pytest.approx(found["goal_error"])


def test_another_encoders_vectors_can_be_plugged_in():
    policy = make(vector_size=6, hidden=(8,))
    assert policy.spec.words == 6
    batch = world(np.random.default_rng(0), 16, 8)
    batch["words"] = np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32)
    policy.update(batch)
    action, state = policy.predict(np.zeros((2, 5), np.float32), policy.instruct(np.ones((2, 6), np.float32)))
    assert action.shape == (2, 2) and state is not None and state["words"].dtype == np.float32


def test_training_resumes_bit_for_bit_and_is_saved_by_its_key(tmp_path):
    batches = [world(np.random.default_rng(i), 16, 4) for i in range(30)]
    policy = make(hidden=(8,))
    for batch in batches[:17]:
        policy.update(batch)
    policy.save_training(tmp_path / "training")
    resumed = MultiContext.load_training(tmp_path / "training")
    for batch in batches[17:]:
        assert policy.update(batch) == resumed.update(batch)
    for name, array in (policy.arrays() | policy.training_arrays()).items():
        np.testing.assert_array_equal(array, (resumed.arrays() | resumed.training_arrays())[name])
    policy.save_pretrained(tmp_path / "policy")
    reloaded = load_policy(tmp_path / "policy")
    assert isinstance(reloaded, MultiContext)
    words = HashedWords().encode(["go left"])
    observation = np.zeros((1, 5), np.float32)
    np.testing.assert_array_equal(
        reloaded.predict(observation, reloaded.instruct(words), None, True)[0],
        policy.predict(observation, policy.instruct(words), None, True)[0],
    )


def test_misuse_is_refused_in_one_sentence(trained):
    with pytest.raises(ValueError, match="state_size must be at least 1"):
        make(state_size=0)
    with pytest.raises(ValueError, match=r"Words have shape .2, 3.; expected .n, 16."):
        trained.instruct(np.zeros((2, 3), np.int64))
    with pytest.raises(ValueError, match=r"whole numbers in 0\.\.4095"):
        trained.instruct(np.full((2, 16), BUCKETS))
    with pytest.raises(ValueError, match="2 rows of words were given for 3 slots"):
        trained.instruct(np.zeros((2, 16), np.int64), trained.predict(np.zeros((3, 5), np.float32))[1])
    with pytest.raises(ValueError, match=r"'words' has shape .4, 16.; expected .m, 16."):
        batch = world(np.random.default_rng(0), 8, 4)
        trained.update(
            batch
            | {"labelled_features": batch["labelled_features"][:3], "labelled_actions": batch["labelled_actions"][:3]}
        )


def test_words_are_hashed_alike_everywhere_and_none_is_too_much():
    words = HashedWords()
    tokens = words.encode(["Open the drawer!", "open  drawer", "", "zyxw qvut", "one " * 40, "été ☃"])
    assert tokens.shape == (6, 16) and tokens.dtype == np.int64 and tokens.min() == 0 and tokens.max() < BUCKETS
    np.testing.assert_array_equal(tokens[0], tokens[1])
    assert (tokens[0] > 0).sum() == 2 and not tokens[2].any() and tokens[4].all()
    reader = WordReader(8)
    assert not reader(torch.from_numpy(tokens)).any()  # nothing was heard yet, so nothing is said
    with torch.no_grad():
        reader.words.weight.normal_()
        reader.pairs.weight.normal_()
    read = reader(torch.from_numpy(tokens))
    assert torch.isfinite(read).all() and not read[2].any() and read[3].any()
    one, other = reader(torch.from_numpy(words.encode(["push left", "left push"])))
    assert not torch.allclose(one, other)  # the order of words counts


def test_attention_learns_which_word_matters():
    reader, rng = WordReader(4), np.random.default_rng(0)
    head = torch.nn.Linear(4, 1)
    torch.nn.init.ones_(head.weight)
    optimizer = torch.optim.Adam([*reader.parameters(), *head.parameters()], 0.02)
    noise = [f"word{i}" for i in range(30)]
    for _ in range(150):
        side = rng.choice([-1.0, 1.0], 32)
        texts = [" ".join([*rng.choice(noise, 3), "left" if s < 0 else "right"]) for s in side]
        wanted = torch.from_numpy(side).float()
        loss = (head(reader(torch.from_numpy(HashedWords().encode(texts))))[:, 0] - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
