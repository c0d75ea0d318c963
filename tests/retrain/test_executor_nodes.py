"""ONNX's own cases for single operators: every case of a supported operator agrees with its reference."""

import re
import warnings
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from nvaudit.model.load import load_model
from nvaudit.retrain.executor.module import build_executor
from nvaudit.retrain.executor.ops.registry import find, to_tensor

# Cases of supported operators that may differ, by pattern of their names, each with its reason.
EXCEPTED = {
    r"training_dropout": "random numbers of another generator",
    r"resize_downsample_scales_(linear|cubic)_align_corners$": "ONNX Runtime takes whole sizes",
    r"bitwise_not_3d$": "torch has no unsigned 16-bit integers",
    r"FLOAT8|FLOAT4|float8|float4|e4m3|e5m2|e8m0": "torch carries no 8- and 4-bit floats",
    r"castlike_FLOAT(16)?_to_U?INT[24]$": "the type to be like is known only when it runs, wider in torch",
    r"quantizelinear_u?int[24]$": "the zero point is fed, its type known only when it runs, wider in torch",
}


def _array(data):
    return numpy_helper.to_array(data) if isinstance(data, onnx.TensorProto) else np.asarray(data)


def _is_tensor(info):
    kind = info.type.WhichOneof("value") == "tensor_type"
    return kind and info.type.tensor_type.elem_type != onnx.TensorProto.STRING


def _check(case, path):
    """Run a case; raises where it differs. The largest difference, relative to the largest magnitude."""
    graph = case.model.graph
    path.write_bytes(case.model.SerializeToString())
    executor = build_executor(load_model(path)).eval()
    given, wanted = case.data_sets[0]
    feeds = {info.name: to_tensor(_array(data)) for info, data in zip(graph.input, given, strict=True)}
    with torch.no_grad():
        found = executor(feeds)
    arrays = [_array(data) for data in (*given, *wanted)]
    narrow = any(a.dtype.itemsize == 2 and a.dtype.kind not in "iu" for a in arrays)
    worst = 0.0
    for info, data in zip(graph.output, wanted, strict=True):
        theirs = _array(data)
        ours = found[info.name].to(torch.float64).numpy()
        assert ours.shape == theirs.shape
        relative = 1e-2 if narrow else max(case.rtol, 1e-3)
        np.testing.assert_allclose(
            ours, theirs.astype(np.float64), rtol=relative, atol=1e-2 if narrow else 1e-5
        )
        finite = np.isfinite(ours)
        if not narrow and finite.any():
            span = np.abs(ours[finite]).max()
            worst = max(worst, float(np.abs(ours - theirs)[finite].max() / max(span, 1e-30)))
    return worst


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # onnx computes its references with overflows
def test_node_cases_agree(tmp_path, record_property):
    """Every case of a supported operator agrees but for those with a reason; each reason has a case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        cases = load_model_tests(kind="node")
    count, failures, reasons, worst = Counter(), {}, set(), 0.0
    for case in cases:
        graph = case.model.graph
        if any(n.op_type != "Constant" and find(n.domain, n.op_type) is None for n in graph.node):
            count["unsupported"] += 1
            continue
        if not all(_is_tensor(info) for info in (*graph.input, *graph.output)):
            count["no tensors"] += 1
            continue
        try:
            worst = max(worst, _check(case, tmp_path / "case.onnx"))
            count["passed"] += 1
        except Exception as error:  # whatever torch and numpy make of types that they do not have
            reason = next((pattern for pattern in EXCEPTED if re.search(pattern, case.name)), None)
            if reason is None:
                failures[case.name] = f"{type(error).__name__}: {error}"[:200]
                continue
            count["excepted"] += 1
            reasons.add(reason)
    for name, number in (*count.items(), ("worst", worst)):
        record_property(name, number)
    assert failures == {}
    assert reasons == set(EXCEPTED)
    assert count["passed"] > 1300
