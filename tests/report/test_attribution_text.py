"""The attribution on a terminal, and what it is made from."""

import io

import numpy as np
import pytest
from report_samples import report
from rich.cells import cell_len
from rich.console import Console

from nvaudit.report import from_json, to_json
from nvaudit.report.attribution.result import (
    AttributionDetail,
    Basis,
    VariantScores,
    class_attribution,
    noise_attribution,
)
from nvaudit.report.kinds import print_report
from nvaudit.rng import stream

IMAGES = 200


def basis(higher=True, percentiles=(1.0,)):
    return Basis(
        images=IMAGES, inferences=12_345, sigma=0.2, sigma_unit="level", percentiles=percentiles,
        confidence=0.95, higher_is_better=higher,
    )  # fmt: skip


def measured(loss, chips, sign=1, address=0):
    """Chips that lose something on average; the images share the loss."""
    rng = stream(2, "attribution text", address)
    values = 0.95 - sign * loss * (1 + 0.3 * rng.standard_normal(chips))
    return VariantScores(values, values.mean() + 0.1 * rng.standard_normal(IMAGES))


def noise(losses, chips=100, sign=1, kind="tensors", **options):
    """An attribution where tensor i loses ``losses[i]`` by itself, and the whole loses their sum."""
    total = sum(losses)
    parts = {
        f"layer{i}.weight": (measured(loss, chips, sign), measured(total - loss, chips, sign))
        for i, loss in enumerate(losses)
    }
    quantised = np.full(IMAGES, 0.95)
    return noise_attribution(
        kind, basis(sign > 0, **options), quantised, measured(total, chips, sign), parts, kept=("clip",)
    )


def classes(labels=10, chips=30):
    rng = stream(3, "classes")
    values = np.clip(0.9 + 0.05 * rng.standard_normal((chips, labels)), 0, 1)
    level = np.full(labels, 0.95)
    return class_attribution(basis(), np.arange(labels), np.full(labels, 20), level, level - 0.01, values)


def text_of(detail, width=100, unit="fraction", higher=True, **options):
    audit = report(
        np.linspace(0.9, 1, 50), higher=higher, unit=unit, attribution=detail.costs(),
        attribution_detail=detail,
    )  # fmt: skip
    buffer = io.StringIO()
    print_report(audit, Console(file=buffer, width=width, **options))
    return buffer.getvalue()


def flat(text):
    return " ".join(text.split())


def test_shares_and_costs():
    """Additive losses have shares that are their parts of the whole, and costs in order."""
    found = noise((0.01, 0.03, 0.06))
    assert [item.name for item in found.items] == ["layer2.weight", "layer1.weight", "layer0.weight"]
    assert [item.share for item in found.items] == pytest.approx([0.6, 0.3, 0.1], abs=1e-9)
    assert found.alone_sum == pytest.approx(found.loss[0].mean.value, abs=1e-9)
    assert found.items[0].cost == found.items[0].given_back[0].kpp.value > found.items[1].cost > 0


def test_costs_of_a_loss_are_positive_too():
    """For a metric where lower is better, a cost is what the metric rises."""
    up, down = noise((0.01, 0.03)), noise((0.01, 0.03), sign=-1)
    assert down.items[0].name == up.items[0].name
    assert down.items[0].cost == pytest.approx(up.items[0].cost)
    assert down.items[0].given_back[0].mean.value == pytest.approx(-up.items[0].given_back[0].mean.value)


def test_no_loss_has_no_shares():
    """Where the chips cannot tell the loss from zero, nothing is shared out."""
    rng = stream(4, "nothing")
    whole = VariantScores(0.95 + 0.01 * rng.standard_normal(100), np.full(IMAGES, 0.95))
    part = (whole, whole)
    found = noise_attribution(
        "tensors", basis(), np.full(IMAGES, float(whole.chips.mean())), whole, {"a": part}
    )
    assert found.items[0].share is None
    assert "share of loss" in text_of(AttributionDetail(tensors=found))


def test_a_term_named_as_a_tensor_keeps_its_place():
    """Both are in the flat map."""
    detail = AttributionDetail(tensors=noise((0.01, 0.02)), terms=noise((0.02, 0.03), kind="terms"))
    assert set(detail.costs()) == {
        "layer0.weight", "layer1.weight", "term:layer0.weight", "term:layer1.weight",
    }  # fmt: skip


def test_table():
    """Ranked, with bars, the differences and what they rest on."""
    found = noise((0.01, 0.03))
    text = text_of(AttributionDetail(tensors=found), width=110)
    back, most = (f"{100 * item.cost:+.2f}" for item in reversed(found.items))
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("  By tensor"))
    assert lines[start] == (
        "  By tensor: σ = 0.2 level spacings, the first 100 chips, 200 images; in points, positive: better."
    )
    assert lines[start + 1].split("  ")[1] == "tensor"
    assert lines[start + 3].split()[:5] == ["layer1.weight", "██████", "75", "%", most]
    assert lines[start + 4].split()[:5] == ["layer0.weight", "██", "25", "%", back]
    said = flat(text)
    mean, worst = (-100 * d.value for d in (found.loss[0].mean, found.loss[0].kpp))
    assert f"All noise together costs {mean:.2f} on average and {worst:.2f} in KPP 1 %; each alone, " in said
    assert "KPP 1 % is number 2 from the worst of 100 chips: an interval needs 437 chips." in said
    assert "on 200 images the mean loss has a standard error of" in said
    assert "Limits that act in every variant: clip." in said


def test_interval_of_the_kpp_is_shown_where_there_is_one():
    """With enough chips the sentence about their number gives way to a column."""
    text = text_of(AttributionDetail(terms=noise((0.01, 0.03), chips=500, kind="terms")), width=120)
    heading = next(line for line in text.splitlines() if "KPP 1 % back" in line)
    assert heading.split("  ")[1] == "noise term"
    assert heading.count("interval") == 2
    assert "needs 437 chips" not in text


def test_a_loss_shows_gains_as_positive():
    """Back is an improvement, lost a loss, whatever the metric's direction."""
    text = text_of(AttributionDetail(tensors=noise((0.01, 0.03), sign=-1)), 110, unit="nats", higher=False)
    row = next(line for line in text.splitlines() if line.startswith("  layer1.weight"))
    assert "−" not in row
    assert "; in nats, positive: better." in flat(text)


def test_many_tensors_end_in_the_json():
    """Twelve rows, then how many more there are."""
    text = text_of(AttributionDetail(tensors=noise([0.001 * (i + 1) for i in range(57)], chips=40)))
    assert sum(line.lstrip().startswith("layer") for line in text.splitlines()) == 12
    assert "… and 45 more; the JSON report and the page have all" in flat(text)
    many = text_of(AttributionDetail(classes=classes(40)))
    assert "… and 28 more; the JSON report" in flat(many)


def test_missing_mean_intervals_are_explained():
    """A dash, and why."""
    text = flat(text_of(AttributionDetail(tensors=noise((0.01, 0.03), chips=5))))
    assert "No interval (–): needs 20 chips." in text


def test_classes():
    """The worst class first, and named."""
    detail = AttributionDetail(classes=classes())
    text = text_of(detail)
    assert "By class: σ = 0.2 level spacings, the first 30 chips, 200 images." in text
    assert f"The worst class is {detail.classes.classes[0].label}; each class has its own" in flat(text)
    values = [row.kpp[0] for row in detail.classes.classes]
    assert values == sorted(values)


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_lines_fit(width):
    """No line is longer than the terminal and none ends in spaces."""
    detail = AttributionDetail(
        tensors=noise((0.01, 0.03, 0.02)), terms=noise((0.02, 0.03), chips=500, kind="terms"),
        classes=classes(), notes=("by class: the data have no class labels",),
    )  # fmt: skip
    for line in text_of(detail, width).splitlines():
        assert cell_len(line) <= width
        assert line == line.rstrip()


def test_ascii():
    """A terminal without Unicode gets bars of #."""
    detail = AttributionDetail(tensors=noise((0.01, 0.03)), classes=classes())
    buffer = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    audit = report(np.linspace(0.9, 1, 50), attribution=detail.costs(), attribution_detail=detail)
    print_report(audit, Console(file=buffer, width=110))
    buffer.flush()
    text = buffer.buffer.getvalue().decode("ascii")
    assert "######" in text
    assert "?" not in text


def test_json_round_trip():
    """The detail is part of the report and comes back exactly."""
    detail = AttributionDetail(
        tensors=noise((0.01, 0.03), percentiles=(1.0, 10.0)), classes=classes(), notes=("a note",)
    )
    audit = report(np.linspace(0.9, 1, 50), attribution=detail.costs(), attribution_detail=detail)
    again = from_json(to_json(audit), "report.json")
    assert again == audit
    assert len(again.attribution_detail.tensors.items[0].given_back) == 2
    assert len(again.attribution_detail.tensors.noisy_kpp) == 2
