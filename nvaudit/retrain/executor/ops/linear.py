"""Matrix products and convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nvaudit.retrain.executor.ops.registry import Function, Op, op
from nvaudit.retrain.executor.ops.window import KernelWindow, window_of

op("MatMul")(lambda op: torch.matmul)


def gemm(op: Op) -> Function:
    """Build ``alpha·A·B + beta·C``; with its defaults it is torch's own linear layer."""
    alpha, beta = op.attr("alpha", 1.0), op.attr("beta", 1.0)
    left, right = bool(op.attr("transA", 0)), bool(op.attr("transB", 0))
    if alpha == 1.0 and beta == 1.0 and not left:

        def linear(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
            # torch's layer takes B as (outputs, inputs) and a bias of one axis; what C has more, or of
            # broadcasting, is added behind.
            if c is None or c.dim() == 1:
                return F.linear(a, b if right else b.t(), c)
            return F.linear(a, b if right else b.t()) + c

        return linear

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = (a.t() if left else a) @ (b.t() if right else b)
        product = product if alpha == 1.0 else product * alpha
        return product if c is None else product + (c if beta == 1.0 else c * beta)

    return run


op("Gemm")(gemm)


@op("FusedMatMul", "TransposeMatMul", domains=("com.microsoft",))
def _fused_matmul(op: Op) -> Function:
    if op.attr("transBatchA", 0) or op.attr("transBatchB", 0):
        raise op.refuse("a transposed batch")
    alpha = op.attr("alpha", 1.0)
    left, right = op.attr("transA", 0), op.attr("transB", 0)

    def run(a: Tensor, b: Tensor) -> Tensor:
        product = (a.mT if left else a) @ (b.mT if right else b)
        return product if alpha == 1.0 else product * alpha

    return run


def conv(op: Op, weight_index: int = 1) -> Function:
    """Build a convolution of (x, weight, bias)."""
    window = window_of(op, weight_index)
    groups = op.attr("group", 1)
    functions: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = x.dim() - 2
        if rank not in functions:
            raise op.refuse(f"a convolution over {rank} axes")
        strides, dilations = window.strides_for(rank), window.dilations_for(rank)
        kernel = tuple(weight.shape[2:])
        befores, afters = window.pads_for(tuple(x.shape[2:]), kernel)
        # torch's convolutions pad alike at both ends; last axis first for F.pad.
        if befores != afters:
            x = F.pad(x, [n for pair in zip(befores[::-1], afters[::-1], strict=True) for n in pair])
            befores = (0,) * rank
        return functions[rank](x, weight, bias, strides, befores, dilations, groups)  # type: ignore[no-any-return]

    return _fixed_conv(window, groups) or run


def _fixed_conv(window: KernelWindow, groups: int) -> Function | None:
    """A 2-D convolution whose padding is known and symmetric: nothing is left to decide in a step."""
    if window.automatic or window.rank != 2 or window.befores != window.afters:
        return None
    strides, dilations = window.strides_for(2), window.dilations_for(2)
    befores = window.befores or (0, 0)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, weight, bias, strides, befores, dilations, groups)

    return run


op("Conv")(conv)


@op("FusedConv", domains=("com.microsoft",))
def _fused_conv(op: Op) -> Function:
    product, activation = conv(op), _activation(op)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None, z: Tensor | None = None) -> Tensor:
        y = product(x, weight, bias)
        return activation(y if z is None else y + z)  # type: ignore[no-any-return]

    return run


@op("FusedGemm", domains=("com.microsoft",))
def _fused_gemm(op: Op) -> Function:
    product, activation = gemm(op), _activation(op)
    return lambda *arguments: activation(product(*arguments))


def _activation(op: Op) -> Function:
    kind = str(op.attr("activation", ""))
    given: tuple[float, ...] = op.attr("activation_params", ()) or (op.attr("activation_alpha", 0.01),)
    table: dict[str, Function] = {
        "": lambda x: x,
        "Relu": torch.relu,
        "Sigmoid": torch.sigmoid,
        "Tanh": torch.tanh,
        "LeakyRelu": lambda x: F.leaky_relu(x, given[0]),
        "Clip": lambda x: torch.clamp(x, given[0], given[1]),
        "HardSigmoid": lambda x: torch.clamp(x * given[0] + given[1], 0.0, 1.0),
    }
    if kind not in table:
        raise op.refuse(f"the fused activation {kind!r}")
    return table[kind]


@op("ConvTranspose")
def _conv_transpose(op: Op) -> Function:
    window = window_of(op, 1)
    groups = op.attr("group", 1)
    extra, wanted = op.attr("output_padding"), op.attr("output_shape")
    functions: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = x.dim() - 2
        if rank not in functions:
            raise op.refuse(f"a convolution over {rank} axes")
        strides, dilations = window.strides_for(rank), window.dilations_for(rank)
        more = tuple(extra) if extra else (0,) * rank
        # Uncut, n inputs at distance stride, each spread over a dilated kernel: stride (n − 1) + dilation
        # (k − 1) + 1.
        kernel = [dilations[i] * (weight.shape[2 + i] - 1) + 1 for i in range(rank)]
        full = [strides[i] * (x.shape[2 + i] - 1) + kernel[i] + more[i] for i in range(rank)]
        befores, afters = _transpose_pads(window, full, more, strides, tuple(x.shape[2:]), wanted)
        # Everything is computed and then cut: cuts may differ at the two ends.
        if befores == afters and min(befores, default=0) >= 0:
            return functions[rank](x, weight, bias, strides, befores, more, groups, dilations)  # type: ignore[no-any-return]
        y = functions[rank](x, weight, bias, strides, 0, more, groups, dilations)
        cuts = [n for pair in zip(befores[::-1], afters[::-1], strict=True) for n in pair]
        return F.pad(y, [-cut for cut in cuts])

    return run


def _transpose_pads(
    window: KernelWindow,
    full: list[int],
    extra: tuple[int, ...],
    strides: tuple[int, ...],
    sizes: tuple[int, ...],
    wanted: Any,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What to cut off at both ends of a transposed convolution."""
    rank = len(full)
    if wanted is None and not window.automatic:
        return window.befores or (0,) * rank, window.afters or (0,) * rank
    if wanted is None and window.automatic == "VALID":
        return (0,) * rank, (0,) * rank
    targets = tuple(wanted)[-rank:] if wanted else tuple(s * n for s, n in zip(strides, sizes, strict=True))
    totals = [max(size - target, 0) for size, target in zip(full, targets, strict=True)]
    if wanted is not None:  # output_padding is already in the wanted shape
        totals = [size - target for size, target in zip(full, targets, strict=True)]
    # An odd element is cut at the end with SAME_UPPER, and at the start in every other case: so ONNX has
    # it.
    halves = [total // 2 for total in totals]
    rests = [total - half for total, half in zip(totals, halves, strict=True)]
    upper = window.automatic == "SAME_UPPER"
    return (tuple(halves), tuple(rests)) if upper else (tuple(rests), tuple(halves))
