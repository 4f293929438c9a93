from __future__ import annotations

import itertools

import pytest
import torch

from policies.distributions import gaussian_kl, gaussian_log_prob
from policies.multi_critic import Critics, clip_each_gradient, combine_advantages, explained_variance, gae
from policies.networks import MLP
from policies.normalization import ObservationNorm, ReturnScale, RunningMoments


def test_gae_equals_the_sum_it_stands_for():
    """A_t = sum_l (g lambda)^l d_{t+l} until the episode ends, written out for each step, slot and critic."""
    g = torch.Generator().manual_seed(0)
    steps, slots, heads, lam = 12, 5, 3, 0.9
    rewards, values, following = torch.randn(3, steps, slots, heads, generator=g, dtype=torch.float64)
    terminated = torch.rand(steps, slots, generator=g) < 0.15
    done = terminated | (torch.rand(steps, slots, generator=g) < 0.15)
    discounts = torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)
    found = gae(rewards, values, following, terminated, done, discounts, lam)
    assert terminated.any() and (done & ~terminated).any()
    for t, i, k in itertools.product(range(steps), range(slots), range(heads)):
        expected, factor = 0.0, 1.0
        for u in range(t, steps):
            bootstrap = 0.0 if terminated[u, i] else float(discounts[k] * following[u, i, k])
            expected += factor * float(rewards[u, i, k] + bootstrap - values[u, i, k])
            if done[u, i]:
                break
            factor *= float(discounts[k]) * lam
        assert float(found[t, i, k]) == pytest.approx(expected, abs=1e-9)


def test_the_scale_of_a_reward_does_not_matter_to_normalised_advantages():
    advantages = torch.randn(40, 16, 3, generator=torch.Generator().manual_seed(1))
    weights, scales = torch.tensor([1.0, 0.5, 2.0]), torch.tensor([0.1, 1.0, 10.0])
    base, _ = combine_advantages(advantages, weights)
    scaled, spread = combine_advantages(advantages * scales + 7.0, weights)
    torch.testing.assert_close(base, scaled, atol=1e-4, rtol=0)
    torch.testing.assert_close(spread, scales, atol=0.1, rtol=0.1)
    assert base.mean().abs() < 1e-6 and abs(base.std(correction=0) - 1) < 1e-6
    summed = (advantages * scales).sum(-1)
    assert torch.corrcoef(torch.stack([summed.flatten(), base.flatten()]))[0, 1] < 0.9


def test_a_head_with_hardly_any_spread_is_not_amplified():
    advantages = torch.randn(1000, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 1e-6])
    combined, _ = combine_advantages(advantages, torch.ones(2), floor=1e-3)
    alone, _ = combine_advantages(advantages[:, :1], torch.ones(1))
    torch.testing.assert_close(combined, alone, atol=0.01, rtol=0)
    nothing, _ = combine_advantages(torch.zeros(10, 2), torch.ones(2))
    assert torch.equal(nothing, torch.zeros(10))


def test_the_ensemble_equals_separate_critics_and_their_gradients():
    g = torch.Generator().manual_seed(3)
    ensemble = Critics(3, 6, (16, 8), g)
    x, targets = torch.randn(20, 6, generator=g), torch.randn(20, 3, generator=g)
    (ensemble(x) - targets).square().mean(0).sum().backward()
    clip_each_gradient(ensemble.parameters(), 0.5)
    norms = []
    for k in range(3):
        single = MLP((6, 16, 8, 1), "elu")
        linears = [layer for layer in single if isinstance(layer, torch.nn.Linear)]
        for layer, weight, bias in zip(linears, ensemble.weights, ensemble.biases, strict=True):
            layer.weight.data.copy_(weight[k].T)
            layer.bias.data.copy_(bias[k, 0])
        torch.testing.assert_close(single(x)[:, 0], ensemble(x)[:, k])
        (single(x)[:, 0] - targets[:, k]).square().mean().backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(single.parameters(), 0.5)))
        for layer, weight in zip(linears, ensemble.weights, strict=True):
            assert layer.weight.grad is not None and weight.grad is not None
            torch.testing.assert_close(layer.weight.grad, weight.grad[k].T, atol=1e-5, rtol=1e-4)
    assert max(norms) > 0.5
    assert not torch.equal(ensemble.weights[0][0], ensemble.weights[0][1])


def test_building_networks_leaves_the_global_random_stream_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = MLP((4, 8, 2), "silu", 0.01, torch.Generator().manual_seed(1))
    Critics(2, 4, (8,), torch.Generator().manual_seed(1))
    assert torch.equal(torch.rand(3), expected)
    again = MLP((4, 8, 2), "silu", 0.01, torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    with pytest.raises(ValueError, match="valid: elu, silu"):
        MLP((4, 8, 2), "softmax")


def test_running_moments_over_batches_equal_those_of_all_rows():
    rows = torch.randn(1000, 3, generator=torch.Generator().manual_seed(4)) * 3 + torch.tensor([0.0, 50.0, -1.0])
    moments, norm = RunningMoments(3), ObservationNorm(3, limit=2.0)
    for piece in rows.split([1, 9, 490, 500]):
        moments.update(piece)
        norm.update(piece)
    torch.testing.assert_close(moments.mean, rows.double().mean(0))
    torch.testing.assert_close(moments.variance, rows.double().var(0, correction=0))
    unclipped = (rows - rows.mean(0)) / (rows.var(0, correction=0) + 0.05).sqrt()
    torch.testing.assert_close(norm(rows), unclipped.clamp(-2, 2), atol=1e-4, rtol=1e-4)


def test_return_scale_follows_episodes_and_continues_between_rollouts():
    rewards = torch.randn(30, 4, 2, generator=torch.Generator().manual_seed(5)) * torch.tensor([0.1, 10.0])
    done = torch.rand(30, 4, generator=torch.Generator().manual_seed(6)) < 0.1
    scale = ReturnScale((0.9, 0.5))
    for part in (slice(0, 11), slice(11, 30)):
        scale.observe(rewards[part], done[part])
    seen, running = [], torch.zeros(4, 2)
    for reward, end in zip(rewards, done, strict=True):
        running = running * torch.tensor([0.9, 0.5]) + reward
        seen.append(running)
        running = running * (~end)[:, None]
    expected = torch.stack(seen).flatten(0, 1).std(0, correction=0)
    torch.testing.assert_close(scale.scale, expected, atol=1e-5, rtol=1e-5)


def test_gaussians_agree_with_torch_distributions():
    g = torch.Generator().manual_seed(7)
    x, m, n = torch.randn(3, 6, 4, generator=g)
    s, r = 0.3 * torch.randn(2, 4, generator=g)
    p, q = torch.distributions.Normal(m, s.exp()), torch.distributions.Normal(n, r.exp())
    torch.testing.assert_close(gaussian_log_prob(x, m, s), p.log_prob(x).sum(-1))
    torch.testing.assert_close(gaussian_kl(m, s, n, r), torch.distributions.kl_divergence(p, q).sum(-1))


def test_explained_variance_of_perfect_useless_and_constant():
    target = torch.stack([torch.arange(10.0), torch.arange(10.0), torch.ones(10)], -1)
    predicted = torch.stack([torch.arange(10.0) + 3, torch.zeros(10), torch.zeros(10)], -1)
    assert explained_variance(predicted, target).tolist() == pytest.approx([1.0, 0.0, 0.0])
