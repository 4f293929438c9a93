from __future__ import annotations

import pytest
import torch

from policies.encoders import make_encoder


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
