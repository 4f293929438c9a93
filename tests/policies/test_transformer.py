from __future__ import annotations

import math

import pytest
import torch

from policies.transformer import Attention, DecoderBlock, TransformerDecoder, TransformerEncoder


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def test_attention_is_the_fused_kernels():
    module = Attention(8, 2, generator())
    x, memory, mask = (
        normal(3, 5, 8),
        normal(3, 4, 8, seed=2),
        torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0]]) > 0,
    )

    def heads(y: torch.Tensor) -> torch.Tensor:
        return y.reshape(3, -1, 2, 4).transpose(1, 2)

    query, key, value = heads(module.query(x)), heads(module.key(memory)), heads(module.value(memory))
    wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask[:, None, None])
    torch.testing.assert_close(module(x, memory, mask), module.out(wanted.transpose(1, 2).reshape(3, 5, 8)))


def test_one_place_to_read_is_read_whole():
    module = Attention(8, 4, generator())
    memory = normal(2, 1, 8)
    wanted = module.out(module.value(memory)).expand(2, 3, 8)
    torch.testing.assert_close(module(normal(2, 3, 8, seed=2), memory), wanted)


def test_what_is_masked_is_not_read():
    encoder = TransformerEncoder(8, 2, 16, 2, generator())
    x = normal(2, 5, 8)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    other = x.clone()
    other[1, [2, 4]] += 9.0
    seen, changed = encoder(x, mask), encoder(other, mask)
    torch.testing.assert_close(seen[1, [0, 1, 3]], changed[1, [0, 1, 3]])
    torch.testing.assert_close(seen[1, [0, 1, 3]], encoder(x[1:, [0, 1, 3]])[0])


def test_the_first_rows_alone_are_the_same_as_among_all():
    encoder, x = TransformerEncoder(8, 2, 16, 3, generator()), normal(2, 5, 8)
    torch.testing.assert_close(encoder(x, rows=2), encoder(x)[:, :2])


def test_an_encoder_has_no_order_but_its_tokens():
    encoder, x, order = TransformerEncoder(8, 2, 16, 2, generator()), normal(2, 5, 8), [3, 1, 4, 0, 2]
    torch.testing.assert_close(encoder(x[:, order]), encoder(x)[:, order])


def test_queries_shared_by_all_rows_are_read_as_if_repeated():
    decoder, memory = TransformerDecoder(8, 2, 16, 2, generator()), normal(3, 4, 8)
    queries = normal(1, 5, 8, seed=2)
    torch.testing.assert_close(decoder(queries, memory), decoder(queries.expand(3, 5, 8).contiguous(), memory))


def test_every_layer_is_used_and_learns():
    decoder, queries, memory = TransformerDecoder(8, 2, 16, 3, generator()), normal(1, 5, 8), normal(2, 3, 8, seed=2)
    plain = decoder(queries, memory)
    plain.square().mul(normal(*plain.shape, seed=3)).sum().backward()
    for block in decoder.blocks:
        assert isinstance(block, DecoderBlock)
        for name, weight in block.named_parameters():
            if not name.endswith("key.bias"):  # shifts all of a query's scores alike
                assert weight.grad is not None and weight.grad.abs().max() > 1e-6, name
        with torch.no_grad():
            block.cross.out.bias.add_(normal(8, seed=4))
            assert (decoder(queries, memory) - plain).abs().max() > 0.01
            block.cross.out.bias.sub_(normal(8, seed=4))


def test_weights_are_orthogonal_and_the_callers_chance_alone():
    before = torch.get_rng_state()
    first, second, other = (TransformerDecoder(8, 2, 16, 2, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [module.state_dict() for module in (first, second, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    name = "blocks.1.cross.key.weight"
    assert not torch.equal(weights[0][name], weights[2][name])
    torch.testing.assert_close(weights[0][name] @ weights[0][name].T, torch.eye(8))
    assert Attention(8, 2).scale == pytest.approx(1 / math.sqrt(4))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width = 8 must be a multiple of heads = 3"):
        Attention(8, 3)
