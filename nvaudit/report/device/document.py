"""What is said of device profiles: of the bundled ones, of one at an operating point, and in an audit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import JsonValue

from nvaudit.report.device.result import DeviceLevel, DeviceLevels, DeviceReport, ProfileList, ProfileSummary
from nvaudit.report.document import (
    Block,
    Bullets,
    Cell,
    Document,
    Facts,
    Figure,
    Hero,
    KeyFigure,
    Number,
    Paragraph,
    Section,
    Table,
    short,
    unit_words,
)
from nvaudit.report.plots import axis, colour, layout, plotly_graphs
from nvaudit.report.wording import count_text, duration_text, sigma_text

_ENCODINGS = {
    "sign_magnitude": "sign and magnitude: the sign is kept digitally",
    "differential": "differential: two devices for each slice",
    "offset": "offset: codes shifted above zero, a reference subtracted",
}
_LONGEST_LAW = 400
_SEEN_SHIFT = 0.01
"""A mean shift of a weight below this share of its sigma is not worth a line."""


def profiles_document(report: ProfileList) -> Document:
    """List the bundled profiles."""
    rows: list[tuple[Cell, ...]] = [
        (
            p.name,
            p.technology,
            Number(p.cell_bits, "analog" if p.cell_bits is None else f"{2**p.cell_bits}"),
            *_sigma_range(p),
            "yes" if p.changes_with_time else "-",
            "yes" if p.read_noise else "-",
        )
        for p in report.profiles
    ]
    columns = ("profile", "technology", "levels", "sigma", "its unit", "time", "reads")
    caption = (
        "Levels of a cell; sigma with its range; whether it changes with --time; "
        "whether every read draws noise. `nvaudit devices show NAME` has more."
    )
    table = Table("profiles", caption, columns, tuple(rows), all_rows=True)
    return Document(
        title=report.headline,
        subject="Device profiles",
        subtitle="bundled with nvaudit",
        hero=Hero(role="none", word="", title=report.headline, lines=(), numbers=()),
        sections=(Section("profiles-section", "Profiles", (table,)),),
        version=report.nvaudit_version,
    )


def _sigma_range(profile: ProfileSummary) -> tuple[str, str]:
    """Default and range of sigma, and its unit."""
    knob = profile.sigma
    if knob is None:
        return "fixed", ""
    return f"{knob.default:g}, {knob.min:g} … {knob.max:g}", knob.unit


def device_document(report: DeviceReport) -> Document:
    """Say what a device does at an operating point: of every level, and of a weight."""
    name, weight = short(_text(report.profile.get("name"))), report.weight_sigma
    where = sigma_text(report.sigma, report.sigma_unit, report.level_of)
    encoding = _text(report.profile.get("encoding"))
    numbers = [
        KeyFigure(
            "sigma of a weight", f"{weight.rms:.4g} of max|W|",
            f"rms over all codes; {weight.low:.4g} … {weight.high:.4g}", main=True,
        ),
        KeyFigure("weight", f"H = {report.weight_bits}", f"{count_text(report.slices, 'slice')}, {encoding}"),
    ]  # fmt: skip
    if weight.shift > _SEEN_SHIFT * weight.rms:
        numbers.append(
            KeyFigure("mean shift of a weight", f"{weight.shift:.4g} of max|W|", "rms over all codes")
        )
    blocks = device_blocks(report.profile, where, report.time_s, report.operating_point.terms, report.laws)
    return Document(
        title=report.headline,
        subject=name,
        subtitle=f"{_text(report.profile.get('technology'))} at {where}",
        hero=Hero(role="none", word="", title=where, lines=(), numbers=tuple(numbers)),
        sections=(_levels(report), Section("device", "The device", tuple(blocks))),
        version=report.nvaudit_version,
    )


def _levels(report: DeviceReport) -> Section:
    """The spread of each level in every unit."""
    columns = ["level", f"g, {report.unit}", "shift, levels", "σ, levels", "σ, of full scale", "σ, of g"]
    rows = [
        [
            Number(row.level, f"{row.level}"),
            Number(row.g, f"{row.g:.4g}"),
            Number(row.shift_levels, f"{row.shift_levels:+.4g}".replace("-", "−")),
            *(Number(v, f"{v:.4g}") for v in (row.sigma_levels, row.sigma_full_scale)),
            Number(row.sigma_relative, "—" if row.sigma_relative is None else f"{row.sigma_relative:.4g}"),
        ]
        for row in report.levels
    ]
    if report.unit != "levels":  # a device without a window has no unit but its levels
        columns.insert(-1, f"σ, {report.unit}")
        for cells, row in zip(rows, report.levels, strict=True):
            cells.insert(-1, Number(row.sigma_g, f"{row.sigma_g:.4g}"))
    caption = "Every level: what it is programmed to, and the spread of one read."
    table = Table(
        "levels-table",
        caption,
        tuple(columns),
        tuple(map(tuple, rows)),
        tuple(range(len(columns))),
        all_rows=True,
    )
    blocks: list[Block] = [table]
    if report.moments == "sampled":
        blocks.append(Bullets(("Moments are estimated from a million draws: there is no closed form.",)))
    return Section("levels-section", "Levels", tuple(blocks))


def device_blocks(
    profile: Mapping[str, JsonValue],
    where: str,
    time_s: float,
    terms: Sequence[str],
    laws: DeviceLevels | None,
) -> list[Block]:
    """Describe a profile at an operating point.

    Parameters
    ----------
    profile : mapping
        The full profile, or what a report of an older version has of it.
    where : str
        The operating point in words.
    time_s : float
        Seconds since programming.
    terms : sequence of str
        Noise terms in effect, in order.
    laws : DeviceLevels or None
        None where they are not known.
    """
    blocks: list[Block] = []
    if description := _text(profile.get("description")):
        blocks.append(Paragraph(description, "lead"))
    if laws is not None:
        blocks.append(_laws(laws, where))
    rows = [
        ("Profile", _text(profile.get("name"))),
        ("Technology", _text(profile.get("technology"))),
        ("Operating point", f"{where}, {_age(profile, time_s)}"),
        ("Noise terms in effect", ", ".join(terms) or "none"),
        ("Cells", _cells(profile)),
        ("Window", _window(profile.get("window"))),
        ("Signs", _ENCODINGS.get(_text(profile.get("encoding")), _text(profile.get("encoding")))),
        ("Sigma: default, range", _knob(profile["sigma"]) if "sigma" in profile else ""),
        ("Valid range", _text(profile.get("valid_range"))),
        *_source(profile.get("source")),
    ]
    blocks.append(Facts(tuple((name, value) for name, value in rows if value)))
    noise = profile.get("noise")
    if isinstance(noise, list) and noise:
        blocks.append(_terms(noise, set(terms)))
    return blocks


def _laws(levels: DeviceLevels, where: str) -> Figure:
    widest = max(levels.levels, key=lambda level: level.std)
    least = min(levels.levels, key=lambda level: level.std)
    words = (
        f"Where the devices of each level end up, {where}: {count_text(levels.draws, 'simulated device')} "
        f"for each. The standard deviation is from {least.std:.3g} {levels.unit} at level {least.level} to "
        f"{widest.std:.3g} {levels.unit} at level {widest.level}."
    )
    columns = ("level", f"target, {levels.unit}", "mean", "std", "5 %", "25 %", "median", "75 %", "95 %")
    rows = tuple(
        (
            Number(level.level, str(level.level)),
            *(Number(v, f"{v:.4g}") for v in (level.g, level.mean, level.std, *level.quantiles)),
        )
        for level in levels.levels
    )
    numbers = Table(
        "level-numbers", f"Conductance of each level, {levels.unit}", columns, rows, tuple(range(9))
    )
    return Figure(
        "levels", words, partial(levels_figure, levels.levels, levels.unit), numbers,
        legend="Bars hold 50 % and 90 % of the devices, the orange line is what was aimed at.",
        sketch=partial(level_lines, levels.levels, levels.unit),
    )  # fmt: skip


def level_lines(levels: Sequence[DeviceLevel], unit: str, width: int) -> list[str]:
    """Draw where the devices of each level end up, a line for each level."""
    longest = max(len(str(level.level)) for level in levels)
    columns = max(min(64, width - longest - 4), 10)
    ends = [value for level in levels for value in (*level.quantiles, level.g)]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def place(value: float) -> int:
        return round((value - low) / span * (columns - 1))

    lines = []
    for level in levels:
        least, lower, median, upper, most = map(place, level.quantiles)
        cells = [" "] * columns
        cells[least : most + 1] = "─" * (most + 1 - least)
        cells[lower : upper + 1] = "▄" * (upper + 1 - lower)
        cells[median] = "█"
        lines.append(f"{level.level:>{longest}} |{''.join(cells)}|")
    left, right = f"{low:.4g}", f"{high:.4g}"
    margin = " " * (longest + 2)
    lines.append(f"{margin}{left}{right.rjust(columns - len(left))}")
    return [*lines, f"{margin}conductance, {unit}: ─ 90 % of the devices, ▄ 50 %, █ median"]


def _terms(noise: list[JsonValue], active: set[str]) -> Table:
    rows = []
    for term in noise:
        if isinstance(term, dict):
            name = _text(term.get("name") or term.get("kind"))
            law = {
                k: _given(v)
                for k, v in term.items()
                if k not in ("name", "kind", "enabled") and v is not None
            }
            text = json.dumps(law, ensure_ascii=False)[1:-1].replace('"', "")
            text = text if len(text) <= _LONGEST_LAW else f"{text[: _LONGEST_LAW - 1]}…"
            rows.append((short(name), _text(term.get("kind")), "on" if name in active else "off", text))
    return Table(
        "terms",
        "Noise terms of the profile, in the order in which they act.",
        ("term", "kind", "state", "law"),
        tuple(rows),
    )


def _given(value: JsonValue) -> JsonValue:
    """Leave out what a profile leaves open."""
    if isinstance(value, dict):
        return {key: _given(item) for key, item in value.items() if item is not None}
    return value


def _age(profile: Mapping[str, JsonValue], time_s: float) -> str:
    """When the devices are looked at."""
    measured = profile.get("measured_after_s")
    if profile.get("time"):
        return f"{duration_text(time_s)} after programming"
    if isinstance(measured, int | float):
        return f"always {duration_text(float(measured))} after programming, as it was measured"
    return "at any time after programming"


def _cells(profile: Mapping[str, JsonValue]) -> str:
    bits, total = profile.get("cell_bits"), profile.get("weight_bits")
    cell = f"{bits} bits per cell" if isinstance(bits, int) else "analog cells (one holds the whole code)"
    return f"{cell}, {total} bits per weight" if isinstance(total, int) else cell


def _window(window: JsonValue) -> str:
    if not isinstance(window, dict):
        return "in units of the level spacing"
    unit = {"us": "µS", "na": "nA"}.get(_text(window.get("unit")), _text(window.get("unit")))
    low, high = (
        f"{end:g}" if isinstance(end, int | float) else "?" for end in map(window.get, ("min", "max"))
    )
    return f"{low} to {high} {unit}"


def _knob(knob: JsonValue) -> str:
    if not isinstance(knob, dict):
        return "fixed"
    try:
        return f"{knob['default']:g}, {knob['min']:g} … {knob['max']:g} {unit_words(_text(knob['unit']))}"
    except (KeyError, TypeError, ValueError):  # the profile of a report is anybody's JSON
        return ""


def _source(source: JsonValue) -> list[tuple[str, str]]:
    if not isinstance(source, dict):
        return []
    doi = f", doi:{source['doi']}" if source.get("doi") else ""
    return [
        ("Source", f"{_text(source.get('citation'))} ({_text(source.get('where'))}){doi}"),
        ("Fit", _text(source.get("fit"))),
    ]


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""


def levels_figure(levels: Sequence[DeviceLevel], unit: str) -> Any:
    """Draw target, median, half and nine tenths of the devices of each level.

    Parameters
    ----------
    unit : str
        Of the conductance.
    """
    go = plotly_graphs()
    places = list(range(len(levels)))
    figure = go.Figure()
    for title, pair, width in (("90 % of the devices", (0, 4), 7), ("50 % of the devices", (1, 3), 15)):
        xs: list[float | None] = []
        ys: list[float | None] = []
        for place, level in zip(places, levels, strict=True):
            xs += [place, place, None]
            ys += [level.quantiles[pair[0]], level.quantiles[pair[1]], None]
        role = "band" if width == 7 else "chips"
        figure.add_scatter(
            x=xs, y=ys, mode="lines", name=title, line={"color": colour(role), "width": width},
            hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=places, y=[level.quantiles[2] for level in levels], mode="markers", name="median",
        marker={"color": colour("panel"), "size": 7, "line": {"color": colour("ink"), "width": 1.5}},
        hovertemplate="median %{y:.4~g}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=places, y=[level.g for level in levels], mode="markers", name="target",
        marker={"symbol": "line-ew-open", "size": 26, "color": colour("worst"), "line": {"width": 2}},
        hovertemplate="target %{y:.4~g}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        **layout(
            xaxis=axis(
                "level", tickmode="array", tickvals=places, ticktext=[str(level.level) for level in levels],
                range=[-0.6, len(levels) - 0.4], showgrid=False,
            ),
            yaxis=axis(f"conductance, {unit}", nticks=7),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            margin={"l": 8, "r": 12, "t": 40, "b": 8},
        )
    )  # fmt: skip
    return figure
