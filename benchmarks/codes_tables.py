"""The tables of docs/mapping.md and docs/mapping-models.md, written from `results/`.

    python benchmarks/codes_tables.py [--check]

With ``--check`` nothing is written, and the exit code is 1 where a table differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from codes_models import ALWAYS, COLUMNS, SAMPLES
from tables import DOCS, RESULTS, Row, lines, markdown, write_tables

PAGES = [DOCS / name for name in ("mapping.md", "mapping-models.md")]
HALF, FEW_POINTS, MANY_POINTS = 0.5, 0.02, 0.03
"""The bars: share of the loss after remapping on slices; loss at the least and at the greatest spread."""

ROUNDED = 0.01
"""Figures are kept in percent with three digits; a comparison of two allows for that."""


def results(name: str) -> list[Row]:
    """Rows of one results file."""
    return [row for row in lines(RESULTS / f"{name}.jsonl") if "kpp" in row]


def cell(row: Row | None) -> str:
    """KPP, the upper end of its interval where the row has one, and the mean."""
    if row is None:
        return "–"
    above = f" ≤ {row['high']:.1f}" if row.get("high") is not None else ""
    return f"{row['kpp']:.1f}{above} ({row['mean']:.1f})"


def by_model(device: str, sigma: float) -> dict[str, dict[str, Row]]:
    """Rows of one device at one spread, by model, then by column; chips corrected on 100 samples.

    A later row without correction takes the place of the figures without, and leaves those with it.
    """
    found: dict[str, dict[str, Row]] = {}
    for row in results("codes_models"):
        samples = row.get("calibrate", SAMPLES)
        if (row["device"], row["sigma"]) == (device, sigma) and samples in (0, SAMPLES):
            of = found.setdefault(row["model"], {})
            corrected = of.get(row["column"], {}).get("calibrated") if samples == 0 else None
            of[row["column"]] = row if corrected is None else row | {"calibrated": corrected}
    return {model: of for model, of in sorted(found.items()) if "slices" in of and "coded" in of}


def models_table(device: str, sigma: float) -> str:
    """Every model on one device: as it is, remapped on slices, coded, corrected."""
    columns = {"slices": "slices", "remap": "remapped on slices", "code": "code"}
    found = by_model(device, sigma)
    shown = {name: title for name, title in columns.items() if any(name in of for of in found.values())}
    head = [
        "model",
        "chips, images",
        "ideal",
        *shown.values(),
        "code, allocated, rounded",
        "corrected per chip",
    ]
    rows = []
    for model, of in found.items():
        size = f"{of['slices']['chips']}, {of['slices']['images']}"
        cells = [cell(of.get(name)) for name in (*shown, "coded")]
        rows.append(
            [model, size, f"{of['slices']['ideal']:.1f}", *cells, cell(of["coded"].get("calibrated"))]
        )
    return markdown(head, rows)


def edge_table() -> str:
    """The greatest spread, both devices: slices, coded, corrected."""
    devices = ("rram", "fefet1")
    both = [by_model(device, 0.4) for device in devices]
    parts = ("slices", "code, allocated, rounded", "corrected per chip")
    head = ["model", "chips, images", "ideal"]
    head += [f"`{device}`: {part}" if part == "slices" else part for device in devices for part in parts]
    rows = []
    for model in sorted({*both[0], *both[1]}):
        first = next(of[model]["slices"] for of in both if model in of)
        row = [model, f"{first['chips']}, {first['images']}", f"{first['ideal']:.1f}"]
        for found in both:
            of = found.get(model, {})
            coded = of.get("coded", {})
            row += [cell(of.get("slices")), cell(coded or None), cell(coded.get("calibrated"))]
        rows.append(row)
    return markdown(head, rows)


def loss(row: Row, ideal: float) -> float:
    """Ideal less KPP 1 %, in points."""
    return ideal - float(row["kpp"])


def bars_table() -> str:
    """How many models meet each bar, on each device."""
    rows = []
    for name, sigma, meets in (
        ("σ 0.1: at most half of the loss after remapping on slices", 0.1, _half),
        ("σ 0.1: at most 2 points", 0.1, lambda of: _within(of["coded"], of, FEW_POINTS)),
        ("σ 0.1: at most 3 points, corrected per chip", 0.1, _corrected),
        ("σ 0.4: at most 3 points", 0.4, lambda of: _within(of["coded"], of, MANY_POINTS)),
        ("σ 0.4: at most 3 points, corrected per chip", 0.4, _corrected),
    ):
        counted = []
        for device in ("rram", "fefet1"):
            found = by_model(device, sigma).values()
            counted.append(f"{sum(meets(of) for of in found)} of {len(found)}")
        rows.append([name, *counted])
    page = "mapping-models.md#other-ways-for-those-that-miss"
    more = [name for name in COLUMNS if name != "8 devices"]
    for name, ways in (
        (f"… or by one of the [other ways]({page}), four devices", more),
        ("… or with eight devices per weight", list(COLUMNS)),
    ):
        counted = []
        for device in ("rram", "fefet1"):
            rest, found = tried(device, 0.4), by_model(device, 0.4)
            met = [_corrected(of) or _met_by(rest.get(model, {}), ways, of) for model, of in found.items()]
            counted.append(f"{sum(met)} of {len(met)}")
        rows.append([name, *counted])
    return markdown(["code, allocated, rounded: loss of KPP 1 %", "`rram`", "`fefet1`"], rows)


def _met_by(rest: dict[str, Row], ways: Sequence[str], of: dict[str, Row]) -> bool:
    """Whether one of the ways leaves a model at most three points of loss, corrected per chip."""
    return any(_within(rest[way].get("calibrated"), of, MANY_POINTS) for way in ways if way in rest)


def _half(of: dict[str, Row]) -> bool:
    ideal = of["slices"]["ideal"]
    return "remap" in of and loss(of["coded"], ideal) <= HALF * loss(of["remap"], ideal) + ROUNDED


def _within(row: Row | None, of: dict[str, Row], share: float) -> bool:
    return row is not None and loss(row, of["slices"]["ideal"]) <= 100 * share + ROUNDED


def _corrected(of: dict[str, Row]) -> bool:
    return _within(of["coded"].get("calibrated"), of, MANY_POINTS)


def ways_table(sigma: float) -> str:
    """What other ways give the models that were tried on them."""
    corrected = sigma > 0.1

    def figures(row: Row | None) -> Row | None:
        return row.get("calibrated") if row is not None and corrected else row

    found: dict[tuple[str, str], dict[str, Row]] = {}
    for device in ("rram", "fefet1"):
        for model, of in tried(device, sigma).items():
            found[model, device] = of
    shown = [name for name in WAYS if any(name in of for of in found.values())]
    rows = []
    for (model, device), of in sorted(found.items()):
        before = by_model(device, sigma)[model]
        if corrected and _corrected(before):
            continue
        cells = [cell(figures(row)) for row in (before["coded"], *map(of.get, shown))]
        rows.append([model, f"`{device}`", f"{before['slices']['ideal']:.1f}", *cells])
    first = f"corrected, {SAMPLES} samples" if corrected else "allocated, rounded"
    return markdown(["model", "device", "ideal", first, *[WAYS[name] for name in shown]], rows)


def tried(device: str, sigma: float) -> dict[str, dict[str, Row]]:
    """Rows of the ways that were tried on models that missed a bar, by model."""
    found: dict[str, dict[str, Row]] = {}
    for row in results("codes_models"):
        way = row["column"] not in ALWAYS or row.get("calibrate") == MANY_SAMPLES
        if way and (row["device"], row["sigma"]) == (device, sigma):
            found.setdefault(row["model"], {})[row["column"]] = row
    return found


def devices_table() -> str:
    """Fewer devices than four."""
    found: dict[tuple[str, str], dict[Any, Row]] = {}
    for row in results("codes_devices"):
        column = row["column"] if row["column"] == "slices" else row["options"]["devices_per_weight"]
        found.setdefault((row["model"], row["device"]), {})[column] = row
    rows = []
    for (model, device), of in sorted(found.items()):
        four, first = by_model(device, 0.1)[model], of["slices"]
        cells = [cell(row) for row in (first, four.get("remap"), four["coded"], of.get(3), of.get(2.5))]
        size = f"{first['chips']}, {first['images']}"
        rows.append([model, f"`{device}`", size, f"{first['ideal']:.1f}", *cells])
    head = ["model", "device", "chips, images", "ideal", "slices on 4", "remapped, slices on 4", "code on 4"]
    return markdown([*head, "on 3", "on 2.5"], rows)


def network_table() -> str:
    """One network on several mappings."""
    rows = []
    for row in results("codes_mappings"):
        if row["condition"] == "plain":
            corrected = cell(row["calibrated"]) if "calibrated" in row else "–"
            figures = [f"{row['ideal']:.1f}", f"{row['kpp']:.1f}", f"{row['mean']:.1f}", corrected]
            rows.append([NETWORK.get(row["mapping"], row["mapping"]), str(row["chips"]), *figures])
    return markdown(["mapping", "chips", "ideal", "KPP 1 %", "mean", "corrected per chip"], rows)


def conditions_table() -> str:
    """The same network on devices that are worse."""
    mappings = ("slices", "auto", "code, devices by layers, remapped")
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in results("codes_mappings"):
        if row["condition"] != "plain":
            found.setdefault((row["device"], row["condition"]), {})[row["mapping"]] = row
    rows = [
        [f"`{device}`, {condition}", *[cell(of.get(mapping)) for mapping in mappings]]
        for (device, condition), of in found.items()
    ]
    return markdown(["condition", "slices", "`--code auto`", "code, allocated, rounded"], rows)


def trice_table() -> str:
    """Table I of the TRICE paper on codes."""
    mappings = ("slices 4,1", "auto, 2 devices", "auto, 4 devices")
    found: dict[tuple[float, str], dict[str, float]] = {}
    for row in (
        row
        for row in lines(Path(__file__).parent / "paper" / "results" / "trice_codes.jsonl")
        if "kpp" in row
    ):
        network, mapping = row["cell"].split(" on ")
        method, sigma = network.split(" seed ")[0].split(" ")[1].rsplit("-", 1)
        found.setdefault((float(sigma), method), {})[mapping] = 100 * row["kpp"]
    methods = ("none", "trice", "best")
    rows = [
        [f"{sigma:g}", method, *[f"{of[mapping]:.1f}" for mapping in mappings]]
        for (sigma, method), of in sorted(found.items(), key=lambda at: (at[0][0], methods.index(at[0][1])))
    ]
    return markdown(["σ_d", "training", "slices 4,1", "`--code auto`, 2 devices", "4 devices"], rows)


NETWORK = {
    "devices by layers": "`--code auto --allocate devices`",
    "sign per device": "`--code auto --encoding sign_per_device`",
    "whole numbers, sign per device": "`--code auto:integers --encoding sign_per_device`",
    "code, devices by layers, remapped": "`--method remap --code auto --allocate devices`",
}
MANY_SAMPLES = 400
WAYS = {
    "coded": f"{MANY_SAMPLES} samples",
    "longer": "60 s instead of 30 s",
    "gentle": "`--max-clean-loss 0.005`",
    "scales": "`--digital-scale insert-both`",
    "outliers": "1 % digital",
    "integers": "`sign_per_device`, `auto:integers`",
    "8 devices": "8 devices",
}
"""What is shown of the ways, and how."""

TABLES: dict[str, Callable[[], str]] = {
    "rram 0.1": lambda: models_table("rram", 0.1),
    "fefet1 0.1": lambda: models_table("fefet1", 0.1),
    "bars": bars_table,
    "both 0.4": edge_table,
    "ways 0.1": lambda: ways_table(0.1),
    "ways 0.4": lambda: ways_table(0.4),
    "devices": devices_table,
    "network": network_table,
    "conditions": conditions_table,
    "trice": trice_table,
}

if __name__ == "__main__":
    write_tables(str(__doc__), PAGES, TABLES)
