from __future__ import annotations

from typing import Any

import pytest
import torch

from policies import load_policy
from policies.act import ACT, ACTConfig
from policies.encoders import Sight, make_encoder
from policies.flow_bc import FlowBC, FlowBCConfig
from policies.gcbc import GCBC, GCBCConfig


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CASES = [("state", (7,), (7,)), ("pixels", (24, 32), (24, 32, 3))]


def observations(shape: tuple[int, ...], *leading: int) -> torch.Tensor:
    return torch.randint(256, (*leading, *shape), generator=generator(5)).float()


@pytest.mark.parametrize(("kind", "given", "shape"), CASES)
def test_every_encoder_makes_one_normalised_token_of_each_observation(kind, given, shape):
    encoder = make_encoder(kind, given, 16, generator=generator())
    assert encoder.shape == shape
    x = observations(shape, 4, 3)
    tokens = encoder(x)
    assert tokens.shape == (4, 3, 16) and tokens.dtype == torch.float32
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(4, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.std(-1, correction=0), torch.ones(4, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(encoder(x[1, 2]), tokens[1, 2])
    flat = x.flatten(2).unflatten(-1, encoder.shape)  # as a policy keeps them beside its goal
    torch.testing.assert_close(encoder(flat), tokens)


@pytest.mark.parametrize(("kind", "given", "shape"), CASES)
def test_weights_are_the_callers_chance_alone(kind, given, shape):
    before = torch.get_rng_state()
    first, second, other = (make_encoder(kind, given, 16, generator=generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    x = observations(shape, 2)
    assert torch.equal(first(x), second(x)) and not torch.equal(first(x), other(x))


@pytest.mark.parametrize(("kind", "given", "shape"), CASES)
def test_observations_of_another_shape_are_refused(kind, given, shape):
    with pytest.raises(ValueError, match=r"observations have shape .*; expected"):
        make_encoder(kind, given, 8, generator=generator())(torch.zeros(2, 5))


def test_bytes_are_pixels():
    encoder, x = make_encoder("pixels", (16, 16), 8, generator=generator()), observations((16, 16, 3), 2)
    torch.testing.assert_close(encoder(x.to(torch.uint8)), encoder(x))


def test_where_a_thing_is_can_be_learnt_from_pixels():
    encoder = make_encoder("pixels", (16, 16), 16, generator=generator())
    head = torch.nn.Linear(16, 2)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 3e-3)
    draw = generator(1)
    losses = []
    for _ in range(150):
        places = torch.randint(1, 15, (32, 2), generator=draw)
        pictures = torch.zeros(32, 16, 16, 3, dtype=torch.uint8)
        for picture, (i, j) in zip(pictures, places.tolist(), strict=True):
            picture[i - 1 : i + 2, j - 1 : j + 2, 0] = 255
        loss = (head(encoder(pictures)) - (places - 7.5) / 4.3).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.5 and sum(losses[-20:]) / 20 < 0.1


def test_unknown_kinds_and_shapes_are_refused():
    with pytest.raises(ValueError, match=r"no encoder 'sound' for observations of shape \(3,\); valid: 'state'"):
        make_encoder("sound", (3,), 8)
    with pytest.raises(ValueError, match=r"no encoder 'pixels' for observations of shape \(3,\)"):
        make_encoder("pixels", (3,), 8)
    with pytest.raises(ValueError, match="too small"):
        make_encoder("pixels", (8, 64), 8)


def test_sight_sees_both_pictures_together_and_leaves_other_numbers_as_they_are():
    picture, size = 12 * 16 * 3, 12 * 16 * 3 + 2
    both = Sight((12, 16), size + picture, size, generator())
    alone = Sight((12, 16), size + 5, size, generator())
    assert (both.encoder.shape, both.width) == ((12, 16, 6), 258)
    assert (alone.encoder.shape, alone.width) == ((12, 16, 3), 256 + 7)
    x = torch.rand(3, size + picture, generator=generator(1)) * 255
    seen = both(x)
    assert seen.shape == (3, 258)
    torch.testing.assert_close(seen[:, 256:], x[:, picture:size])
    assert both(x[None]).shape == (1, 3, 258)
    other = x.clone()
    other[:, -picture:] = 0.0
    assert not torch.allclose(both(other)[:, :256], seen[:, :256])
    torch.testing.assert_close(alone(x[:, : size + 5])[:, 256:], x[:, picture : size + 5])


@pytest.mark.parametrize("kind", [FlowBCConfig, GCBCConfig, ACTConfig])
def test_policies_learn_from_pictures_and_come_back(kind: Any, tmp_path):
    picture = 12 * 16 * 3
    sizes: dict[str, Any] = {
        "feature_size": 2 * picture + 3,
        "state_size": picture + 3,
        "action_size": 3,
        "chunk": 4,
        "execute": 2,
    }
    small: dict[str, Any] = {"width": 16, "heads": 2} if kind is ACTConfig else {"hidden": (16,)}
    config = kind(**sizes, **small, encoder="pixels", image=(12, 16))
    policy = {FlowBCConfig: FlowBC, GCBCConfig: GCBC, ACTConfig: ACT}[kind](config)  # type: ignore[arg-type]
    features = torch.rand(6, sizes["feature_size"], generator=generator(2)).numpy() * 255
    features[:, picture : picture + 3] = 0.1  # what is no picture has a size of about 1
    batch = {"features": features, "actions": torch.rand(6, 4, 3).numpy(), "valid": torch.full((6,), 4)}
    assert policy.update(batch)["loss"] > 0
    policy.save_pretrained(tmp_path)
    action, state = policy.predict(features, deterministic=True)
    again, _ = load_policy(tmp_path).predict(features, deterministic=True)
    assert action.tolist() == again.tolist()
    other = features.copy()
    other[:, -picture:] = 0.0  # of another goal
    assert policy.predict(other, deterministic=True)[0].tolist() != action.tolist()
    assert policy.due(None, 6).all() and not policy.due(state, 6).any()
    _, state = policy.predict(features, state)
    assert policy.due(state, 6).all()
    with pytest.raises(ValueError, match=r"image = \(64, 64\) must be \(H, W\) with H·W·3 at most"):
        kind(**sizes, encoder="pixels", image=(64, 64))
