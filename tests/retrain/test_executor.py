"""The executor as a torch module: gradients, shared and hidden weights, grids, overrides, statistics."""

import copy

import numpy as np
import pytest
import torch
from executor_cases import (
    FLOAT,
    assert_same,
    built,
    make_model,
    node,
    numbers,
    opened,
    run_ort,
    run_torch,
    tensors,
    value,
)
from onnx import TensorProto

from nvaudit.errors import DataError, ModelError
from nvaudit.model.uses import constants
from nvaudit.retrain.executor.checks import check_parity
from nvaudit.retrain.executor.module import build_executor


def _network(**stored):
    """Two layers: Gemm, Relu, MatMul, Add."""
    arrays = {
        "w1": numbers(8, 6, seed=1),
        "b1": numbers(8, seed=2),
        "w2": numbers(8, 3, seed=3),
        "b2": numbers(3),
    }
    return make_model(
        [
            node("Gemm", ["x", "w1", "b1"], ["h"], transB=1),
            node("Relu", ["h"], ["a"]),
            node("MatMul", ["a", "w2"], ["m"]),
            node("Add", ["m", "b2"], ["y"]),
        ],
        [value("x", ["n", 6])],
        [value("y", ["n", 3])],
        arrays | stored,
    )


def test_every_parameter_gets_its_gradient(tmp_path):
    """Weights and biases are parameters under their names, and gradients are those of the formula."""
    executor = built(tmp_path, _network())
    x = torch.from_numpy(numbers(5, 6, seed=9))
    executor({"x": x})["y"].square().sum().backward()
    w = {key: p.detach().clone().requires_grad_() for key, p in executor.weights.items()}
    assert set(w) == {"w1", "b1", "w2", "b2"}
    (torch.relu(x @ w["w1"].t() + w["b1"]) @ w["w2"] + w["b2"]).square().sum().backward()
    for key, parameter in executor.weights.items():
        assert torch.allclose(parameter.grad, w[key].grad, rtol=1e-5, atol=1e-5)
    assert executor.mapped == ("w1", "w2")


def test_untrained_tensors_get_no_gradient(tmp_path):
    """What is not to be trained has no gradient; a weight can still be overridden."""
    executor = built(tmp_path, _network(), trainable=lambda stored: stored.key == "w1")
    feeds = tensors({"x": numbers(5, 6)})
    executor(feeds)["y"].sum().backward()
    assert set(executor.weights) == {"w1", "w2"}
    assert executor.weights["w2"].grad is None
    assert executor.weights["w1"].grad is not None
    zeros = executor(feeds, {"w2": torch.zeros(8, 3)})["y"]
    assert torch.allclose(zeros, torch.from_numpy(numbers(3)).expand(5, 3))


def test_shared_weight_is_one_parameter(tmp_path):
    """A weight of two operators is one parameter, whose gradient is the sum over both."""
    model = make_model(
        [
            node("MatMul", ["x", "w"], ["h"]),
            node("Transpose", ["w"], ["t"], perm=[1, 0]),
            node("MatMul", ["h", "t"], ["y"]),
        ],
        [value("x", ["n", 6])],
        [value("y", ["n", 6])],
        {"w": numbers(6, 4)},
    )
    executor = built(tmp_path, model)
    x = torch.from_numpy(numbers(5, 6, seed=9))
    executor({"x": x})["y"].square().sum().backward()
    w = torch.from_numpy(numbers(6, 4)).requires_grad_()
    ((x @ w) @ w.t()).square().sum().backward()
    assert len(list(executor.parameters())) == 1
    assert torch.allclose(executor.weights["w"].grad, w.grad, rtol=1e-5)


def test_weight_behind_other_nodes_trains_in_its_primary_layout(tmp_path):
    """A weight behind Identity, Reshape, Transpose and Cast is laid out as its operator takes it."""
    model = make_model(
        [
            node("Constant", [], ["c"], value=_tensor(numbers(2, 3, 4).astype(np.float16))),
            node("Identity", ["c"], ["i"]),
            node("Reshape", ["i", "shape"], ["r"]),
            node("Transpose", ["r"], ["t"], perm=[1, 0]),
            node("Cast", ["t"], ["w"], to=FLOAT),
            node("MatMul", ["x", "w"], ["y"]),
        ],
        [value("x", ["n", 4])],
        [value("y", ["n", 6])],
        {"shape": np.array([6, 4], np.int64)},
    )
    loaded = opened(tmp_path, model)
    executor = build_executor(loaded).eval()
    weight = next(constant.weight for constant in constants(loaded) if constant.weight)
    assert weight.key == "c"
    assert tuple(executor.weights["c"].shape) == weight.shape == (4, 6)
    assert np.array_equal(executor.clean()["c"].detach().numpy(), weight.load().values.astype(np.float32))
    assert executor.values()["c"].shape == (2, 3, 4)
    executor(tensors({"x": numbers(5, 4)}))["y"].sum().backward()
    assert executor.weights["c"].grad.abs().min() > 0


def _tensor(array):
    from onnx import numpy_helper

    return numpy_helper.from_array(array)


def test_computed_weight_trains_through_its_parts(tmp_path):
    """Parts of a weight that is put together are trained; the whole can be overridden in a branch too."""
    model = make_model(
        [node("Concat", ["p", "q"], ["w"], axis=0), node("MatMul", ["x", "w"], ["y"])],
        [value("x", ["n", 5])],
        [value("y", ["n", 3])],
        {"p": numbers(2, 3, seed=1), "q": numbers(3, 3, seed=2)},
    )
    executor = built(tmp_path, model)
    assert executor.mapped == ("w",)
    feeds = tensors({"x": numbers(4, 5)})
    clean = executor.clean()["w"]
    noisy = clean + 0.1
    executor(feeds, {"w": noisy})["y"].sum().backward()
    assert executor.weights["p"].grad.abs().min() > 0
    assert executor.weights["q"].grad.abs().min() > 0
    assert torch.allclose(executor(feeds, {"w": noisy})["y"], feeds["x"] @ noisy, atol=1e-6)
    assert torch.allclose(executor(feeds)["y"], feeds["x"] @ clean, atol=1e-6)


def _quantised(kind=np.int8):
    """QDQ: an activation on uint8, a per-channel weight on a grid of its own, transposed after it."""
    codes = np.random.Generator(np.random.PCG64(5)).integers(-7, 8, (3, 6)).astype(kind)
    return make_model(
        [
            node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
            node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
            node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
            node("Transpose", ["wd"], ["wt"], perm=[1, 0]),
            node("MatMul", ["xd", "wt"], ["y"]),
        ],
        [value("x", ["n", 6])],
        [value("y", ["n", 3])],
        {
            "xs": np.float32(0.05),
            "xz": np.uint8(120),
            "w": codes,
            "ws": np.array([0.1, 0.2, 0.05], np.float32),
            "wz": np.array([1, 0, -2], kind),
        },
    )


def test_quantised_network_agrees_and_trains_straight_through(tmp_path):
    """The gradient of a grid weight and of the activation before it is that of the float product."""
    model = _quantised()
    executor = built(tmp_path, model)
    feeds = {"x": numbers(5, 6)}
    assert_same(run_torch(executor, feeds), run_ort(model.SerializeToString(), feeds), 1e-6)
    x = torch.from_numpy(feeds["x"]).requires_grad_()
    executor({"x": x})["y"].sum().backward()
    # Activations in range pass their gradient on as if they had not been rounded.
    inside = (x.detach() > 0.05 * -120) & (x.detach() < 0.05 * 135)
    weight = executor.clean()["w"].detach()
    assert torch.allclose(x.grad[inside], weight.sum(1).expand(5, 6)[inside], atol=1e-6)
    rounded = torch.clamp(torch.round(x.detach() / 0.05) + 120, 0, 255)
    expected = ((rounded - 120) * 0.05).sum(0).unsqueeze(1).expand(6, 3)
    assert torch.allclose(executor.weights["w"].grad, expected, rtol=1e-5, atol=1e-5)


def test_quantised_weight_stays_on_its_grid_unless_overridden(tmp_path):
    """A small step of the master does not move the used weight; a noisy override is used as it is."""
    executor = built(tmp_path, _quantised())
    feeds = tensors({"x": numbers(5, 6)})
    before, clean = executor(feeds)["y"], executor.clean()["w"]
    with torch.no_grad():
        executor.weights["w"] += 0.01  # less than half a step of 0.05
    assert torch.equal(executor(feeds)["y"], before)
    assert torch.equal(executor.clean()["w"], clean)
    noisy = clean + 0.01
    moved = executor(feeds, {"w": noisy})["y"] - before
    assert moved.abs().min() > 0


def test_half_precision_trains_through_a_float_master(tmp_path):
    """Steps far below half precision accumulate in the master, and the network uses its rounded values."""
    model = make_model(
        [node("MatMul", ["x", "w"], ["y"])],
        [value("x", ["n", 4], TensorProto.FLOAT16)],
        [value("y", ["n", 2], TensorProto.FLOAT16)],
        {"w": np.ones((4, 2), np.float16)},
    )
    executor = built(tmp_path, model)
    x = torch.ones(1, 4, dtype=torch.float16)
    y = executor({"x": x})["y"]
    assert y.dtype == torch.float32
    y.sum().backward()
    assert torch.equal(executor.weights["w"].grad, torch.ones(4, 2))
    with torch.no_grad():
        executor.weights["w"] += 1e-4
    assert torch.equal(executor({"x": x})["y"], y)
    with torch.no_grad():
        executor.weights["w"] += 9e-4
    assert executor({"x": x})["y"].min() > 4.003


def _normalised():
    return make_model(
        [
            node("Conv", ["x", "w"], ["h"]),
            node("BatchNormalization", ["h", "g", "b", "m", "v"], ["y"], momentum=0.8),
        ],
        [value("x", ["n", 2, 5, 5])],
        [value("y", ["n", 3, 3, 3])],
        {
            "w": numbers(3, 2, 3, 3),
            "g": np.ones(3, np.float32),
            "b": np.zeros(3, np.float32),
            "m": numbers(3),
            "v": np.ones(3, np.float32),
        },
    )


def test_batch_norm_learns_its_statistics_in_training_mode(tmp_path):
    """Evaluation uses the stored statistics; training the batch's, and moves the stored ones."""
    model = _normalised()
    executor = built(tmp_path, model)
    feeds = {"x": numbers(8, 2, 5, 5)}
    assert_same(run_torch(executor, feeds), run_ort(model.SerializeToString(), feeds))
    assert set(executor.statistics) == {"m", "v"}
    executor.train()
    y = executor(tensors(feeds))["y"]
    assert torch.allclose(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    hidden = torch.conv2d(torch.from_numpy(feeds["x"]), torch.from_numpy(numbers(3, 2, 3, 3)))
    wanted = 0.8 * torch.from_numpy(numbers(3)) + 0.2 * hidden.mean((0, 2, 3))
    assert torch.allclose(executor.statistics["m"], wanted, atol=1e-5)
    executor.frozen_statistics = True
    kept = executor.statistics["m"].clone()
    executor(tensors(feeds))
    assert torch.equal(executor.statistics["m"], kept)


def test_recalibration_averages_over_batches(tmp_path):
    """Recalibrated statistics are the means over the batches, under given weights."""
    executor = built(tmp_path, _normalised())
    batches = [tensors({"x": numbers(8, 2, 5, 5, seed=seed)}) for seed in range(3)]
    weight = torch.from_numpy(numbers(3, 2, 3, 3, seed=4))
    assert executor.recalibrate(batches, {"w": weight}) == 3
    means = torch.stack([torch.conv2d(batch["x"], weight).mean((0, 2, 3)) for batch in batches])
    assert torch.allclose(executor.statistics["m"], means.mean(0), atol=1e-5)
    assert not executor.training


def test_dropout_is_on_in_training_only(tmp_path):
    """Dropout does nothing at rest; in training it draws new masks, the same for the same seed."""
    model = make_model(
        [node("MatMul", ["x", "w"], ["h"]), node("Dropout", ["h", "r"], ["y"])],
        [value("x", ["n", 3])],
        [value("y", ["n", 50])],
        {"w": numbers(3, 50), "r": np.float32(0.4)},
    )
    executor = built(tmp_path, model)
    feeds = tensors({"x": numbers(40, 3)})
    plain = executor(feeds)["y"]
    executor.train()
    executor.seed(1)
    first, second = executor(feeds)["y"], executor(feeds)["y"]
    executor.seed(1)
    assert torch.equal(executor(feeds)["y"], first)
    assert not torch.equal(first, second)
    assert abs(float((first == 0).float().mean()) - 0.4) < 0.05
    kept = first != 0
    assert torch.allclose(first[kept], plain[kept] / 0.6, rtol=1e-5)


def test_copy_has_its_own_parameters(tmp_path):
    """A deep copy trains by itself, and a state of one can be put into another."""
    executor = built(tmp_path, _normalised())
    feeds = tensors({"x": numbers(4, 2, 5, 5)})
    before = executor(feeds)["y"]
    other = copy.deepcopy(executor)
    with torch.no_grad():
        other.weights["w"] += 1.0
        other.statistics["m"] += 1.0
    assert torch.equal(executor(feeds)["y"], before)
    assert not torch.allclose(other(feeds)["y"], before)
    executor.load_state_dict(other.state_dict())
    assert torch.equal(executor(feeds)["y"], other(feeds)["y"])


def test_many_noisy_networks_run_at_once(tmp_path):
    """Overrides can be batched with torch.func.vmap: one pass for several chips."""
    executor = built(tmp_path, _network())
    feeds = tensors({"x": numbers(4, 6)})
    chips = {
        "w1": torch.from_numpy(numbers(3, 8, 6, seed=8)),
        "w2": torch.from_numpy(numbers(3, 8, 3, seed=9)),
    }
    many = torch.func.vmap(lambda weights: executor(feeds, weights)["y"])(chips)
    for number in range(3):
        one = executor(feeds, {key: array[number] for key, array in chips.items()})["y"]
        assert torch.allclose(many[number], one, atol=1e-5)


def test_unknown_operator_is_named_with_the_supported_ones(tmp_path):
    """A missing operator is refused with its node, and what there is."""
    model = make_model(
        [node("MatMul", ["x", "w"], ["h"]), node("Bernoulli", ["h"], ["y"], name="coin")],
        [value("x", ["n", 3])],
        [value("y", ["n", 4])],
        {"w": numbers(3, 4)},
    )
    with pytest.raises(ModelError, match=r"model\.onnx: node 'coin': operator Bernoulli .*are: Abs, .*Xor"):
        built(tmp_path, model)


def test_missing_input_and_wrong_key_are_refused(tmp_path):
    """An input that is not given, and an override of something else, are named."""
    executor = built(tmp_path, _network())
    with pytest.raises(DataError, match="input 'x' is missing"):
        executor({})
    with pytest.raises(ModelError, match="'w9' is not a weight"):
        executor(tensors({"x": numbers(1, 6)}), {"w9": torch.zeros(1)})


def test_failing_operation_names_its_node(tmp_path):
    """Data of a wrong shape is reported with the node where torch refuses it."""
    executor = built(tmp_path, _network())
    with pytest.raises(ModelError, match=r"node 'Gemm_0' \(Gemm\): cannot be run in torch"):
        executor(tensors({"x": numbers(2, 5)}))


def test_first_diverging_node_is_named(tmp_path, monkeypatch):
    """With a wrong operator the executor is refused before training, and the first wrong node is named."""
    from nvaudit.retrain.executor.ops import registry

    loaded = opened(tmp_path, _network())
    feeds = {"x": numbers(4, 6)}
    parity = check_parity(build_executor(loaded), loaded, feeds)
    assert 0 <= parity.error < 1e-5
    wrong = registry.Registered(lambda op: lambda x: torch.relu(x) * 1.001, frozenset(), True)
    monkeypatch.setitem(registry._TABLE, ("", "Relu"), wrong)
    with pytest.raises(ModelError, match=r"first node that differs is 'Relu_1' \(Relu\), by 1\.0e-03"):
        check_parity(build_executor(loaded), loaded, feeds)
