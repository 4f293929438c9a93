"""Discovery rewards: their closed forms, what each learns in worlds with a known answer, and their files."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from policies.base import CheckpointError
from policies.checkpoint import module_arrays, write_checkpoint
from policies.discovery import METHODS, STEP, Discovery, DiscoveryConfig

LEARNING = ("lsd", "metra", "csd", "diayn", "dusdi", "rnd")
MIDDLE = torch.tensor((0.5, 0.0, 0.02))  # of a table, m
TINY: dict[str, Any] = {"hidden": (16, 16), "updates": 4, "batch": 64, "buffer": 300}


def make(method: str = "lsd", **changes: Any) -> Discovery:
    return Discovery(DiscoveryConfig(method, **(TINY | changes)))


def draw(n: int, objects: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions before and after a step, float64[n, objects, 3] (m), about the middle of a table."""
    g = torch.Generator().manual_seed(seed)
    before = MIDDLE + 0.1 * torch.randn(n, objects, 3, generator=g).double()
    return before, before + 0.01 * torch.randn(n, objects, 3, generator=g).double()


def teach(discovery: Discovery, rounds: int = 2, n: int = 50) -> None:
    """Show transitions and learn from them."""
    for seed in range(rounds):
        discovery.remember(*draw(n, discovery.config.objects, seed), discovery.codes(n))
        discovery.update()


def silent(network: nn.Module, logits: torch.Tensor) -> None:
    """Make a perceptron answer the same whatever it is asked."""
    *_, last = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(logits)


# -- rewards in closed form ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("planar", [True, False])
def test_position_is_the_change_along_the_code(planar):
    discovery = make("position", objects=2, planar=planar)
    (before, after), z = draw(20, 2), make("position", objects=2, planar=planar).codes(20)
    axes = 2 if planar else 3
    expected = ((after - before)[..., :axes].flatten(1) / STEP * z).sum(dim=1)
    torch.testing.assert_close(discovery.reward(before, after, z).double(), expected, atol=1e-4, rtol=0)
    assert not discovery.learns and discovery.update() == {}


@pytest.mark.parametrize("method", ["lsd", "metra", "csd"])
def test_projections_are_the_change_of_the_map_along_the_code(method):
    discovery = make(method, objects=2)
    teach(discovery)
    (before, after), z = draw(20, 2, seed=9), discovery.codes(20, 0)

    def image(x: torch.Tensor) -> torch.Tensor:
        return discovery.networks.f(((x[..., :2] - MIDDLE[:2]) / STEP).flatten(1).float())

    with torch.no_grad():
        expected = ((image(after) - image(before)) * z).sum(dim=1)
    reward = discovery.reward(before, after, z)
    torch.testing.assert_close(reward, expected, atol=1e-4, rtol=1e-4)
    back = discovery.reward(after, before, z)  # there and back again is worth nothing
    torch.testing.assert_close(reward, -back)
    assert torch.equal(discovery.reward(before, before, z), torch.zeros(20))


def test_diayn_is_how_much_likelier_the_code_is_than_by_chance():
    discovery = make("diayn", code_size=4, discrete=True)
    logits = torch.tensor([2.0, -1.0, 0.5, 0.0])
    silent(discovery.networks.q, logits)
    reward = discovery.reward(*draw(4), torch.eye(4))
    expected = [math.log(math.exp(x) / sum(map(math.exp, logits.tolist())) / 0.25) for x in logits.tolist()]
    assert reward.tolist() == pytest.approx(expected, abs=1e-5)
    silent(discovery.networks.q, torch.zeros(4))
    assert discovery.reward(*draw(4), torch.eye(4)).tolist() == pytest.approx([0.0] * 4, abs=1e-6)


def test_diayn_of_continuous_codes_is_a_gaussian_about_the_guess():
    discovery = make("diayn", code_size=2)
    silent(discovery.networks.q, torch.tensor([1.0, 0.0]))
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert discovery.reward(*draw(3), z).tolist() == pytest.approx([0.0, -4.0, -8.0], abs=1e-5)


def test_dusdi_is_the_mean_over_objects_less_a_tenth_of_what_leaks():
    discovery = make("dusdi", objects=2)
    own, other = torch.tensor([3.0, 0, 0, 0, 0]), torch.tensor([0.0, 2.0, 0, 0, 0])
    for i in range(2):
        silent(discovery.networks.q[i], own)
        silent(discovery.networks.others[i], other)
    z = torch.cat([torch.eye(5)[[0, 1]], torch.eye(5)[[0, 0]]], dim=1)  # codes (0, 0) and (1, 0)
    tells = [math.log(math.exp(x) / (math.exp(3) + 4) * 5) for x in (3.0, 0.0)]  # code 0; code 1
    leaks = [math.log(math.exp(x) / (math.exp(2) + 4) * 5) for x in (0.0, 2.0)]
    one, two = (tell - 0.1 * leak for tell, leak in zip(tells, leaks, strict=True))
    assert discovery.reward(*draw(2, 2), z).tolist() == pytest.approx([one, (one + two) / 2], abs=1e-5)


def test_dusdi_asks_each_object_about_its_own_code_alone():
    discovery = make("dusdi", objects=2)
    teach(discovery)
    (_, after), z = draw(6, 2), discovery.codes(6, 0)
    moved = after.clone()
    moved[:, 1] += 0.05
    with torch.no_grad():
        a, b = (discovery._logits(discovery._centred(discovery.state(x)), z) for x in (after, moved))
    assert torch.equal(a[0][0], b[0][0]) and not torch.equal(a[0][1], b[0][1])  # own
    assert not torch.equal(a[1][0], b[1][0]) and torch.equal(a[1][1], b[1][1])  # of the others
    assert torch.isfinite(make("dusdi", objects=1).reward(*draw(3), make("dusdi").codes(3))).all()


def test_rnd_is_the_guess_s_error_over_its_running_mean():
    discovery = make("rnd")
    (before, after), z = draw(20), discovery.codes(20)
    net, s = discovery.networks, discovery._centred(discovery.state(after))
    with torch.no_grad():
        error = (net.guess(s) - net.target(s)).square().mean(dim=1)
    torch.testing.assert_close(discovery.reward(before, after, z), error)  # in its own unit before any data
    net.spread.fill_(4.0)
    torch.testing.assert_close(discovery.reward(before, after, z), error / 4)


def test_rnd_tires_of_what_it_has_seen():
    discovery = make("rnd", updates=60)
    target = module_arrays(discovery.networks.target)
    (_, known), z = draw(100), discovery.codes(100)
    for _ in range(4):
        discovery.remember(known, known, z)
        discovery.update()
    new = known + torch.tensor((0.4, 0.4, 0.0))
    assert discovery.reward(known, known, z).mean() < 0.3 * discovery.reward(new, new, z).mean()
    after = module_arrays(discovery.networks.target)
    assert all(np.array_equal(target[name], after[name]) for name in target)


def test_random_rewards_nothing():
    assert torch.equal(make("random").reward(*draw(3), make("random").codes(3)), torch.zeros(3))


# -- what is learnt ------------------------------------------------------------------------------------------------


def walk(discovery: Discovery, rounds: int, n: int = 128) -> dict[str, float]:
    """Learn from steps along the code that are one `STEP` long, from anywhere."""
    figures: dict[str, float] = {}
    for seed in range(rounds):
        before, _ = draw(n, seed=seed)
        z = discovery.codes(n)
        change = nn.functional.pad(z[:, None, :2], (0, 1)).double() * STEP
        discovery.remember(before, before + change, z)
        figures = discovery.update()
    return figures


def test_lsd_s_map_stretches_nothing():
    discovery = make("lsd", updates=40)
    figures = walk(discovery, 4)
    a, b = (discovery._centred(discovery.state(x)) for x in draw(3000, seed=3))
    far = 3 * torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for other in (b, far):
            stretched = (discovery.networks.f(a) - discovery.networks.f(other)).norm(dim=1) / (a - other).norm(dim=1)
            assert stretched.max() < 1.01
    assert 0.3 < figures["gain"] <= 1.01


def test_metra_comes_to_the_edge_of_its_constraint():
    discovery = make("metra", updates=60, learning_rate=3e-3, multiplier=3.0, multiplier_rate=1e-2)
    figures = walk(discovery, 8)
    before, _ = draw(500, seed=77)
    z = discovery.codes(500, 5)
    after = before + nn.functional.pad(z[:, None], (0, 1)).double() * STEP
    net = discovery.networks
    with torch.no_grad():
        s, t = (discovery._centred(discovery.state(x)) for x in (before, after))
        length = (net.f(t) - net.f(s)).norm(dim=1)
    assert 0.85 < length.mean() < 1.15 and length.max() < 1.6
    assert discovery.reward(before, after, z).mean() > 0.8  # as far as is allowed, along the code
    assert figures["multiplier"] != 3.0


def test_csd_allows_more_where_less_was_expected():
    discovery = make("csd", updates=60, learning_rate=3e-3)
    g = torch.Generator().manual_seed(0)
    for seed in range(5):  # always a step to the left, hardly ever another
        before, _ = draw(128, seed=seed)
        change = torch.tensor((-1.0, 0.0, 0.0)) + 0.1 * torch.randn(128, 1, 3, generator=g)
        discovery.remember(before, before + change * STEP, discovery.codes(128))
        discovery.update()
    before, _ = draw(100, seed=50)
    s = discovery._centred(discovery.state(before))
    with torch.no_grad():
        mean, log_std = discovery.networks.density(s).chunk(2, dim=-1)
    torch.testing.assert_close(mean.mean(dim=0), torch.tensor([-1.0, 0.0]), atol=0.15, rtol=0)
    usual, unusual = torch.tensor((-1.0, 0.0)), torch.tensor((1.0, 0.0))
    surprise = [((x - mean) / log_std.exp()).square().mean() for x in (usual, unusual)]
    assert surprise[1] > 5 * surprise[0]


def test_diayn_tells_codes_apart_by_where_they_lead():
    discovery = make("diayn", code_size=4, discrete=True, updates=40, learning_rate=3e-3)
    corners = torch.tensor([[0.1, 0.1], [0.1, -0.1], [-0.1, 0.1], [-0.1, -0.1]]).double()

    def lead(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        before, after = draw(n, seed=seed)
        z = discovery.codes(n, seed)
        after[:, 0, :2] = MIDDLE[:2] + corners[z.argmax(dim=1)] + 0.1 * (after - before)[:, 0, :2]
        return before, after, z

    first = discovery.reward(*lead(200, 9)).mean()
    for seed in range(3):
        discovery.remember(*lead(100, seed))
        discovery.update()
    assert abs(first) < 0.2 and discovery.reward(*lead(200, 9)).mean() > 0.9 * math.log(4)
    before, after, z = lead(200, 9)
    assert discovery.reward(before, after, z.roll(1, dims=1)).max() < -1.0


def test_dusdi_learns_codes_object_by_object():
    discovery = make("dusdi", objects=2, updates=60, learning_rate=3e-3)

    def lead(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        before, after = draw(n, 2, seed)
        z = discovery.codes(n, seed)
        spot = z.reshape(n, 2, 5).argmax(-1).double()
        after[..., 0] = MIDDLE[0] + 0.1 * (spot - 2)
        return before, after, z

    for seed in range(4):
        discovery.remember(*lead(150, seed))
        discovery.update()
    assert discovery.reward(*lead(200, 9)).mean() > 0.8 * math.log(5)


def test_the_multiplier_learns_at_a_rate_of_its_own():
    quick, slow = (make("metra", multiplier_rate=rate) for rate in (1e-1, 1e-4))
    for discovery in (quick, slow):
        teach(discovery)
    start = math.log(30.0)
    moved = [abs(d.networks.log_multiplier.item() - start) for d in (quick, slow)]
    assert moved[0] > 100 * moved[1] > 0


# -- keeping -------------------------------------------------------------------------------------------------------


def same(a: Discovery, b: Discovery) -> bool:
    x, y = module_arrays(a.networks), module_arrays(b.networks)
    return x.keys() == y.keys() and all(np.array_equal(x[name], y[name]) for name in x)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_bits_whatever_the_global_stream(method):
    made = []
    for seed in (0, 0, 1):
        torch.rand(seed + 1)
        before = torch.get_rng_state()
        discovery = make(method, seed=seed)
        teach(discovery)
        assert torch.equal(torch.get_rng_state(), before)
        made.append(discovery)
    assert same(made[0], made[1]) and torch.equal(made[0].codes(3), made[1].codes(3))
    if method in LEARNING:
        assert not same(made[0], made[2])


@pytest.mark.parametrize("method", LEARNING)
def test_rewarding_changes_nothing(method):
    discovery, other = make(method, objects=2), make(method, objects=2)
    for _ in range(3):
        a = discovery.reward(*draw(8, 2), discovery.codes(8, 0))
    assert torch.equal(a, other.reward(*draw(8, 2), discovery.codes(8, 0)))
    assert same(discovery, other)


@pytest.mark.parametrize("method", METHODS)
def test_learning_goes_on_bit_for_bit_after_loading(method, tmp_path):
    discovery = make(method)
    teach(discovery, 3)  # more than the buffer holds in the end
    discovery.remember(*draw(50, seed=20), discovery.codes(50))  # shown, and not yet learnt from
    discovery.save(tmp_path / "d")
    other = Discovery.load(tmp_path / "d")
    assert other.config == discovery.config and same(discovery, other)
    for d in (discovery, other):
        figures = d.update()
        assert bool(figures) == (method in LEARNING)
        teach(d, 4)
    assert same(discovery, other) and torch.equal(discovery.codes(4), other.codes(4))
    z = discovery.codes(8, 0)
    assert torch.equal(discovery.reward(*draw(8), z), other.reward(*draw(8), z))


def test_the_buffer_keeps_the_last_transitions():
    discovery = make("diayn", buffer=60)
    for seed in range(3):
        discovery.remember(*draw(50, seed=seed), discovery.codes(50))
        discovery.update()
    shown = torch.cat([discovery.state(draw(50, seed=seed)[0]) for seed in range(3)])
    assert torch.equal(discovery._columns[0], shown[-60:])


def test_without_training_state_it_rewards_the_same_and_does_not_resume(tmp_path):
    discovery = make("metra")
    teach(discovery)
    discovery.save(tmp_path / "d", training=False)
    other = Discovery.load(tmp_path / "d", training=False)
    z = discovery.codes(8, 0)
    assert torch.equal(discovery.reward(*draw(8), z), other.reward(*draw(8), z))
    with pytest.raises(CheckpointError, match="holds no training"):
        Discovery.load(tmp_path / "d")


def test_damaged_and_foreign_folders_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="not a policy directory"):
        Discovery.load(tmp_path / "none")
    write_checkpoint(tmp_path / "other", "act", {}, {})
    with pytest.raises(CheckpointError, match="holds a 'act', not the expected 'discovery'"):
        Discovery.load(tmp_path / "other")
    write_checkpoint(tmp_path / "wrong", "discovery", {"method": "dreams"}, {})
    with pytest.raises(CheckpointError, match="Unknown discovery method 'dreams'"):
        Discovery.load(tmp_path / "wrong")
    write_checkpoint(tmp_path / "odd", "discovery", {"colour": 1}, {})
    with pytest.raises(CheckpointError, match="Unknown entry 'colour'"):
        Discovery.load(tmp_path / "odd")


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_take_several_objects_and_heights(method):
    discovery = make(method, objects=2, planar=False)
    teach(discovery)
    reward = discovery.reward(*draw(5, 2), discovery.codes(5))
    assert reward.shape == (5,) and reward.dtype == torch.float32 and torch.isfinite(reward).all()
    assert discovery.config.state_size == 6
    sizes = [layer.in_features for layer in discovery.networks.modules() if isinstance(layer, nn.Linear)]
    assert all(a > 0 for a, _ in pairwise((*sizes, 1)))
