"""Choose the code of every mapped weight: given, or searched for on this device and these weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.device import DeviceProfile, OperatingPoint
from nvaudit.errors import OptionError
from nvaudit.mapping.code_search import (
    CodeError,
    CodeFamily,
    CodeSearch,
    Conversion,
    WeightDistribution,
    allocate,
    best_zero,
    code_error,
    noise_of_level,
)
from nvaudit.mapping.codes import Code, check_significances, level_code, rounding
from nvaudit.mapping.conductance import code_layout, layout
from nvaudit.mapping.mapping_file import read_mapping
from nvaudit.mapping.outliers import find_outliers
from nvaudit.mapping.quantize import peak_of, scaled_to
from nvaudit.mapping.tiling import Crossbar, device_columns, tiling_of
from nvaudit.model import Weight
from nvaudit.perturb.moments import level_moments
from nvaudit.spec import RunSpec

ANALOG_LEVELS = 16
"""Levels of an analog device in a code, where --cell-bits does not say."""

MOST_DEVICES = 64
"""Devices of one weight, at most."""

_CHOICES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
_REACH = 3
"""Layers are offered up to so many times the devices that they have on average."""


@dataclass(frozen=True)
class CodeRequest:
    """Which code weights are to have.

    Attributes
    ----------
    significances : tuple of int or None
        Most significant first. None: searched for.
    family : {"powers", "integers"}
        Of a search.
    devices : float or None
        Devices per weight, of both polarities: on average where they are shared out between layers. None: as
        many as the slices would have.
    allocate : {"devices", "crossbars"} or None
        Share devices out between layers, counted one by one or as whole crossbars. None: all layers have the
        same code.
    """

    significances: tuple[int, ...] | None
    family: CodeFamily = "powers"
    devices: float | None = None
    allocate: Literal["devices", "crossbars"] | None = None


def code_request(spec: RunSpec) -> CodeRequest | None:
    """Which code is asked for; None: slices.

    Raises
    ------
    OptionError
        If options contradict each other.
    """
    name, _, family = (spec.code or "slices").partition(":")
    if name == "slices":
        for option, of_codes in (
            ("--devices-per-weight", spec.devices_per_weight),
            ("--allocate", spec.allocate),
        ):
            if of_codes is not None:
                raise OptionError(
                    f"{option} is for --code auto; slices have as many devices as --bits and --cell-bits make"
                )
        return None
    for option, of_slices in (
        ("--bits", spec.bits),
        ("--top-slice", spec.top_slice),
        ("--offset-zero", spec.offset_zero),
    ):
        if of_slices is not None:
            raise OptionError(f"{option} is for slices, not for --code {spec.code}; leave one of the two out")
    return CodeRequest(
        None if name == "auto" else tuple(map(int, name.split(","))),
        "integers" if family == "integers" else "powers",
        spec.devices_per_weight,
        spec.allocate,
    )


@dataclass(frozen=True)
class CodeUse:
    """What a code makes of all mapped weights.

    Attributes
    ----------
    noise_of_level : ndarray, float64, shape (L,)
        Share of the noise that devices at each level make.
    """

    code: Code
    error: CodeError
    noise_of_level: Floats


@dataclass(frozen=True)
class ChosenCodes:
    """The code of every weight, and what it was chosen by.

    Attributes
    ----------
    of : mapping of str to Code
        By key of the weight.
    variance : ndarray, float64, shape (L,)
        Of one device at each level, in squared level spacings.
    rounded_by : ndarray, float64, shape (L,)
        The variance by which weights take the value of least expected error.
    point : OperatingPoint or None
        What the codes were chosen for. None: they were read from a file.
    errors : mapping of str to CodeError
        Expected error of each weight, of max|W|.
    slices : CodeUse or None
        The slices that the profile would give, rounded to the nearest value.
    used : tuple of CodeUse
        The codes in use, fewest devices first.
    tried : int
        Codes that were tried.
    nearest : frozenset of str
        Weights that take the nearest value instead: their numbers were rounded to their code before.
    made_for : tuple of (str, float or None) or None
        Device and sigma that codes from a file were chosen for.
    """

    of: Mapping[str, Code]
    variance: Floats
    rounded_by: Floats
    point: OperatingPoint | None = None
    errors: Mapping[str, CodeError] = field(default_factory=dict)
    slices: CodeUse | None = None
    used: tuple[CodeUse, ...] = ()
    tried: int = 0
    nearest: frozenset[str] = frozenset()
    made_for: tuple[str, float | None] | None = None

    def values(
        self, weight: Weight, numbers: NDArray[np.floating], *, per_channel: bool, nearest: bool = False
    ) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Values of the code of a weight, and the scale, as :func:`nvaudit.mapping.quantize.scaled_to`.

        Parameters
        ----------
        nearest : bool
            Take the nearest values, whatever the code says of this weight.
        """
        code = self.of[weight.key]
        rounded_by = None if nearest or weight.key in self.nearest else self.rounded_by
        axes = scale_axes(weight, per_channel)
        return scaled_to(numbers, code.top, axes, rounding(code, rounded_by))


@dataclass(frozen=True)
class _Layer:
    """One weight, as a search sees it."""

    weight: Weight
    spread: WeightDistribution
    size: int
    power: float
    """Mean of max|W|² over the mean of W²: what an error relative to max|W| is multiplied by."""


def level_variance(point: OperatingPoint, levels: int) -> Floats:
    """Variance of one device at each level, one read included, in squared spacings of these levels.

    Terms stated as a fraction of max|W| act on no device and are left out; a component that devices share
    counts as if each had its own.
    """
    array = code_layout(point.profile, level_code(levels - 1, "sign_magnitude"))
    return np.square(level_moments(point, array).std)


def choose_codes(
    weights: Sequence[Weight],
    points: Sequence[OperatingPoint],
    asked: CodeRequest,
    *,
    per_channel: bool,
    size: Crossbar,
    importance: Mapping[str, float] | None = None,
    conversion: Conversion | None = None,
    outliers: float | None = None,
) -> ChosenCodes:
    """Choose the code of every weight.

    Parameters
    ----------
    weights : sequence of Weight
        On the array.
    points : sequence of OperatingPoint
        Of one profile. A code is chosen for that of the largest sigma.
    per_channel : bool
        Whether each output has a scale of its own.
    size : Crossbar
        Of which devices are shared out, where whole crossbars count.
    importance : mapping of str to float, optional
        Relative noise power of a layer's results for an error of all its weights of one max|W|, where it is
        known. By default, and for weights that are not named, that of the weights themselves:
        max|W|² / mean W².
    conversion : Conversion, optional
        Converters, whose error counts with that of rounding and noise. By default they are ideal.
    outliers : float, optional
        Share of the weights, the largest, that no device holds.

    Raises
    ------
    OptionError
        If what is asked cannot be had.
    """
    # One code serves the whole sweep: that for most noise, where the choice of a code matters most.
    point = max(points, key=lambda one: one.sigma)
    profile = point.profile
    bits = profile.cell_bits
    levels = ANALOG_LEVELS if bits is None else 2**bits
    variance = level_variance(point, levels)
    layers = [_layer(weight, per_channel, outliers) for weight in weights]
    layers = [replace(one, power=(importance or {}).get(one.weight.key, one.power)) for one in layers]
    everything = _together(layers)
    slices = layout(profile, bits=profile.weight_bits)
    if asked.significances is not None:
        code = _given(asked, profile, variance, everything, conversion)
        chosen, tried = dict.fromkeys((one.weight.key for one in layers), code), 1
    else:
        search = CodeSearch(variance, profile.encoding, everything, asked.family, conversion)
        default = device_columns(slices)
        chosen, tried = _searched(search, layers, asked, profile, default, size)
    errors = {
        one.weight.key: code_error(
            chosen[one.weight.key], variance, one.spread, rounded_by=variance, conversion=conversion
        )
        for one in layers
    }
    ordered = sorted(set(chosen.values()), key=lambda one: (one.devices, one.text))
    used = tuple(_use(code, variance, everything, variance, conversion) for code in ordered)
    # Slices of an analog device have levels of their own (the whole code), other than ANALOG_LEVELS.
    plain = _use(slices.code, level_variance(point, slices.code.levels), everything, None, conversion)
    return ChosenCodes(chosen, variance, variance, point, errors, plain, used, tried)


def codes_of_file(
    path: str,
    weights: Sequence[Weight],
    points: Sequence[OperatingPoint],
    *,
    per_channel: bool,
    conversion: Conversion | None = None,
) -> ChosenCodes | None:
    """Take the code of every weight from a mapping file; None where it leaves all to slices.

    Raises
    ------
    OptionError
        If the file is not one, or its codes are not for these weights and devices.
    """
    point = max(points, key=lambda one: one.sigma)
    data = read_mapping(Path(path))
    codes = data.of(f"--mapping: {path}")
    missing = set(codes) - {weight.key for weight in weights}
    if missing:
        raise OptionError(f"--mapping: {path}: {min(missing)!r} is no weight on the array of this model")
    if not codes:
        return None
    levels, bits = len(data.level_variance), point.profile.cell_bits
    if bits is not None and levels != 2**bits:
        raise OptionError(
            f"--mapping: {path} is for devices of {levels} levels ({data.device}); {point.profile.name!r} "
            f"has {2**bits} here. Choose codes for these devices with --code auto, or leave the file out "
            "with --code slices"
        )
    # Two variances: `by` is the one for which the writer of the file chose the value of each weight, which
    # has to be repeated here; `own` is what devices make of it at this operating point.
    own, by, nearest = level_variance(point, levels), np.array(data.level_variance), data.nearest
    layers = [_layer(weight, per_channel, data.digital_outliers) for weight in weights if weight.key in codes]
    errors = {
        one.weight.key: code_error(
            codes[one.weight.key],
            own,
            one.spread,
            rounded_by=None if one.weight.key in nearest else by,
            conversion=conversion,
        )
        for one in layers
    }
    ordered = sorted(set(codes.values()), key=lambda one: (one.devices, one.text))
    everything = _together(layers)
    used = tuple(_use(code, own, everything, None if nearest else by, conversion) for code in ordered)
    made_for = data.device, data.sigma
    return ChosenCodes(codes, own, by, None, errors, None, used, nearest=nearest, made_for=made_for)


def _use(
    code: Code,
    variance: Floats,
    weights: WeightDistribution,
    rounded_by: Floats | None,
    conversion: Conversion | None,
) -> CodeUse:
    error = code_error(code, variance, weights, rounded_by=rounded_by, conversion=conversion)
    return CodeUse(code, error, noise_of_level(code, variance, weights, rounded_by=rounded_by))


def _layer(weight: Weight, per_channel: bool, outliers: float | None = None) -> _Layer:
    loaded = weight.load()
    values = np.asarray(loaded.values)
    if outliers is not None:
        values = np.array(values)
        np.put(values, find_outliers(values, outliers, scale_axes(weight, per_channel)), 0)
    peak = peak_of(values, scale_axes(weight, per_channel))
    # max|W|² over mean W²: an error of ε · max|W| in every weight is noise of power ε² · this, relative to
    # the results, where inputs are alike.
    square = float(np.mean(np.square(values, dtype=np.float64))) if values.size else 0.0
    power = float(np.mean(np.square(peak))) / square if square > 0 else 0.0
    return _Layer(weight, WeightDistribution.of([(values, peak)]), int(values.size), power)


def scale_axes(weight: Weight, per_channel: bool) -> tuple[int, ...]:
    """Axes with a scale of their own: those of outputs, if asked or if the model stores integers that way."""
    grid = weight.load().grid if weight.is_integer else None
    own = grid is not None and np.size(grid.scale) > 1
    return weight.channel_axes if per_channel or own else ()


def _together(layers: Sequence[_Layer]) -> WeightDistribution:
    """The distribution of all weights, each counting once."""
    total = max(1, sum(layer.size for layer in layers))
    at = np.concatenate([layer.spread.at for layer in layers] or [np.zeros(1)])
    share = np.concatenate([layer.spread.share * (layer.size / total) for layer in layers] or [np.ones(1)])
    merged, place = np.unique(at, return_inverse=True)
    return WeightDistribution(merged, np.asarray(np.bincount(place, share, len(merged)), np.float64))


def _given(
    asked: CodeRequest,
    profile: DeviceProfile,
    variance: Floats,
    weights: WeightDistribution,
    conversion: Conversion | None,
) -> Code:
    """The code of given significances."""
    assert asked.significances is not None
    text = ",".join(map(str, asked.significances))
    if asked.allocate is not None:
        raise OptionError(f"--code {text} is one code for all layers; --allocate is for --code auto")
    try:
        check_significances(asked.significances, len(variance))
        code, _ = best_zero(asked.significances, variance, profile.encoding, weights, conversion)
    except ValueError as error:
        raise OptionError(f"--code {text}: {error}") from None
    if code.devices > MOST_DEVICES:
        raise OptionError(
            f"--code: {len(asked.significances)} significances take {code.devices} devices per weight; give "
            f"at most {MOST_DEVICES // (code.devices // len(asked.significances))}"
        )
    if asked.devices is not None and asked.devices != code.devices:
        pairs = ", in pairs" if profile.encoding == "differential" else ""
        raise OptionError(
            f"--devices-per-weight {asked.devices:g}: --code {text} has {code.devices} devices per weight"
            f"{pairs}; leave one of the two out"
        )
    return code


def _searched(
    search: CodeSearch,
    layers: Sequence[_Layer],
    asked: CodeRequest,
    profile: DeviceProfile,
    default: int,
    size: Crossbar,
) -> tuple[dict[str, Code], int]:
    """Search for a code, or for one of each number of devices, of which layers get what helps most."""
    each = search.per_significance
    budget = float(default) if asked.devices is None else asked.devices
    if not each <= budget <= MOST_DEVICES:
        raise OptionError(
            f"--devices-per-weight {budget:g}: {profile.encoding} takes {each} to {MOST_DEVICES} devices"
        )
    if asked.allocate is None:
        if budget != int(budget) or int(budget) % each:
            one = "pairs of devices" if each == 2 else "whole devices"
            raise OptionError(
                f"--devices-per-weight {budget:g}: where all layers have the same code these are {one}; add "
                "--allocate devices to share an average out between layers"
            )
        best_code = _best(search, int(budget))
        return dict.fromkeys((one.weight.key for one in layers), best_code), search.tried
    reach = max(_REACH * budget, each)
    choices = [each * n for n in _CHOICES if each * n <= min(reach, MOST_DEVICES)]
    # Every budget has to be met by some choice of all layers.
    choices = sorted({*choices, each * math.floor(budget / each)})
    codes = [_best(search, count) for count in choices]
    # Without data a layer's relative noise power is that of its weights: Σ ΔW² / Σ W².
    noise, how = search.variance, search.conversion
    power = {
        one.weight.key: [
            one.power * code_error(code, noise, one.spread, rounded_by=noise, conversion=how).total ** 2
            for code in codes
        ]
        for one in layers
    }
    cost = {one.weight.key: _costs(one, codes, profile, asked.allocate, size) for one in layers}
    room = budget * sum(one.size for one in layers)
    if asked.allocate == "crossbars":
        # As many crossbars as all layers with the same code within the budget would fill.
        uniform = choices.index(each * math.floor(budget / each))
        room = sum(one[uniform] for one in cost.values())
    picked = allocate(power, cost, room)
    return {key: codes[k] for key, k in picked.items()}, search.tried


def _best(search: CodeSearch, devices: int) -> Code:
    try:
        return search.best(devices).code
    except ValueError as error:
        raise OptionError(f"--code auto: {error}; give fewer --devices-per-weight or --cell-bits") from None


def _costs(
    layer: _Layer, codes: Sequence[Code], profile: DeviceProfile, what: str, size: Crossbar
) -> list[float]:
    if what == "devices":
        return [float(layer.size * code.devices) for code in codes]
    matrix = layer.weight.matrix
    return [float(tiling_of(matrix, code_layout(profile, code), size).crossbars) for code in codes]
