"""Conductances that were read back from chips: find them, read them, and refuse what cannot be right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from nvaudit.errors import DataError, first_fault
from nvaudit.mapping.array_files import CONDUCTANCE, SUFFIXES, Arrays, find_arrays, read_arrays
from nvaudit.mapping.conductance import DeviceArray
from nvaudit.mapping.manifest import ARRAYS, DIGITAL, MANIFEST
from nvaudit.mapping.places import CrossbarPlace, Geometry
from nvaudit.mapping.tiling import Crossbar

CHIP_FACTS = "chip.json"
"""Beside the arrays of a chip, where it has something to say: ``{"time_s": 3600}``."""
_LONGEST = 1e10
"""Seconds: three hundred years, longer than anything was waited for or extrapolated to."""

_NAMED = 3
_FEWEST = 8
"""Devices above the lowest level that a unit is judged by."""
_FAR_OFF = 30.0
"""A typical conductance that is so many times off is in another unit: no device errs so in the mean."""
_NEGATIVE = 5.0
"""Windows below 0 that the noise of no device, or of reading it, reaches."""
_WINDOWS = 1000.0
"""No device lies so many windows off its own."""

Doubles = NDArray[np.float64]


def is_of_arrays(folder: Path, place: Path) -> bool:
    """Whether a file is one that a folder of a mapping or of chips is read from."""
    place, folder = place.resolve(), folder.resolve()
    names = place.relative_to(folder).parts if place.is_relative_to(folder) else ()
    return bool(names) and (names[-1] in (MANIFEST, CHIP_FACTS) or ARRAYS in names or DIGITAL in names)


@dataclass(frozen=True)
class ChipSource:
    """Where one chip lies.

    Attributes
    ----------
    path : Path
        Its folder, or the file of its only crossbar.
    time_s : float or None
        Seconds since it was programmed, where its ``chip.json`` says so.
    """

    name: str
    path: Path
    time_s: float | None = None

    def crossbar(self, file: str) -> Path | None:
        """The file of one crossbar; None where there is none."""
        return self.path if self.path.is_file() else find_arrays(self.path / file)


def find_chips(path: Path) -> tuple[ChipSource, ...]:
    """Find the chips in a folder: itself, or each folder in it that has arrays; or a file of one crossbar.

    Raises
    ------
    DataError
        If there is none.
    """
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES.values():
            raise DataError(f"{path}: not a file of arrays; give one of {', '.join(SUFFIXES.values())}")
        return (ChipSource(path.stem, path),)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder or file; give conductances that were read back")
    inside = sorted(one for one in path.iterdir() if (one / ARRAYS).is_dir())
    folders = [path] if (path / ARRAYS).is_dir() else inside
    if not folders:
        raise DataError(
            f"{path}: has neither {ARRAYS}/ nor folders with it; give the arrays of each chip as `nvaudit "
            "map` writes them"
        )
    return tuple(ChipSource(one.name, one, _time(one / CHIP_FACTS)) for one in folders)


class ChipFacts(BaseModel):
    """What ``chip.json`` says of a chip; ``note`` is for people."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    time_s: float | None = Field(default=None, ge=0, le=_LONGEST, allow_inf_nan=False)
    note: JsonValue = None


def _time(path: Path) -> float | None:
    if not path.is_file():
        return None
    try:
        return ChipFacts.model_validate_json(path.read_bytes()).time_s
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check it") from None
    except ValidationError as error:
        raise DataError(
            f"{path}: {first_fault(error)}; write seconds since programming, at most {_LONGEST:.0e}, and "
            'what else is to be known as a note: {"time_s": 3600, "note": "25 °C"}'
        ) from None


def read_several_times(path: Path) -> bool:
    """Whether the devices of chips were read several times: looks at the first crossbar of each."""
    for chip in find_chips(path):
        files = sorted((chip.path / ARRAYS).glob("*/*")) if chip.path.is_dir() else [chip.path]
        file = next((one for one in files if one.suffix in SUFFIXES.values()), None)
        if file is not None:
            if file.suffix == SUFFIXES["csv"]:
                places = [line.split(",")[:2] for line in file.read_text(encoding="utf-8-sig").splitlines()]
                several = len(set(map(tuple, places))) < len(places)
            else:
                g = read_arrays(file, (0, 0)).get(CONDUCTANCE)
                several = g is not None and g.ndim == 3 and len(g) > 1
            if several:
                return True
    return False


@dataclass
class ReadingCounts:
    """What was found in the files of one chip that needs to be said.

    Attributes
    ----------
    devices, missing, negative, beyond : int
        In use; of these not measured (NaN); below 0; more than a window outside the window.
    exact : int
        Of these that hold their target exactly.
    reads : int
        Of the device that was read most often.
    """

    devices: int = 0
    missing: int = 0
    negative: int = 0
    beyond: int = 0
    exact: int = 0
    reads: int = 1

    @property
    def measured(self) -> int:
        """Devices that were measured."""
        return self.devices - self.missing


@dataclass(frozen=True)
class TensorReadings:
    """The devices of one tensor of one chip.

    Attributes
    ----------
    mean : ndarray, float32 or float64, shape (device, row, output)
        Mean of the reads of each device; NaN where it was not measured or there is none.
    variance : ndarray of the same shape, or None
        Of one read; None where no device was read twice.
    """

    mean: NDArray[np.floating]
    variance: Doubles | None


def read_tensor_of_chip(
    chip: ChipSource,
    files: Sequence[str],
    places: Sequence[CrossbarPlace],
    geometry: Geometry,
    array: DeviceArray,
    unit: str,
    target: Doubles,
    used: NDArray[np.bool_],
    counts: ReadingCounts,
) -> TensorReadings:
    """Read the crossbars of one tensor.

    Parameters
    ----------
    files : sequence of str
        Of the crossbars, below the folder of the chip, without suffix.
    unit : str
        Of the profile's window, for messages.
    target : ndarray, float64, shape (device, row, output)
        What was to be programmed.
    used : ndarray of bool, shape (row, output)
        Weights that have devices.
    counts : ReadingCounts
        Of the chip; added to.

    Raises
    ------
    DataError
        Naming the file, what was found and what to do.
    """
    down, across = geometry.matrix_shape
    mean: NDArray[np.floating] = np.full((geometry.devices, down, across), np.nan)
    variance, several, kinds = np.full(mean.shape, np.nan), False, set[np.dtype[np.floating]]()
    gone = [file for file in files if chip.crossbar(file) is None]
    if gone:
        more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
        raise DataError(
            f"{chip.path}: lacks {', '.join(gone[:_NAMED])}{more}; add the arrays, with NaN for what was not "
            "measured"
        )
    for file, place in zip(files, places, strict=True):
        path = chip.crossbar(file)
        assert path is not None
        there = used[place.rows[0] : place.rows[1]][:, place.outputs]
        arrays = read_arrays(path, (geometry.size.rows, geometry.size.cols))
        reads = _readings(path, arrays, geometry.size, place, there)
        kinds.add(reads.dtype)
        wanted = np.asarray(place.take(target), np.float64)
        check_conductances(path, reads, wanted, there, (array.g_min, array.g_max), array.step, unit)
        count = (~np.isnan(reads)).sum(axis=0)
        total = np.where(np.isnan(reads), 0.0, reads)
        average = reads[0] if len(reads) == 1 else total.sum(axis=0) / np.where(count > 0, count, np.nan)
        place.put(_padded(average, geometry.size), mean)
        exact = at_target(average, wanted, array.step)
        refuse_targets(path, arrays, exact, ~np.isnan(average))
        counts.exact += int(exact.sum())
        _count(counts, average, there, array, len(reads))
        if len(reads) > 1:
            several = True
            spread = np.where(np.isnan(reads), 0.0, np.square(reads - average)).sum(axis=0)
            place.put(_padded(spread / np.where(count > 1, count - 1, np.nan), geometry.size), variance)
    if kinds == {np.dtype(np.float32)} and not several:
        mean = mean.astype(np.float32)  # as it was: nothing was rounded
    return TensorReadings(mean, variance if several else None)


def at_target(g: NDArray[np.floating], target: NDArray[np.floating], step: float) -> NDArray[np.bool_]:
    """Devices that hold their target within a ten-thousandth of a level, which programming does not reach.

    Simulated chips without noise are that far off: their weights are drawn, and rounded, in single precision.
    """
    return np.asarray(np.isclose(g, target, rtol=1e-6, atol=1e-4 * step))


def refuse_targets(path: Path, arrays: Arrays, exact: NDArray[np.bool_], measured: NDArray[np.bool_]) -> None:
    """Refuse a file of targets, as it was written to program a crossbar by, for one that was read back.

    Parameters
    ----------
    exact, measured : ndarray of bool
        Devices that are at their targets; those that were measured.

    Raises
    ------
    DataError
    """
    if {"level", "sign"} <= set(arrays) and exact.any() and exact[measured].all():
        raise DataError(
            f"{path}: every device holds its target, beside level and sign: this is the file that `nvaudit "
            f"map` wrote to program by. Give what was read back ({CONDUCTANCE} alone is enough), or chips of "
            "`nvaudit map --simulate`"
        )


def refuse_same_chips(chips: Sequence[tuple[Path, str]]) -> None:
    """Refuse a chip that is given twice: two chips never have the same conductances to the last bit.

    Parameters
    ----------
    chips : sequence of (path, digest)
        Of what was read back, :func:`readings_digest`.

    Raises
    ------
    DataError
        Naming both.
    """
    first: dict[str, Path] = {}
    for path, digest in chips:
        if digest in first:
            raise DataError(
                f"{first[digest]} and {path}: the same conductances, to the last bit: one chip given twice "
                "would count as two; leave one out"
            )
        first[digest] = path


def readings_digest(parts: Iterable[NDArray[np.number] | None]) -> str:
    """SHA-256 over numbers of devices in single precision, whatever format they were read from."""
    digest = hashlib.sha256()
    for part in parts:
        if part is not None:
            values = np.asarray(part, np.float32)
            digest.update(np.where(np.isnan(values), np.nan, values).tobytes())
    return digest.hexdigest()


def _readings(
    path: Path, arrays: Arrays, size: Crossbar, place: CrossbarPlace, there: NDArray[np.bool_]
) -> NDArray[np.floating]:
    """The reads of the devices in use, shape (read, row, column); NaN where there is no device."""
    if CONDUCTANCE not in arrays:
        raise DataError(f"{path}: has no {CONDUCTANCE!r}, it has {', '.join(arrays) or 'nothing'}")
    g = arrays[CONDUCTANCE]
    if g.dtype.kind not in "fiu":
        raise DataError(f"{path}: {CONDUCTANCE} is of type {g.dtype}; give numbers")
    if g.ndim not in (2, 3) or g.shape[-2:] != (size.rows, size.cols) or g.shape[0] == 0:
        raise DataError(
            f"{path}: {CONDUCTANCE} has shape {list(g.shape)}; the crossbar has {[size.rows, size.cols]}, "
            f"with several reads [reads, {size.rows}, {size.cols}]"
        )
    g = g if g.dtype in (np.float32, np.float64) else g.astype(np.float64)
    reads = g.reshape(-1, size.rows, size.cols)[(slice(None), *place.used)]
    return np.where(there, reads, np.nan)


def check_conductances(
    path: Path,
    reads: NDArray[np.floating],
    target: Doubles,
    there: NDArray[np.bool_],
    window: tuple[float, float],
    step: float,
    unit: str,
) -> None:
    """Refuse infinite values, values in another unit, and such as no device of this window has.

    Parameters
    ----------
    reads : ndarray, shape (read, row, column)
        NaN where nothing was measured.
    target : ndarray, float64, shape (row, column)
    there : ndarray of bool, shape (row, column)
        Devices in use.
    window : tuple of float
        Conductances of level 0 and of the top level, in the profile's unit.
    step : float
        Between neighbouring levels.

    Raises
    ------
    DataError
        Naming the file, the first such device and what to do.
    """
    low, high = window
    infinite = np.isinf(reads)
    if infinite.any():
        raise DataError(f"{path}: {_first(infinite)}: infinite; write NaN for a device that was not measured")
    names = {"us": "µS", "na": "nA", "level": "level spacings"}
    above = there & (target > low + step / 2) & (target > 0)
    known = np.abs(reads[:, above])
    ratio = known / target[above]
    ratio = ratio[~np.isnan(ratio)]
    if len(ratio) >= _FEWEST:
        typical = float(np.median(ratio))
        power = 3 * round(np.log10(typical) / 3) if typical > 0 else 0
        if power and not 1 / _FAR_OFF < typical < _FAR_OFF:
            size, cure = ("small", "multiply") if power < 0 else ("large", "divide")
            raise DataError(
                f"{path}: conductances are about 10^{abs(power)} times too {size} for {names[unit]} "
                f"(typically {typical:.2g} of their targets): another unit; {cure} by 1e{abs(power)}"
            )
    width = high - low
    far = np.abs(reads - low) > _WINDOWS * width
    if far.any():
        raise DataError(
            f"{path}: {_first(far)}: {reads[far][0]:.4g} {names[unit]} is more than {_WINDOWS:g} windows off "
            f"({low:g} … {high:g}); correct it, or write NaN"
        )
    below = reads < -_NEGATIVE * width
    if below.any():
        raise DataError(
            f"{path}: {_first(below)}: {reads[below][0]:.4g} {names[unit]}: no conductance is that negative "
            f"(more than {_NEGATIVE:g} windows of {width:g}); check the sign and the offset"
        )


def _first(where: NDArray[np.bool_]) -> str:
    _, row, column = np.argwhere(where)[0]
    more = int(where.sum()) - 1
    return f"row {row}, column {column}" + (f" and {more:,} more" if more else "")


def _padded(values: NDArray[np.floating], size: Crossbar) -> NDArray[np.floating]:
    made = np.full((size.rows, size.cols), np.nan, values.dtype)
    made[: values.shape[0], : values.shape[1]] = values
    return made


def _count(
    counts: ReadingCounts,
    average: NDArray[np.floating],
    there: NDArray[np.bool_],
    array: DeviceArray,
    reads: int,
) -> None:
    width = array.g_max - array.g_min
    counts.devices += int(there.sum())
    counts.missing += int((there & np.isnan(average)).sum())
    counts.negative += int((average < 0).sum())
    outside = (average < array.g_min - width) | (average > array.g_max + width)
    counts.beyond += int(outside.sum())
    counts.reads = max(counts.reads, reads)


@dataclass(frozen=True)
class LineErrors:
    """How rows, or columns, of a crossbar err.

    Attributes
    ----------
    rms : ndarray, float64
        Of each line, in level spacings; NaN where nothing was measured.
    dead : tuple of int
        Lines whose conductances do not follow their targets.
    """

    rms: Doubles
    dead: tuple[int, ...] = field(default=())


_SURE = 5.0
"""Standard errors of a slope: there are thousands of lines, and errors differ from level to level."""


def line_errors(error: Doubles, level: Doubles, axis: int) -> LineErrors:
    """Judge the lines of a crossbar.

    A line is dead if what it holds does not follow what was programmed: the slope of the conductance on its
    target, 1 of a good line and 0 of one that is open or shorted, is surely below a half.

    Parameters
    ----------
    error : ndarray, float64, shape (row, column)
        Measured less programmed, in level spacings; NaN where nothing was measured.
    level : ndarray, float64
        Programmed.
    axis : int
        1 for rows, 0 for columns: the axis along which a line runs.
    """
    there = ~np.isnan(error)
    count = there.sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        e = np.where(there, error, 0.0)
        rms = np.sqrt(np.square(e).sum(axis=axis) / count)
        x = np.where(there, level, 0.0)
        x_mean = np.expand_dims(x.sum(axis=axis) / count, axis)
        dx = np.where(there, level - x_mean, 0.0)
        dy = dx + np.where(there, error - np.expand_dims(e.sum(axis=axis) / count, axis), 0.0)
        xx = np.square(dx).sum(axis=axis)
        slope = (dx * dy).sum(axis=axis) / xx
        left = np.square(dy - np.expand_dims(slope, axis) * dx).sum(axis=axis)
        wrong = np.sqrt(left / np.maximum(count - 2, 1) / xx)
        # Few devices away from the level of the others say more of their own errors than of the line.
        away = (np.abs(dx) >= 0.5).sum(axis=axis)
        dead = (away >= _FEWEST) & (slope + _SURE * wrong < 0.5)
    return LineErrors(np.where(count > 0, rms, np.nan), tuple(np.flatnonzero(dead).tolist()))
