"""Small models for the tests of the model package, and the comparison of a template with its model."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from nvaudit.model.load import LoadedModel, load_model
from nvaudit.model.template import Template, build_template
from nvaudit.model.uses import Constant, constants

FLOAT = TensorProto.FLOAT


def numbers(*shape, seed=0, dtype=np.float32):
    """Normal numbers, the same for the same shape and seed."""
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(dtype)


def integers(low, high, *shape, dtype=np.int8, seed=0):
    """Uniform integers in low … high - 1."""
    return np.random.Generator(np.random.PCG64(seed)).integers(low, high, shape).astype(dtype)


def tensor(array, name=""):
    return numpy_helper.from_array(np.asarray(array), name)


def value(name, shape, dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def make_model(nodes, inputs, outputs, stored=None, *, opset=17, ir_version=8, as_inputs=False, **extra):
    """A model; ``inputs`` and ``outputs`` are value infos, ``stored`` maps names to arrays."""
    initializers = [tensor(array, name) for name, array in (stored or {}).items()]
    if as_inputs:
        inputs = [*inputs, *(value(t.name, list(t.dims), t.data_type) for t in initializers)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    domains = sorted({node.domain for node in nodes} - {""})
    opsets = [
        helper.make_opsetid("", opset),
        *(helper.make_opsetid(domain, 3 if domain == "ai.onnx.ml" else 1) for domain in domains),
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, **extra)


def save(tmp_path: Path, model, name="model.onnx") -> Path:
    path = tmp_path / name
    path.write_bytes(model.SerializeToString())
    return path


def opened(tmp_path: Path, model) -> tuple[LoadedModel, dict[str, Constant]]:
    """Save and load a model; its constants by name."""
    loaded = load_model(save(tmp_path, model))
    return loaded, {constant.name: constant for constant in constants(loaded)}


def weights(found: dict[str, Constant]) -> list[str]:
    return [name for name, constant in found.items() if constant.weight is not None]


def session(model, *, literal=False):
    """A session of a path or message, on one thread, silent; ``literal`` runs the graph as written.

    ONNX Runtime would otherwise run DequantizeLinear → MatMul with a quantised activation too.
    """
    options = ort.SessionOptions()
    if literal:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def filled_session(template: Template, arrays):
    """A session of a template, its weights given by key in their primary layout."""
    fills = {slot.name: slot.fill(arrays[slot.weight_key]) for slot in template.slots} | template.digital
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    values = [_ort_value(np.ascontiguousarray(array)) for array in fills.values()]
    options.add_external_initializers(list(fills), values)
    return ort.InferenceSession(template.proto, options, providers=["CPUExecutionProvider"]), values


def _ort_value(array):
    if array.dtype.name == "bfloat16":
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), TensorProto.BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def compare(tmp_path: Path, model, feeds, *, rtol=1e-5, codes=0, batch="keep") -> dict[str, Constant]:
    """Check a template filled with the original weights against its model; returns the constants by name.

    ``codes`` is the allowed difference of integer outputs. Each weight, scaled by 1.5, must move an output.
    """
    loaded, found = opened(tmp_path, model)
    keys = weights(found)
    template = build_template(loaded, keys, batch=batch)
    arrays = {key: found[key].weight.load().values for key in keys}
    expected = session(model.SerializeToString(), literal=True).run(None, feeds)
    runner, kept = filled_session(template, arrays)
    got = runner.run(None, feeds)
    for want, have in zip(expected, got, strict=True):
        assert want.dtype == have.dtype
        assert want.shape == have.shape
        if want.dtype.kind in "iu":
            assert np.abs(want.astype(np.int64) - have.astype(np.int64)).max() <= codes
        else:
            np.testing.assert_allclose(have, want, rtol=rtol, atol=rtol * max(np.abs(want).max(), 1e-30))
    del kept
    for key in keys:
        moved = arrays | {key: (arrays[key].astype(np.float64) * 1.5).astype(arrays[key].dtype)}
        runner, kept = filled_session(template, moved)
        changed = runner.run(None, feeds)
        assert any(not np.array_equal(a, b) for a, b in zip(got, changed, strict=True)), key
        del kept
    return found


def load_proto(path) -> onnx.ModelProto:
    return onnx.load(path)
