"""Reports for the tests of pages: one with every part, one whose every name is hostile."""

from collections.abc import Iterator
from html.parser import HTMLParser

import numpy as np
from report_samples import accuracies, full_report, report, summary, tensors

from nvaudit.report import AuditReport
from nvaudit.report.attribution.result import (
    AttributionDetail,
    Basis,
    VariantScores,
    class_attribution,
    noise_attribution,
)
from nvaudit.report.device.result import DeviceLevels, describe_levels
from nvaudit.report.gates import decide
from nvaudit.report.sections import LossSurface, OperatingPointInfo, RaceInfo, SweepPoint, TrialSummary
from nvaudit.rng import stream
from nvaudit.stats.gate import overall_verdict
from nvaudit.stats.kpp import kpp, yield_at

ATTACK = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked=2'>\"'&{{ 7*7 }}{% raw %}"
)
VOID = {"meta", "input", "img", "wbr", "br", "link", "path"}


def levels() -> DeviceLevels:
    rng = stream(2, "sample levels")
    draws = {level: rng.normal(level, 0.1 * (level + 1), 500) for level in range(4)}
    return describe_levels({level: float(level) for level in range(4)}, draws, "levels")


def surface() -> LossSurface:
    axis = np.linspace(-0.3, 0.3, 7)
    losses = 0.05 + np.add.outer(axis**2, 2 * axis**2)
    return LossSurface(roughness=0.0011, axis=tuple(axis), losses=tuple(map(tuple, losses.tolist())))


def detail(names: tuple[str, str] = ("conv1.weight", "conv2.weight")) -> AttributionDetail:
    rng = stream(3, "sample attribution")
    basis = Basis(60, 1000, 0.2, "level", (1.0,), 0.95, higher_is_better=True)
    base = rng.normal(0.9, 0.01, 40)
    part = {
        name: (
            VariantScores(base + 0.05 - i / 100, rng.random(60)),
            VariantScores(base + 0.01 + i / 50, rng.random(60)),
        )
        for i, name in enumerate(names)
    }
    whole = VariantScores(base, rng.random(60))
    quantised = np.full(60, 0.97)
    classes = class_attribution(
        basis,
        np.arange(3),
        np.full(3, 20),
        np.full(3, 0.98),
        np.full(3, 0.97),
        rng.normal(0.9, 0.02, (40, 3)),
    )
    return AttributionDetail(
        tensors=noise_attribution("tensors", basis, quantised, whole, part),
        terms=noise_attribution("terms", basis, quantised, whole, part),
        classes=classes,
        notes=("read noise was not attributed",),
    )


def everything() -> AuditReport:
    """A report with every part that a page can show."""
    parts = {
        "attribution_detail": detail(), "landscape": surface(), "device": PROFILE, "device_levels": levels(),
        "run": RUN,
    }  # fmt: skip
    return full_report().model_copy(update=parts)


RUN = {
    "model": "examples/digits cnn.onnx", "device": "fefet1", "data": None, "trials": 400,
    "percentiles": [1.0, 5.0], "seed": 0, "sigmas": [0.05, 0.1, 0.2], "min_kpp": 0.9,
    "crossbar": [256, 256], "class_axis": -1,
    "exhaustive": True, "roughness": True, "workers": 2,
}  # fmt: skip

PROFILE = {
    "schema_version": 1, "name": "fefet1", "technology": "FeFET, four levels",
    "description": "Programming error.",
    "source": {"citation": "Z. Yan et al., ICCAD 2023", "doi": "10.1109/ICCAD57390.2023.10323830",
               "where": "Eq. 16", "fit": "as printed"},
    "cell_bits": 2, "weight_bits": 8, "encoding": "sign_magnitude", "window": None, "valid_range": "0 to 0.4",
    "noise": [{"kind": "normal", "name": "programming", "sigma": {"kind": "constant", "value": 1.0}}],
}  # fmt: skip


def raced(values: np.ndarray, pilots: int = 20) -> TrialSummary:
    """Of the better half of the chips only the pilots are known; they stand for all of it."""
    cut = np.median(values)
    better = values >= cut
    pilot = np.arange(len(values)) < pilots
    known = ~better | pilot
    weights = np.where(better, np.where(pilot, better.sum() / (better & pilot).sum(), 0.0), 1.0)
    whole = summary(values)
    return whole.model_copy(
        update={
            "values": tuple(float(v) if k else None for v, k in zip(values, known, strict=True)),
            "weights": tuple(weights.tolist()),
            "race": RaceInfo(pilots=pilots, stopped=int((~known).sum()), error=0.005, tolerance=None),
        }
    )


def hostile() -> AuditReport:
    """Every text that a model, a profile or a user chooses is an attack."""
    rows = tuple(
        row.model_copy(
            update={"name": ATTACK, "reason": ATTACK, "op": ATTACK, "dtype": ATTACK, "path": ATTACK}
        )
        for row in tensors()
    )
    plain = report()
    values = accuracies(300)
    point = SweepPoint(
        sigma=0.1, sigma_unit=ATTACK, kpp=(kpp(values, 1, 0.95, True),),
        yields=(yield_at(values, 0.9, 0.95, True),), gate=(decide(values, 0.9, 1, 0.95, True),),
        trials=summary(values),
    )  # fmt: skip
    gates = (*point.gate, *point.gate)
    return report(
        headline=ATTACK,
        metric=ATTACK,
        metric_info=plain.metric_info.model_copy(update={"assumed": (ATTACK,)}),
        tensors=rows,
        sweep=(point.model_copy(update={"sigma": 0.05}), point),
        gate=gates,
        verdict=overall_verdict(gates),
        attribution_detail=detail((ATTACK, f"{ATTACK}2")),
        device={key: ATTACK if isinstance(value, str) else value for key, value in PROFILE.items()}
        | {
            "source": {"citation": ATTACK, "where": ATTACK, "doi": ATTACK},
            "noise": [{"kind": ATTACK, "name": ATTACK}],
        },
        model=plain.model.model_copy(update={"path": ATTACK, "inputs": (ATTACK,), "outputs": (ATTACK,)}),
        data=plain.data.model_copy(
            update={"source": ATTACK, "notes": (ATTACK,), "skipped": ((ATTACK, ATTACK),)}
        ),
        operating_point=OperatingPointInfo(sigma=0.1, sigma_unit=ATTACK, time_s=0.0, terms=(ATTACK,)),
        run={"model": ATTACK, "device": ATTACK, "layers": [ATTACK]},
        nvaudit_version=ATTACK,
        events=(ATTACK,),
        notes=(ATTACK, "\u202egnp\u202c and \x1b[2J"),
    )


class Reader(HTMLParser):
    """Reads a page as a browser does: elements, their attributes, and the text outside scripts."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.scripts: list[str] = []
        self.unclosed: list[str] = []

    @classmethod
    def of(cls, page: str) -> "Reader":
        reader = cls()
        reader.feed(page)
        reader.close()
        return reader

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("dd", "td", "th", "p", "li"):
            self.text += " "
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open[-1] != tag:
            self.unclosed.append(tag)
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] not in ("style", "title"):
            self.text += data

    def all(self, *tags: str) -> Iterator[dict[str, str | None]]:
        return (attributes for tag, attributes in self.elements if tag in tags)

    @property
    def words(self) -> str:
        """The text as it is read: blanks once, no-break ones as others."""
        return " ".join(self.text.split())
