"""Normalisation and dropout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nvaudit.retrain.executor.ops.registry import Function, Op, op


@op("BatchNormalization", pure=False)
def _batch_norm(op: Op) -> Function:
    epsilon, momentum = op.attr("epsilon", 1e-5), op.attr("momentum", 0.9)
    if not op.attr("spatial", 1):
        return _positionwise(epsilon)
    state = op.state
    many = any(op.node.outputs[1:])
    count = len(op.node.outputs)
    always = bool(op.attr("training_mode", 0))
    updates = {3, 4} <= op.buffers  # statistics that are computed, or serve elsewhere too, stay as they are

    def run(x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Any:
        if not updates:
            mean, variance = mean.detach(), variance.detach()
        if always and not state.batch_statistics:
            return _by_batch(x, (scale, shift, mean, variance), momentum, epsilon, count)
        if state.batch_statistics:
            # ONNX's momentum is the share of the old statistics, torch's that of the new ones. Recalibration
            # gives 1/n for its n-th batch, which makes the plain mean: m_n = m_{n−1} + (x_n − m_{n−1}) / n.
            share = 1.0 - momentum if state.momentum is None else state.momentum
            kept_mean, kept_variance = (mean, variance) if updates else (None, None)
            y = F.batch_norm(x, kept_mean, kept_variance, scale, shift, True, share, epsilon)
        else:
            y = F.batch_norm(x, mean, variance, scale, shift, False, 0.0, epsilon)
        return (y, mean, variance, mean, variance)[:count] if many else y

    return run


def _by_batch(x: Tensor, parameters: tuple[Tensor, ...], momentum: float, epsilon: float, count: int) -> Any:
    """The node in ONNX's own training mode, which returns new statistics and keeps none."""
    scale, shift, mean, variance = parameters
    axes = (0, *range(2, x.dim()))
    # ONNX takes the population variance, divided by n, for the new statistics too; torch's running one has
    # n − 1.
    now = x.mean(axes), x.var(axes, unbiased=False)
    y = F.batch_norm(x, *now, scale, shift, False, 0.0, epsilon)
    results = [momentum * old + (1 - momentum) * new for old, new in zip((mean, variance), now, strict=True)]
    return (y, *results)[:count] if count > 1 else y


def _positionwise(epsilon: float) -> Function:
    """The old form with statistics of each position: a fixed affine function."""

    def run(x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return (x - mean) / torch.sqrt(variance + epsilon) * scale + shift

    return run


@op("Dropout", pure=False)
def _dropout(op: Op) -> Function:
    state = op.state
    fixed = op.attr("ratio", 0.5)
    many = any(op.node.outputs[1:])

    def run(x: Tensor, ratio: Tensor | None = None, _mode: Tensor | None = None) -> Any:
        kept = torch.ones_like(x, dtype=torch.bool)
        if state.training:
            p = float(fixed if ratio is None else ratio.item())
            kept = torch.rand(x.shape, generator=state.generator, device=x.device) >= p
            # Inverted dropout: E[kept / (1 − p)] = 1, so nothing is scaled in evaluation.
            x = x * kept / max(1.0 - p, 1e-7)
        return (x, kept) if many else x

    def plain(x: Tensor, ratio: Tensor | None = None, mode: Tensor | None = None) -> Any:
        return run(x, ratio, mode) if state.training else x

    return run if many else plain


@op("InstanceNormalization")
def _instance_norm(op: Op) -> Function:
    epsilon = op.attr("epsilon", 1e-5)
    return lambda x, scale, shift: F.instance_norm(x, None, None, scale, shift, True, 0.0, epsilon)


def _layer_norm_of(op: Op) -> Function:
    axis, epsilon = op.attr("axis", -1), op.attr("epsilon", 1e-5)
    many = any(op.node.outputs[1:])

    def run(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Any:
        shape = tuple(x.shape[axis % x.dim() :])
        # ONNX lets scale and shift broadcast; torch's fused form wants them in the full shape.
        fits = all(part is None or tuple(part.shape) == shape for part in (scale, shift))
        if fits:
            y = F.layer_norm(x, shape, scale, shift, epsilon)
        else:
            y = F.layer_norm(x, shape, None, None, epsilon)
            y = y if scale is None else y * scale
            y = y if shift is None else y + shift
        if not many:
            return y
        axes = tuple(range(axis % x.dim(), x.dim()))
        mean = x.mean(axes, keepdim=True)
        spread = torch.rsqrt(x.var(axes, unbiased=False, keepdim=True) + epsilon)
        return (y, mean, spread)[: len(op.node.outputs)]

    return run


op("LayerNormalization")(_layer_norm_of)


@op("RMSNormalization", "SimplifiedLayerNormalization")
def _rms_norm(op: Op) -> Function:
    axis, epsilon = op.attr("axis", -1), op.attr("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor) -> Tensor:
        axes = tuple(range(axis % x.dim(), x.dim()))
        return x * torch.rsqrt((x * x).mean(axes, keepdim=True) + epsilon) * scale

    return run


@op("SkipLayerNormalization", domains=("com.microsoft",))
def _skip_layer_norm(op: Op) -> Function:
    epsilon = op.attr("epsilon", 1e-12)
    count = len(op.node.outputs)

    def run(
        x: Tensor, skip: Tensor, scale: Tensor, shift: Tensor | None = None, bias: Tensor | None = None
    ) -> Any:
        total = x + skip if bias is None else x + skip + bias
        y = F.layer_norm(total, (x.shape[-1],), scale, shift, epsilon)
        return y if count == 1 else (y, None, None, total)[:count]

    return run


@op("GroupNormalization")
def _group_norm(op: Op) -> Function:
    groups, epsilon = op.attr("num_groups"), op.attr("epsilon", 1e-5)
    per_group = op.version < 21  # scale and shift had one entry per group

    def run(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        if per_group and scale.numel() == groups:
            each = x.shape[1] // groups
            scale, shift = scale.repeat_interleave(each), shift.repeat_interleave(each)
        return F.group_norm(x, groups, scale, shift, epsilon)

    return run


@op("LRN")
def _lrn(op: Op) -> Function:
    size = op.attr("size")
    alpha, beta, bias = op.attr("alpha", 1e-4), op.attr("beta", 0.75), op.attr("bias", 1.0)
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2

    def run(x: Tensor) -> Tensor:
        # The window reaches ⌊(size − 1)/2⌋ channels back and ⌈(size − 1)/2⌉ forth; channels that do not
        # exist count 0, but alpha is divided by the whole size also at the ends.
        squares = F.pad((x * x).flatten(2), (0, 0, before, after)).unfold(1, size, 1).sum(-1)
        total: Tensor = bias + alpha / size * squares.reshape(x.shape)
        return x / total.pow(beta)

    return run


@op("MeanVarianceNormalization")
def _mean_variance(op: Op) -> Function:
    axes = tuple(op.attr("axes", (0, 2, 3)))

    def run(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (torch.sqrt((centred * centred).mean(axes, keepdim=True)) + 1e-9)

    return run


@op("LpNormalization")
def _lp_norm(op: Op) -> Function:
    axis, p = op.attr("axis", -1), op.attr("p", 2)

    def run(x: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return torch.where(length == 0, torch.zeros_like(x), x / length)

    return run
