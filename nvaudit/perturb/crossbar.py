"""Crossbars with converters: calibrate their ranges, and put them into a workload."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import OperatingPoint
from nvaudit.errors import OptionError
from nvaudit.mapping.conductance import DeviceArray
from nvaudit.model import (
    CellReadout,
    Converter,
    Converters,
    CrossbarPlan,
    CrossbarSplit,
    Template,
    build_template,
)
from nvaudit.model.crossbar.rounding import bias_trial
from nvaudit.perturb.cells import device_factors, device_offset, refuse_noise_on_weights
from nvaudit.perturb.engine import Engine
from nvaudit.perturb.prepare import Request, graph_file
from nvaudit.perturb.probe import InnerProbe, exposing
from nvaudit.perturb.session import open_session, run_session
from nvaudit.perturb.variant import spread_evenly
from nvaudit.perturb.workload import Workload

MOST_SAMPLES, FEWEST_SAMPLES = 64, 8
"""Ranges are calibrated on this many samples, fewer of large models."""

CALIBRATION_BYTES = 2 << 30
RUN_BYTES = 64 << 20
SUMS_BYTES = 512 << 10
"""What the column sums of a row block may take at a time, on average: converters are faster in a cache."""
ADDED_BYTES = 1 << 20
"""The same where converters round by adding, and go over column sums less often."""
FEWEST_AT_ONCE = 4
MOST_AT_ONCE = 16

MOST_NAMED = 8
"""Weights that an error names."""

_INFINITE_BIN = 0x7F80_0000 >> 15
_RESCALE = "scale the model's weights to usual sizes, or keep this one digital with --digital"

STEP_BITS = 6
"""Significant bits of an ADC's codes per level: column sums of whole numbers then stay exact in single
precision, so that codes do not depend on the order in which a runtime adds."""


@dataclass(frozen=True)
class ConverterSpec:
    """What converters are asked for.

    Attributes
    ----------
    rows, cols : int
        Of a crossbar.
    dac_bits : int or None
        None: ideal inputs.
    method : str
        ``max``, ``full_scale`` or ``percentile:P``.
    """

    rows: int
    cols: int
    adc_bits: int
    dac_bits: int | None
    method: str


@dataclass(frozen=True)
class WeightOnCrossbars:
    """The crossbars of one weight.

    Attributes
    ----------
    clipped : float or None
        Share of the calibration's column sums beyond the ADC's range; None where it was not split.
    signed : bool
        Whether the inputs are signed.
    weights : int
        Of the tensor.
    """

    split: CrossbarSplit
    converters: Converters
    array: DeviceArray
    clipped: float | None
    signed: bool
    weights: int = 0


@dataclass(frozen=True)
class CrossbarRun:
    """A workload on crossbars.

    Attributes
    ----------
    plain : Workload
        The same without crossbars.
    samples : int
        Samples of the calibration.
    """

    workload: Workload
    plain: Workload
    layers: tuple[WeightOnCrossbars, ...]
    samples: int
    how: ConverterSpec


@dataclass
class MagnitudeHistogram:
    """The distribution of some values: extremes, and a histogram of magnitudes by their leading 8 bits."""

    low: float = 0.0
    high: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1 << 16, np.int64))

    def add(self, values: NDArray[Any]) -> None:
        """Take some values in."""
        if not values.size:
            return
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        with np.errstate(over="ignore"):  # beyond single precision is counted as infinite
            single = values.astype(np.float32, copy=False)
        # Bit patterns of floats ≥ 0 are in the order of the floats. Their upper 16 bits (sign 0, exponent, 8
        # bits of the significand) are bins whose relative width is at most 2⁻⁸ (of normal numbers).
        bins = np.abs(single).reshape(-1).view(np.uint32) >> 15
        self.counts += np.bincount(bins, minlength=len(self.counts))

    @property
    def count(self) -> int:
        """How many values there were."""
        return int(self.counts.sum())

    @property
    def peak(self) -> float:
        """Largest magnitude."""
        return max(self.high, -self.low)

    def reach(self, method: str) -> float:
        """The magnitude up to which a converter must go."""
        kind, _, number = method.partition(":")
        if kind != "percentile":
            return self.peak
        wanted = float(number) / 100 * self.count
        index = int(np.searchsorted(np.cumsum(self.counts), wanted))
        # The upper end of the bin: the range never falls short of the percentile.
        edge = (np.arange(index + 1, index + 2, dtype=np.uint32) << 15).view(np.float32)
        return min(float(edge[0]), self.peak)

    def beyond(self, limit: float) -> float:
        """Share of the values whose magnitude is surely above a limit."""
        at = int(np.array([limit], np.float32).view(np.uint32)[0] >> 15)
        return float(self.counts[at + 1 :].sum() / max(1, self.count))


def put_on_crossbars(request: Request, plain: Workload, how: ConverterSpec, folder: Path) -> CrossbarRun:
    """Split the mapped weights of a workload over crossbars and calibrate their converters.

    Parameters
    ----------
    request : Request
        What the workload was made from.
    plain : Workload
        Without crossbars.
    folder : Path
        For the files of the new workload.

    Raises
    ------
    OptionError
        If noise is stated for weights, not devices; if no weight can be split; if the values of a layer are
        beyond what single precision holds.
    """
    check_noise(request.points)
    cells = {
        tensor.key: CellReadout(device_factors(tensor.array), device_offset(tensor.array), tensor.scale)
        for tensor in plain.tensors
    }
    # Two templates: with ideal converters, whose column sums are watched, and with converters set by what
    # was seen. Watched is the quantised model without noise, so that ranges are the same for every chip, as
    # those of a design are.
    ideal = CrossbarPlan(how.rows, cells)
    template = _template(request, plain, ideal, noisy=set())
    check_split(template.splits, request.loaded.path)
    shown, outputs = exposing(
        _with_template(plain, template, folder, "calibrate"),
        [name for split in template.splits for name in (*split.inputs, *split.sums)],
        folder,
        "calibrate",
    )
    probe = Engine(shown).inner(outputs)
    sizes = _sizes(probe, template.splits, plain.together)
    spreads, samples = _watch(probe, template.splits, sizes, plain.count, plain.together)
    splits = tuple(_if_reached(split, spreads) for split in template.splits)
    check_split(splits, request.loaded.path)
    tensors = {tensor.key: tensor for tensor in plain.tensors}
    layers = tuple(
        replace(
            settle_layer(split, tensor.array, spreads.get(split.key), how, tensor.scale),
            weights=tensor.code.open().size,
        )
        for split in splits
        for tensor in [tensors[split.key]]
    )
    left = {split.key for split in splits if split.reason is not None}
    noisy = request.noisy_reads(plain.tensors)
    plan = CrossbarPlan(
        how.rows,
        {key: cell for key, cell in cells.items() if key not in left},
        {layer.split.key: layer.converters for layer in layers},
        # Noise of a read comes between the product and its ADC.
        cells.keys() - noisy if request.provider == "cpu" and adds_biases_last() else (),
    )
    converted = _template(request, plain, plan, noisy)
    workload = _with_template(plain, converted, folder, "crossbar")
    if not request.rebatch.coupled and not request.loaded.draws:  # another cut is another draw
        sums = [sizes[name] for split in template.splits for name in split.sums]
        room = ADDED_BYTES if any(split.by_adding for split in converted.splits) else SUMS_BYTES
        workload = replace(workload, batch=samples_at_once(sums, plain.batch, room))
    # Values of the graph that runs: with converters in it, column sums may have other names.
    made = {split.key: split for split in converted.splits}
    layers = tuple(replace(layer, split=made.get(layer.split.key, layer.split)) for layer in layers)
    return CrossbarRun(workload, plain, layers, samples, how)


@functools.cache
def adds_biases_last() -> bool:
    """Whether ONNX Runtime adds the bias of a convolution to its finished sums on this processor."""
    model, feeds, wanted = bias_trial()
    made = run_session(open_session(model, {}), [], feeds)
    return all(np.array_equal(one, other) for one, other in zip(made, wanted, strict=True))


def check_noise(points: Sequence[OperatingPoint]) -> None:
    """Refuse noise that column sums with converters cannot have.

    Raises
    ------
    OptionError
        Naming the term, or the option.
    """
    for point in points:
        if point.drift_compensation:
            raise OptionError(
                "--adc-bits and --drift-compensation: choose one; the factor acts behind converters, whose "
                "ranges follow what is in front of them"
            )
        refuse_noise_on_weights(point, "--adc-bits", ", so it has no column sums")


def check_split(splits: Sequence[CrossbarSplit], model: Path) -> None:
    """Refuse converters that would convert nothing.

    Parameters
    ----------
    splits : sequence of CrossbarSplit
        Of every weight on the array.

    Raises
    ------
    OptionError
        Naming the weights, each with its reason.
    """
    if any(split.reason is None for split in splits):
        return
    named = [f"{split.key!r}: {split.reason}" for split in splits[:MOST_NAMED]]
    if len(splits) > MOST_NAMED:
        named.append(f"and {len(splits) - MOST_NAMED} more")
    raise OptionError(
        f"--adc-bits: {model}: no weight on the array can be split over crossbars, so no converter would be "
        "simulated: "
        f"{'; '.join(named)}; leave --adc-bits out"
    )


def _if_reached(
    split: CrossbarSplit, spreads: Mapping[str, tuple[MagnitudeHistogram, MagnitudeHistogram]]
) -> CrossbarSplit:
    """A weight whose operator never ran while calibrating has no range: it stays whole."""
    if split.reason is not None or spreads[split.key][1].count:
        return split
    return CrossbarSplit(split.key, "its operator ran on none of the calibration samples, so it has no range")


def _template(request: Request, plain: Workload, plan: CrossbarPlan, noisy: set[str]) -> Template:
    return build_template(
        request.loaded,
        [tensor.key for tensor in plain.tensors],
        batch="free" if request.rebatch.status == "rebatched" else "keep",
        read_noise=noisy,
        crossbars=plan,
    )


def _with_template(plain: Workload, template: Template, folder: Path, name: str) -> Workload:
    """The workload with another template."""
    with_variance = {slot.weight_key for slot in template.slots if slot.variance}
    return replace(
        plain,
        template=graph_file(template, folder, name, plain.template.batch),
        slots=template.slots,
        tensors=tuple(replace(t, freeze_read=t.key not in with_variance) for t in plain.tensors),
        read_noise=bool(with_variance),
    )


def samples_at_once(sums: Sequence[int], most: int, room: int) -> int:
    """How many samples run at a time.

    Parameters
    ----------
    sums : sequence of int
        Bytes of the column sums of every row block, for one sample.
    most : int
        No more than these.
    room : int
        Bytes that these may take on average.

    Returns
    -------
    int
        A power of two, or ``most``.

    Examples
    --------
    >>> samples_at_once([256 * 1024, 64 * 1024], 64, 2**20), samples_at_once([1024], 64, 2**20)
    (4, 64)
    """
    if not sums:
        return most
    fitting = int(room * len(sums) // max(1, sum(sums)))
    return min(most, max(FEWEST_AT_ONCE, 1 << max(0, fitting.bit_length() - 1)))


def _sizes(probe: InnerProbe, splits: Sequence[CrossbarSplit], together: int) -> dict[str, int]:
    """Bytes of every input and of the column sums of every row block, for one sample."""
    done = [split for split in splits if split.reason is None]
    # Sums of one weight are of one size, so one of each tells what they take; in bodies any may be left out.
    groups = [group for split in done for group in (split.inputs, split.sums)]
    shown = [group if split.inside else group[:1] for split in done for group in (split.inputs, split.sums)]
    told = list(dict.fromkeys(name for group in shown for name in group))
    if not told:
        return {}
    some = np.arange(together or 1)
    sizes = {name: -(-value.nbytes // len(some)) for name, value in probe.run(some, told).items()}
    return {name: sizes.get(name, sizes[group[0]]) for group in groups for name in group}


def _watch(
    probe: InnerProbe, splits: Sequence[CrossbarSplit], sizes: Mapping[str, int], count: int, together: int
) -> tuple[dict[str, tuple[MagnitudeHistogram, MagnitudeHistogram]], int]:
    """The distributions of inputs and column sums of every split weight."""
    spreads = {
        split.key: (MagnitudeHistogram(), MagnitudeHistogram()) for split in splits if split.reason is None
    }
    takers: dict[str, list[MagnitudeHistogram]] = {}  # layers may share an input
    for split in splits:
        for part, group in enumerate((split.inputs, split.sums)):
            for name in group:
                takers.setdefault(name, []).append(spreads[split.key][part])
    if not takers:
        return spreads, 0
    most = int(np.clip(CALIBRATION_BYTES // max(1, sum(sizes.values())), FEWEST_SAMPLES, MOST_SAMPLES))
    chosen = spread_evenly(count, count if together else min(count, most))
    for names in _groups(sizes):
        at_once = int(np.clip(RUN_BYTES // max(1, sum(sizes[name] for name in names)), 1, MOST_AT_ONCE))
        at_once = together or at_once
        for start in range(0, len(chosen), at_once):
            for _, values in probe.batches(chosen[start : start + at_once], names, at_once):
                for name, array in values.items():
                    for spread in takers[name]:
                        spread.add(array)
    return spreads, len(chosen)


def _groups(sizes: Mapping[str, int]) -> list[list[str]]:
    """Values that are looked at in one run: together no larger than a run may be."""
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not groups or size > room:
            groups.append([])
            room = RUN_BYTES
        groups[-1].append(name)
        room -= size
    return groups


def settle_layer(
    split: CrossbarSplit,
    array: DeviceArray,
    spreads: tuple[MagnitudeHistogram, MagnitudeHistogram] | None,
    how: ConverterSpec,
    scale: NDArray[np.float32] | float = 1.0,
) -> WeightOnCrossbars:
    """Set the converters of one weight.

    Parameters
    ----------
    spreads : tuple of MagnitudeHistogram or None
        Of the inputs, and of the column sums in inputs × levels; None where it was not split.
    scale : ndarray or float
        Weight units per code.

    Raises
    ------
    OptionError
        If the values, or the numbers that they are multiplied by, are beyond what single precision holds.
    """
    if spreads is None or split.reason is not None:
        return WeightOnCrossbars(split, Converters(), array, None, False)
    inputs, sums = spreads
    _check_finite(split, inputs, sums)
    signed = inputs.low < 0
    dac = None
    if how.dac_bits is not None:
        dac = _converter(inputs.reach(how.method), how.dac_bits, signed)
    step = 1.0 if dac is None else dac.step
    if how.method == "full_scale":
        # The largest sum without noise: all rows of the fullest block at the top level, with the DAC's
        # largest input or, without one, that of the calibration.
        most = inputs.peak if dac is None else dac.high * dac.step
        reach = most * array.top_level * max(block.used for block in split.blocks)
    else:
        reach = sums.reach(how.method)
    # Signs kept digitally, and devices that add or subtract, give column sums of both signs.
    both = array.encoding in ("sign_magnitude", "sign_per_device")
    # Behind a DAC inputs are whole numbers, so sums are counted in DAC steps × levels; hence reach / step.
    # The factor 1 / step is rounded down, so that the step grows and the range is still covered.
    adc = _converter(reach / step, how.adc_bits, signed or both)
    adc = replace(adc, step=1.0 / _rounded_down(1.0 / adc.step))
    _check_factors(split, step, adc.step, np.asarray(scale, np.float64))
    return WeightOnCrossbars(
        split, Converters(dac, adc), array, sums.beyond(adc.high * adc.step * step), signed
    )


def _check_finite(split: CrossbarSplit, inputs: MagnitudeHistogram, sums: MagnitudeHistogram) -> None:
    """Refuse values that a range cannot be set by."""
    for what, spread in (("inputs", inputs), ("column sums", sums)):
        # Infinity and NaN have the largest exponent.
        if spread.counts[_INFINITE_BIN:].any() or not np.isfinite(spread.peak):
            raise OptionError(
                f"--adc-bits: the {what} of weight {split.key!r} are beyond single precision on the "
                f"calibration samples, so its converters have no range; {_RESCALE} {split.key}"
            )


def _check_factors(
    split: CrossbarSplit, input_step: float, adc_step: float, scale: NDArray[np.float64]
) -> None:
    """Refuse steps whose inverse, or whose product with the scale, single precision does not hold."""
    used = scale[scale != 0] if scale.any() else np.ones(1)
    # What the codes of column sums are turned back into results by: W = s c, so y = s · (ADC step) · (DAC
    # step) · code.
    products = np.abs(used) * adc_step * input_step
    numbers = [1.0 / input_step, 1.0 / adc_step, float(products.min()), float(products.max())]
    limits = np.finfo(np.float32)
    # Devices of a weight count for up to 2^16: a margin of that on both sides.
    if not all(limits.tiny * 2.0**16 <= number <= limits.max / 2.0**16 for number in numbers):
        raise OptionError(
            f"--adc-bits: weight {split.key!r} has {float(np.abs(used).max()):.3g} per code and an ADC step "
            f"of {adc_step * input_step:.3g}: single precision does not hold what its column sums are "
            f"multiplied by; {_RESCALE} {split.key}"
        )


def _converter(reach: float, bits: int, signed: bool) -> Converter:
    """A converter whose last code stands for ``reach``; zero is a code of its own."""
    # Symmetric where signed, −high … high: that gives up one of the 2^bits codes, and zero stays a code.
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    return Converter((reach or 1.0) / high, -high if signed else 0, high)


def _rounded_down(value: float) -> float:
    """The next smaller number with few significant bits."""
    # The mantissa is in [½, 1): floor of 2⁶ of it leaves six bits, and a number that is never larger.
    mantissa, exponent = np.frexp(value)
    return float(np.ldexp(np.floor(mantissa * 2**STEP_BITS), exponent - STEP_BITS))
