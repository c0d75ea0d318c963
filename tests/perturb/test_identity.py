"""The identity law: without noise a chip is the quantised model, bit for bit."""

import numpy as np
import pytest

from nvaudit.device import load_profile, operating_point, profile_names
from nvaudit.mapping.conductance import layout
from nvaudit.mapping.quantize import dequantize, quantize
from nvaudit.perturb.chip import MappedTensor, TensorLaw

ENCODINGS = ("sign_magnitude", "differential", "offset")
VALUES = np.random.default_rng(0).standard_normal((6, 5, 3)).astype(np.float32)
VALUES[2] = 0.0  # a channel without weights


def silent_points(profile):
    """The profile at sigma 0, and at its default with every term off."""
    off = operating_point(profile, disable=[term.name for term in profile.noise])
    return [off] if profile.sigma is None else [operating_point(profile, 0.0), off]


@pytest.mark.parametrize("channel_axes", [(), (0,), (2,)], ids=["tensor", "axis0", "axis2"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", profile_names())
def test_without_noise_the_weights_are_the_quantised_ones(name, encoding, channel_axes):
    """σ = 0, and all terms off: every bundled device, both ways of drawing, scales per tensor and channel."""
    profile = load_profile(name)
    codes = quantize(VALUES, 8, channel_axes)
    wanted = dequantize(codes.code, codes.scale)
    array = layout(profile, bits=8, encoding=encoding)
    tensor = MappedTensor("w", codes.code, codes.scale, array, 255)
    for point in silent_points(profile):
        for every_device in (False, True):
            drawn = TensorLaw(tensor, point, every_device).draw(0, 3)
            assert drawn.weights.dtype == np.float32
            assert drawn.weights.tobytes() == wanted.tobytes()
            assert drawn.read_variance is None


@pytest.mark.parametrize("bits", [1, 4, 7, 14])
@pytest.mark.parametrize("name", ["rram", "fefet1", "rram_65nm", "pcm"])
def test_any_number_of_bits(name, bits):
    """The law holds for every H, also where the cell bits do not divide it."""
    profile = load_profile(name)
    codes = quantize(VALUES, bits)
    tensor = MappedTensor("w", codes.code, codes.scale, layout(profile, bits=bits), 2**bits - 1)
    for every_device in (False, True):
        drawn = TensorLaw(tensor, silent_points(profile)[0], every_device).draw(0, 0)
        assert drawn.weights.tobytes() == dequantize(codes.code, codes.scale).tobytes()


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1,)])
@pytest.mark.parametrize("every_device", [False, True])
def test_any_shape(shape, every_device):
    """A scalar, and tensors without elements, are chips too."""
    profile = load_profile("rram")
    codes = quantize(np.full(shape, -0.5, np.float32), 8)
    tensor = MappedTensor("w", codes.code, codes.scale, layout(profile, bits=8), 255)
    drawn = TensorLaw(tensor, operating_point(profile, 0.0), every_device).draw(0, 0)
    assert drawn.weights.shape == shape
    assert drawn.weights.tobytes() == np.asarray(dequantize(codes.code, codes.scale)).tobytes()
    noisy = TensorLaw(tensor, operating_point(profile, 0.4), every_device).draw(0, 0).weights
    assert noisy.shape == shape
    assert np.isfinite(noisy).all()
    assert (np.abs(noisy - drawn.weights) < 0.5).all()
    assert noisy.size == 0 or (noisy != drawn.weights).all()
