"""Weights in training as devices: what they add up to, and what noise does to each."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_nets import place, point

from nvaudit.device import add_terms, load_profile, operating_point
from nvaudit.mapping.conductance import layout
from nvaudit.perturb.cells import device_factors, device_offset, target_cells
from nvaudit.perturb.moments import code_moments
from nvaudit.retrain.crossbar.hardware import program
from nvaudit.retrain.device_noise import DeviceNoise, mapped_tensor
from nvaudit.retrain.noise import no_noise, shaped_noise, torch_generator
from nvaudit.retrain.quant import Groups, quantise

ENCODINGS = ["sign_magnitude", "differential", "offset"]


def _place(encoding="sign_magnitude", bits=6, **more):
    array = layout(load_profile("rram"), bits=bits, encoding=encoding)
    return replace(place("w", bits=bits), array=array, **more)


def _weight(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _sum(chip, where):
    """What the devices of a weight add up to, in weight units."""
    factors = torch.tensor(device_factors(where.array)).reshape(-1, *[1] * (chip.levels.dim() - 1))
    return ((chip.levels * factors).sum(0) - device_offset(where.array)) * chip.scale


def _generator(seed=0):
    return torch_generator("cpu", seed, "test")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("noise", ["device", "gaussian", "none"])
def test_the_weight_is_what_its_devices_add_up_to(encoding, noise):
    """For noise of the device, noise of the weight, and none; per tensor and per channel."""
    noises = {
        "device": DeviceNoise(point()), "gaussian": shaped_noise("gaussian", 0.1, 2.0), "none": no_noise,
    }  # fmt: skip
    for axes in ((), (0,)):
        where = _place(encoding, scale_axes=axes)
        grid = quantise(_weight(20, 30), where)
        chip, values = program(where, grid, noises[noise], _generator())
        assert chip.levels.shape == (where.array.slices * where.array.polarities, 20, 30)
        assert torch.allclose(_sum(chip, where), values, atol=1e-5)
        assert torch.equal(values, grid.values) == (noise == "none")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_without_noise_devices_hold_what_the_audit_programs(encoding):
    """Level by level."""
    where = _place(encoding)
    grid = quantise(_weight(20, 30), where)
    chip, _ = program(where, grid, no_noise, _generator())
    assert np.array_equal(chip.levels.numpy(), target_cells(mapped_tensor(where, grid)).levels)


def test_noise_of_the_device_has_its_law():
    """Every device has a draw of its own with the device's spread, σ = 0.3 levels; weights have the spread
    that the audit's own moments give."""
    where, at = _place(), point(sigma=0.3)
    grid = quantise(_weight(300, 200), where)
    chip, values = program(where, grid, DeviceNoise(at), _generator())
    off = (chip.levels.numpy() - target_cells(mapped_tensor(where, grid)).levels).reshape(3, -1)
    assert off.std(axis=1) == pytest.approx(0.3, rel=0.02)
    assert np.abs(np.corrcoef(off) - np.eye(3)).max() < 0.02
    code = grid.code.numpy().astype(np.int64)
    wanted = code_moments(at, where.array).rms(code)
    assert float(((values - grid.values) / grid.scale).std()) == pytest.approx(wanted, rel=0.02)
    again, _ = program(where, grid, DeviceNoise(at), _generator())
    other, _ = program(where, grid, DeviceNoise(at), _generator(1))
    assert torch.equal(chip.levels, again.levels)
    assert not torch.equal(chip.levels, other.levels)


def test_read_noise_is_drawn_once_per_step():
    """With read noise of 0.1 levels alone every device is off by so much, in another step by another draw."""
    profile = load_profile("rram")
    noisy = operating_point(add_terms(profile, read_noise="0.1level"), 0.0)
    where = _place()
    grid = quantise(_weight(100, 100), where)
    still = program(where, grid, no_noise, _generator())[0].levels
    drawn = [program(where, grid, DeviceNoise(noisy), _generator(seed))[0].levels for seed in (0, 1)]
    for levels in drawn:
        assert float((levels - still).std()) == pytest.approx(0.1, rel=0.02)
    assert not torch.equal(*drawn)
    silent = program(where, grid, DeviceNoise(operating_point(profile, 0.0)), _generator())[0].levels
    assert torch.equal(silent, still)


def test_noise_of_weights_goes_to_devices_by_significance():
    """Two bits a cell, f = 1, 4, 16: the deviations are in the same proportion, so that together they are the
    least that give this weight."""
    where = _place()
    grid = quantise(_weight(20, 30), where)
    chip, values = program(where, grid, shaped_noise("gaussian", 0.1, 2.0), _generator())
    off = chip.levels - torch.from_numpy(target_cells(mapped_tensor(where, grid)).levels)
    assert torch.allclose(off[1], 4 * off[0], atol=1e-5)
    assert torch.allclose(off[2], 16 * off[0], atol=1e-5)
    assert torch.allclose(off[0], (values - grid.values) / grid.scale / (1 + 16 + 256), atol=1e-6)


@pytest.mark.parametrize("noise", [DeviceNoise(point()), shaped_noise("gaussian", 0.1, 2.0)])
def test_groups_of_zeros_have_no_noise(noise):
    """Where a group is zero nothing is programmed; a zero in a group that is not has noise."""
    weight = _weight(4, 6)
    weight[:, :3] = 0
    weight[0, 3] = 0
    number = np.repeat(np.arange(8).reshape(4, 2), 3, axis=1)
    where = _place(groups=Groups(number, 8))
    grid = quantise(weight, where)
    chip, values = program(where, grid, noise, _generator())
    assert (values[:, :3] == 0).all()
    assert (chip.levels[:, :, :3] == 0).all()
    assert (values[:, 3:] != grid.values[:, 3:]).all()


def test_ternary_weights_have_one_bit():
    """One device for each polarity; without noise −a, 0 and a."""
    where = _place(bits=1, ternary=True)
    where = replace(where, array=layout(load_profile("rram"), bits=1, cell_bits=1))
    grid = quantise(_weight(20, 30), where)
    chip, values = program(where, grid, no_noise, _generator())
    assert set(chip.levels.abs().unique().tolist()) == {0.0, 1.0}
    assert torch.equal(_sum(chip, where), values)


def test_a_weight_of_zeros_only():
    """Its scale is zero, and stays so: nothing is divided by it."""
    where = _place()
    grid = quantise(torch.zeros(4, 5), where)
    for noise in (no_noise, shaped_noise("gaussian", 0.1, 2.0), DeviceNoise(point())):
        chip, values = program(where, grid, noise, _generator())
        assert torch.isfinite(chip.levels).all()
        assert (values == 0).all()
