"""One operator applied to known arrays, within limits that hold whatever the operator is.

ONNX Runtime does it, so that a computed weight has the bits that the model itself would compute; the
reference evaluator of onnx steps in for what ONNX Runtime has no kernel for (element types, newest versions).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from nvaudit.arrays import Array
from nvaudit.model.cause import cause
from nvaudit.model.macs.rules import terms
from nvaudit.model.runtime import runtime
from nvaudit.model.walk import bodies, captured

KnownValue = Array | list[Array]
"""A tensor, or a sequence of tensors."""

MAX_FOLDED = 2**29
"""Elements of all computed arrays that are alive at one time, whatever is stored."""

MAX_ADDED = 2**25
"""Elements by which the computed weights of a model may together exceed what is stored. A file of a few bytes
can ask for any number; exporters leave products, masks and copies to be computed that are as large as what
they come from, or small."""

WHILE_ADDED, WHILE_STORED = 2 * MAX_ADDED, 4
"""Elements of all computed arrays that are alive at one time: so many, and so many times what is stored."""

MAX_WORK = 2**37
"""Multiplications for the computed weights of a model: some ten seconds of one core."""

MAX_SECONDS = 30.0
"""Time that one operator with graphs inside (Loop, Scan, If) may take; its work is not known before."""

_ARENA_BYTES = 2**30  # memory that such an operator may take
_SMALL = 4096  # elements of an array that shape inference may look at
_IR_VERSION = 10  # read by every ONNX Runtime in use


class NotFolded(Exception):
    """A value that is constant, and that is not computed; says why, as the end of a sentence."""


def evaluate(
    node: ir.Node, inputs: Mapping[ir.Value, KnownValue], versions: Mapping[str, int], limit: int
) -> tuple[list[KnownValue | None], int]:
    """Apply an operator.

    Parameters
    ----------
    inputs : mapping of onnx_ir.Value to ndarray or list of ndarray
        Its inputs, and what graphs inside it read from outside.
    versions : mapping of str to int
        Version of each operator set.
    limit : int
        Elements that its results may have together.

    Returns
    -------
    tuple of list of (ndarray, list of ndarray, or None) and int
        One entry per output, None where it has no name; and the multiplications that it took, as far as
        they can be counted.

    Raises
    ------
    NotFolded
        If a limit is hit, or nothing here can run the operator.
    """
    model, feeds = _model(node, inputs, versions)
    shapes = _shapes(model)
    # Where the sizes are inferred they are bounded before anything is allocated. Else, and with graphs inside
    # whose own arrays are not in sight, the run is guarded, and its results are counted afterwards.
    bound = None if None in shapes else sum(math.prod(shape) for shape in shapes if shape is not None)
    if bound is not None and bound > limit:
        raise NotFolded(_too_large(bound, limit))
    work = _work(node, inputs, shapes)
    if work > MAX_WORK:
        raise NotFolded(f"takes {work:,} multiplications, above the limit of {MAX_WORK:,}")
    results = _run(node, model, feeds, guarded=bound is None or next(bodies(node), None) is not None)
    size = sum(elements(result) for result in results)
    if size > limit:
        raise NotFolded(_too_large(size, limit))
    given = iter(results)
    return [next(given) if value.name else None for value in node.outputs], work


def _too_large(size: int, limit: int) -> str:
    return (
        f"makes {size:,} elements, above the limit of {limit:,} that computed arrays may still have together"
    )


def _short(error: Exception) -> str:
    text = cause(error)
    return text if len(text) <= 160 else text[:160] + "…"


def elements(known: KnownValue) -> int:
    """Elements of a tensor, or of all tensors of a sequence."""
    return sum(part.size for part in known) if isinstance(known, list) else int(known.size)


def _model(
    node: ir.Node, inputs: Mapping[ir.Value, KnownValue], versions: Mapping[str, int]
) -> tuple[Any, dict[str, KnownValue]]:
    """The operator as a model of its own, and what to feed."""
    proto = ir.serde.serialize_node(node)
    feeds: dict[str, KnownValue] = {}
    for position, value in enumerate(node.inputs):
        if value is not None:
            proto.input[position] = name = f"nvaudit.input.{position}"
            feeds[name] = inputs[value]
    # Graphs inside read these by name, so they keep theirs.
    feeds |= {value.name or "": inputs[value] for value in captured(node)}
    for position in range(len(proto.output)):
        proto.output[position] = f"nvaudit.output.{position}"
    # What an operator reads its sizes from must be there when shapes are inferred.
    small = {
        name: known for name, known in feeds.items() if not isinstance(known, list) and known.size <= _SMALL
    }
    feeds = {name: known for name, known in feeds.items() if name not in small}
    graph = helper.make_graph(
        [proto],
        "fold",
        [_info(name, known) for name, known in feeds.items()],
        [
            onnx.ValueInfoProto(name=name)
            for name, value in zip(proto.output, node.outputs, strict=True)
            if value.name
        ],
        [_tensor(name, known) for name, known in small.items()],
    )
    sets = [helper.make_opsetid(domain, max(version, 1)) for domain, version in versions.items()]
    return helper.make_model(graph, opset_imports=sets, ir_version=_IR_VERSION), feeds


def _tensor(name: str, known: KnownValue) -> Any:
    assert not isinstance(known, list)
    if known.dtype.kind in "UO":
        return helper.make_tensor(name, TensorProto.STRING, known.shape, known.reshape(-1).tolist())
    return ir.serde.serialize_tensor(ir.tensor(np.asarray(known, order="C"), name=name))


def _info(name: str, known: KnownValue) -> Any:
    if isinstance(known, list):
        if not known:
            raise NotFolded("takes an empty sequence")
        return helper.make_tensor_sequence_value_info(name, _code(known[0]), None)
    return helper.make_tensor_value_info(name, _code(known), known.shape)


def _code(array: Array) -> int:
    if array.dtype.kind in "UO":
        return int(TensorProto.STRING)
    return int(ir.DataType.from_numpy(array.dtype))


def _shapes(model: Any) -> list[tuple[int, ...] | None]:
    """Shapes of the results as far as onnx infers them."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # inference is not required to know every operator
        return [None] * len(model.graph.output)
    shapes: list[tuple[int, ...] | None] = []
    for value in inferred.graph.output:
        tensor = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        known = value.type.HasField("tensor_type") and tensor.HasField("shape") and min(dims, default=0) >= 0
        shapes.append(tuple(dims) if known else None)
    return shapes


def _work(
    node: ir.Node, inputs: Mapping[ir.Value, KnownValue], shapes: Sequence[tuple[int, ...] | None]
) -> int:
    """Multiplications of an operator; one that makes no products takes a few for each element."""
    sizes = {value: known.shape for value, known in inputs.items() if isinstance(known, np.ndarray)}
    made = [value for value in node.outputs if value.name]
    sizes |= {value: shape for value, shape in zip(made, shapes, strict=True) if shape is not None}

    def sizes_of(value: ir.Value | None) -> tuple[int, ...] | None:
        return None if value is None else sizes.get(value)

    products = sum(term.products or 0 for term in terms(node, sizes_of))
    # Reading and writing count as work too, so that a long row of cheap operators is bounded.
    few_each = sum(math.prod(sizes_of(value) or ()) for value in (*node.inputs, *made[:1]))
    return max(products, few_each)


def _run(node: ir.Node, model: Any, feeds: Mapping[str, KnownValue], *, guarded: bool) -> list[KnownValue]:
    """Run the model of one operator; guarded where neither memory nor time is known before."""
    names = [value.name for value in model.graph.output]
    try:
        results = _run_by_runtime(model, names, feeds, guarded)
    except NotFolded:
        raise
    except Exception as error:  # no kernel for this type or version, or a fault of the model
        # The reference evaluator knows no limit of memory or time.
        if guarded:
            raise NotFolded(f"cannot be run: {_short(error)}") from error
        results = _run_by_reference(model, names, feeds, _short(error))
    return [list(result) if isinstance(result, list) else np.asarray(result) for result in results]


def _run_by_runtime(
    model: Any, names: list[str], feeds: Mapping[str, KnownValue], guarded: bool
) -> list[Any]:
    ort = runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # Optimisation would fold constants while the session is made, before the timer runs.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if guarded:
        _bounded_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    run = ort.RunOptions()
    run.log_severity_level = 4
    late = threading.Event()

    def stop() -> None:
        late.set()
        # Looked at between nodes only: it ends loops; a single operator is bounded by MAX_WORK.
        run.terminate = True

    timer = threading.Timer(MAX_SECONDS, stop)
    timer.daemon = True
    timer.start()
    try:
        return list(session.run(names, {name: _feed(known) for name, known in feeds.items()}, run))
    except Exception as error:
        if late.is_set():
            raise NotFolded(f"was not done after {MAX_SECONDS:.0f} s") from error
        if guarded and "bfc_arena" in str(error):
            raise NotFolded(f"takes more than {_ARENA_BYTES >> 30} GiB of memory") from error
        raise
    finally:
        timer.cancel()


@cache
def _bounded_arena() -> None:
    """Give sessions that ask for it one arena that does not grow beyond a limit."""
    ort = runtime()
    # Registered once: it belongs to ONNX Runtime's environment, which the whole process shares.
    arena = ort.OrtArenaCfg({"max_mem": _ARENA_BYTES, "arena_extend_strategy": 1})
    where = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(where, arena)


def _feed(known: KnownValue) -> Any:
    if isinstance(known, list):
        return [np.asarray(part, order="C") for part in known]
    return np.asarray(known, order="C")


def _run_by_reference(
    model: Any, names: list[str], feeds: Mapping[str, KnownValue], reason: str
) -> list[Any]:
    try:
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(model).run(names, dict(feeds)))
    except Exception as error:  # it does not know every version of every operator either
        raise NotFolded(f"cannot be run: {reason}") from error
