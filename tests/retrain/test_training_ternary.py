"""Ternary weights: threshold and scale, gradients, and that the audit maps them as they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_nets import CROSS_ENTROPY, Net, place, task

from nvaudit.mapping.quantize import dequantize, quantize
from nvaudit.retrain.noise import no_noise, noisy_weights, torch_generator
from nvaudit.retrain.quant import (
    TERNARY_THRESHOLD,
    quantise,
    quantise_activation,
    settle_ternary,
    straight_through,
    ternarise,
)


def ternary_place(key: str, scale_axes: tuple[int, ...] = ()):
    return replace(place(key, bits=1), ternary=True, scale_axes=scale_axes)


def test_threshold_and_scale_by_hand():
    """Of max|W| = 2 the threshold is 0.1, inclusive; a is the mean of what is above it."""
    code, scale = ternarise(torch.tensor([2.0, -1.0, 0.1, -0.1, 0.0, 0.12], dtype=torch.float64))
    assert TERNARY_THRESHOLD == 0.05
    assert code.tolist() == [1, -1, 0, 0, 0, 1]
    assert scale.item() == pytest.approx(3.12 / 3)


def test_channels_have_their_own():
    """With one scale per channel, threshold and a are each channel's."""
    code, scale = ternarise(torch.tensor([[2.0, 0.05], [0.04, 0.001]]), (0,))
    assert code.tolist() == [[1, 0], [1, 0]]
    assert scale.tolist() == [[2.0], [pytest.approx(0.04)]]


@pytest.mark.parametrize("shape", [(0,), (0, 3), (4,), ()])
def test_zeros_and_nothing(shape):
    """A tensor of zeros stays one, with the scale 0; an empty one is let through."""
    code, scale = ternarise(torch.zeros(shape))
    assert code.shape == shape
    assert not code.any()
    assert scale == 0


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([(), (0,), (1,)]))
def test_a_second_time_changes_nothing_and_the_audit_sees_the_same(rows, seed, axes):
    """What is written is ternary already, and one magnitude bit maps it without any error (T-11, H = 1)."""
    rng = np.random.Generator(np.random.SFC64(seed))
    weight = torch.from_numpy(rng.normal(size=(rows, 3)).astype(np.float32))
    code, scale = ternarise(weight, axes)
    written = code * scale
    again, same = ternarise(written, axes)
    assert torch.equal(again, code)
    assert torch.equal(same * again, written)
    mapped = quantize(written.numpy(), 1, axes)
    assert (mapped.code == code.numpy()).all()
    assert (dequantize(mapped.code, mapped.scale) == written.numpy()).all()


def test_gradient_goes_straight_through():
    """The gradient is that at the ternary point, and goes to the clean weight unchanged, zeros included."""
    net = Net()
    where = (ternary_place("w1"), ternary_place("w2"))
    of = task()
    batch = of.feed.take(np.arange(32))
    weights = noisy_weights(net, where, no_noise, torch_generator("cpu", 0, "test"))
    CROSS_ENTROPY(net(batch.inputs, weights)["y"], batch.labels, None).backward()
    leaves = {w.key: quantise(net.weights[w.key], w).values.clone().requires_grad_() for w in where}
    CROSS_ENTROPY(net(batch.inputs, leaves)["y"], batch.labels, None).backward()
    for key, leaf in leaves.items():
        assert torch.allclose(net.weights[key].grad, leaf.grad)
        assert (net.weights[key].grad[leaf.detach() == 0] != 0).any()


def test_settled_weights_are_ternary():
    """What is written are the ternary values, and the network computes the same with them."""
    net = Net()
    where = (ternary_place("w1"), ternary_place("w2", (0,)))
    before = {w.key: quantise(net.weights[w.key], w).values for w in where}
    settle_ternary(net, where)
    for key, values in before.items():
        assert torch.equal(net.weights[key].detach(), values)
    assert len(net.weights["w1"].detach().unique()) <= 3
    assert all(len(row.unique()) <= 3 for row in net.weights["w2"].detach())


def test_two_bits_of_a_signed_activation_are_ternary():
    """Uniform activations of two bits take three values where signed, four where not; gradients pass."""
    x = torch.linspace(-1, 1, 101, requires_grad=True)
    assert quantise_activation(x, 2).detach().unique().tolist() == [-1, 0, 1]
    assert len(quantise_activation(x.detach().abs(), 2).unique()) == 4
    (grad,) = torch.autograd.grad(quantise_activation(x, 2).sum(), x)
    assert (grad == 1).all()
    assert torch.equal(straight_through(x, 3 * x).detach(), 3 * x.detach())
