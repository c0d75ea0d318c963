"""A part of a model as a model of its own: what computes some of its values from its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from nvaudit.errors import ModelError
from nvaudit.model.batch.rebatch import rebatch
from nvaudit.model.build import remove_unused
from nvaudit.model.cause import cause
from nvaudit.model.load import LoadedModel


def part_of(loaded: LoadedModel, names: Sequence[str]) -> tuple[bytes, tuple[str, ...]]:
    """Write the part of a model that computes some values of its main graph.

    Parameters
    ----------
    loaded : LoadedModel
        The model; it is not changed.
    names : sequence of str
        The values.

    Returns
    -------
    tuple of bytes and tuple of str
        The message, its batch size free where the model's can be, its outputs the values in order; and the
        inputs that it still needs.

    Raises
    ------
    ModelError
        If the part is beyond what one message can hold.
    """
    model = loaded.model.clone()
    rebatch(model)
    graph = model.graph
    made = {value.name: value for node in graph for value in node.outputs}
    graph.outputs[:] = [made[name] for name in names]
    remove_unused(graph)
    needed = [value for value in graph.inputs if value.uses() or value.is_initializer()]
    graph.inputs[:] = needed
    try:
        model = ir.external_data.load_to_model(model)
        data: bytes = ir.serde.serialize_model(model).SerializeToString()
    except Exception as error:
        raise ModelError(
            f"{loaded.path}: its first part cannot be written as one message: {cause(error)}"
        ) from error
    return data, tuple(value.name or "" for value in needed if not value.is_initializer())
