"""A model, or the part of it that computes some values, as one message for a runtime; and its Loop nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from nvaudit.errors import ModelError
from nvaudit.model.batch.rebatch import rebatch
from nvaudit.model.build import remove_unused
from nvaudit.model.cause import cause
from nvaudit.model.load import LoadedModel


def whole_message(loaded: LoadedModel) -> bytes:
    """Write a model as one message, its batch size free where it can be.

    Raises
    ------
    ModelError
        If the model is beyond what one message can hold (2 GiB).
    """
    model = loaded.model.clone()
    rebatch(model)
    return _message(model, f"{loaded.path}: cannot be written as one message", "; it is too large to compare")


def part_message(loaded: LoadedModel, names: Sequence[str]) -> tuple[bytes, tuple[str, ...]]:
    """Write the part of a model that computes some values of its main graph.

    Parameters
    ----------
    names : sequence of str
        The values: the outputs of the part, in this order.

    Returns
    -------
    tuple of bytes and tuple of str
        The message, its batch size free where the model's can be; and the inputs that it still needs.

    Raises
    ------
    ModelError
        If the part is beyond what one message can hold (2 GiB).
    """
    model = loaded.model.clone()
    rebatch(model)
    graph = model.graph
    made = {value.name: value for node in graph for value in node.outputs}
    graph.outputs[:] = [made[name] for name in names]
    remove_unused(graph)
    needed = [value for value in graph.inputs if value.uses() or value.is_initializer()]
    graph.inputs[:] = needed
    data = _message(model, f"{loaded.path}: its first part cannot be written as one message")
    return data, tuple(value.name or "" for value in needed if not value.is_initializer())


def _message(model: ir.Model, failed: str, advice: str = "") -> bytes:
    try:
        inside = ir.external_data.load_to_model(model)
        return bytes(ir.serde.serialize_model(inside).SerializeToString())
    except Exception as error:
        raise ModelError(f"{failed}: {cause(error)}{advice}") from error


def loop_names(graph: bytes | Path) -> tuple[str, ...]:
    """Name the Loop nodes of a model, at any depth.

    Parameters
    ----------
    graph : bytes or Path
        A serialised model, or its file; external data are not read.

    Returns
    -------
    tuple of str
        Names of the nodes, of an unnamed one its first output; empty where the model cannot be read.
    """
    try:
        proto = onnx.ModelProto.FromString(graph if isinstance(graph, bytes) else graph.read_bytes())
    except Exception:  # it was read before: only a hint is lost
        return ()
    names: list[str] = []
    graphs: list[Any] = [proto.graph, *proto.functions]
    while graphs:
        for node in graphs.pop().node:
            if node.op_type == "Loop" and node.domain in ("", "ai.onnx"):
                names.append(node.name or next(filter(None, node.output), "Loop"))
            for attribute in node.attribute:
                graphs.extend(attribute.graphs)
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
    return tuple(names)
