"""What can be rescaled in a model, and the edits that a choice of scales asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nvaudit.model.rescale.channels import Ids, Label, Variables

Insert = Literal["none", "columns", "both"]
"""Where digital factors may be added: nowhere, behind weights, or behind and before them."""


@dataclass(frozen=True)
class Layer:
    """A weight between two rescalable activations.

    Attributes
    ----------
    op, node : str
        Its operator, and the operator's name.
    source, result : str
        Names of the activations it takes and makes.
    source_axis, result_axis : int
        Their channel axes, counted from the end.
    source_at, result_at : ndarray, int64, shape broadcastable to the first two axes of the primary layout
        Which channel of the source and of the result each weight belongs to.
    source_ids, result_ids : ndarray, int64, same shapes
        The variables of these channels.
    channels : int
        Channels of the result.
    gain : ndarray, float64, shape (channel,), or None
        Digital factor of each result channel that follows directly, where one does.
    """

    key: str
    op: str
    node: str
    source: str
    result: str
    source_axis: int
    result_axis: int
    source_at: Ids
    result_at: Ids
    source_ids: Ids
    result_ids: Ids
    channels: int
    gain: NDArray[np.float64] | None


@dataclass(frozen=True)
class ConstantEdit:
    """Input ``index`` of a node is multiplied by t[up] / t[down], aligned as the label says."""

    node: ir.Node
    index: int
    up: Ids
    down: Ids
    label: Label


@dataclass(frozen=True)
class NormEdit:
    """A batch normalisation from scale ``taken`` to scale ``made``."""

    node: ir.Node
    taken: Ids
    made: Ids


@dataclass(frozen=True)
class Insertion:
    """A new factor t[up] / t[down] behind (``index`` None) or at an input of a node."""

    node: ir.Node
    index: int | None
    up: Ids
    down: Ids
    label: Label
    dtype: ir.DataType


@dataclass
class Plan:
    """What can be rescaled, and every edit that a choice of scales asks for."""

    model: ir.Model
    variables: Variables
    layers: list[Layer] = field(default_factory=list)
    edits: list[ConstantEdit | NormEdit | Insertion] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
