"""Begin from scratch: initial values for the weights of a graph that says only what they became."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nvaudit.model.graph import Network
from nvaudit.retrain.quant import Place
from nvaudit.rng import stream

_OF_BATCH_NORM = (0.0, 1.0, 0.0, 0.0, 1.0)
"""Initial values of the inputs of a BatchNormalization: scale, shift, mean, variance."""


def initial_values(network: Network, where: Sequence[Place], seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw new weights.

    Weights on the array are normal with variance 2 / fan-in (He et al., ICCV 2015), biases are zero, batch
    normalisations do nothing. Other tensors, such as tables, keep their values.

    Parameters
    ----------
    network : Network
        Of the model package: its nodes and stored tensors.
    where : sequence of Place
        Weights on the array.
    seed : int

    Returns
    -------
    dict of str to ndarray, float32
        By key; what is not in it stays.
    """
    stored = {one.key: one for one in network.stored}
    values = {}
    for place in where:
        if place.key in stored and place.grid is None:
            rng = stream(seed, "reset", place.key)
            spread = np.float32(math.sqrt(2 / max(1, place.fan_in)))
            values[place.key] = rng.standard_normal(stored[place.key].shape, dtype=np.float32) * spread
    for key, constant in _constants(network).items():
        values[key] = np.full(stored[key].shape, constant, np.float32)
    return values


def _constants(network: Network) -> dict[str, float]:
    """Initial value of each tensor that begins as a constant."""
    key_of = {one.name: one.key for one in network.stored}
    found = {one.key: 0.0 for one in network.stored if one.part == "bias"}
    for node in network.graph.nodes:
        if node.op_type == "BatchNormalization":
            for name, value in zip(node.inputs, _OF_BATCH_NORM, strict=False):
                if name in key_of and name != node.inputs[0]:
                    found[key_of[name]] = value
    return found
