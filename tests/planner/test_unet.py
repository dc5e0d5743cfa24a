from __future__ import annotations

import math

import pytest
import torch

from diffplan.planner.unet import TemporalUNet, _through, fourier_features

COLUMNS = 5


@pytest.fixture
def network() -> TemporalUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TemporalUNet(columns=COLUMNS, width=8, multipliers=(1, 2, 2), blocks=1, kernel_size=3)


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 4, 4)])
def test_every_horizon_keeps_its_shape(multipliers, generator):
    network = TemporalUNet(columns=COLUMNS, width=8, multipliers=multipliers, blocks=1, kernel_size=3)
    for horizon in range(1, 41):
        sample = torch.randn(2, horizon, COLUMNS, generator=generator)
        with torch.no_grad():
            out = network(sample, torch.tensor([0, 3]))
        assert out.shape == sample.shape
        assert out.isfinite().all()


def test_mask_and_timestep_matter(network, generator):
    sample, t = torch.randn(1, 8, COLUMNS, generator=generator), torch.tensor([3])
    pinned = torch.zeros(1, 8, COLUMNS, dtype=torch.bool)
    assert torch.equal(network(sample, t), network(sample, t, pinned))
    pinned[0, 0, 1] = True
    assert not torch.allclose(network(sample, t), network(sample, t, pinned), atol=1e-4)
    assert not torch.allclose(network(sample, t), network(sample, t + 5), atol=1e-4)


@pytest.mark.parametrize("anchored", [(), (1,), (0, 3)])
def test_anchored_columns_begin_where_the_trajectory_does(anchored, generator):
    """The same weights say how far it strays from there: of what is given at the first token, of no other column."""

    def made(columns):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            sizes = {"width": 8, "multipliers": (1, 2), "blocks": 1, "kernel_size": 3}
            return TemporalUNet(columns=COLUMNS, anchored=columns, **sizes)

    sample, t = torch.randn(2, 6, COLUMNS, generator=generator), torch.tensor([1, 5])
    pinned = torch.zeros(2, 6, COLUMNS, dtype=torch.bool)
    pinned[0, 0, :2] = pinned[1, 3] = True  # the second trajectory's start is not given
    moved = made(anchored)(sample, t, pinned) - made(())(sample, t, pinned)
    expected = torch.zeros_like(moved)
    for column in set(anchored) & {0, 1}:
        expected[0, :, column] = sample[0, 0, column]
    torch.testing.assert_close(moved, expected)


def test_anchors_are_columns():
    with pytest.raises(ValueError, match="must lie below 5"):
        TemporalUNet(columns=COLUMNS, anchored=(5,))


def test_trajectories_of_a_batch_do_not_mix(network, generator):
    sample, t = torch.randn(3, 7, COLUMNS, generator=generator), torch.tensor([0, 4, 9])
    alone = torch.cat([network(sample[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(sample, t), alone, atol=1e-5, rtol=1e-5)


def test_a_scalar_timestep_is_everyones(network, generator):
    sample = torch.randn(2, 7, COLUMNS, generator=generator)
    assert torch.equal(network(sample, torch.tensor(4)), network(sample, torch.tensor([4, 4])))


def test_gradients_reach_every_parameter(network, generator):
    sample = torch.randn(4, 16, COLUMNS, generator=generator)
    network(sample, torch.arange(4), sample > 0).square().sum().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_saved_and_loaded_is_the_same_network(network, tmp_path, generator):
    network.save_pretrained(tmp_path)
    loaded = TemporalUNet.from_pretrained(tmp_path)
    kept = ("columns", "width", "blocks", "kernel_size")
    assert [loaded.config[k] for k in kept] == [network.config[k] for k in kept]
    assert list(loaded.config.multipliers) == list(network.config.multipliers)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in loaded.state_dict().items())
    sample, t = torch.randn(1, 7, COLUMNS, generator=generator), torch.tensor([3])
    torch.testing.assert_close(loaded(sample, t), network(sample, t), atol=1e-5, rtol=0)


def test_config_makes_the_same_architecture(network):
    again = TemporalUNet.from_config(network.config)
    shapes, want = ({k: v.shape for k, v in n.state_dict().items()} for n in (again, network))
    assert shapes == want


@pytest.mark.parametrize(
    "wrong",
    [
        {"columns": 0},
        {"blocks": 0},
        {"multipliers": ()},
        {"width": 12},
        {"width": 0},
        {"width": -8},
        {"kernel_size": 4},
        {"kernel_size": 0},
        {"kernel_size": -1},
    ],
    ids=str,
)
def test_refusals(wrong):
    with pytest.raises(ValueError):
        TemporalUNet(**({"columns": COLUMNS, "width": 8} | wrong))


def test_blocks_do_what_their_own_forward_does(network, generator):
    """Their shifts are made all at once; what comes out is the blocks' own answer."""
    x, t = torch.randn(2, 64, 8, generator=generator), torch.randn(2, 4 * network.config.width, generator=generator)
    levels = [*network.down, network.middle, *network.up]
    shifts = iter(network._shifts(t))
    for block in (block for blocks in levels for block in blocks):
        into = x[:, : block.conv_in.conv1d.in_channels].repeat(1, 8, 1)[:, : block.conv_in.conv1d.in_channels]
        torch.testing.assert_close(_through([block], into, shifts), block(into, t))


@pytest.mark.parametrize("octaves", [0, 1, 4])
def test_features_are_waves_of_each_octave(octaves, generator):
    values, given = torch.randn(3, 5, 2, generator=generator), torch.ones(3, 5, 2)
    waves = [f(math.pi * 2**k * values) for k in range(octaves) for f in (torch.sin, torch.cos)]
    torch.testing.assert_close(fourier_features(values, given, octaves), torch.cat([values, given, *waves], dim=-1))
