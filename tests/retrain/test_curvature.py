"""The second derivative of the loss with respect to each weight, against Hessians worked out by hand."""

import numpy as np
import pytest
import torch
from executor_cases import INT64, built, make_model, node, numbers, value

from nvaudit.errors import OptionError
from nvaudit.retrain.curvature import curvature
from nvaudit.retrain.feed import Batch
from nvaudit.retrain.loss import TrainingLoss

VALUES = TrainingLoss("values", 0, "logit", 0.0, "squared error")
LOGITS = TrainingLoss("classes", 1, "logit", 0.0, "cross-entropy")
PROBABILITIES = TrainingLoss("classes", 1, "probability", 0.0, "cross-entropy")


def linear(tmp_path, weight, *, softmax=False):
    """y = x W, if wanted with a softmax behind it."""
    nodes = [node("MatMul", ["x", "w"], ["z" if softmax else "y"])]
    nodes += [node("Softmax", ["z"], ["y"], axis=-1)] if softmax else []
    shape = (None, weight.shape[1])
    return built(tmp_path, make_model(nodes, [value("x", (None, weight.shape[0]))], [value("y", shape)],
                                      {"w": weight}))  # fmt: skip


def batches(weight, x, size):
    """The same weights at every batch of some samples."""
    for start in range(0, len(x), size):
        part = x[start : start + size]
        yield {"w": weight}, Batch({"x": torch.from_numpy(part)}, None, np.arange(len(part)))


def test_one_output_and_one_sample_at_a_time_is_exact(tmp_path):
    """Of the mean of (x·w − t)² the second derivative by w_i is 2 E[x_i²]; a random sign squared is 1."""
    weight, x = numbers(5, 1, seed=1), numbers(20, 5, seed=2)
    found = curvature(linear(tmp_path, weight), batches(weight, x, 1), VALUES, "y")
    np.testing.assert_allclose(found["w"][:, 0], 2 * (x.astype(float) ** 2).mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(("size", "outputs"), [(4, 1), (2, 3)])
def test_several_samples_and_outputs_are_right_in_the_mean(tmp_path, size, outputs):
    """With larger batches the estimate has the Hessian 2 E[x_i²] / outputs as its mean over many draws."""
    weight, x = numbers(4, outputs, seed=1), numbers(8, 4, seed=2)
    points = list(batches(weight, x, size))
    found = curvature(linear(tmp_path, weight), points, VALUES, "y", probes=300)["w"]
    wanted = 2 * (x.astype(float) ** 2).mean(axis=0)[:, None] / outputs
    np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), rtol=0.2)


@pytest.mark.parametrize("softmax", [False, True], ids=["logits", "probabilities"])
def test_cross_entropy_of_a_linear_classifier(tmp_path, softmax):
    """The second derivative by W_ik is E[x_i² p_k (1 − p_k)], whether the model gives logits or p."""
    weight, x = numbers(3, 4, seed=3), numbers(6, 3, seed=4)
    loss = PROBABILITIES if softmax else LOGITS
    executor = linear(tmp_path, weight, softmax=softmax)
    found = curvature(executor, list(batches(weight, x, 2)), loss, "y", probes=400)["w"]
    z = x.astype(float) @ weight
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    wanted = (x[:, :, None].astype(float) ** 2 * (p * (1 - p))[:, None, :]).mean(axis=0)
    np.testing.assert_allclose(found, wanted, rtol=0.2)


@pytest.mark.parametrize("scale", ["logit", "probability"])
def test_one_score_column(tmp_path, scale):
    """Of the binary cross-entropy the second derivative by w_i is E[x_i² p (1 − p)]."""
    weight, x = numbers(3, 1, seed=5), numbers(12, 3, seed=6)
    nodes = [node("MatMul", ["x", "w"], ["z" if scale == "probability" else "y"])]
    nodes += [node("Sigmoid", ["z"], ["y"])] if scale == "probability" else []
    model = make_model(nodes, [value("x", (None, 3))], [value("y", (None, 1))], {"w": weight})
    loss = TrainingLoss("binary", 0, scale, 0.0, "binary cross-entropy")
    found = curvature(built(tmp_path, model), list(batches(weight, x, 1)), loss, "y", probes=100)["w"][:, 0]
    p = 1 / (1 + np.exp(-(x.astype(float) @ weight)[:, 0]))
    np.testing.assert_allclose(found, (x.astype(float) ** 2 * (p * (1 - p))[:, None]).mean(axis=0), rtol=0.2)


def test_the_point_is_the_one_that_is_given(tmp_path):
    """Through a square it depends on the weights that are given, not on the stored ones."""
    stored, given, x = numbers(2, 1, seed=7), numbers(2, 1, seed=8), numbers(9, 2, seed=9)
    nodes = [node("MatMul", ["x", "w"], ["z"]), node("Mul", ["z", "z"], ["y"])]
    model = make_model(nodes, [value("x", (None, 2))], [value("y", (None, 1))], {"w": stored})
    found = curvature(built(tmp_path, model), batches(given, x, 1), VALUES, "y")["w"]
    slope = 2 * (x.astype(float) @ given)[:, :, None] * x[:, :, None]  # of z² by w, sample by sample
    np.testing.assert_allclose(found, 2 * (slope**2).mean(axis=0), rtol=1e-4)


def test_a_weight_without_influence_has_none(tmp_path):
    """What the scored output does not depend on gets zeros, and nothing is left behind in the module."""
    weights = {"w": numbers(3, 1, seed=1), "v": numbers(3, 2, seed=2)}
    nodes = [node("MatMul", ["x", "w"], ["y"]), node("MatMul", ["x", "v"], ["other"])]
    outputs = [value("y", (None, 1)), value("other", (None, 2))]
    executor = built(tmp_path, make_model(nodes, [value("x", (None, 3))], outputs, weights))
    batch = Batch({"x": torch.from_numpy(numbers(4, 3))}, None, np.arange(4))
    found = curvature(executor, [(weights, batch)], VALUES, "y")
    assert found["w"].any()
    assert not found["v"].any()
    assert found["v"].shape == (3, 2)
    assert all(parameter.grad is None for parameter in executor.parameters())


def test_an_output_without_a_gradient_is_refused(tmp_path):
    """The position of the largest score says nothing about small errors."""
    weight = numbers(3, 4)
    nodes = [node("MatMul", ["x", "w"], ["z"]), node("ArgMax", ["z"], ["y"], axis=1)]
    model = make_model(nodes, [value("x", (None, 3))], [value("y", (None, 1), INT64)], {"w": weight})
    with pytest.raises(OptionError, match=r"the output 'y' has no gradient .* or --ranking magnitude"):
        curvature(built(tmp_path, model), batches(weight, numbers(4, 3), 2), VALUES, "y")


def test_an_output_without_a_batch_axis(tmp_path):
    """Of one sample at a time, an output may be a single number."""
    weight, x = numbers(5, 1, seed=1), numbers(9, 5, seed=2)
    nodes = [node("MatMul", ["x", "w"], ["z"]), node("ReduceSum", ["z"], ["y"], keepdims=0)]
    model = make_model(nodes, [value("x", (1, 5))], [value("y", ())], {"w": weight})
    found = curvature(built(tmp_path, model), batches(weight, x, 1), VALUES, "y", None)
    np.testing.assert_allclose(found["w"][:, 0], 2 * (x.astype(float) ** 2).mean(axis=0), rtol=1e-5)


def test_same_seed_same_estimate(tmp_path):
    """The signs come from the seed alone."""
    weight, x = numbers(4, 3, seed=1), numbers(8, 4, seed=2)
    executor = linear(tmp_path, weight)
    first, again, other = (
        curvature(executor, batches(weight, x, 4), LOGITS, "y", seed=seed)["w"] for seed in (1, 1, 2)
    )
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_what_cannot_be_ranked_is_said(tmp_path):
    """No samples, and a loss that overflows, are refused with what to do."""
    weight = numbers(2, 1)
    executor = linear(tmp_path, weight)
    with pytest.raises(OptionError, match="needs samples; got none"):
        curvature(executor, [], VALUES, "y")
    infinite = np.full((1, 2), np.inf, np.float32)
    with pytest.raises(OptionError, match=r"no finite gradient with respect to 'w'.*--ranking magnitude"):
        curvature(executor, batches(weight, infinite, 1), VALUES, "y")
