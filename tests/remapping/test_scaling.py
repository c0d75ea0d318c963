"""Rescaling: any choice of scales gives the same function, and what minds scales keeps them."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from scaling_cases import BLOCKS, HEADS, Net, finish, outputs, random_model, samples

from nvaudit.model import constants, load_model
from nvaudit.model.rescale.apply import rescaled
from nvaudit.model.rescale.find import plan_scaling
from nvaudit.model.rewrite import write_model

INSERTS = ("none", "columns", "both")


def keys_of(loaded):
    return tuple(constant.weight.key for constant in constants(loaded) if constant.weight is not None)


def rescale_at_random(loaded, insert, seed=0):
    """The model with every free scale drawn at random, and how many were free."""
    plan = plan_scaling(loaded.model, keys_of(loaded), insert)
    classes, _ = plan.variables.classes()
    t = np.exp(np.random.Generator(np.random.PCG64(seed)).normal(0, 1, classes.max() + 1))
    t[0] = 1
    return rescaled(loaded, keys_of(loaded), insert, frozenset(), t[classes]), int(classes.max())


def assert_same(model, changed, path, x=None):
    write_model(changed, path)
    x = samples() if x is None else x
    for want, got in zip(outputs(model, x), outputs(path, x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@settings(max_examples=40)
@given(
    blocks=st.lists(st.sampled_from(sorted(BLOCKS)), max_size=6),
    head=st.sampled_from(HEADS),
    opset=st.sampled_from([9, 11, 13, 15, 17, 18]),
    insert=st.sampled_from(INSERTS),
    seed=st.integers(0, 1000),
)
def test_any_scales_give_the_same_function(tmp_path_factory, blocks, head, opset, insert, seed):
    """Convolutions, normalisations, pools, sums, branches, gates: outputs agree to rounding."""
    folder = tmp_path_factory.mktemp("scales")
    model = random_model(blocks, head, opset, seed)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    before = path.read_bytes()
    loaded = load_model(path)
    changed, free = rescale_at_random(loaded, insert, seed)
    assert_same(model, changed, folder / "out.onnx")
    assert path.read_bytes() == before
    if insert != "none":
        assert free > 0
    assert set(keys_of(load_model(folder / "out.onnx"))) == set(keys_of(loaded))


@pytest.mark.parametrize("block", sorted(set(BLOCKS) - {"sigmoid", "gate", "residual"}))
def test_scales_pass_through(tmp_path, block):
    """A block between two convolutions leaves the channels between them free, or absorbs their scale."""
    loaded, plan = planned(tmp_path, random_model([block], "pool", 13))
    classes, _ = plan.variables.classes()
    first, last = plan.layers[0], plan.layers[-1]
    assert classes[first.result_ids].all()
    assert classes[last.source_ids].all()
    changed, _ = rescale_at_random(loaded, "none")
    old, new = stored(loaded), stored(changed)
    assert not np.allclose(old[first.key], new[first.key])


def test_sigmoid_keeps_the_scale_of_what_it_takes(tmp_path):
    """A barrier names itself, and the weights on both of its sides keep that side."""
    _, plan = planned(tmp_path, random_model(["sigmoid"], "pool", 13))
    classes, reasons = plan.variables.classes()
    assert not classes[plan.layers[0].result_ids].any()
    assert not classes[plan.layers[-1].source_ids].any()
    assert any("Sigmoid" in reason for reason in reasons.values())


def test_clip_with_a_limit_from_the_data_keeps_its_scale(tmp_path):
    """A limit that is not known beforehand is a limit: what is clipped there is no Relu."""
    net = Net(np.random.Generator(np.random.PCG64(0)))
    values = net.conv()
    limit = net.add("ReduceMean", net.add("Sigmoid", "x"), axes=[0, 1, 2, 3], keepdims=0)
    net.add("Clip", values, net.constant(np.float32(0)), limit)
    net.conv()
    loaded, plan = planned(tmp_path, finish(net, 13, ["N", 4, 8, 8]))
    classes, reasons = plan.variables.classes()
    assert not classes[plan.layers[0].result_ids].any()
    assert any("Clip" in reason for reason in reasons.values())
    changed, _ = rescale_at_random(loaded, "columns")
    assert_same(loaded.path, changed, tmp_path / "out.onnx")


def test_branches_of_a_sum_are_rescaled_alike(tmp_path):
    """The channels that meet in Add have one scale; with a branch that keeps its own, all keep it."""
    _, plan = planned(tmp_path, random_model(["residual"], "pool", 13))
    classes, _ = plan.variables.classes()
    start, _, end, _ = plan.layers
    np.testing.assert_array_equal(classes[start.result_ids], classes[end.result_ids])
    assert classes[start.result_ids].all()
    net = Net(np.random.Generator(np.random.PCG64(0)))
    start = net.add("Sigmoid", net.conv())
    end = net.conv()
    net.add("Add", start, end)
    net.conv()
    _, plan = planned(tmp_path, finish(net, 13, ["N", 4, 8, 8]))
    classes, _ = plan.variables.classes()
    assert not classes[plan.layers[1].result_ids].any()


def test_outputs_keep_their_scale(tmp_path):
    """What the model returns is not rescaled, even if a layer inside takes it too."""
    net = Net(np.random.Generator(np.random.PCG64(0)))
    middle = net.add("Relu", net.conv())
    net.conv()
    model = finish(net, 13, ["N", 4, 8, 8])
    model.graph.output.append(helper.make_tensor_value_info(middle, 1, ["N", 4, 8, 8]))
    loaded, plan = planned(tmp_path, model)
    classes, reasons = plan.variables.classes()
    assert not classes.any()
    assert "is an output of the model" in set(reasons.values())
    changed, free = rescale_at_random(loaded, "columns")
    assert free == 8
    assert_same(model, changed, tmp_path / "out.onnx")


def test_shared_weight_sees_the_same_factors_at_every_use(tmp_path):
    """A tensor that two nodes take is one array: it is rescaled once, consistently."""
    net = Net(np.random.Generator(np.random.PCG64(0)))
    net.conv()
    weight = net.constant(net.numbers(4, 4, 3, 3))
    for _ in range(2):
        net.add("Relu", net.add("Conv", net.at, weight, pads=[1, 1, 1, 1]))
    net.conv()
    model = finish(net, 13, ["N", 4, 8, 8])
    loaded, plan = planned(tmp_path, model)
    classes, _ = plan.variables.classes()
    uses = [layer for layer in plan.layers if layer.key == weight]
    np.testing.assert_array_equal(classes[uses[0].result_ids], classes[uses[1].result_ids])
    changed, free = rescale_at_random(loaded, "none")
    assert free == 4
    assert_same(model, changed, tmp_path / "out.onnx")


def test_shared_constant_is_changed_only_where_it_must_be(tmp_path):
    """A bias that two layers share becomes two; each follows its own layer."""
    net = Net(np.random.Generator(np.random.PCG64(0)))
    bias = net.constant(net.numbers(4))
    for _ in range(3):
        weight = net.constant(net.numbers(4, net.channels, 3, 3))
        net.channels = 4
        net.add("Relu", net.add("Conv", net.at, weight, bias, pads=[1, 1, 1, 1]))
    model = finish(net, 13, ["N", 4, 8, 8])
    loaded, _ = planned(tmp_path, model)
    changed, _ = rescale_at_random(loaded, "none")
    assert_same(model, changed, tmp_path / "out.onnx")


def test_stored_weights_keep_name_type_and_shape(tmp_path):
    """Only numbers change, and no node is added, where nothing may be inserted."""
    model = random_model(["conv", "relu", "norm"], "dense", 13)
    loaded, _ = planned(tmp_path, model)
    changed, _ = rescale_at_random(loaded, "none")
    write_model(changed, tmp_path / "out.onnx")
    out = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(out, full_check=True)
    assert [node.op_type for node in out.graph.node] == [node.op_type for node in model.graph.node]
    kinds = {t.name: (t.data_type, tuple(t.dims)) for t in model.graph.initializer}
    assert {t.name: (t.data_type, tuple(t.dims)) for t in out.graph.initializer} == kinds
    assert out.opset_import[0].version == 13


@pytest.mark.parametrize("external", [True, False])
def test_external_data_stays_external(tmp_path, monkeypatch, external):
    """A model with data beside it is written with data beside it, any other as one file; both run."""
    monkeypatch.setattr("nvaudit.model.rewrite._EXTERNAL_BYTES", 0)
    model = random_model(["conv", "relu"], "dense", 13)
    path = tmp_path / "model.onnx"
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    onnx.save_model(copy, path, save_as_external_data=external, location="model.data", size_threshold=0)
    changed, _ = rescale_at_random(load_model(path), "none")
    (tmp_path / "new").mkdir()
    assert_same(model, changed, tmp_path / "new" / "out.onnx")
    files = sorted(file.name for file in (tmp_path / "new").iterdir())
    assert files == (["out.onnx", "out.onnx.data"] if external else ["out.onnx"])
    written = onnx.load(tmp_path / "new" / "out.onnx", load_external_data=False)
    assert {len(t.external_data) > 0 for t in written.graph.initializer} == {external}


def planned(tmp_path, model):
    path = tmp_path / "planned.onnx"
    path.write_bytes(model.SerializeToString())
    loaded = load_model(path)
    return loaded, plan_scaling(loaded.model, keys_of(loaded), "none")


def stored(loaded):
    return {c.weight.key: c.weight.load().values for c in constants(loaded) if c.weight is not None}
