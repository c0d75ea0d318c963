"""Windows that slide: strides, dilations and padding of convolutions and pools."""

from __future__ import annotations

from dataclasses import dataclass

from nvaudit.retrain.executor.ops.registry import Op

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class KernelWindow:
    """A window's attributes.

    Attributes
    ----------
    rank : int or None
        Number of spatial axes where it is known when built.
    strides, dilations, befores, afters : tuple of int or None
        None for the operator's default.
    automatic : str
        ``"SAME_UPPER"``, ``"SAME_LOWER"`` or ``"VALID"``; ``""`` where the padding is given.
    """

    rank: int | None
    strides: Sizes | None
    dilations: Sizes | None
    befores: Sizes | None
    afters: Sizes | None
    automatic: str

    def strides_for(self, rank: int) -> Sizes:
        """Strides along ``rank`` axes."""
        return self.strides or (1,) * rank

    def dilations_for(self, rank: int) -> Sizes:
        """Dilations along ``rank`` axes."""
        return self.dilations or (1,) * rank

    def pads_for(self, sizes: Sizes, kernel: Sizes) -> tuple[Sizes, Sizes]:
        """Padding before and after each axis."""
        rank = len(sizes)
        if not self.automatic:
            return self.befores or (0,) * rank, self.afters or (0,) * rank
        if self.automatic == "VALID":
            return (0,) * rank, (0,) * rank
        return same_pads(
            sizes, kernel, self.strides_for(rank), self.dilations_for(rank), self.automatic == "SAME_UPPER"
        )


def same_pads(
    sizes: Sizes, kernel: Sizes, strides: Sizes, dilations: Sizes, upper: bool
) -> tuple[Sizes, Sizes]:
    """Padding that makes the output ``ceil(size / stride)`` long; the odd element goes last if ``upper``."""
    befores, afters = [], []
    for size, taps, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        # ⌈size / stride⌉ windows end (count − 1)·stride + dilation·(taps − 1) + 1 behind the first begin;
        # what that is more than the input is padded. With strides wider than the window it may be less:
        # then nothing is.
        count = -(-size // stride)
        total = max((count - 1) * stride + dilation * (taps - 1) + 1 - size, 0)
        small, large = total // 2, total - total // 2
        befores.append(small if upper else large)
        afters.append(large if upper else small)
    return tuple(befores), tuple(afters)


def window_of(op: Op, weight_index: int | None = None) -> KernelWindow:
    """Read a window's attributes."""
    automatic = str(op.attr("auto_pad", "NOTSET"))
    automatic = "" if automatic == "NOTSET" else automatic
    pads, kernel = op.attr("pads"), op.attr("kernel_shape")
    strides, dilations = op.attr("strides"), op.attr("dilations")
    rank = next((len(given) for given in (kernel, strides, dilations) if given is not None), None)
    rank = len(pads) // 2 if rank is None and pads is not None else rank
    weight = op.known(weight_index) if weight_index is not None else None
    rank = weight.ndim - 2 if rank is None and weight is not None else rank
    # ONNX lists the padding before every axis first, then the padding behind every axis.
    half = len(pads) // 2 if pads is not None else 0
    befores = tuple(int(n) for n in pads[:half]) if pads is not None else None
    afters = tuple(int(n) for n in pads[half:]) if pads is not None else None
    return KernelWindow(
        rank=rank,
        strides=None if strides is None else tuple(int(n) for n in strides),
        dilations=None if dilations is None else tuple(int(n) for n in dilations),
        befores=befores,
        afters=afters,
        automatic=automatic,
    )
