"""Crossbars with converters on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from nvaudit.report.crossbar import CrossbarInfo, CrossbarLayer
from nvaudit.report.terminal import Kind, heading, sentence, table
from nvaudit.report.wording import count_text, share_of_weights_text, share_text

MOST_ROWS = 24
MOST_NAMED = 8

COLUMNS = ("layer", "crossbars", "rows", "columns", "in use", "ADC range", "clipped")


def crossbar_section(info: CrossbarInfo | None, width: int) -> Iterable[Text]:
    """Show how layers lie on crossbars and what their converters reach.

    Parameters
    ----------
    info : CrossbarInfo or None
        None: nothing is shown.
    width : int
        Columns of the terminal.

    Yields
    ------
    rich.text.Text
    """
    if info is None:
        return
    yield heading(f"Crossbars of {info.rows} × {info.cols}", width)
    yield sentence(crossbar_text(info), width, "  ")
    split = [layer for layer in info.layers if layer.reason is None]
    rows = [layer_row(layer) for layer in split[:MOST_ROWS]]
    columns: list[tuple[str, Kind]] = [(COLUMNS[0], "fold"), *((name, "right") for name in COLUMNS[1:])]
    if rows:
        yield table(columns, rows, width, "  ")
    if len(split) > MOST_ROWS:
        yield sentence(f"… and {len(split) - MOST_ROWS} more layers, in the JSON report", width, "  ")
    for layer in info.whole:
        yield sentence(f"Not split, ideal converters: {layer.name}: {layer.reason}", width, "  ", "    ")


def adc_text(info: CrossbarInfo) -> str:
    """Name the ADCs, and the share of the weights that go through them where that is not all.

    Examples
    --------
    >>> adc_text(info)  # doctest: +SKIP
    '4-bit ADCs on 50.00 % of the mapped weights'
    """
    return f"{info.adc_bits}-bit ADCs{share_of_weights_text(info.share_of_weights)}"


def partly_converted(info: CrossbarInfo | None) -> str | None:
    """Say that some weights have no converters, and which; None where all have."""
    if info is None or not info.not_split or info.weights is None or info.weights_split is None:
        return None
    named = [
        f"{layer.name} ({count_text(layer.weights or 0, 'weight')}): {layer.reason}"
        for layer in info.not_split[:MOST_NAMED]
    ]
    if len(info.not_split) > MOST_NAMED:
        named.append(f"and {len(info.not_split) - MOST_NAMED} more")
    return (
        f"converters act on {info.weights_split:,} of {info.weights:,} weights on the array"
        f" ({share_text(info.share_of_weights or 0.0)}); the rest is not split and has ideal ones: "
        + "; ".join(named)
    )


def crossbar_text(info: CrossbarInfo) -> str:
    """Say in a sentence what converts, and how ranges were set."""
    dac = "ideal inputs" if info.dac_bits is None else f"{info.dac_bits}-bit DACs"
    kind, _, number = info.adc_range.partition(":")
    reach = {
        "max": "the largest column sum",
        "percentile": f"the {number} % percentile of the column sums",
        "full_scale": "all rows in use at the largest input and the top level",
    }[kind]
    return (
        f"{count_text(info.crossbars, 'crossbar')}, {adc_text(info)}, {dac}. The ADCs of a layer "
        f"reach up to {reach} on {count_text(info.samples, 'calibration sample')}."
    )


def layer_row(layer: CrossbarLayer) -> tuple[str, ...]:
    """The cells of a layer that was split, under ``COLUMNS``."""
    low, high = layer.adc_range or (0.0, 0.0)
    rows = "+".join(str(count) for count in layer.rows)
    if len(layer.rows) > 3:
        rows = f"{len(layer.rows)} × ≤{max(layer.rows)}"
    return (
        layer.name,
        f"{layer.crossbars:,}",
        rows,
        f"{layer.columns:,}",
        f"{100 * (layer.utilisation or 0):.3g} %",
        f"±{high:.4g}" if low < 0 else f"0 … {high:.4g}",
        f"{100 * (layer.clipped or 0):.2g} %",
    )
