"""Put new numbers into an ONNX file and leave everything else as it is.

The file's own message is written again with other bytes in some tensors: names, nodes, functions, operator
sets and metadata are not touched. External data stay external: their files are copied beside the new model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.errors import EngineError, ModelError, NvauditError
from nvaudit.files import check_writable, replacing, write_bytes_atomic
from nvaudit.model.analysis import Root, analyse
from nvaudit.model.cause import cause
from nvaudit.model.fold import stored_array
from nvaudit.model.load import LoadedModel, assemble, parse_upgraded
from nvaudit.model.parameters import grid_of

_TAG = "nvaudit.place"
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


@dataclass(frozen=True)
class _New:
    """New numbers of one stored tensor, in its own type; ``changed`` where any differs from the old ones."""

    array: Array
    dtype: ir.DataType
    changed: bool

    def to_bytes(self) -> bytes:
        return ir.Tensor(self.array, dtype=self.dtype).tobytes()


def update_values(loaded: LoadedModel, values: Mapping[str, Array], path: str | Path) -> tuple[str, ...]:
    """Write a model with other numbers in some of its stored tensors.

    Parameters
    ----------
    loaded : LoadedModel
        The model; its file is read again and not changed.
    values : mapping of str to ndarray
        Floats by ``Constant.name``, in the stored layout: a tensor of integers on a grid gets the nearest
        codes of the same scales, a half-precision one is rounded. Numbers that stand for what is stored
        already leave their bytes alone.
    path : str or Path
        The ONNX file to write; data files go beside it as ``<name>.data``.

    Returns
    -------
    tuple of str
        Keys of the tensors whose numbers changed.

    Raises
    ------
    ModelError
        If a key is no stored tensor of the model or is one that cannot be written, if shapes differ or
        numbers are not finite, if the path is the model itself, or if the file changed since it was read.
    OptionError, EngineError
        If a file cannot be written.
    """
    path = Path(path)
    try:
        return _update(loaded, values, path)
    except NvauditError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{loaded.path}: new weights cannot be written: {cause(error)}") from error


def _update(loaded: LoadedModel, values: Mapping[str, Array], path: Path) -> tuple[str, ...]:
    # Read from the file again, not written from the graph in memory: that one has its functions inlined and
    # its names apart, and would come back as another file.
    proto, upgraded = parse_upgraded(loaded.path)
    roots, files = _tagged_roots(loaded)
    for file in (loaded.path, *files):
        if same_file(file, path):
            raise ModelError(f"{path}: is a file of the model itself; write to another path")
    tensors = list(_tensors(proto))
    data = DataFiles(loaded.path, path, files)
    changed = []
    for key, given in values.items():
        root = roots.get(key)
        if root is None:
            raise ModelError(f"{loaded.path}: {key!r} is not a stored tensor; see `nvaudit inspect`")
        new = _encode(root, given, loaded.opset, f"{loaded.path}: {key!r}")
        if not new.changed:
            continue
        changed.append(key)
        place = _place(root)
        if root.origin == "sparse":
            _densify(proto, root, new, f"{loaded.path}: {key!r}")
        elif place is None:
            raise ModelError(
                f"{loaded.path}: {key!r} is stored as numbers of a node's attribute, which cannot be "
                "replaced; export it as an initializer"
            )
        elif tensors[place].data_location == onnx.TensorProto.EXTERNAL:
            data.replace(tensors[place], new.to_bytes())
        else:
            _store(tensors[place], new)
    data.write(tensors)
    # Nothing to change: the very bytes of the file, so that training for no steps gives back what it was
    # given.
    same = not changed and not files and upgraded is None
    data.write_model(loaded.path.read_bytes() if same else proto.SerializeToString())
    return tuple(changed)


def _tagged_roots(loaded: LoadedModel) -> tuple[dict[str, Root], tuple[Path, ...]]:
    """Every stored tensor by key, marked with its place in the file however deep it lies."""
    # Keys are those of the graph that was audited: functions inlined, sparse tensors dense. A mark on each
    # tensor of the message goes with it through all of that and tells where in the file its numbers are.
    proto, _ = parse_upgraded(loaded.path)
    for number, tensor in enumerate(_tensors(proto)):
        entry = tensor.metadata_props.add()
        entry.key, entry.value = _TAG, str(number)
    model, files = assemble(proto, loaded.path)
    roots = {root.key: root for root in analyse(model).roots if root.origin != "folded"}
    before = {root.key: root.state for root in analyse(loaded.model).roots if root.origin != "folded"}
    if {key: root.state for key, root in roots.items()} != before:
        raise ModelError(f"{loaded.path}: the file changed since it was read; start again")
    return roots, files


def _tensors(proto: Any) -> Any:
    """Every dense tensor of a message, always in the same order."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: Any) -> Any:
    yield from graph.initializer
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Any:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


def _place(root: Root) -> int | None:
    tensor = root.value.const_value
    node = root.value.producer()
    if node is not None and "value" in node.attributes:
        tensor = node.attributes["value"].as_tensor()
    tag = None if tensor is None else tensor.metadata_props.get(_TAG)
    return None if tag is None else int(tag)


def _encode(root: Root, given: Array, opset: int, where: str) -> _New:
    """New numbers in the stored type; elements that stand for the old ones keep them."""
    stored = stored_array(root.value)
    assert stored is not None
    given = np.asarray(given)
    if given.shape != stored.shape:
        raise ModelError(
            f"{where}: has shape {list(stored.shape)}, got {list(given.shape)}; give the stored layout"
        )
    name = stored.dtype.name
    grid = None if name in _FLOATS else grid_of(root, opset)
    if name not in _FLOATS and grid is None:
        raise ModelError(f"{where}: holds {name} that are no weight on a grid; only floats can be trained")
    if not np.isfinite(given.astype(np.float64)).all() and not np.array_equal(given, stored, equal_nan=True):
        raise ModelError(f"{where}: the new numbers are NaN or infinite; train with a smaller step")
    if grid is None:
        with np.errstate(over="ignore"):
            array = given.astype(stored.dtype)
        if not np.isfinite(array.astype(np.float64)).all() and np.isfinite(given).all():
            raise ModelError(f"{where}: the new numbers are beyond the range of {name}; clip the weights")
    else:
        # Dividing by the scale may end up at a neighbour of the stored code: what was not changed keeps its
        # own.
        kept = given.astype(np.float32) == grid.values(stored)
        array = np.where(kept, stored, grid.codes(given).astype(np.int64).astype(stored.dtype))
    changed = np.ascontiguousarray(array).tobytes() != np.ascontiguousarray(stored).tobytes()
    return _New(np.ascontiguousarray(array), root.state.dtype, changed)


# Fields of a message that hold one entry per element.
_TYPED = {
    ir.DataType.FLOAT: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.INT8: "int32_data",
    ir.DataType.UINT8: "int32_data",
    ir.DataType.INT16: "int32_data",
    ir.DataType.UINT16: "int32_data",
    ir.DataType.INT32: "int32_data",
    ir.DataType.FLOAT16: "int32_data",
    ir.DataType.BFLOAT16: "int32_data",
}


def _store(tensor: Any, new: _New) -> None:
    """Put numbers where the message has them: in raw bytes, or in the field of their type."""
    field = _TYPED.get(new.dtype)
    if tensor.HasField("raw_data") or field is None:
        for name in ("float_data", "double_data", "int32_data", "int64_data", "uint64_data"):
            tensor.ClearField(name)
        tensor.raw_data = new.to_bytes()
        return
    array = new.array
    if new.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        array = array.view(np.uint16)
    tensor.ClearField(field)
    getattr(tensor, field).extend(array.reshape(-1).tolist())


def _densify(proto: Any, root: Root, new: _New, where: str) -> None:
    """Replace a sparse initializer of the main graph by a dense one of its name."""
    graph = proto.graph
    for number, sparse in enumerate(graph.sparse_initializer):
        if sparse.values.name == root.value.name and not root.path:
            del graph.sparse_initializer[number]
            graph.initializer.append(
                onnx.TensorProto(
                    name=root.value.name,
                    data_type=new.dtype.value,
                    dims=new.array.shape,
                    raw_data=new.to_bytes(),
                )
            )
            return
    raise ModelError(f"{where}: is a sparse tensor inside a node, which cannot be replaced; store it dense")


ALIGNMENT = 4096
"""Tensors that get a new place start at a page."""


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file."""
    return os.path.realpath(first) == os.path.realpath(second)


class DataFiles:
    """The data files of a model and their copies.

    Parameters
    ----------
    files : sequence of Path
        The old model's data files.
    """

    def __init__(self, model: Path, path: Path, files: Sequence[Path]) -> None:
        self.model = model
        self.path = path
        self.files = list(files)
        self.copies: dict[str, Path] = {}
        for file in self.files:
            self.copies[os.path.realpath(file)] = self._free_name()
        # Per file: offset and bytes of what replaces a tensor; a list, for the places may coincide.
        self.patches: dict[str, list[tuple[Any, bytes]]] = {}

    def _free_name(self) -> Path:
        number = 0
        while True:
            name = f"{self.path.name}.{number}.data" if number else f"{self.path.name}.data"
            wish = self.path.with_name(name)
            if wish not in self.copies.values() and not any(same_file(wish, file) for file in self.files):
                return wish
            number += 1

    def replace(self, tensor: Any, data: bytes) -> None:
        """Note the new bytes of an external tensor of the new message."""
        self.patches.setdefault(self._source(tensor), []).append((tensor, data))

    def _source(self, tensor: Any) -> str:
        return os.path.realpath(self.model.parent / _entries(tensor)["location"])

    def write(self, tensors: Iterable[Any]) -> None:
        """Write the copies, and point the tensors of the new message at them.

        Raises
        ------
        OptionError, EngineError
            If a file cannot be written.
        """
        external = [t for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL]
        if not external:
            return
        check_writable(self.path)
        shared = _shared_places([(self._source(tensor), tensor) for tensor in external])
        try:
            for source, copy in self.copies.items():
                self._copy(Path(source), copy, shared)
        except OSError as error:
            raise EngineError(
                f"{self.path}: its data cannot be written: {error.strerror}; free space or write elsewhere"
            ) from error
        for tensor in external:
            _set(tensor, "location", self.copies[self._source(tensor)].name)

    def write_model(self, data: bytes) -> None:
        """Write the new message, after its data."""
        write_bytes_atomic(self.path, data)

    def _copy(self, source: Path, copy: Path, shared: set[int]) -> None:
        with replacing(copy) as temporary:
            shutil.copyfile(source, temporary)
            with temporary.open("r+b") as file:
                for tensor, data in self.patches.get(str(source), []):
                    _patch(file, tensor, data, id(tensor) in shared)


def _patch(file: BinaryIO, tensor: Any, data: bytes, shared: bool) -> None:
    """Overwrite a tensor in its place, or at the end where its place serves another one too."""
    offset = int(_entries(tensor).get("offset", "0"))
    if shared:
        end = file.seek(0, os.SEEK_END)
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        _set(tensor, "offset", str(offset))
        _set(tensor, "length", str(len(data)))
    file.seek(offset)
    file.write(data)


def _shared_places(tensors: list[tuple[str, Any]]) -> set[int]:
    """Find the tensors that share bytes of a file with another one."""
    spans = []
    for source, tensor in tensors:
        entries = _entries(tensor)
        start = int(entries.get("offset", "0"))
        length = int(entries["length"]) if "length" in entries else _nbytes(tensor)
        spans.append((source, start, start + length, id(tensor)))
    spans.sort(key=lambda span: span[:3])
    # In order of their starts: a tensor shares bytes if it starts before the farthest end so far, and then
    # so does the tensor that reaches there. Exporters store equal tensors once, and a file may be made to
    # overlap.
    shared: set[int] = set()
    reach: tuple[str, int, int] | None = None
    for source, start, end, mark in spans:
        if reach is not None and reach[0] == source and start < reach[1]:
            shared |= {mark, reach[2]}
        if reach is None or reach[0] != source or end > reach[1]:
            reach = (source, end, mark)
    return shared


def _nbytes(tensor: Any) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(count * width)


def _entries(tensor: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _set(tensor: Any, key: str, value: str) -> None:
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = value
            return
    entry = tensor.external_data.add()
    entry.key, entry.value = key, value
