"""Activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nvaudit.retrain.executor.ops.registry import Function, Op, op, simple

_FLAT_BEFORE = 13  # Softmax and its relatives then saw a matrix, split at the axis

op("Relu")(simple(torch.relu))
op("Sigmoid")(simple(torch.sigmoid))
op("Tanh")(simple(torch.tanh))
op("Softsign")(simple(F.softsign))
op("HardSwish")(simple(F.hardswish))
op("Mish")(simple(F.mish))
# Without the threshold from which on torch's own is linear.
op("Softplus")(simple(lambda x: torch.logaddexp(x, torch.zeros_like(x))))


@op("LeakyRelu")
def _leaky_relu(op: Op) -> Function:
    slope = op.attr("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


@op("Elu")
def _elu(op: Op) -> Function:
    alpha = op.attr("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@op("Celu")
def _celu(op: Op) -> Function:
    alpha = op.attr("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


@op("Selu")
def _selu(op: Op) -> Function:
    alpha = op.attr("alpha", 1.67326319217681884765625)
    gamma = op.attr("gamma", 1.05070102214813232421875)
    return lambda x: gamma * F.elu(x, alpha)


@op("ThresholdedRelu")
def _thresholded_relu(op: Op) -> Function:
    alpha = op.attr("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0.0)


@op("HardSigmoid")
def _hard_sigmoid(op: Op) -> Function:
    alpha, beta = op.attr("alpha", 0.2), op.attr("beta", 0.5)
    return lambda x: torch.clamp(x * alpha + beta, 0.0, 1.0)


@op("Shrink")
def _shrink(op: Op) -> Function:
    limit, bias = op.attr("lambd", 0.5), op.attr("bias", 0.0)

    def run(x: Tensor) -> Tensor:
        zero = torch.zeros_like(x)
        return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero))

    return run


@op("Swish")
def _swish(op: Op) -> Function:
    alpha = op.attr("alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


@op("QuickGelu", domains=("com.microsoft",))
def _quick_gelu(op: Op) -> Function:
    alpha = op.attr("alpha", 1.702)
    return lambda x: x * torch.sigmoid(alpha * x)


@op("Gelu", domains=("", "com.microsoft"))
def _gelu(op: Op) -> Function:
    kind = str(op.attr("approximate", "none"))
    return lambda x: F.gelu(x, approximate=kind)


@op("BiasGelu", domains=("com.microsoft",))
def _bias_gelu(op: Op) -> Function:
    return lambda x, bias: F.gelu(x + bias)


@op("FastGelu", domains=("com.microsoft",))
def _fast_gelu(op: Op) -> Function:
    return lambda x, bias=None: F.gelu(x if bias is None else x + bias, approximate="tanh")


def _hardmax(x: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(x).scatter_(axis, x.argmax(axis, keepdim=True), 1.0)


@op("Softmax", "LogSoftmax", "Hardmax")
def _softmax(op: Op) -> Function:
    table: dict[str, Any] = {"Softmax": torch.softmax, "LogSoftmax": torch.log_softmax, "Hardmax": _hardmax}
    function = table[op.node.op_type]
    if op.version >= _FLAT_BEFORE:
        axis = op.attr("axis", -1)
        return lambda x: function(x, axis)
    axis = op.attr("axis", 1)

    def run(x: Tensor) -> Tensor:
        split = axis % x.dim() if axis < 0 else axis
        if split == x.dim() - 1:
            return function(x, split)  # type: ignore[no-any-return]
        # The old form sees a matrix: all axes from the split on are one row, over which it normalises
        # together.
        return function(x.flatten(split), split).reshape(x.shape)  # type: ignore[no-any-return]

    return run
