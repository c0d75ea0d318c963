"""A model that also returns activations on the way, to look at what they are like on data."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from nvaudit.model.load import LoadedModel
from nvaudit.model.template import Template, build_template


def watched(
    loaded: LoadedModel, *, free: bool, names: Collection[str] | None = None
) -> tuple[Template, list[str]]:
    """Make a model that returns activations of the main graph.

    Parameters
    ----------
    loaded : LoadedModel
        The model; it is not changed.
    free : bool
        Whether to free a fixed batch size where that is provably the same model.
    names : collection of str, optional
        Which activations; by default all.

    Returns
    -------
    tuple of Template and list of str
        The model without open places, and the activations that it returns.
    """
    template = build_template(loaded, [], batch="free" if free else "keep")
    proto = onnx.ModelProto.FromString(template.proto)
    already = {value.name for value in proto.graph.output}
    made = [name for node in proto.graph.node for name in node.output if name]
    fed = [value.name for value in proto.graph.input]
    found = [name for name in (*fed, *made) if names is None or name in names]
    for name in found:
        if name not in already:
            proto.graph.output.add(name=name)
    return Template(
        proto.SerializeToString(), (), template.digital, template.offsets, template.rebatch
    ), found
