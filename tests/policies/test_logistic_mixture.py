from __future__ import annotations

import math

import pytest
import torch

from policies.logistic_mixture import log_prob, nearest_bin, sample, split

BINS = 256


def mixture(shape: tuple[int, ...], components: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0):
    """Mixtures [*shape, M] whose means reach beyond the bins, with scales from far below one bin to far above all."""
    generator = torch.Generator().manual_seed(seed)
    logits, means, scales = torch.randn(3, *shape, components, generator=generator, dtype=dtype)
    return logits.log_softmax(-1), means, 2.0 * scales - 3.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_of_all_bins_sum_to_one(dtype):
    centres = torch.linspace(-1, 1, BINS, dtype=dtype)
    probabilities = log_prob(centres[:, None], mixture((40,), dtype=dtype), BINS).exp()
    torch.testing.assert_close(probabilities.sum(0), torch.ones(40, dtype=dtype), atol=1e-4, rtol=0)
    assert (probabilities >= 0).all()


def test_one_logistic_in_closed_form():
    def S(v: float) -> float:
        return 1 / (1 + math.exp(-v))

    mean, scale, half = 0.1, 0.05, 1 / 255
    one = (torch.zeros(1, 1), torch.full((1, 1), mean), torch.full((1, 1), math.log(scale)))
    centre = -1 + 2 * 150 / 255
    for x, expected in (
        (centre, S((centre + half - mean) / scale) - S((centre - half - mean) / scale)),
        (-1.0, S((-1 + half - mean) / scale)),
        (1.0, 1 - S((1 - half - mean) / scale)),
    ):
        assert log_prob(torch.tensor([x]), one, BINS).item() == pytest.approx(math.log(expected), rel=1e-4)
    assert log_prob(torch.tensor([centre + 0.3 * half]), one, BINS) == log_prob(torch.tensor([centre]), one, BINS)


def test_far_tails_keep_finite_likelihoods_and_gradients():
    means = torch.tensor([[-40.0], [0.9], [40.0]], requires_grad=True)
    log_scales = torch.full((3, 1), -7.0, requires_grad=True)
    value = log_prob(torch.tensor([0.5, -1.0, -1.0]), (torch.zeros(3, 1), means, log_scales), BINS)
    value.sum().backward()
    for tensor in (value, means.grad, log_scales.grad):
        assert tensor is not None and torch.isfinite(tensor).all()
    assert means.grad is not None and means.grad.sign().ravel().tolist() == [1.0, -1.0, -1.0]


def test_gradients_agree_with_differences():
    x = torch.tensor([-1.0, -0.3, 0.0, 0.7, 1.0], dtype=torch.float64)
    outputs = torch.randn(5, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda o: log_prob(x[:, None], split(o, 4, -5.0), BINS), outputs)


def test_samples_are_bins_as_frequent_as_they_are_likely():
    few, draws = 9, 40_000
    mixtures = mixture((4,), seed=2)
    noise = torch.randn(draws, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expanded = tuple(part.expand(draws, 4, 3) for part in mixtures)
    drawn = sample(noise, expanded, few)  # type: ignore[arg-type]
    centres = torch.linspace(-1, 1, few, dtype=torch.float64)
    probabilities = log_prob(centres[:, None], mixtures, few).exp()
    frequencies = torch.stack([(drawn - centre).abs().lt(1e-9).double().mean(0) for centre in centres])
    torch.testing.assert_close(frequencies.sum(0), torch.ones(4, dtype=torch.float64))
    assert (frequencies - probabilities).abs().max() < 4 * math.sqrt(0.25 / draws)


def test_without_noise_it_is_the_centre_of_the_likeliest_logistic():
    log_weights = torch.tensor([[0.3, 0.6, 0.1]]).log()
    means = torch.tensor([[-1.0, 0.2, 1.0]])
    drawn = sample(torch.zeros(1, 4), (log_weights, means, torch.zeros(1, 3)), BINS)
    torch.testing.assert_close(drawn, nearest_bin(torch.tensor([0.2]), BINS))


def test_values_beyond_the_bins_are_clipped_and_centres_stay():
    centres = torch.linspace(-1, 1, BINS)
    torch.testing.assert_close(nearest_bin(centres, BINS), centres, atol=1e-6, rtol=0)
    assert nearest_bin(torch.tensor([-3.0, 1.2]), BINS).tolist() == [-1.0, 1.0]
