"""Read an ONNX file, from any source, into a graph that the rest can trust."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from nvaudit.errors import InputChangedError, ModelError
from nvaudit.files import read_noted
from nvaudit.model.attributes import open_linear
from nvaudit.model.cause import cause
from nvaudit.model.check import MAX_ELEMENTS, check_model
from nvaudit.model.draws import RandomNode, draws_note, find_draws, seed_draws
from nvaudit.model.external import digest_files
from nvaudit.model.inline import check_growth, inline_functions
from nvaudit.model.sparse import densify
from nvaudit.model.upgrade import obstacle, upgrade

MAX_FILE_BYTES = 2**31 - 1  # the limit of a protobuf message

# Its warnings speak of models that check_model refuses with a better message.
logging.getLogger("onnx_ir").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a model.

    Attributes
    ----------
    dtype : str
        A numpy type name (``"float32"``, ``"bfloat16"``), ``"string"``, or ``"sequence"``, ``"map"``,
        ``"optional"`` for what is no tensor; ``"undefined"`` where the file does not say.
    shape : tuple of int, str or None, or None
        Fixed sizes, symbolic names, None for an unknown size; None when even the rank is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class LoadedModel:
    """A model as read: functions inlined, nodes sorted, sparse tensors dense, external data not yet read.

    Attributes
    ----------
    model : onnx_ir.Model
        The graph; shared, to be cloned before it is changed.
    digest : str
        SHA-256 over the file and its external data files.
    inputs : tuple of TensorSpec
        What must be fed; inputs with an initializer are left out.
    outputs : tuple of TensorSpec
        What the model returns.
    ir_version : int
        Version of the file format.
    draws : tuple of RandomNode
        Nodes whose results differ from run to run; those of ``model`` have seeds that follow the run's.
    notes : tuple of str
        What was done to the file's graph, or must be known of it.
    as_filed : bool
        Whether the file itself computes what ``model`` does: no seed was set and no operator set changed.
    obstacle : str or None
        Why ONNX Runtime cannot run it, where its operators show that, and what to do.
    """

    path: Path
    model: ir.Model
    digest: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    ir_version: int
    draws: tuple[RandomNode, ...] = ()
    notes: tuple[str, ...] = ()
    as_filed: bool = True
    obstacle: str | None = None

    def facts(self) -> dict[str, Any]:
        """What a report says of the model: path, opset, inputs, outputs."""
        return {
            "path": str(self.path),
            "opset": self.opset,
            "inputs": tuple(f"{i.name} {i.dtype} {list(i.shape or ())}" for i in self.inputs),
            "outputs": tuple(f"{o.name} {o.dtype} {list(o.shape or ())}" for o in self.outputs),
        }


def load_model(path: str | Path, seed: int = 0) -> LoadedModel:
    """Read an ONNX model.

    Parameters
    ----------
    path : str or Path
        An ``.onnx`` file of any operator set and format version; external data is found beside it.
    seed : int
        Of the run, for what the model draws at random; see :mod:`nvaudit.model.draws`.

    Raises
    ------
    ModelError
        If the file cannot be read, is no valid ONNX model, or points at data that it must not or
        cannot have.
    """
    path = Path(path)
    try:
        return _load(path, seed)
    except (ModelError, InputChangedError):
        raise
    except MemoryError as error:
        raise ModelError(f"{path}: does not fit into memory; store its weights as external data") from error
    except Exception as error:
        raise ModelError(
            f"{path}: not a readable ONNX model: {cause(error)}; check it with onnx.checker, export it again"
        ) from error


def model_files(path: str | Path) -> tuple[Path, ...]:
    """List the files of a model that :func:`load_model` accepts.

    Returns
    -------
    tuple of Path
        The model file, then its external data files, links followed.
    """
    path = Path(path)
    return (path, *check_model(parse(path), path).files)


def assemble(proto: Any, path: Path) -> tuple[ir.Model, tuple[Path, ...]]:
    """Make the graph of a message: checked, sparse tensors dense, sorted, functions inlined.

    Parameters
    ----------
    proto : onnx.ModelProto
        The message; it is changed.

    Returns
    -------
    tuple of onnx_ir.Model and tuple of Path
        The graph, and its external data files.

    Raises
    ------
    ModelError
        As :func:`load_model`.
    """
    checked = check_model(proto, path)
    densify(proto, checked)
    if not proto.opset_import:
        proto.opset_import.add().version = 1  # what files before format version 3 mean
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it remarks on was checked above, or has no meaning to us
        model = ir.serde.deserialize_model(proto)
    _set_folder(model, path.parent)
    _sort(model, path)
    inline_functions(model, path)
    check_growth(model, path)
    open_linear(model)
    return model, tuple(checked.files)


def _load(path: Path, seed: int) -> LoadedModel:
    proto, upgraded = parse_upgraded(path)
    kinds = {value.name: value.type.WhichOneof("value") for value in proto.graph.output}
    model, files = assemble(proto, path)  # drops the types of dictionaries
    inputs, outputs = _specs(proto, path)
    outputs = tuple(
        replace(spec, dtype=(kinds.get(spec.name) or spec.dtype).removesuffix("_type"))
        if spec.dtype == "undefined"
        else spec
        for spec in outputs
    )
    random = find_draws(model)
    seed_draws(random, seed)
    return LoadedModel(
        path=path,
        model=model,
        digest=digest_files([path, *files]),
        inputs=inputs,
        outputs=outputs,
        opset=model.opset_imports.get("", 1),
        ir_version=model.ir_version or 1,
        draws=random,
        notes=(*(() if upgraded is None else (upgraded,)), *draws_note(random)),
        as_filed=upgraded is None and not random,
        obstacle=obstacle(model, path),
    )


def parse_upgraded(path: Path) -> tuple[Any, str | None]:
    """Read a file as a message that ONNX Runtime has operators for; also what was changed for that."""
    proto = parse(path)
    return upgrade(proto, path)


def parse(path: Path) -> Any:
    """Read a file as a protobuf message, an ``onnx.ModelProto``; nothing in it is checked yet."""
    if not path.exists():
        raise ModelError(f"{path}: no such file; give an .onnx model")
    if not path.is_file():
        raise ModelError(f"{path}: is not a file; give an .onnx model")
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ModelError(f"{path}: has {size} bytes, beyond the 2 GiB of protobuf; use external data")
        data = read_noted(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
    if not data:
        raise ModelError(f"{path}: is empty; export the model again")
    try:
        return onnx.ModelProto.FromString(data)
    except Exception as error:
        raise ModelError(
            f"{path}: not a readable ONNX model: it does not parse as protobuf ({error}); "
            "it is another format, truncated or damaged"
        ) from error


def _specs(proto: Any, path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of the main graph."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = tuple(_spec(value) for value in proto.graph.input if value.name not in stored)
    outputs = tuple(_spec(value) for value in proto.graph.output)
    for spec in inputs:
        if math.prod(size for size in spec.shape or () if isinstance(size, int)) > MAX_ELEMENTS:
            raise ModelError(
                f"{path}: input {spec.name!r} has shape {list(spec.shape or ())}, beyond any memory"
            )
    return inputs, outputs


def _spec(value: Any) -> TensorSpec:
    """One input or output."""
    kind = value.type.WhichOneof("value")
    if kind not in ("tensor_type", "sparse_tensor_type"):
        name = (kind or "undefined").removesuffix("_type")
        return TensorSpec(value.name, name, None)
    tensor = getattr(value.type, kind)
    dtype = ir.DataType(tensor.elem_type)
    if dtype == ir.DataType.STRING:
        name = "string"
    else:
        name = "undefined" if dtype == ir.DataType.UNDEFINED else str(dtype.numpy())
    if not tensor.HasField("shape"):
        return TensorSpec(value.name, name, None)
    return TensorSpec(value.name, name, tuple(_dim(dim) for dim in tensor.shape.dim))


def _dim(dim: Any) -> int | str | None:
    """One size; exporters write -1 and 0 for unknown ones."""
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value > 0 else None
    return dim.dim_param or None


def _set_folder(model: ir.Model, folder: Path) -> None:
    """Tell every external tensor where its file lies."""
    graphs = [model.graph, *model.graph.subgraphs()]
    for function in model.functions.values():
        graphs += [function.graph, *function.graph.subgraphs()]
    for graph in graphs:
        tensors = [value.const_value for value in graph.initializers.values()]
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    tensors.append(attribute.as_tensor())
                elif attribute.type == ir.AttributeType.TENSORS and not attribute.is_ref():
                    tensors.extend(attribute.as_tensors())
        for tensor in tensors:
            if isinstance(tensor, ir.ExternalTensor):
                tensor.base_dir = folder


def _sort(model: ir.Model, path: Path) -> None:
    """Sort every graph; sorted ones keep their order."""
    try:
        model.graph.sort()
        for function in model.functions.values():
            function.graph.sort()
    except ValueError as error:
        raise ModelError(f"{path}: the graph has a cycle; export the model again") from error
