"""The laws of the injected noise, and the grid that it is put on."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from training_nets import PLACES, Net, place, point

from nvaudit.device import load_profile
from nvaudit.mapping.conductance import layout
from nvaudit.mapping.quantize import quantize
from nvaudit.model.layout import Layout
from nvaudit.perturb.chip import MappedTensor, TensorLaw
from nvaudit.retrain.device_noise import DeviceNoise, device_sigma
from nvaudit.retrain.noise import (
    lognormal_noise,
    no_noise,
    noisy_weights,
    shaped_noise,
    standard,
    torch_generator,
)
from nvaudit.retrain.quant import (
    ArrayPlace,
    quantise,
    quantise_activation,
    quantise_all,
    stored_axes,
)

N = 200_000
ALPHA = 1e-4
"""False-alarm rate of each test of a law; the seeds are fixed, so a pass stays a pass."""


def draw(shape: str, th: float, count: int = N, seed: int = 0) -> np.ndarray:
    generator = torch_generator("cpu", seed, "test")
    return standard(shape, torch.empty(count), th, generator).numpy().astype(np.float64)  # type: ignore[arg-type]


def moments(shape: str, th: float) -> tuple[float, float]:
    """Mean and standard deviation of T-10 in closed form."""
    if shape == "gaussian":
        return 0.0, 1.0
    below, density = float(stats.norm.cdf(th)), float(stats.norm.pdf(th))
    if shape in ("rc", "lc"):
        mean = th * (1 - below) - density
        square = below - th * density + th * th * (1 - below)
    else:
        mean = -density / below
        square = 1 - th * density / below
    return (-mean if shape in ("lc", "lt") else mean), math.sqrt(square - mean * mean)


@pytest.mark.parametrize(
    ("c", "mean", "std", "clipped"),
    [
        (0.5, -0.198, 0.744, 0.31),
        (0.7, -0.143, 0.799, 0.24),
        (1.0, -0.083, 0.867, 0.16),
        (2.0, -0.0085, 0.980, 0.023),
    ],
)
def test_censoring_shifts_the_mean_as_known(c: float, mean: float, std: float, clipped: float):
    """E = c(1 − Φ(c)) − φ(c), with the spread and the clipped share that are known for four thresholds."""
    assert moments("rc", c)[0] == pytest.approx(c * stats.norm.sf(c) - stats.norm.pdf(c), abs=1e-12)
    assert moments("rc", c) == pytest.approx((mean, std), abs=6e-4)
    z = draw("rc", c)
    assert z.max() == pytest.approx(c)
    assert (z == np.float32(c)).mean() == pytest.approx(clipped, abs=5e-3)


@pytest.mark.parametrize("th", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("shape", ["gaussian", "rc", "lc", "rt", "lt"])
def test_moments_of_every_shape(shape: str, th: float):
    """Mean and spread of the draws are those of the closed form, within five standard errors."""
    z = draw(shape, th)
    mean, std = moments(shape, th)
    assert z.mean() == pytest.approx(mean, abs=5 * std / math.sqrt(N))
    assert z.std() == pytest.approx(std, rel=0.02)
    if shape != "gaussian":
        assert (z if shape[0] == "r" else -z).max() <= th + 1e-6


def test_distributions():
    """Gaussian and truncated draws follow their laws; censored ones do below the threshold."""
    assert stats.kstest(draw("gaussian", 0), "norm").pvalue > ALPHA
    assert stats.kstest(draw("rt", 1.0), stats.truncnorm(-np.inf, 1.0).cdf).pvalue > ALPHA
    assert stats.kstest(draw("lt", 1.0), stats.truncnorm(-1.0, np.inf).cdf).pvalue > ALPHA
    left = draw("lc", 1.0)
    assert stats.kstest(left[left > -1], stats.truncnorm(-1.0, np.inf).cdf).pvalue > ALPHA
    assert stats.kstest(draw("gaussian", 0, seed=1), stats.truncnorm(-1.0, np.inf).cdf).pvalue < ALPHA


def test_weight_space_noise_scales_with_the_largest_weight():
    """ΔW = max|W| σ z, for each scale by itself, and log-normal noise multiplies."""
    weight = torch.cat([torch.full((1, 1000), 4.0), torch.full((1, 1000), 0.5)])
    grid = quantise(weight, place("w"))
    noise = shaped_noise("gaussian", 0.1, 2.0)(place("w"), grid, torch_generator("cpu", 0, "t"))
    assert noise.std() == pytest.approx(0.4, rel=0.05)
    rows = place("w", scale_axes=(0,))
    noise = shaped_noise("gaussian", 0.1, 2.0)(rows, quantise(weight, rows), torch_generator("cpu", 0, "t"))
    assert noise[1].std() == pytest.approx(0.05, rel=0.1)
    moved = lognormal_noise(0.3)(place("w"), grid, torch_generator("cpu", 0, "t")) + grid.values
    theta = torch.log(moved / grid.values)[grid.values != 0].numpy()
    assert stats.kstest(theta / 0.3, "norm").pvalue > ALPHA


def test_equal_seeds_give_equal_noise():
    """The seed and the address decide; nothing global does."""
    torch.manual_seed(1)
    first = draw("rt", 0.5, 100)
    torch.manual_seed(2)
    assert (draw("rt", 0.5, 100) == first).all()
    assert (draw("rt", 0.5, 100, seed=1) != first).any()


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("axes", [(), (0,), (1,)])
def test_grid_is_the_audits(bits: int, axes: tuple[int, ...]):
    """Codes and scales are those that the audit maps the same weight to, bit for bit."""
    values = np.random.Generator(np.random.SFC64(3)).normal(size=(40, 30)).astype(np.float32)
    values[0] = 0
    ours = quantise(torch.from_numpy(values), place("w", bits=bits, scale_axes=axes))
    theirs = quantize(values, bits, axes)
    assert (ours.code.numpy() == theirs.code).all()
    assert (ours.scale.numpy() == theirs.scale).all()


def test_zero_and_own_grid():
    """A tensor of zeros stays zero; a grid of its own does not follow the weights."""
    zero = quantise(torch.zeros(3, 3), place("w"))
    assert (zero.values == 0).all()
    own = place("w", grid=np.float32(0.5))
    grid = quantise(torch.tensor([0.3, -100.0]), own)
    assert grid.code.tolist() == [1, -15]
    assert grid.values.tolist() == [0.5, -7.5]


def test_gradient_is_that_of_the_noisy_point():
    """The gradient at the noisy weight reaches the clean one unchanged (T, Algorithm 1)."""
    net = Net()
    drawn = noisy_weights(net, PLACES, shaped_noise("rc", 0.2, 2.0), torch_generator("cpu", 0, "t"))
    x = torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
    net({"x": x}, drawn)["y"].square().sum().backward()
    leaf = {key: value.detach().clone().requires_grad_() for key, value in drawn.items()}
    net({"x": x}, leaf)["y"].square().sum().backward()
    for key in leaf:
        torch.testing.assert_close(net.weights[key].grad, leaf[key].grad)


def test_no_noise_is_the_grid():
    """Without noise the network runs on the quantised weights."""
    net = Net()
    drawn = noisy_weights(net, PLACES, no_noise, torch_generator("cpu", 0, "t"))
    grids = quantise_all(net, PLACES)
    assert all(torch.allclose(drawn[key], grids[key].values, atol=1e-6) for key in drawn)


@pytest.mark.parametrize("profile", ["rram", "fefet1"])
def test_device_noise_has_the_law_of_the_audit(profile: str):
    """Training draws a weight's deviation from the distribution that the audit's chips have."""
    at, where = point(profile, 0.2), place("w", profile=profile)
    weight = torch.linspace(-1, 1, 31)
    grid = quantise(weight, where)
    ours = DeviceNoise(at).draw(where, grid, torch_generator("cpu", 0, "t"), 4000).numpy()
    tensor = MappedTensor("w", grid.code.numpy().astype(np.int16), grid.scale.numpy(), where.array, where.top)
    law = TensorLaw(tensor, at, every_device=True)
    theirs = np.stack([law.draw(0, trial).weights for trial in range(4000)]) - grid.values.numpy()
    for i in range(31):
        assert stats.ks_2samp(ours[:, i], theirs[:, i]).pvalue > ALPHA


def test_device_noise_without_a_closed_form():
    """Where no normal per weight is exact, the devices are drawn one by one, anew for every draw."""
    at = point("rram_65nm", None)
    array = layout(load_profile("rram_65nm"), bits=4)
    where = ArrayPlace("w", array, (), (0,), 8, None)
    grid = quantise(torch.linspace(-1, 1, 400), where)
    noise = DeviceNoise(at)
    generator = torch_generator("cpu", 0, "t")
    first, second = noise(where, grid, generator), noise(where, grid, generator)
    assert first.std() > 0
    assert (first != second).any()
    sigma = device_sigma(at, [where], {"w": grid})
    assert float(first.std()) == pytest.approx(sigma, rel=0.3)


def test_device_sigma_is_that_of_the_formula():
    """For T-13 the spread is σ_d sqrt(Σ 4^(iB)) / (2^H − 1) of max|W|."""
    grid = quantise(torch.linspace(-1, 1, 100), place("w"))
    assert device_sigma(point(sigma=0.3), [place("w")], {"w": grid}) == pytest.approx(
        0.3 * math.sqrt(17) / 15
    )


def test_activations():
    """Few bits: unsigned after a ReLU, symmetric else, gradients pass, zeros stay."""
    x = torch.linspace(0, 1, 50, requires_grad=True)
    y = quantise_activation(x, 2)
    assert y.unique().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    y.sum().backward()
    assert x.grad is not None
    assert (x.grad == 1).all()
    signed = quantise_activation(torch.linspace(-1, 1, 51), 2)
    assert signed.unique().tolist() == pytest.approx([-1, 0, 1])
    assert (quantise_activation(torch.zeros(4), 4) == 0).all()


def test_axes_of_the_stored_layout():
    """Output channels are found behind transposes and reshapes, or given up where they are merged."""
    assert stored_axes((3, 5), (1,), Layout([("transpose", (1, 0))])) == (0,)
    assert stored_axes((4, 3, 2, 2), (0,), Layout([("reshape", (4, 12))])) == (0,)
    assert stored_axes((4, 6), (1,), Layout([("reshape", (4, 2, 3))])) == (1, 2)
    assert stored_axes((4, 6), (1,), Layout([("reshape", (24,))])) == ()
