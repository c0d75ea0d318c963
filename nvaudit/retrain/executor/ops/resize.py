"""Resizing and sampling of images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nvaudit.retrain.executor.ops.registry import Function, Op, op

# Where output i lies in the input: n and m are the lengths of input and output, s is the scale. A scale
# that is given is used as it is: m = ⌊n·s⌋ was rounded, so m / n is another number.
_COORDINATES = {
    "half_pixel": lambda i, n, m, s, roi: (i + 0.5) / s - 0.5,
    "half_pixel_symmetric": lambda i, n, m, s, roi: n / 2 * (1 - m / (n * s)) + (i + 0.5) / s - 0.5,
    "pytorch_half_pixel": lambda i, n, m, s, roi: (i + 0.5) / s - 0.5 if m > 1 else i * 0.0,
    "align_corners": lambda i, n, m, s, roi: i * ((n - 1) / (m - 1)) if m > 1 else i * 0.0,
    "asymmetric": lambda i, n, m, s, roi: i / s,
    "tf_half_pixel_for_nn": lambda i, n, m, s, roi: (i + 0.5) / s,
    "tf_crop_and_resize": lambda i, n, m, s, roi: (
        roi[0] * (n - 1) + i * (roi[1] - roi[0]) * (n - 1) / (m - 1)
        if m > 1
        else i * 0.0 + 0.5 * (roi[0] + roi[1]) * (n - 1)
    ),
}
# Not torch.round, which takes halves to the even neighbour: here 0.5 and 1.5 go the same way, ⌈x − ½⌉ down
# and ⌊x + ½⌋ up.
_NEAREST: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def _cubic(distance: Tensor, a: float) -> Tensor:
    """The cubic convolution kernel (Keys 1981)."""
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


class _Rule:
    """How a Resize or Upsample node maps places."""

    def __init__(self, op: Op) -> None:
        self.mode = str(op.attr("mode", "nearest"))
        # Before opset 11 the operator has neither attribute.
        older = op.node.op_type == "Upsample" or op.version < 11
        self.transform = (
            "asymmetric" if older else str(op.attr("coordinate_transformation_mode", "half_pixel"))
        )
        self.nearest = "floor" if older else str(op.attr("nearest_mode", "round_prefer_floor"))
        self.cubic = float(op.attr("cubic_coeff_a", -0.75))
        self.outside = bool(op.attr("exclude_outside", 0))
        self.antialias = bool(op.attr("antialias", 0))
        self.fill = float(op.attr("extrapolation_value", 0.0))
        self.cache: dict[tuple[Any, ...], tuple[Tensor, Tensor, Tensor | None]] = {}

    def taps(self, size: int, target: int, scale: float, roi: tuple[float, float]) -> Any:
        """For each output place: which inputs, with what weights, and where it lies outside (or None)."""
        key = (size, target, scale, roi)
        if key not in self.cache:
            self.cache[key] = self._taps(size, target, scale, roi)
        return self.cache[key]

    def _taps(self, size: int, target: int, scale: float, roi: tuple[float, float]) -> Any:
        i = torch.arange(target, dtype=torch.float64)
        x = _COORDINATES[self.transform](i, size, target, scale, roi)
        out = None
        if self.transform == "tf_crop_and_resize":
            out = (x < 0) | (x > size - 1)
        if self.mode == "nearest":
            places = _NEAREST[self.nearest](x).clamp(0, size - 1).to(torch.int64).unsqueeze(1)
            return places, torch.ones_like(places, dtype=torch.float32), out
        # Each output is a weighted sum of the inputs within reach of its place x: w(x − p) with the triangle
        # (linear) or Keys' kernel (cubic), stretched by 1/scale where downscaling has to average (antialias).
        # The weights do not depend on the data, so the gradient is that of a linear map.
        cubic = self.mode in ("cubic", "bicubic")
        stretch = min(scale, 1.0) if self.antialias else 1.0
        reach = math.ceil((2 if cubic else 1) / stretch)
        places = torch.floor(x).to(torch.int64).unsqueeze(1) + torch.arange(1 - reach, reach + 1)
        distance = (x.unsqueeze(1) - places) * stretch
        weights = _cubic(distance, self.cubic) if cubic else (1 - distance.abs()).clamp(min=0)
        # A tap outside takes the value of the edge (the clamp below), or with exclude_outside has no
        # weight.
        if self.outside:
            weights = weights * ((places >= 0) & (places < size))
        # Excluded and stretched taps no longer add up to 1; a constant image must stay the same constant.
        weights = weights / weights.sum(1, keepdim=True)
        return places.clamp(0, size - 1), weights.to(torch.float32), out


def _along(x: Tensor, axis: int, taps: Any) -> Tensor:
    """Weighted sums of inputs along one axis."""
    places, weights, _ = taps
    places, weights = places.to(x.device), weights.to(x.device)
    if places.shape[1] == 1:
        return x.index_select(axis, places[:, 0])
    shape = [1] * x.dim()
    shape[axis] = -1
    parts = [
        x.index_select(axis, places[:, tap]) * weights[:, tap].reshape(shape)
        for tap in range(places.shape[1])
    ]
    return torch.stack(parts).sum(0)


def _targets(op: Op, x: Tensor, scales: Any, sizes: Any, axes: list[int]) -> tuple[list[int], list[float]]:
    """Sizes and scales of the resized axes."""
    now = [x.shape[axis] for axis in axes]
    if sizes is None:
        factors = [float(f) for f in scales]
        return [math.floor(n * f) for n, f in zip(now, factors, strict=True)], factors
    wanted = [int(n) for n in sizes]
    policy = str(op.attr("keep_aspect_ratio_policy", "stretch"))
    if policy == "stretch":
        return wanted, [m / n for m, n in zip(wanted, now, strict=True)]
    pick = min if policy == "not_larger" else max
    factor = pick(m / n for m, n in zip(wanted, now, strict=True))
    # ONNX rounds halves up here; Python's round() takes them to the even neighbour.
    return [math.floor(factor * n + 0.5) for n in now], [factor] * len(now)


def _numbers(value: Any) -> list[float] | None:
    return None if value is None or value.numel() == 0 else value.reshape(-1).tolist()


@op("Resize", host=(1, 2, 3))
def _resize(op: Op) -> Function:
    rule = _Rule(op)
    named = op.attr("axes")

    def run(x: Tensor, *rest: Tensor | None) -> Tensor:
        roi, scales, sizes = (*rest, None, None, None)[:3]
        if op.version < 11:
            roi, scales, sizes = None, roi, None
        axes = list(range(x.dim())) if named is None else [int(a) % x.dim() for a in named]
        targets, factors = _targets(op, x, _numbers(scales), _numbers(sizes), axes)
        corners = _numbers(roi) or [0.0] * len(axes) + [1.0] * len(axes)
        pairs = list(zip(corners[: len(axes)], corners[len(axes) :], strict=True))
        return _resample(x, rule, list(zip(axes, targets, factors, pairs, strict=True)))

    return run


def _resample(x: Tensor, rule: _Rule, plan: list[Any]) -> Tensor:
    kind = x.dtype
    outside = None
    # The kernel over several axes is the product of one per axis, so that they can be resized in turn. An
    # axis of the same size and scale 1 stays as it is, except where tf_crop_and_resize cuts a part out of
    # it.
    for axis, target, factor, roi in plan:
        if target == x.shape[axis] and factor == 1.0 and rule.transform != "tf_crop_and_resize":
            continue
        taps = rule.taps(x.shape[axis], target, factor, roi)
        x = _along(x, axis, taps)
        if taps[2] is not None:
            shape = [1] * x.dim()
            shape[axis] = -1
            edge = taps[2].reshape(shape).to(x.device)
            outside = edge if outside is None else outside | edge
    if outside is not None:
        x = torch.where(outside, torch.full_like(x, rule.fill), x)
    return x.to(kind)


@op("Upsample", host=(1,))
def _upsample(op: Op) -> Function:
    rule = _Rule(op)
    fixed = op.attr("scales")
    if fixed is None and op.attr("height_scale") is not None:
        fixed = (1.0, 1.0, op.attr("height_scale"), op.attr("width_scale"))

    def run(x: Tensor, scales: Tensor | None = None) -> Tensor:
        factors = [float(f) for f in fixed] if fixed is not None else _numbers(scales) or []
        plan = [
            (axis, math.floor(x.shape[axis] * factor), factor, (0.0, 1.0))
            for axis, factor in enumerate(factors)
        ]
        return _resample(x, rule, plan)

    return run


_SAMPLING = {"linear": "bilinear", "cubic": "bicubic"}


@op("GridSample")
def _grid_sample(op: Op) -> Function:
    mode = str(op.attr("mode", "linear"))
    mode = _SAMPLING.get(mode, mode)
    border, corners = str(op.attr("padding_mode", "zeros")), bool(op.attr("align_corners", 0))
    return lambda x, grid: F.grid_sample(x, grid, mode, border, corners)
