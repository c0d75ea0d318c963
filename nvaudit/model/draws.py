"""Operators that draw random numbers or keep a state: what they draw follows the seed of the run.

ONNX Runtime seeds an operator without a `seed` attribute once per process, or from a counter or its place in
the graph. With the attribute, the generator of the node starts there in every session and goes on from run to
run. A chip is one session that sees the batches in their order, so its draws depend on the run's seed and the
cut into batches alone, not on workers or on the order of chips; and every chip, the ideal and the quantised
model see the same draws, so that they differ by the devices only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from nvaudit.model.walk import DROPOUTS, RANDOM, SAMPLING, attribute, operand, places
from nvaudit.rng import stream

_FLOAT_SEEDS = RANDOM
_TRAINED_BY_INPUT = 12
"""The opset from which on a Dropout may be in training mode; before, it never is in ONNX Runtime."""

_MANY = 6
_OURS = "nvaudit.seeded"


@dataclass(frozen=True)
class RandomNode:
    """A node whose results differ from run to run.

    Attributes
    ----------
    label : str
        Its name with its graph's path; operator and position where it has none.
    what : str
        Operator, with its mode.
    address : str
        What its seed follows: unlike the label it does not count nodes, so that a rewritten graph keeps it.
    by_batch : bool
        It draws nothing, but takes its statistics from the batch at hand and keeps them.
    seeded : bool
        The file gives it a seed of its own.
    """

    node: ir.Node
    label: str
    what: str
    address: str
    by_batch: bool = False
    seeded: bool = False


def find_draws(model: ir.Model) -> tuple[RandomNode, ...]:
    """Find the nodes whose results differ from run to run, at any depth; functions must be inlined.

    Returns
    -------
    tuple of RandomNode
        In graph order.
    """
    return tuple(_each_draw(model))


def _each_draw(model: ir.Model) -> Iterator[RandomNode]:
    opset = model.opset_imports.get("", 1)
    for place in places(model.graph):
        node, label = place.node, f"{place.path}/{place.label}" if place.path else place.label
        address = f"{place.path}/{node.name or node.outputs[0].name}"
        seeded = attribute(node, "seed") is not None and _OURS not in node.meta
        if node.op_type == "BatchNormalization" and node.domain == "" and in_training(node, opset):
            yield RandomNode(node, label, "BatchNormalization in training mode", address, by_batch=True)
        elif draws(node, opset):
            mode = " in training mode" if node.op_type in DROPOUTS else ""
            yield RandomNode(node, label, f"{node.op_type}{mode}", address, seeded=seeded)


def draws(node: ir.Node, opset: int) -> bool:
    """Whether a node draws random numbers, or may: a Dropout that is not provably off counts."""
    if node.domain in ("", "ai.onnx"):
        if node.op_type in RANDOM:
            return True
        return node.op_type == "Dropout" and opset >= _TRAINED_BY_INPUT and _on(node)
    if node.domain == "com.microsoft":
        return node.op_type in SAMPLING or (node.op_type in DROPOUTS and _on(node))
    return False


def _on(node: ir.Node) -> bool:
    """Whether a Dropout is not provably off."""
    index = DROPOUTS[node.op_type]
    mode, ratio = operand(node, index), operand(node, index - 1)
    return mode is not None and _known(mode) is not False and (ratio is None or _known(ratio) is not False)


def _known(value: ir.Value) -> bool | None:
    """The truth of a constant scalar; None where it is computed or fed."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size != 1:
        return None
    return bool(tensor.numpy().reshape(-1)[0])


def in_training(node: ir.Node, opset: int) -> bool:
    """Whether a BatchNormalization takes its statistics from the batch."""
    if opset >= 14:
        return bool(attribute(node, "training_mode", 0))
    return opset >= 7 and sum(bool(value.name) for value in node.outputs) > 1


def seed_draws(draws: tuple[RandomNode, ...], seed: int) -> None:
    """Give every node that draws, and has no seed of its own, one that follows the run's.

    Parameters
    ----------
    draws : tuple of RandomNode
        Of a model, which is changed.
    """
    for draw in draws:
        if draw.by_batch or draw.seeded:
            continue
        # ONNX Runtime reads the float as a 32-bit integer: 24 bits are exact, spread over 31.
        number = int(stream(seed, "model-draws", draw.address).integers(1, 2**24)) * 128
        given = ir.AttrFloat32 if draw.node.op_type in _FLOAT_SEEDS else ir.AttrInt64
        draw.node.attributes["seed"] = given("seed", number)
        draw.node.meta[_OURS] = True


def drop_seeds(model: ir.Model) -> None:
    """Take the seeds of :func:`seed_draws` out again, for a model that is written as the user's own."""
    for place in places(model.graph):
        if place.node.meta.pop(_OURS, False):
            del place.node.attributes["seed"]


def draws_note(draws: tuple[RandomNode, ...]) -> tuple[str, ...]:
    """Say which nodes draw, and what their draws follow.

    Returns
    -------
    tuple of str
        None, one or two sentences.
    """
    notes = []
    random = [draw for draw in draws if not draw.by_batch]
    if random:
        seeds = "the file's own seeds" if all(draw.seeded for draw in random) else "--seed"
        if seeds == "--seed" and any(draw.seeded for draw in random):
            seeds = "--seed, or the seed that the file gives a node,"
        notes.append(
            f"the model draws random numbers at inference: {listed(random)}; here the draws follow {seeds} "
            "and how --batch-size cuts the samples, the same for the unmodified model, the quantised one and "
            "every chip; elsewhere such a model gives other numbers at every call"
        )
    batch = [draw for draw in draws if draw.by_batch]
    if batch:
        notes.append(
            f"the model is in training mode: {listed(batch)}: statistics are those of each batch, so results "
            "hold for this --batch-size; export it in evaluation mode (model.eval() in torch)"
        )
    return tuple(notes)


def listed(draws: list[RandomNode] | tuple[RandomNode, ...]) -> str:
    """The nodes by name, a few of them where there are many."""
    named = [f"{draw.label!r} ({draw.what})" for draw in draws[:_MANY]]
    more = len(draws) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
