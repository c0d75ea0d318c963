"""Put other numbers into a model, in the place and type of the old ones, and write it as what it was."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.errors import EngineError, ModelError
from nvaudit.files import check_writable, put_in_place, write_bytes_atomic
from nvaudit.model.analysis import Analysis, End, Root, analyse
from nvaudit.model.build import Names
from nvaudit.model.cause import cause
from nvaudit.model.chains import Quantize
from nvaudit.model.decode import decode_values
from nvaudit.model.draws import drop_seeds
from nvaudit.model.fold import fold, stored_array
from nvaudit.model.load import LoadedModel
from nvaudit.model.walk import graphs, is_constant_node
from nvaudit.model.weights import choose
from nvaudit.model.write import MAX_ONE_FILE

_EXTERNAL_BYTES = 1024  # smaller tensors stay in the message, as exporters leave them


def weight_values(model: ir.Model, keys: Sequence[str]) -> dict[str, Array]:
    """Read weights in their primary layout and the float type at their operator.

    Parameters
    ----------
    keys : sequence of str
        Weights whose stored numbers are these floats.
    """
    analysis = analyse(model)
    values = {}
    for root in _wanted(analysis, keys):
        stored = stored_array(root.value)
        assert stored is not None
        end = choose(root).mapped[0]
        dtype = ir.DataType.from_numpy(stored.dtype)
        values[root.key] = decode_values(stored, dtype, end.steps, None, analysis.opset)[0]
    return values


def fixed_reason(root: Root) -> str | None:
    """Say why the stored numbers of a weight cannot be changed; None if they can."""
    choice = choose(root)
    if root.origin == "folded":
        return "is computed from other constants in the graph"
    if root.origin not in ("initializer", "constant"):
        return f"is stored as {root.origin}"
    if not all(_reaches_as_floats(end) for end in choice.mapped):
        return "is stored on an integer grid of its own"
    return "serves a digital use too" if choice.digital else None


def editable_weights(model: ir.Model, keys: Sequence[str]) -> dict[str, str | None]:
    """Say for each weight why its stored numbers cannot be changed; None if they can."""
    return {root.key: fixed_reason(root) for root in _wanted(analyse(model), keys)}


def _reaches_as_floats(end: End) -> bool:
    quantised = any(isinstance(step, Quantize) for step in end.steps)
    return not quantised and end.role is not None and end.role.decode is None


def set_weights(model: ir.Model, arrays: Mapping[str, Array]) -> None:
    """Replace the stored numbers of weights.

    Parameters
    ----------
    model : onnx_ir.Model
        The model; it is changed.
    arrays : mapping of str to ndarray
        By key, in the primary layout; cast to the stored type.
    """
    for root in _wanted(analyse(model), list(arrays)):
        values = choose(root).to_stored.apply(np.asarray(arrays[root.key]))
        values = np.ascontiguousarray(values.astype(root.state.dtype.numpy())).reshape(root.state.shape)
        store_array(root.value, values)


def put_constant(node: ir.Node, index: int, change: Callable[[Array], Array], names: Names) -> None:
    """Change a constant that a node takes; other nodes that take it keep the old one.

    Parameters
    ----------
    index : int
        Which of its inputs.
    change : callable
        From the old array to the new one.
    """
    value = node.inputs[index]
    assert value is not None
    model_opset = 1 if node.graph is None else node.graph.opset_imports.get("", 1)
    old = fold(value, model_opset)
    assert old is not None
    new = np.ascontiguousarray(change(old))
    # Written in place only where nobody else reads it; a stored tensor that is also an input must keep the
    # shape that its declaration states.
    own = len(list(value.uses())) == 1 and not value.is_graph_output()
    maker = value.producer()
    stored = value.is_initializer() or (maker is not None and is_constant_node(maker))
    if own and stored and (new.shape == old.shape or not value.is_graph_input()):
        store_array(value, new)
        return
    wish = value.name or f"{node.name}/constant"
    tensor = ir.tensor(new, name=names.fresh(wish))
    holder = ir.Node("", "Constant", [], [ir.Attr("value", ir.AttributeType.TENSOR, tensor)])
    holder.name, holder.outputs[0].name = names.fresh(f"{wish}/node"), tensor.name
    assert node.graph is not None
    node.graph.insert_before(node, holder)
    node.replace_input_with(index, holder.outputs[0])


def write_model(loaded: LoadedModel, path: str | Path, *, max_bytes: int = MAX_ONE_FILE) -> None:
    """Write a model whole: external data comes back as external data, in ``<name>.data`` beside the file.

    Parameters
    ----------
    max_bytes : int
        Bytes of tensors from which on they go to the file beside it in any case.

    Raises
    ------
    OptionError, EngineError
        If a file cannot be written.
    ModelError
        If the model cannot be put into a message.
    """
    path = Path(path)
    check_writable(path)
    tensors = [v.const_value for graph, _ in graphs(loaded.model.graph) for v in graph.initializers.values()]
    outside = any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
    total = sum(int(tensor.nbytes) for tensor in tensors if tensor is not None)
    try:
        model = loaded.model.clone()
        drop_seeds(model)
        if not outside and total <= max_bytes:
            data = ir.serde.serialize_model(model).SerializeToString()
        else:
            data = _beside(model, path)
    except OSError as error:
        raise EngineError(
            f"{path}: cannot be written: {error.strerror}; free space or choose another place"
        ) from error
    except Exception as error:
        raise ModelError(f"{loaded.path}: the changed model cannot be written: {cause(error)}") from error
    write_bytes_atomic(path, data)


def _beside(model: ir.Model, path: Path) -> bytes:
    """Put tensors into a file beside the model; the message that points there."""
    name = f"{path.name}.data"
    folder = Path(tempfile.mkdtemp(prefix=".nvaudit-", dir=path.parent))
    try:
        model = ir.external_data.unload_from_model(model, folder, name, size_threshold_bytes=_EXTERNAL_BYTES)
        data = bytes(ir.serde.serialize_model(model).SerializeToString())
        if (folder / name).exists():
            put_in_place(folder / name, path.with_name(name))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return data


def _wanted(analysis: Analysis, keys: Sequence[str]) -> list[Root]:
    roots = {root.key: root for root in analysis.roots}
    return [roots[key] for key in keys]


def store_array(value: ir.Value, array: Array) -> None:
    """Replace the numbers of an initializer or Constant node, and their shape and type."""
    tensor = ir.tensor(array, name=value.name)
    node = value.producer()
    if node is None:
        value.const_value = tensor
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(tensor.dtype)
        return
    # A Constant holds exactly one of value, value_float, value_ints, ..: whichever it was goes.
    for name in list(node.attributes):
        del node.attributes[name]
    node.attributes["value"] = ir.Attr("value", ir.AttributeType.TENSOR, tensor)
    value.shape = ir.Shape(array.shape)
