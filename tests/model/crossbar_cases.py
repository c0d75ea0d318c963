"""Small models with one weight ``w`` each, for the tests of crossbars."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from nvaudit.device import load_profile, override_profile
from nvaudit.mapping.conductance import DeviceArray, layout
from nvaudit.model import CellReadout, Converters, CrossbarPlan, Template, build_template, load_model
from nvaudit.perturb.cells import device_factors, device_offset, place_cells, target_cells
from nvaudit.perturb.chip import MappedTensor

STEP = 1 / 64
"""Weight units per code: a power of two, so that products of small whole numbers are exact."""

Case = tuple[list[onnx.NodeProto], dict[str, np.ndarray], list, int]
"""Nodes, stored tensors, shape of x, operator set."""

_rng = np.random.Generator(np.random.SFC64(11))


def codes(*shape: int) -> np.ndarray:
    """Signed 6-bit codes."""
    return _rng.integers(-63, 64, shape)


def _conv(x: list, shape: tuple[int, ...], opset: int = 17, op: str = "Conv", bias: int = 0, **attributes):
    inputs = ["x", "w", "b"] if bias else ["x", "w"]
    tensors = {"w": codes(*shape)} | ({"b": codes(bias)} if bias else {})
    return [helper.make_node(op, inputs, ["y"], name="layer", **attributes)], tensors, x, opset


def _gemm(x: list, shape: tuple[int, ...], bias: bool, left: bool = False, opset: int = 17, **attributes):
    inputs = (["w", "x"] if left else ["x", "w"]) + (["b"] if bias else [])
    tensors = {"w": codes(*shape)} | ({"b": codes(1)} if bias else {})
    return [helper.make_node("Gemm", inputs, ["y"], name="layer", **attributes)], tensors, x, opset


def _matmul(x: list, shape: tuple[int, ...], left: bool = False, opset: int = 17):
    inputs = ["w", "x"] if left else ["x", "w"]
    return [helper.make_node("MatMul", inputs, ["y"], name="layer")], {"w": codes(*shape)}, x, opset


CASES: dict[str, Callable[[], Case]] = {
    "conv": lambda: _conv([2, 6, 5, 5], (4, 6, 3, 3), pads=[1, 1, 1, 1], bias=4),
    "conv strided, dilated": lambda: _conv([2, 7, 9, 9], (3, 7, 3, 3), strides=[2, 2], dilations=[2, 1]),
    "conv auto_pad": lambda: _conv([2, 5, 6, 6], (3, 5, 3, 2), auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv grouped": lambda: _conv([2, 8, 5, 5], (6, 4, 3, 3), group=2, bias=6),
    "conv grouped, deep": lambda: _conv([1, 16, 4, 4], (4, 8, 3, 3), group=2),
    "conv depthwise": lambda: _conv([2, 4, 5, 5], (4, 1, 3, 3), group=4),
    "conv kernel beyond a crossbar": lambda: _conv([1, 3, 8, 8], (2, 3, 6, 6)),
    "conv 1-D": lambda: _conv([2, 20, 9], (3, 20, 3), pads=[1, 1]),
    "conv 3-D": lambda: _conv([1, 3, 4, 4, 4], (2, 3, 2, 2, 2)),
    "conv opset 7": lambda: _conv([2, 6, 5, 5], (4, 6, 3, 3), opset=7, bias=4),
    "conv opset 10": lambda: _conv([2, 6, 5, 5], (4, 6, 3, 3), opset=10),
    "transposed": lambda: _conv([2, 6, 4, 4], (6, 3, 3, 3), op="ConvTranspose", strides=[2, 2], bias=3),
    "transposed grouped": lambda: _conv([2, 4, 4, 4], (4, 3, 2, 2), op="ConvTranspose", group=2),
    "gemm": lambda: _gemm([3, 40], (40, 5), bias=True),
    "gemm transB": lambda: _gemm([3, 40], (5, 40), bias=True, transB=1, alpha=0.5, beta=2.0),
    "gemm transA": lambda: _gemm([40, 3], (40, 5), bias=False, transA=1),
    "gemm left": lambda: _gemm([40, 3], (5, 40), bias=True, left=True),
    "gemm left, transB": lambda: _gemm([3, 40], (5, 40), bias=False, left=True, transB=1),
    "gemm opset 7": lambda: _gemm([3, 40], (40, 5), bias=True, opset=7),
    "matmul": lambda: _matmul([2, 3, 40], (40, 5)),
    "matmul of a vector": lambda: _matmul([40], (40, 5)),
    "matmul with a vector": lambda: _matmul([2, 3, 40], (40,)),
    "matmul left": lambda: _matmul([2, 40, 3], (5, 40), left=True),
    "matmul opset 9": lambda: _matmul([2, 3, 40], (40, 5), opset=9),
}


def save(folder: Path, case: Case, dtype: type = np.float64, dynamic: bool = False) -> Path:
    """Write a case: weights are its codes times ``STEP``."""
    nodes, tensors, shape, opset = case
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shape = ["N", *shape[1:]] if dynamic else shape
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array((value * STEP).astype(dtype), name) for name, value in tensors.items()],
    )
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def mapped(
    code: np.ndarray,
    encoding: str = "sign_magnitude",
    scale: np.ndarray | None = None,
    top_slice: str = "lowest",
) -> MappedTensor:
    """Codes in 2-bit cells; every level counts for a power of two, so that sums are exact."""
    profile = override_profile(load_profile("rram"), top_slice=top_slice)
    array: DeviceArray = layout(profile, bits=6, cell_bits=2, encoding=encoding)
    scale = np.asarray(STEP, np.float32) if scale is None else scale
    return MappedTensor("w", code.astype(np.int16), scale, array, 63)


def split(
    path: Path, tensor: MappedTensor, rows: int, converters: Converters | None = None, by_adding: bool = False
) -> tuple[Template, dict[str, np.ndarray]]:
    """The template of a model on crossbars, and its slots filled without noise."""
    cells = CellReadout(device_factors(tensor.array), device_offset(tensor.array), tensor.scale)
    plan = CrossbarPlan(
        rows, {"w": cells}, {} if converters is None else {"w": converters}, "w" if by_adding else ()
    )
    template = build_template(load_model(path), ["w"], crossbars=plan)
    devices = target_cells(tensor)
    return template, {s.name: place_cells(devices, s) for s in template.slots if s.cells}


def run(template: Template, fills: dict[str, np.ndarray], x: np.ndarray, wanted: list[str] | None = None):
    """Outputs of a template in plain ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_external_initializers(
        list(fills), [ort.OrtValue.ortvalue_from_numpy(a) for a in fills.values()]
    )
    session = ort.InferenceSession(template.proto, options, providers=["CPUExecutionProvider"])
    return session.run(wanted or ["y"], {"x": x})


def inputs(case: Case, dtype: type = np.float64, low: int = -20) -> np.ndarray:
    """Whole numbers."""
    return _rng.integers(low, 21, case[2]).astype(dtype)
