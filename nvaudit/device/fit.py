"""Making a profile from measurements: a CSV file of level statistics or of raw samples."""

from __future__ import annotations

import csv as csv_format
import hashlib
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from nvaudit.device.load import parse_profile
from nvaudit.device.profile import DeviceProfile
from nvaudit.errors import ProfileError, why_unread
from nvaudit.options import Encoding
from nvaudit.profile_file import MAX_BYTES

TableUnit: TypeAlias = Literal["level", "full_scale", "us", "na", "s"]
MAX_CSV_BYTES = 64 << 20
MAX_ROWS = MAX_BYTES // len("1, ")
"""What a profile can hold at most: a digit and its separator for each sample."""
_HEADERS = "level,mean,std (or states,mean,std), level,value, or a column of samples for each level: 0,1,2,3"
_SAME_NAMES = {"g": "value", "conductance": "value", "current": "value"}
_NAME_AND_UNIT = re.compile(r"(.*?)\s*(?:\(([^()]*)\)|\[([^\[\]]*)\]|\bin\s+(\S+))")
_HEADER_UNITS: dict[str, tuple[TableUnit, float]] = {
    "s": ("us", 1e6), "ms": ("us", 1e3), "us": ("us", 1.0), "ns": ("us", 1e-3), "na": ("na", 1.0),
    "ua": ("na", 1e3), "level": ("level", 1.0), "levels": ("level", 1.0),
}  # fmt: skip
"""Units that a header may name, in small letters, with µ as u: what they become, and times what."""
_DELIMITERS = (";", "\t", ",")
_LEVEL_COLUMN = re.compile(r"(?:level|state|l|s)?[ _-]*(\d{1,4})")
_SIEMENS_BELOW, _MICROSIEMENS_FROM, _MICROSIEMENS_TO = 1e-2, 1.0, 1e4
"""Largest conductance of a file without a unit: below the first it is in siemens (10 mS is more than any cell
has), between the others in microsiemens; elsewhere it is asked for."""
_MICROSIEMENS_PER_SIEMENS = 1e6
_SIZES: dict[TableUnit, tuple[float, float]] = {"s": (1e-9, 1e-2), "us": (1e-3, 1e4), "na": (1e-3, 1e7)}
"""Largest conductance, or current, that a table of cells may have: from 1 nS to 10 mS, from 1 pA to 10 mA."""
_Rows: TypeAlias = list[tuple[int, list[float]]]


@dataclass(frozen=True)
class _Measured:
    """The rows of a file.

    Attributes
    ----------
    header : tuple of str
        Names of the numbers after the level.
    unit : str or None
        As the header says it; the numbers are in it.
    told : str
        How the header has it.
    """

    header: tuple[str, ...]
    rows: _Rows
    unit: TableUnit | None = None
    told: str = ""


def fit_profile(
    csv: Path,
    name: str,
    *,
    unit: TableUnit | None = None,
    levels: Sequence[int] | None = None,
    window: tuple[float, float] | None = None,
    technology: str = "measured device",
    citation: str | None = None,
    encoding: Encoding = "sign_magnitude",
    weight_bits: int = 8,
) -> DeviceProfile:
    """Make a profile from a CSV file of measured conductances.

    Parameters
    ----------
    csv : pathlib.Path
        Header ``level,mean,std`` (or ``states,mean,std``): one row per level. Header ``level,value``:
        one row per measurement, which is kept as a raw sample. Header of levels, ``0,1,2,3``: the same with
        a column for each level. Levels count from 0. Columns may be separated by semicolons or tabs, with
        decimal commas. ``value`` may be ``G`` or ``conductance``, and a unit may follow a name: ``G (uS)``. A
        level that was measured once gets the spread of the others.
    name : str
    unit : str, optional
        Unit of the conductances in the file; ``"s"`` (siemens) is converted to µS. Without it that of the
        header, or siemens or microsiemens, by the size of the largest, where that leaves no doubt.
    levels : sequence of int, optional
        The levels that are used, in ascending order; a power of two. Without it all of them, or, of a number
        that is none, as many as bits can address, those nearest to equal distances of conductance.
    window : tuple of float, optional
        Conductance of level 0 and of the top level, in `unit` (µS for ``"s"``); the measured means of
        these levels without it. Only for ``"us"``, ``"na"`` and ``"s"``.
    technology, citation, encoding, weight_bits
        What is written into the profile; the citation names the file without it.

    Returns
    -------
    DeviceProfile
        One `table` term; sigma is a multiplier of the measured deviations, 0 … 4.

    Raises
    ------
    ProfileError
        If the file cannot be read, or its header, levels or numbers are wrong.
    """
    where = str(csv)
    content = _read(csv, where)
    unit, table, means, fit = _measured(content, unit, levels, where)
    data = {
        "schema_version": 1,
        "name": name,
        "technology": technology,
        "description": f"Measured conductances of {len(means)} levels.",
        "source": {
            "citation": citation or f"Measurements in {csv.name}",
            "where": f"{csv.name}, SHA-256 {hashlib.sha256(content).hexdigest()}",
            "fit": fit,
        },
        "cell_bits": _bits(len(means), where),
        "weight_bits": weight_bits,
        "encoding": encoding,
        "window": _window(unit, window, means, where),
        "sigma": {"default": 1.0, "unit": "multiplier", "min": 0.0, "max": 4.0},
        "valid_range": "the measured levels; a multiplier other than 1 is an extrapolation",
        "noise": [table],
    }
    text = json.dumps(data)
    if len(text) > MAX_BYTES:
        given = f"{sum(map(len, table['samples']))} samples"
        raise ProfileError(f"{where}: {given} make a profile above 1 MiB; give fewer, or level,mean,std")
    return parse_profile(text, f"{where} as a profile")


def _measured(
    content: bytes, unit: TableUnit | None, levels: Sequence[int] | None, where: str
) -> tuple[TableUnit, dict[str, Any], list[float], str]:
    """Read what was measured: unit, noise term, mean of each level, and how it was read."""
    read = _rows(content, unit, where)
    settled = unit or read.unit or _unit_by_size(read.header, read.rows, where)
    _check_size(settled, read.rows, where)
    rows, chosen = _chosen(read.rows, levels, where)
    table, means, fit = _table(read.header, rows, settled, where)
    if read.unit is not None:
        fit += f"; in {read.told}, by the header"
    elif unit is None:
        fit += f"; taken as {_UNIT_WORDS[settled]} by the size of the numbers"
    return settled, table, means, fit + chosen


def _table(
    header: tuple[str, ...], rows: _Rows, unit: TableUnit, where: str
) -> tuple[dict[str, object], list[float], str]:
    """Make the table term; with it the mean of each level, and how the numbers were obtained."""
    scale = _MICROSIEMENS_PER_SIEMENS if unit == "s" else 1.0
    table: dict[str, object] = {"kind": "table", "unit": "us" if unit == "s" else unit}
    if header == ("value",):
        samples = _samples(rows, scale, where)
        means = [math.fsum(values) / len(values) for values in samples]
        fit = f"{len(rows)} raw samples of {len(means)} levels, kept as they are"
        samples, pooled = _with_pooled_spread(samples, means, where)
        return table | {"samples": samples}, means, fit + pooled
    levels = _levels(rows, scale, where)
    entries = [{"level": index, "mean": mean, "std": std} for index, (mean, std) in enumerate(levels)]
    fit = f"mean and standard deviation of {len(levels)} levels, as given"
    return table | {"levels": entries}, [mean for mean, _ in levels], fit


_UNIT_WORDS: dict[TableUnit, str] = {"s": "siemens", "us": "microsiemens"}


def _unit_by_size(header: tuple[str, ...], rows: _Rows, where: str) -> TableUnit:
    """Siemens or microsiemens, by the largest conductance; anything else is asked for."""
    largest = max(abs(numbers[0]) for _, numbers in rows)
    # Means at 0, 1, 2, … may be level numbers as well as microsiemens.
    counted = header == ("mean", "std") and all(abs(numbers[0] - level) < 0.5 for level, numbers in rows)
    if 0 < largest < _SIEMENS_BELOW:
        return "s"
    if _MICROSIEMENS_FROM <= largest <= _MICROSIEMENS_TO and not counted:
        return "us"
    raise ProfileError(
        f"{where}: the unit cannot be told from the numbers (the largest is {largest:g}); say it: unit us "
        "(microsiemens), s (siemens), na (nanoamperes), level (spacings) or full_scale (shares of the window)"
    )


def _check_size(unit: TableUnit, rows: _Rows, where: str) -> None:
    """Refuse numbers that no table of cells in this unit has.

    Raises
    ------
    ProfileError
        Naming the unit and the largest number.
    """
    largest, top = max(abs(numbers[0]) for _, numbers in rows), max(level for level, _ in rows)
    ends: dict[TableUnit, tuple[float, float]] = {
        "level": (top / 4, 4.0 * max(top, 1)),
        "full_scale": (0.25, 4.0),
    }
    low, high = (ends | _SIZES)[unit]
    if low <= largest <= high:
        return
    others = [other for other, (least, most) in _SIZES.items() if other != unit and least <= largest <= most]
    raise ProfileError(
        f"{where}: unit {unit}: the largest number is {largest:g}, and of cells it lies between {low:g} and "
        f"{high:g}; "
        + (f"is the unit {' or '.join(others)}?" if others else "correct the numbers or the unit")
    )


def _chosen(rows: _Rows, asked: Sequence[int] | None, where: str) -> tuple[_Rows, str]:
    """The rows of the levels that are used, numbered anew, and words for the choice."""
    present = sorted({level for level, _ in rows})
    if asked is None:
        count = len(present)
        if count < 3 or not count & (count - 1) or present != list(range(count)):
            return rows, ""  # what is missing is said further on
        used = _nearest_to_equal(rows, present, 1 << (count.bit_length() - 1))
    else:
        used = list(asked)
        missing = [level for level in used if level not in present]
        if missing or used != sorted(set(used)):
            raise ProfileError(
                f"{where}: levels {','.join(map(str, used))}: choose some of {','.join(map(str, present))}, "
                "in ascending order"
            )
    numbers = {level: place for place, level in enumerate(used)}
    words = f"; levels {', '.join(map(str, used))} of the {len(present)} that were measured"
    return [(numbers[level], values) for level, values in rows if level in numbers], words


def _nearest_to_equal(rows: _Rows, present: Sequence[int], wanted: int) -> list[int]:
    """Choose levels whose conductances are nearest to equal distances, both ends among them."""
    sums = {level: [0.0, 0.0] for level in present}
    for level, numbers in rows:
        sums[level][0] += numbers[0]
        sums[level][1] += 1
    means = [total / count for total, count in sums.values()]
    used: list[int] = []
    for place in range(wanted):
        target = means[0] + (means[-1] - means[0]) * place / (wanted - 1)
        first = used[-1] + 1 if used else 0
        last = len(means) - (wanted - place)  # leave enough for the others
        used.append(min(range(first, last + 1), key=lambda index: abs(means[index] - target)))
    return [present[index] for index in used]


def _read(csv: Path, where: str) -> bytes:
    try:
        if not csv.is_file():
            raise ProfileError(f"{where}: no such file; name a CSV file with the header {_HEADERS}")
        with csv.open("rb") as file:
            content = file.read(MAX_CSV_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"{where}: cannot be read: {error.strerror}; check the path") from None
    if len(content) > MAX_CSV_BYTES:
        raise ProfileError(f"{where}: larger than 64 MiB; give level,mean,std instead of raw samples")
    return content


def _lines(content: bytes, where: str) -> list[tuple[int, list[str]]]:
    """Cells of each line that has some, with its number; decimal commas are points."""
    lines: list[tuple[int, list[str]]] = []
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    first = content.partition(b"\n")[0].decode("utf-8", "replace")
    delimiter = next((one for one in _DELIMITERS if one in first), ",")
    try:
        reader = csv_format.reader(text, strict=True, delimiter=delimiter)
        for row in reader:
            if any(cell.strip() for cell in row):
                lines.append((reader.line_num, row))
            if len(lines) > MAX_ROWS or reader.line_num > 4 * MAX_ROWS:  # before all are in memory
                raise ProfileError(
                    f"{where}: more than {MAX_ROWS} rows make a profile above 1 MiB; give fewer, or "
                    "level,mean,std"
                )
    except (UnicodeDecodeError, csv_format.Error) as error:
        reason = why_unread(error) if isinstance(error, UnicodeDecodeError) else error
        raise ProfileError(f"{where}: not CSV: {reason}; save it as comma-separated UTF-8 text") from None
    if not lines:
        raise ProfileError(f"{where}: empty; give the header {_HEADERS} and one row per level or sample")
    if delimiter != ",":  # then a comma is that of a decimal
        lines = [lines[0], *_with_decimal_points(lines[1:], where)]
    return lines


def _rows(content: bytes, unit: TableUnit | None, where: str) -> _Measured:
    """Read the names of the columns after the level, the unit, and each row as (level, numbers)."""
    lines = _lines(content, where)
    header = tuple(cell.strip().lower() for cell in lines[0][1])
    if len(lines) > 1 and (columns := _level_columns(header)):
        return _Measured(("value",), _wide_rows(lines[1:], columns, len(header), where))
    header, named = _names_and_unit(header, where)
    if header not in (("level", "mean", "std"), ("states", "mean", "std"), ("level", "value")):
        raise ProfileError(f"{where}: header: got {','.join(header)[:60]!r}; use {_HEADERS}")
    if len(lines) == 1:
        raise ProfileError(f"{where}: no rows below the header; give one row per level or sample")
    rows = [_row(row, header, f"{where}: line {number}") for number, row in lines[1:]]
    if named is None:
        return _Measured(header[1:], rows)
    settled, factor = _HEADER_UNITS[named]
    if unit is not None and _HEADER_UNITS.get(unit) != (settled, factor):
        raise ProfileError(
            f"{where}: header: the numbers are in {named}, and the unit that is given is {unit}; leave it out"
        )
    if unit == "s":  # which is converted further on
        settled, factor = "s", 1.0
    rows = [(level, [factor * number for number in numbers]) for level, numbers in rows]
    return _Measured(header[1:], rows, settled, named)


def _with_decimal_points(lines: list[tuple[int, list[str]]], where: str) -> list[tuple[int, list[str]]]:
    """Replace decimal commas; a dot beside them may be one of thousands.

    Raises
    ------
    ProfileError
        Naming the first cell with a dot in a file that has decimal commas.
    """
    if any("," in cell for _, row in lines for cell in row):
        for number, row in lines:
            odd = next((cell for cell in row if "." in cell), None)
            if odd is not None:
                raise ProfileError(
                    f"{where}: line {number}: got {odd.strip()[:60]!r} in a file with decimal commas: a dot "
                    "may be one of decimals or of thousands; write all numbers in one way, without thousands"
                )
    return [(number, [cell.replace(",", ".") for cell in row]) for number, row in lines]


def _names_and_unit(header: tuple[str, ...], where: str) -> tuple[tuple[str, ...], str | None]:
    """Tell the names of columns from the unit that they may have: ``G (uS)``, ``mean [S]``, ``g in na``.

    Raises
    ------
    ProfileError
        If a unit is none that is known, or columns have several.
    """
    names, units = [], []
    for place, cell in enumerate(header):
        match = _NAME_AND_UNIT.fullmatch(cell)
        name, unit = cell, None
        if match is not None:
            name = match[1]
            unit = next(part for part in match.groups()[1:] if part is not None)
            unit = unit.strip().replace("µ", "u").replace("μ", "u")
            if unit not in _HEADER_UNITS or not place:
                raise ProfileError(
                    f"{where}: header: {cell!r}: {unit!r} is no unit of it; use S, mS, uS, nS, nA, uA or "
                    "level, of the columns after the level"
                )
        names.append(_SAME_NAMES.get(name, name))
        units.append(unit)
    given = {unit for unit in units if unit is not None}
    if len(given) > 1 or (given and None in units[1:]):
        shown = ", ".join(header)[:60]
        raise ProfileError(f"{where}: header: {shown!r}: give all columns after the level in one unit")
    return tuple(names), next(iter(given), None)


def _level_columns(header: tuple[str, ...]) -> dict[int, int]:
    """Level of each column of a table with one for each; empty where it is none. A first one may be names."""
    matches = {place: _LEVEL_COLUMN.fullmatch(cell) for place, cell in enumerate(header)}
    found = {place: int(match[1]) for place, match in matches.items() if match is not None}
    named = set(matches) - set(found)
    return found if len(found) > 1 and named <= {0} and len(set(found.values())) == len(found) else {}


def _wide_rows(lines: list[tuple[int, list[str]]], columns: dict[int, int], width: int, where: str) -> _Rows:
    """Samples of a table with a column for each level; an empty cell is none."""
    rows: _Rows = []
    for number, cells in lines:
        place = f"{where}: line {number}"
        if len(cells) != width:
            raise ProfileError(
                f"{place}: got {len(cells)} cells; give {width}, empty where there is no value"
            )
        rows += [
            (level, [_number(cells[column], f"level {level}", place)])
            for column, level in columns.items()
            if cells[column].strip()
        ]
    if len(rows) > MAX_ROWS:
        raise ProfileError(f"{where}: more than {MAX_ROWS} samples make a profile above 1 MiB; give fewer")
    return rows


def _row(cells: list[str], header: tuple[str, ...], where: str) -> tuple[int, list[float]]:
    if len(cells) != len(header):
        decimals = " (decimal commas need ; between columns)" if len(cells) > len(header) else ""
        raise ProfileError(
            f"{where}: got {len(cells)} cells; give {len(header)}: {','.join(header)}{decimals}"
        )
    level = _number(cells[0], header[0], where)
    if level != int(level) or not 0 <= level <= 4095:
        raise ProfileError(f"{where}: {header[0]}: got {cells[0].strip()!r}; levels are whole numbers from 0")
    return int(level), [_number(cell, key, where) for cell, key in zip(cells[1:], header[1:], strict=True)]


def _number(cell: str, key: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ProfileError(f"{where}: {key}: got {cell.strip()[:60]!r}; write a finite number")
    return value


def _samples(rows: _Rows, scale: float, where: str) -> list[list[float]]:
    count = max(level for level, _ in rows) + 1
    samples: list[list[float]] = [[] for _ in range(count)]
    for level, numbers in rows:
        samples[level].append(numbers[0] * scale)
    for level, values in enumerate(samples):
        if not values:
            raise ProfileError(f"{where}: level {level}: no samples; measure levels 0 to {count - 1}")
    return samples


def _with_pooled_spread(
    samples: list[list[float]], means: list[float], where: str
) -> tuple[list[list[float]], str]:
    """Give a level that was measured once the deviations of the others: one value has no spread.

    Raises
    ------
    ProfileError
        If no level was measured twice.
    """
    once = [level for level, values in enumerate(samples) if len(values) == 1]
    if not once:
        return samples, ""
    # Deviations from a mean of n values are too small by √((n − 1) / n).
    pooled = sorted(
        (value - mean) * math.sqrt(len(values) / (len(values) - 1))
        for values, mean in zip(samples, means, strict=True)
        if len(values) > 1
        for value in values
    )
    if not pooled:
        raise ProfileError(
            f"{where}: every level has one sample, which says nothing of its spread; measure levels several "
            "times, or give level,mean,std"
        )
    count = min(len(pooled), max(map(len, samples)))
    taken = [pooled[(2 * place + 1) * len(pooled) // (2 * count)] for place in range(count)]
    centred = [deviation - math.fsum(taken) / count for deviation in taken]
    made = [
        [means[level] + deviation for deviation in centred] if level in once else values
        for level, values in enumerate(samples)
    ]
    named = ", ".join(map(str, once[:8])) + (", …" if len(once) > 8 else "")
    levels = f"level {named} was" if len(once) == 1 else f"levels {named} were"
    return made, f"; {levels} measured once, and the spread there is that of the other levels together"


def _levels(rows: _Rows, scale: float, where: str) -> list[tuple[float, float]]:
    by_level: dict[int, tuple[float, float]] = {}
    for level, (mean, std) in rows:
        if level in by_level:
            raise ProfileError(f"{where}: level {level}: given twice; give one row per level")
        if std < 0:
            raise ProfileError(f"{where}: level {level}: std: got {std:g}; a standard deviation is 0 or more")
        by_level[level] = mean * scale, std * scale
    for level in range(len(by_level)):
        if level not in by_level:
            raise ProfileError(f"{where}: level {level}: missing; give each level from 0 to {max(by_level)}")
    return [by_level[level] for level in range(len(by_level))]


def _bits(count: int, where: str) -> int:
    bits = count.bit_length() - 1
    if bits < 1 or count != 1 << bits:
        noun = "level" if count == 1 else "levels"
        raise ProfileError(f"{where}: got {count} {noun}; their number must be a power of two, 2 or more")
    return bits


def _window(
    unit: TableUnit, asked: tuple[float, float] | None, means: list[float], where: str
) -> dict[str, object] | None:
    if unit in ("level", "full_scale"):
        if asked is not None:
            raise ProfileError(f"{where}: a window is for the units us, na and s, got {unit!r}; leave it out")
        return None
    # Targets are equally spaced over the window: by default the end levels have no mean error by definition,
    # and the other levels show how far the device is from linear.
    low, high = asked if asked is not None else (means[0], means[-1])
    if not 0 <= low < high:
        raise ProfileError(
            f"{where}: window: level 0 at {low:g} and the top level at {high:g}; the conductance must grow "
            "with the level, from 0 or more"
        )
    return {"unit": "na" if unit == "na" else "us", "min": low, "max": high}
