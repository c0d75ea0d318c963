"""Means that noise and clipping shift: found layer by layer, and taken off where the model has a place."""

import json
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scaling_cases import Net, finish, outputs, random_model, samples

from nvaudit.data import InputSpec, load_dataset
from nvaudit.device import load_profile, operating_point
from nvaudit.jobs.remapping import remap
from nvaudit.model import load_model
from nvaudit.model.rescale.centre import find_centres, with_centres
from nvaudit.model.rewrite import write_model
from nvaudit.perturb.metrics import resolve_metric
from nvaudit.remapping.bench import Bench, BenchConditions
from nvaudit.remapping.centre import ChipMoments, chip_moments, clean_moments

RNG = np.random.Generator(np.random.PCG64(5))
ONLY = {"equalise": False, "clip": False, "rounding": False, "trials": 0, "calibration_chips": 4}


def saved(folder, model):
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def device(folder, mean, sigma):
    """A device that loses a share of the conductance, and spreads by a share of it."""
    profile = {
        "schema_version": 1, "name": "lossy", "technology": "t", "description": "d",
        "source": {"citation": "c", "where": "w", "fit": "f"},
        "cell_bits": None, "weight_bits": 8, "encoding": "differential",
        "window": {"unit": "us", "min": 0.0, "max": 25.0},
        "sigma": {"default": 1.0, "unit": "multiplier", "min": 0.0, "max": 1.0}, "valid_range": "v",
        "noise": [{
            "kind": "normal", "unit": "us",
            "sigma": {"kind": "constant", "value": sigma},
            "mean": {"kind": "polynomial", "coefficients": [0.0, mean], "of": "g"},
        }],
    }  # fmt: skip
    path = folder / "lossy.json"
    path.write_text(json.dumps(profile))
    return path


def layer(kind):
    """One layer of each kind that can take a correction up, its result an output as well."""
    net = Net(np.random.Generator(np.random.PCG64(0)))
    if kind in ("conv bias", "conv", "norm"):
        net.conv(bias=kind == "conv bias")
        shape = ["N", 4, 8, 8]
    else:
        net.add("Flatten", net.at)
        weight = net.constant(net.numbers(192, 5))
        shape = ["N", 5]
        if kind == "add":
            net.add("MatMul", net.at, weight)
            net.add("Add", net.constant(net.numbers(1, 5)), net.at)
        else:
            bias = [net.constant(net.numbers(5))] if kind == "gemm bias" else []
            net.add("Gemm", net.at, weight, *bias, beta=2.0)
    if kind == "norm":
        net.norm()
    return finish(net, 13, shape)


@pytest.mark.parametrize(
    ("kind", "into"),
    [("conv bias", "bias"), ("conv", "new"), ("norm", "norm"), ("gemm bias", "bias"), ("gemm", "new"),
     ("add", "add")],
)  # fmt: skip
def test_every_place_takes_a_shift_off_exactly(tmp_path, kind, into):
    """Bias, new bias, mean of a normalisation, added constant: the result moves by the shift and no more."""
    model = layer(kind)
    loaded = load_model(saved(tmp_path, model))
    keys = [t.name for t in model.graph.initializer if len(t.dims) >= 2 and t.dims[0] > 1]
    centres = find_centres(loaded.model, keys)
    (spot,) = centres.spots
    assert spot.into == into
    assert centres.refused == {}
    shift = np.linspace(-1, 2, spot.channels)
    write_model(with_centres(loaded, centres, {spot.value: shift}, {}), tmp_path / "o.onnx")
    new = onnx.load(tmp_path / "o.onnx")
    onnx.checker.check_model(new, full_check=True)
    assert [node.op_type for node in new.graph.node] == [node.op_type for node in model.graph.node]
    x = samples()
    want, got = outputs(model, x)[0], outputs(new, x)[0]
    moved = shift
    if into == "norm":
        arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        names = next(node for node in model.graph.node if node.op_type == "BatchNormalization").input
        moved = shift * arrays[names[1]] / np.sqrt(arrays[names[4]] + 1e-3)
    moved = moved.reshape((1, -1) + (1,) * (want.ndim - 2))
    np.testing.assert_allclose(got, want - moved, rtol=1e-4, atol=1e-4)


def test_integer_bias_moves_by_whole_steps(tmp_path):
    """A quantised bias stays an int32 behind DequantizeLinear and comes as near as its step allows."""
    net = Net(np.random.Generator(np.random.PCG64(0)))
    net.add("Flatten", net.at)
    weight = net.constant(net.numbers(192, 5))
    net.nodes.append(helper.make_node("DequantizeLinear", ["codes", net.constant(0.01)], ["bias"]))
    net.add("Gemm", net.at, weight, "bias")
    model = finish(net, 13, ["N", 5])
    model.graph.initializer.append(numpy_helper.from_array(np.arange(5, dtype=np.int32) * 50, "codes"))
    loaded = load_model(saved(tmp_path, model))
    centres = find_centres(loaded.model, [weight])
    shift = np.array([0.2, -0.333, 0.0, 0.004, 0.006])
    write_model(with_centres(loaded, centres, {centres.spots[0].value: shift}, {}), tmp_path / "o.onnx")
    stored = {t.name: t for t in onnx.load(tmp_path / "o.onnx").graph.initializer}
    assert stored["codes"].data_type == TensorProto.INT32
    np.testing.assert_array_equal(numpy_helper.to_array(stored["codes"]), [-20, 83, 100, 150, 199])


def test_what_has_no_place_says_why(tmp_path):
    """A bare MatMul, and a recurrent layer."""
    net = Net(RNG)
    net.add("Flatten", net.at)
    weight = net.constant(net.numbers(192, 5))
    net.add("Relu", net.add("MatMul", net.at, weight))
    centres = find_centres(load_model(saved(tmp_path, finish(net, 13, ["N", 5]))).model, [weight])
    assert centres.spots == ()
    assert "MatMul has no bias" in centres.refused[weight]


def test_uncertain_shifts_are_made_smaller():
    """Chips that agree give the whole shift, chips that scatter around the clean mean give none."""
    clean = (np.array([1.0, 2.0]), np.ones(2))
    spread = np.array([-1.0, 1.0, -1.0, 1.0])
    mean = np.stack([np.full(4, 1.5), 2.0 + spread + 0.1], axis=1)
    moments = ChipMoments(mean, np.ones((4, 2)))
    np.testing.assert_allclose(moments.shift(clean), [0.5, 0.0], atol=1e-12)
    half = ChipMoments(mean / 2, np.full((4, 2), 0.25))  # all channels shrink by one gain
    np.testing.assert_allclose(half.shift(clean), [0.25, 0.0], atol=1e-12)
    np.testing.assert_allclose(moments.pooled[1], [1.0, 1.0 + mean[:, 1].var()])


def deep(folder):
    """Three layers with biases that matter, and data labelled by the model itself."""
    rng = np.random.Generator(np.random.PCG64(11))
    net = Net(rng)
    net.add("Flatten", net.at)
    sizes = (192, 24, 24, 5)
    for number, (into, out) in enumerate(pairwise(sizes)):
        weight = net.constant(rng.normal(0, 1 / np.sqrt(into), (into, out)))
        net.add("Gemm", net.at, weight, net.constant(rng.normal(0, 1.0, out)))
        if number < 2:
            net.add("Relu", net.at)
    model = finish(net, 13, ["N", 5])
    path = saved(folder, model)
    x = rng.normal(0, 1, (300, 3, 8, 8)).astype(np.float32)
    np.savez(path.with_suffix(".npz"), x=x, y=outputs(model, x)[0].argmax(1))
    return path


def test_lost_conductance_is_made_good(tmp_path):
    """Devices lose 60 %: weights shrink and biases do not; corrected, the network shrinks as a whole."""
    path = deep(tmp_path)
    report = remap(path, device(tmp_path, -0.6, 0.0), out=tmp_path / "o.onnx", max_clean_loss=1.0, **ONLY)
    before, after = report.steps[0], next(step for step in report.steps if step.kept)
    assert after.name == "original, means corrected"
    assert before.worst_quarter < 0.8
    assert after.worst_quarter > 0.99
    biases = [t for t in onnx.load(tmp_path / "o.onnx").graph.initializer if len(t.dims) == 1]
    old = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    for power, tensor in enumerate(biases, 1):
        np.testing.assert_allclose(
            numpy_helper.to_array(tensor), 0.4**power * old[tensor.name], rtol=0.02, atol=0.01
        )
    assert all(row.corrected for row in report.tensors)


def test_a_correction_that_costs_too_much_is_refused(tmp_path):
    """What helps the chips and costs the noiseless model more than is allowed is not kept, and says so."""
    report = remap(
        deep(tmp_path), device(tmp_path, -0.6, 0.0), out=tmp_path / "o.onnx", max_clean_loss=0.0, **ONLY
    )
    step = next(step for step in report.steps if step.name.endswith("means corrected"))
    assert (step.kept, step.chips, step.mean) == (False, 0, None)
    assert "costs too much" in step.reason
    assert "the model is unchanged" in report.headline
    assert report.exact


def normed(folder):
    """A network with normalisations, its data and labels; what is stored then is wrong statistics."""
    model = random_model(["norm", "relu", "conv", "norm"], "flatten", 13)
    path, x = folder / "m.onnx", np.random.Generator(np.random.PCG64(2)).normal(0, 1, (64, 3, 8, 8))
    x = x.astype(np.float32)
    np.savez(path.with_suffix(".npz"), x=x, y=outputs(model, x)[0].argmax(1))
    stored = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            for name, change in ((node.input[3], 3.0), (node.input[4], 9.0)):
                array = numpy_helper.to_array(stored[name]) * np.float32(change) + np.float32(1)
                stored[name].CopyFrom(numpy_helper.from_array(array, name))
    return saved(folder, model), x


def test_normalisations_are_re_estimated_from_what_chips_make(tmp_path):
    """Behind a re-estimated normalisation every channel has the mean and spread that it is meant to have."""
    path, x = normed(tmp_path)
    report = remap(path, "rram", out=tmp_path / "o.onnx", sigma=0.0, max_clean_loss=1.0, bits=12, **ONLY)
    step = next(step for step in report.steps if step.name == "original, normalisations re-estimated")
    assert step.chips > 0
    loaded = load_model(path)
    centres = find_centres(loaded.model, [row.name for row in report.tensors])
    assert len(centres.norms) == 2
    bench_folder = tmp_path / "bench"
    bench = make_bench(loaded, x, bench_folder)
    found = chip_moments(bench, {}, centres, clean_moments(bench, centres, norms=True), 2, norms=True)
    fixed = with_centres(loaded, centres, {}, {name: found[name].pooled for name in centres.norms})
    write_model(fixed, tmp_path / "fixed.onnx")
    model = onnx.load(tmp_path / "fixed.onnx")
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    for node in norms:
        model.graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None))
    for node, made in zip(norms, outputs(model, x)[1:], strict=True):
        factor, offset, variance = (stored[node.input[index]] for index in (1, 2, 4))
        np.testing.assert_allclose(made.mean(axis=(0, 2, 3)), offset, atol=0.02)
        spread = np.abs(factor) * np.sqrt(variance / (variance + 1e-3))
        np.testing.assert_allclose(made.std(axis=(0, 2, 3)), spread, rtol=0.02)


def make_bench(loaded, x, folder):
    point = operating_point(load_profile("rram"), 0.0, None, None)
    inputs = (InputSpec("x", "float32", (None, 3, 8, 8), 0),)
    data = load_dataset(
        loaded.path.with_suffix(".npz"), inputs, model_path=loaded.path, limit=None, seed=0,
        scratch=folder.parent,
    )  # fmt: skip
    metric = resolve_metric("top1", np.zeros((64, 5), np.float32), data.labels, data.label_kind, None)
    conditions = BenchConditions(
        point=point, bits=12, cell_bits=None, encoding=None, per_channel=False, layers=(), digital=(),
        outliers=None, dataset=data, output=loaded.outputs[0].name, metric=metric, keep=None, batch=64,
        seed=0, chips=2, threads=1, provider="cpu",
    )  # fmt: skip
    return Bench(loaded, conditions, folder)
