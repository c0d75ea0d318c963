"""A model that gives its inner values too, to find where two runtimes part."""

from __future__ import annotations

import onnx_ir as ir

from nvaudit.errors import ModelError
from nvaudit.model.batch.rebatch import rebatch
from nvaudit.model.cause import cause
from nvaudit.model.load import LoadedModel


def expose_values(loaded: LoadedModel, *, inner: bool) -> tuple[bytes, tuple[str, ...]]:
    """Write a model as one message, on request with every value of its main graph as an output.

    Parameters
    ----------
    loaded : LoadedModel
        The model; it is not changed.
    inner : bool
        Whether to add the inner values.

    Returns
    -------
    tuple of bytes and tuple of str
        The message, its batch size free where it can be; and the names of its outputs.

    Raises
    ------
    ModelError
        If the model is beyond what one message can hold.
    """
    model = loaded.model.clone()
    rebatch(model)
    graph = model.graph
    if inner:
        given = {value.name for value in graph.outputs}
        for node in graph:
            graph.outputs.extend(v for v in node.outputs if v.name and v.name not in given)
    try:
        model = ir.external_data.load_to_model(model)
        data: bytes = ir.serde.serialize_model(model).SerializeToString()
    except Exception as error:
        raise ModelError(
            f"{loaded.path}: cannot be written as one message: {cause(error)}; it is too large to compare"
        ) from error
    return data, tuple(value.name or "" for value in graph.outputs)
