"""The Loop nodes of a model file: what may keep a pass running without end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx


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
    found: list[str] = []
    graphs: list[Any] = [proto.graph, *proto.functions]
    while graphs:
        for node in graphs.pop().node:
            if node.op_type == "Loop" and node.domain in ("", "ai.onnx"):
                found.append(node.name or next(filter(None, node.output), "Loop"))
            for attribute in node.attribute:
                graphs.extend(attribute.graphs)
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
    return tuple(found)
