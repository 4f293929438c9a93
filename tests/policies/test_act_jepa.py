from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from policies import load_policy
from policies.act import ACT, ACTConfig, parameters
from policies.act_jepa import ACTJEPA, COLLAPSE, ACTJEPAConfig
from policies.collapse import effective_rank

SIZES: dict[str, Any] = {
    "feature_size": 12,
    "action_size": 3,
    "state_size": 6,
    "chunk": 4,
    "execute": 4,
    "width": 32,
    "heads": 2,
    "feed_hidden": 32,
    "trunk_layers": 1,
    "decoder_layers": 1,
    "encoder_hidden": (64,),
    "learning_rate": 2e-3,
    "warmup": 20,
    "gradient_steps": 150,
}


def make(**changes: Any) -> ACTJEPA:
    return ACTJEPA(ACTJEPAConfig(**(SIZES | changes)))


def drift(rng: np.random.Generator, size: int = 64) -> dict[str, np.ndarray]:
    """Six numbers go to the goal in four steps; two of them are what the actions say."""
    start, goal = rng.uniform(-1, 1, (2, size, 6))
    step = np.clip((goal - start) / 4, -1, 1)
    futures = start[:, None] + step[:, None] * np.arange(1, 5)[None, :, None]
    gripper = np.sign(goal[:, :1])[:, None]
    actions = np.concatenate([np.repeat(step[:, None, :2], 4, 1), np.repeat(gripper, 4, 1)], axis=2)
    return {
        "features": np.concatenate([start, goal - start], axis=1).astype(np.float32),
        "actions": actions.astype(np.float32),
        "futures": futures.astype(np.float32),
        "valid": np.full(size, 4),
    }


@pytest.fixture(scope="module")
def runs() -> dict[str, tuple[ACTJEPA, list[dict[str, float]]]]:
    found = {}
    for collapse in COLLAPSE:
        policy, rng = make(collapse=collapse), np.random.default_rng(0)
        found[collapse] = policy, [policy.update(drift(rng)) for _ in range(150)]
    return found


@pytest.mark.parametrize("collapse", COLLAPSE)
def test_both_predictions_are_learnt(runs, collapse):
    first, last = runs[collapse][1][0], runs[collapse][1][-1]
    assert last["loss"] < 0.6 * first["loss"]
    assert last["latent_error"] < 0.75 * first["latent_error"] and last["motion_error"] < 0.5 * first["motion_error"]


def test_the_encoder_collapses_without_control_and_only_then(runs):
    states = np.random.default_rng(1).uniform(-1, 1, (1000, 6)).astype(np.float32)
    ranks, spreads = {}, {}
    for collapse, (policy, metrics) in runs.items():
        z = policy.embed(states)
        ranks[collapse], spreads[collapse] = effective_rank(torch.from_numpy(z)), z.std(0).mean()
        assert metrics[-1]["effective_rank"] == pytest.approx(ranks[collapse], rel=0.5)
    assert ranks["none"] < 7 and spreads["none"] < 0.15
    for collapse in ("ema", "sigreg", "vicreg"):
        assert ranks[collapse] > 10 and spreads[collapse] > 0.5
    assert runs["none"][1][-1]["latent_error"] < 0.3 * runs["ema"][1][-1]["latent_error"]


def test_the_loss_is_what_it_says():
    batch = drift(np.random.default_rng(0))
    batch["valid"] = np.random.default_rng(1).integers(1, 5, 64)
    for collapse in COLLAPSE:
        policy = make(collapse=collapse, latent_weight=0.7)
        network: Any = policy.network
        x = torch.from_numpy(batch["features"])
        with torch.no_grad():
            token = network.actor.embed(x[:, :6])
            predicted = network.predictor(network.actor(token, x[:, 6:])).numpy()
            targets = network.actor.embed(torch.from_numpy(batch["futures"])).numpy()
        own = np.arange(4) < batch["valid"][:, None]
        metrics = policy.update(batch)
        assert metrics["latent_error"] == pytest.approx(np.abs(predicted - targets)[own].mean(), rel=1e-5)
        imitation = (2 * metrics["motion_error"] + 0.5 * metrics["gripper_error"]) / 3
        total = imitation + 0.7 * metrics["latent_error"] + metrics["regularizer"]
        assert metrics["loss"] == pytest.approx(total, rel=1e-5)
        assert (metrics["regularizer"] > 0) == (collapse in ("sigreg", "vicreg"))


@pytest.mark.parametrize("collapse", ["ema", "none"])
def test_gradients_stop_at_the_average_alone(collapse):
    """Where the prediction ignores the present, only targets let the latent error move the encoder."""
    policy = make(collapse=collapse, latent_weight=1e6, gradient_limit=1e12)
    network: Any = policy.network
    with torch.no_grad():
        network.predictor[-1].weight.zero_()
    policy.update(drift(np.random.default_rng(0)))
    gradient = network.actor.state.body[0].weight.grad.abs().max()
    assert 0 < gradient < 10 if collapse == "ema" else gradient > 1000


def test_states_beyond_an_episodes_end_are_not_learnt():
    batch = drift(np.random.default_rng(0))
    batch["valid"][:] = 2
    other = dict(batch, futures=batch["futures"].copy())
    other["futures"][:, 2:] = 5.0
    assert make().update(batch) == make().update(other)


def test_it_acts_with_what_act_acts_with():
    act = ACT(ACTConfig(**SIZES))
    assert parameters(make()) == parameters(act) == parameters(make(latent_size=8))
    names = [name for name in act.arrays() if name.startswith("actor.")]
    assert names == [name for name in make().arrays() if name.startswith("actor.")]
    policy = make(latent_size=32)
    policy.average.actor.load_state_dict(act.average.actor.state_dict())
    x = drift(np.random.default_rng(0), 5)["features"]
    np.testing.assert_array_equal(policy.predict(x)[0], act.predict(x)[0])


@pytest.mark.parametrize("collapse", ["ema", "sigreg"])
def test_training_resumes_bit_for_bit(tmp_path, collapse):
    batches = [drift(np.random.default_rng(i), 16) for i in range(24)]
    policy = make(collapse=collapse, latent_size=4)
    for batch in batches[:14]:
        policy.update(batch)
    x = batches[0]["features"]
    action = policy.predict(x)[0]
    policy.save_training(tmp_path / "training")
    policy.save_pretrained(tmp_path / "policy")
    resumed = ACTJEPA.load_training(tmp_path / "training")
    np.testing.assert_array_equal(load_policy(tmp_path / "policy").predict(x)[0], action)
    for batch in batches[14:]:
        assert policy.update(batch) == resumed.update(batch)
    for name, array in (policy.arrays() | policy.training_arrays()).items():
        np.testing.assert_array_equal(array, (resumed.arrays() | resumed.training_arrays())[name])


def test_one_policy_is_refused_where_the_other_is_meant_and_batches_without_futures(tmp_path):
    policy = make()
    assert policy.spec.futures and policy.spec.chunk == 4
    with pytest.raises(ValueError, match="unknown collapse control 'hope'; valid: ema, sigreg, vicreg, none"):
        make(collapse="hope")
    with pytest.raises(ValueError, match="directions = 0 must be at least 1"):
        make(directions=0)
    batch = drift(np.random.default_rng(0))
    with pytest.raises(ValueError, match="the batch lacks 'futures'"):
        policy.update({name: array for name, array in batch.items() if name != "futures"})
    with pytest.raises(ValueError, match=r"'futures' has shape \(64, 4, 5\); expected \(b, 4, 6\)"):
        policy.update(dict(batch, futures=batch["futures"][..., :5]))
