"""Codes of the weights: what the report holds about them, and in words."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from nvaudit.report.document import Block, KeyFigure, Number, Paragraph, Table
from nvaudit.report.sections import ReportPart
from nvaudit.report.wording import count_text


class CodeErrors(ReportPart):
    """Expected error of weights on a code, root mean square as a share of max|W|."""

    total: float = Field(ge=0)
    rounding: float = Field(ge=0, description="Of it what values lie off the weights.")
    noise: float = Field(ge=0, description="Of it what devices err.")
    converters: float = Field(default=0, ge=0, description="Of it what ADCs add; 0 without --adc-bits.")


class CodeEntry(ReportPart):
    """One code in use."""

    significances: tuple[float, ...] = Field(description="Of each device (of each pair), most first.")
    encoding: str
    levels: int = Field(ge=2, description="Of a device.")
    devices: int = Field(ge=1, description="Of a weight, of both polarities.")
    largest: int = Field(ge=1, description="Value that max|W| is mapped to.")
    zero: int = Field(ge=0, description="Stored value of a zero weight; 0 but for offset.")
    errors: CodeErrors = Field(description="Of all weights of the array.")
    noise_of_level: tuple[float, ...] = Field(
        description="Share of the noise that devices at each level make, lowest level first."
    )

    @property
    def text(self) -> str:
        """The significances, as the command line takes them."""
        return ",".join(f"{one:.6g}" for one in self.significances)


class CodeLayer(ReportPart):
    """The code of one tensor."""

    name: str
    code: int = Field(ge=0, description="Place in ``codes``.")
    weights: int = Field(ge=0)
    errors: CodeErrors = Field(description="Of its weights.")


class MadeFor(ReportPart):
    """What the codes of a mapping file were chosen for."""

    device: str
    sigma: float | None

    @property
    def text(self) -> str:
        """The device, and the sigma where it is known."""
        return self.device if self.sigma is None else f"{self.device} at sigma {self.sigma:g}"


class CodesInfo(ReportPart):
    """Weights on codes of their own instead of slices."""

    asked: str = Field(description="As given: significances, auto, or the mapping file.")
    sigma: float | None = Field(description="Codes were chosen for; null where they were read from a file.")
    level_sigma: tuple[float, ...] = Field(description="Spread of a device at each level, in spacings.")
    slices: CodeEntry | None = Field(description="The slices that stand for, rounded to the nearest value.")
    codes: tuple[CodeEntry, ...] = Field(description="In use, fewest devices first.")
    layers: tuple[CodeLayer, ...]
    devices_per_weight: float = Field(gt=0, description="On average over the mapped weights.")
    tried: int = Field(ge=0, description="Codes that the search tried.")
    made_for: MadeFor | None = Field(
        default=None, description="Null where codes were chosen in this run, and in older reports."
    )

    @property
    def name(self) -> str:
        """The significances of the one code, or how many codes there are."""
        return self.codes[0].text if len(self.codes) == 1 else f"{len(self.codes)} codes"


def codes_text(info: CodesInfo) -> str:
    """Say which codes are in use and what error is expected of them."""
    if len(info.codes) == 1:
        code = info.codes[0]
        what = f"Mapped weights have the code {code.text} ({code.encoding}, {code.devices} devices"
    else:
        what = (
            f"Mapped weights have {len(info.codes)} codes ({info.codes[0].encoding}, "
            f"{info.devices_per_weight:.2f} devices on average"
        )
    what += f" of {info.codes[0].levels} levels)"
    if info.slices is not None:
        error = _mean_error(info)
        what += (
            f": {error:.4f} of max|W| rms error expected, {info.slices.errors.total:.4f} with slices "
            f"{info.slices.text} on {count_text(info.slices.devices, 'device')}"
        )
    if info.sigma is not None:
        what += f". Chosen for sigma {info.sigma:g}"
        what += f", best of {count_text(info.tried, 'code')} tried" if info.tried > 1 else ""
    return what


def codes_number(info: CodesInfo | None) -> tuple[KeyFigure, ...]:
    """The code beside the headline; nothing where weights are slices."""
    if info is None:
        return ()
    encodings = ", ".join(sorted({one.encoding for one in info.codes}))
    note = f"{info.devices_per_weight:.4g} devices per weight, {encodings}"
    if info.made_for is not None:
        note += f"; chosen for {info.made_for.text}"
    return (KeyFigure("code", info.name, note),)


def codes_warning(info: CodesInfo | None, device: str) -> str | None:
    """Say that codes were chosen for another device; None where they were not."""
    if info is None or info.made_for is None or info.made_for.device == device:
        return None
    return (
        f"The codes of {info.asked} were chosen for {info.made_for.text}, not for {device}: values that are "
        "quiet on the one may be noisy on the other; --code auto chooses codes for this device."
    )


def codes_blocks(info: CodesInfo) -> list[Block]:
    """Say which codes are in use, what they make of weights, and by what noise."""
    return [Paragraph(f"{codes_text(info)}."), _code_table(info), _level_table(info)]


def _mean_error(info: CodesInfo) -> float:
    """Error of all weights: that of the one code, or by layers."""
    if len(info.codes) == 1:
        return info.codes[0].errors.total
    total = max(1, sum(layer.weights for layer in info.layers))
    return float((sum(layer.weights * layer.errors.total**2 for layer in info.layers) / total) ** 0.5)


def _entries(info: CodesInfo) -> list[tuple[str, CodeEntry]]:
    plain = [] if info.slices is None else [("slices", info.slices)]
    return [*plain, *((f"{'±' if one.encoding == 'sign_per_device' else ''}{one.text}", one)
                      for one in info.codes)]  # fmt: skip


def _code_table(info: CodesInfo) -> Table:
    counts = [sum(layer.code == i for layer in info.layers) for i in range(len(info.codes))]
    used = ([0] if info.slices is not None else []) + counts
    converted = any(one.errors.converters for _, one in _entries(info))
    rows: list[tuple[str | Number, ...]] = []
    for (name, one), tensors in zip(_entries(info), used, strict=True):
        errors = [one.errors.total, one.errors.rounding, one.errors.noise]
        errors += [one.errors.converters] if converted else []
        numbers = [Number(one.devices, f"{one.devices}"), Number(one.largest, f"{one.largest:,}")]
        numbers += [Number(part, f"{part:.4f}") for part in errors]
        rows.append((name, *numbers, Number(tensors, f"{tensors:,}")))
    parts = ("of it rounding", "of it noise", *(("of it ADCs",) if converted else ()))
    columns = ("code", "devices", "largest value", "rms error", *parts, "tensors")
    caption = "Codes: what each makes of the mapped weights, as a share of max|W|."
    return Table("codes", caption, columns, tuple(rows), numeric=tuple(range(1, len(columns))))


def _level_table(info: CodesInfo) -> Table:
    entries = _entries(info)
    rows = tuple(
        (
            Number(level, f"{level}"),
            Number(sigma, f"{sigma:.4g}"),
            *(_share(one.noise_of_level, level, len(info.level_sigma)) for _, one in entries),
        )
        for level, sigma in enumerate(info.level_sigma)
    )
    columns = ("level", "σ, spacings", *(name for name, _ in entries))
    caption = "Noise of each level, and the share of a code's noise that devices at it make."
    return Table("levels of codes", caption, columns, rows, numeric=tuple(range(len(columns))))


def _share(shares: Sequence[float], level: int, levels: int) -> Number:
    """The share of a level; slices of an analog device have levels of their own."""
    if len(shares) != levels:
        return Number(None, "")
    return Number(shares[level], f"{100 * shares[level]:.1f} %")
