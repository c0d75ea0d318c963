"""Small models for the tests of the executor, and the comparison with ONNX Runtime."""

import numpy as np
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

from nvaudit.model.load import load_model
from nvaudit.retrain.executor.module import build_executor

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
node = helper.make_node


def numbers(*shape, seed=0, dtype=np.float32):
    """Normal numbers, the same for the same shape and seed."""
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(dtype)


def value(name, shape, dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def make_model(nodes, inputs, outputs, stored=None, *, opset=17, domains=()):
    """A model; ``inputs`` and ``outputs`` are value infos, ``stored`` maps names to arrays."""
    tensors = [numpy_helper.from_array(np.asarray(a), name) for name, a in (stored or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def opened(tmp_path, model, name="model.onnx"):
    """Save and load a model."""
    path = tmp_path / name
    path.write_bytes(model.SerializeToString())
    return load_model(path)


def built(tmp_path, model, **options):
    """The executor of a model, in evaluation mode."""
    return build_executor(opened(tmp_path, model), **options).eval()


def tensors(feeds):
    return {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}


def run_torch(executor, feeds):
    with torch.no_grad():
        return {name: t.numpy() for name, t in executor(tensors(feeds)).items()}


def run_ort(model, feeds):
    """Outputs of ONNX Runtime, the graph run literally."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def assert_same(found, wanted, tolerance=1e-5):
    """Outputs agree, as a share of the largest magnitude."""
    assert found.keys() == wanted.keys()
    for name, theirs in wanted.items():
        ours = found[name]
        assert ours.shape == theirs.shape, name
        size = max(float(np.abs(theirs).max(initial=0)), 1e-30)
        assert float(np.abs(ours.astype(np.float64) - theirs).max(initial=0)) <= tolerance * size, name
