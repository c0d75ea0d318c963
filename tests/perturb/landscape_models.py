"""Small models for the tests of landscapes, with the same functions in numpy."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

SAMPLES = 24


def numbers(*shape, seed=0, scale=1.0):
    """Normal numbers, the same for the same shape and seed."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return (scale * generator.standard_normal(shape)).astype(np.float32)


def save(path: Path, nodes, shape, stored) -> Path:
    """Write a model of one input ``x`` [N, …] and one output ``y``; ``stored`` maps names to arrays."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def save_data(path: Path, shape, classes=3, seed=5) -> Path:
    """Write inputs and class labels."""
    labels = np.random.Generator(np.random.PCG64(seed)).integers(0, classes, SAMPLES)
    np.savez(path, x=numbers(SAMPLES, *shape, seed=seed), y=labels)
    return path


MLP = {
    "w1": numbers(6, 5, seed=1),
    "b1": numbers(5, seed=2),
    "w2": numbers(3, 5, seed=3),
    "b2": numbers(3, seed=4),
}


def mlp(path: Path, stored=None) -> Path:
    """relu(x w1 + b1) w2ᵀ + b2: a MatMul and a transposed Gemm."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h0"]),
        helper.make_node("Add", ["h0", "b1"], ["h1"]),
        helper.make_node("Relu", ["h1"], ["h2"]),
        helper.make_node("Gemm", ["h2", "w2", "b2"], ["y"], transB=1),
    ]
    return save(path, nodes, (6,), stored or MLP)


CHAIN = {
    "w1": numbers(4, 2, 3, 3, seed=1),
    "b1": numbers(4, seed=2),
    "w2": numbers(4, 1, 3, 3, seed=3),
    "w3": numbers(3, 4, 1, 1, seed=4),
}


def chain(path: Path, stored=None) -> Path:
    """Conv, Relu, a Conv that takes each channel by itself, Conv, mean over positions."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["h1"]),
        helper.make_node("Relu", ["h1"], ["h2"]),
        helper.make_node("Conv", ["h2", "w2"], ["h3"], group=4),
        helper.make_node("Relu", ["h3"], ["h4"]),
        helper.make_node("Conv", ["h4", "w3"], ["h5"]),
        helper.make_node("GlobalAveragePool", ["h5"], ["h6"]),
        helper.make_node("Flatten", ["h6"], ["y"]),
    ]
    return save(path, nodes, (2, 8, 8), stored or CHAIN)


def normed(path: Path, folded: bool) -> Path:
    """Conv, BatchNormalization, Relu, Gemm; or the same with the normalisation folded into the Conv."""
    weight, bias = numbers(4, 2, 3, 3, seed=1), numbers(4, seed=2)
    scale, shift = np.abs(numbers(4, seed=3)) + 0.2, numbers(4, seed=4)
    mean, variance = numbers(4, seed=6), np.abs(numbers(4, seed=7)) + 0.1
    last = numbers(4, 3, seed=8)
    tail = [
        helper.make_node("Relu", ["n"], ["h"]),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "last"], ["y"]),
    ]
    if folded:
        factor = (scale / np.sqrt(variance + 1e-5)).astype(np.float32)
        stored = {
            "w": weight * factor[:, None, None, None],
            "b": (bias - mean) * factor + shift,
            "last": last,
        }
        return save(path, [helper.make_node("Conv", ["x", "w", "b"], ["n"]), *tail], (2, 8, 8), stored)
    stored = {"w": weight, "b": bias, "last": last}
    stored |= {"scale": scale, "shift": shift, "mean": mean, "var": variance}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["n"]),
        *tail,
    ]
    return save(path, nodes, (2, 8, 8), stored)


def lstm(path: Path) -> Path:
    """An LSTM over time, its last state through a Gemm."""
    stored = {
        "W": numbers(1, 16, 5, seed=1),
        "R": numbers(1, 16, 4, seed=2),
        "B": numbers(1, 32, seed=3),
        "last": numbers(4, 3, seed=4, scale=3),
        "axes": np.array([0]),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "W", "R", "B"], ["", "h"], hidden_size=4),
        helper.make_node("Squeeze", ["h", "axes"], ["s"]),
        helper.make_node("Gemm", ["s", "last"], ["y"]),
    ]
    return save(path, nodes, (7, 5), stored)
