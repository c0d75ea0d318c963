"""The roofline: what limits, what is best, and every renderer."""

import io
import json

import numpy as np
import pytest
from report_samples import IMAGES, accuracies, report, tensors
from rich.console import Console

from nvaudit.report.jsontext import to_json
from nvaudit.report.render.terminal import print_document
from nvaudit.report.roofline.build import Asked, LevelAudits, make_roofline
from nvaudit.report.roofline.document import bar_lines, roofline_document
from nvaudit.report.roofline.limits import (
    Range,
    Roof,
    default_margin,
    judge,
    limit_of,
    range_of_mean,
)
from nvaudit.report.roofline.result import RooflineReport, SkippedLevel

CONVERTERS = {"--crossbar": [128, 64], "--adc-bits": 5}
QUANTISED = 438 / IMAGES


def sized(slices):
    """Tensors in so many slices."""
    return tuple(
        t.model_copy(update={"slices": slices, "devices": t.devices // 4 * slices}) if t.devices else t
        for t in tensors()
    )


def level(bits, mean, adc=None, both=None, chips=500, **changes):
    """The audits of a number of levels; the chips of both are `both` on average."""
    content = {"tensors": sized(8 // bits), "gate": (), "verdict": None, "yields": ()} | changes
    ideal = report(accuracies(chips, mean, address=bits), **content)
    if adc is None:
        return LevelAudits(bits, ideal)
    values = accuracies(chips, both, address=bits)
    return LevelAudits(bits, ideal, report(values, **{**content, "quantised": adc}))


def make(*audits, skipped=(), rank_by="kpp", margin=None, converters=None):
    asked = Asked(rank_by, margin, converters)
    return make_roofline(audits, skipped, asked, version="1", notes=("a note",), seconds=3.5)


@pytest.fixture(scope="module")
def four() -> RooflineReport:
    """The case of the paper: the ADC limits at few levels, the device at many."""
    return make(
        level(4, 0.80, adc=0.968, both=0.79),
        level(1, 0.99, adc=0.88, both=0.87),
        level(2, 0.965, adc=0.91, both=0.905),
        level(3, 0.90, adc=0.955, both=0.885),
        skipped=[SkippedLevel(levels=32, cell_bits=5, reason="16 entries <for> 32 levels")],
        converters=CONVERTERS,
    )


@pytest.fixture(scope="module")
def plain() -> RooflineReport:
    return make(level(1, 0.975), level(2, 0.973), level(4, 0.80), rank_by="mean")


def shown(found, width=100):
    stream = io.StringIO()
    print_document(roofline_document(found), Console(file=stream, width=width, legacy_windows=False))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("device", "adc", "loss", "found"),
    [
        (0.2, 0.03, 0.21, "device"),
        (0.03, 0.2, 0.21, "adc"),
        (0.100, 0.095, 0.2, "both"),
        (0.009, 0.009, 0.009, "neither"),
        (0.009, 0.009, 0.02, "both"),
        (-0.02, 0.0, -0.02, "neither"),
        (0.0, 0.05, 0.05, "adc"),
        (0.05, None, 0.05, "device"),
        (0.01, None, 0.01, "neither"),
    ],
)
def test_limits(device, adc, loss, found):
    """The larger loss limits; what is within the margin does not count, alone or against the other."""
    assert limit_of(device, adc, loss, 0.01) == found


@pytest.mark.parametrize(
    ("low", "high", "settled"),
    [(0.78, 0.82, True), (0.78, 0.96, False), (None, 0.82, True), (0.78, None, False)],
)
def test_settled(low, high, settled):
    """Only where both ends of the interval say the same; a missing worst end counts as the worst there is."""
    roof = Roof(0.97, Range(0.8, low, high), 0.95, Range(0.79, low, high))
    assert judge(roof, 0.01, True) == ("device", settled)


def test_a_missing_bound_of_a_good_level_settles_nothing():
    """The worst chips may still be far below."""
    roof = Roof(0.97, Range(0.965, None, 0.97), None, None)
    assert judge(roof, 0.01, True) == ("neither", False)


def test_a_loss_is_judged_the_other_way_round():
    """Higher is worse, and the bound that few chips do not give is the upper one."""
    roof = Roof(0.1, Range(0.5, 0.4, None), 0.15, Range(0.6, 0.5, None))
    assert judge(roof, 0.01, False) == ("device", True)
    assert judge(Roof(0.1, Range(0.1, 0.1, 0.1), 0.3, Range(0.3, 0.3, 0.3)), 0.01, False) == ("adc", True)


def test_interval_of_a_mean():
    """Normal; one chip has none."""
    found = range_of_mean(0.9, 0.01, 0.95)
    assert (found.low, found.high) == pytest.approx((0.9 - 0.0196, 0.9 + 0.0196), abs=1e-5)
    assert range_of_mean(0.9, None, 0.95) == Range(0.9, None, None)


def test_default_margin():
    """One point of an accuracy, 1 % of anything else."""
    assert default_margin("fraction", 0.5) == 0.01
    assert default_margin("nats", 0.5) == pytest.approx(0.005)


def test_the_paper_s_picture(four):
    """Levels are ascending; the ADC limits at few of them, the device at many; the best is between."""
    assert [one.levels for one in four.levels] == [2, 4, 8, 16]
    assert [one.limit for one in four.levels] == ["adc", "adc", "device", "device"]
    assert four.best == 4
    assert "2 and 4 levels: ADC limits; 8 and 16 levels: device limits" in four.headline
    for one in four.levels:
        assert one.realistic is one.both


def test_numbers_are_those_of_the_audits():
    """Curve by curve."""
    audits = level(2, 0.95, adc=0.94, both=0.92)
    one = make(audits, converters=CONVERTERS).levels[0]
    assert one.quantised == audits.ideal.quantised
    assert (one.device.mean, one.device.kpp) == (audits.ideal.trials.mean, audits.ideal.kpp[0])
    assert one.adc == audits.converted.quantised == 0.94
    assert (one.both.mean, one.both.kpp) == (audits.converted.trials.mean, audits.converted.kpp[0])
    assert one.size.devices == sum(t.devices or 0 for t in audits.ideal.tensors)


def test_the_cheapest_is_within_the_margin(plain):
    """4 levels lose less than a point and need half the devices; with no margin the best is the cheapest."""
    assert (plain.best, plain.cheapest) == (2, 4)
    text = " ".join(shown(plain).split())
    assert "4 levels are within 1 point of that with 19,008 devices instead of 38,016" in text
    strict = make(level(1, 0.975), level(2, 0.973), rank_by="mean", margin=0.0)
    assert strict.cheapest == strict.best == 2


def test_rank_by_mean_and_kpp_may_differ():
    """Few very bad chips move the KPP and not the mean."""
    values = np.full(500, 0.97)
    values[:10] = 0.3
    spread = LevelAudits(2, report(values, tensors=sized(4), gate=(), verdict=None))
    steady = LevelAudits(4, report(np.full(500, 0.95), tensors=sized(2), gate=(), verdict=None))
    assert make(spread, steady, rank_by="mean").best == 4
    assert make(spread, steady, rank_by="kpp").best == 16


def test_a_loss():
    """Lower is better: the best level has the smallest loss."""
    few = report(np.full(400, 0.09), higher=False, unit="nats", tensors=sized(8), gate=(), verdict=None)
    many = report(np.full(400, 0.5), higher=False, unit="nats", tensors=sized(2), gate=(), verdict=None)
    found = make(LevelAudits(4, many), LevelAudits(1, few))
    assert found.best == 2
    assert [one.limit for one in found.levels] == ["device", "device"]
    assert "losses up to 0.00081 do not count" in " ".join(shown(found).split())


def test_label_free():
    """The first words say so."""
    found = make(level(1, 0.97, label_free=True))
    assert found.headline.startswith("LABEL-FREE (no labels")
    assert "2 levels are the only ones run" in found.headline


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_text(four, width):
    """Headline, table, verdicts, what was left out, picture and conditions, complete at every width."""
    text = shown(four, width)
    assert max(len(line) for line in text.splitlines()) <= width
    words = " ".join(text.split())
    assert words.startswith("4 levels are best of 4 by KPP 1 %")
    assert "2 levels: ADC limits (device variation: " in words
    assert "16 levels: device limits (device variation: " in words
    assert "32 levels are left out: 16 entries <for> 32 levels" in words
    assert "converters: --crossbar 128×64, --adc-bits 5" in words
    assert "a note" in words
    assert "▲ ADC alone" in words


def test_without_converters_nothing_is_said_of_them(plain):
    """But that they are ideal."""
    words = " ".join(shown(plain).split())
    assert "▲" not in words
    assert "both:" not in words
    assert "converters: ideal" in words
    assert "2 and 4 levels: the device does not limit; 16 levels: device limits" in words


def test_bars(four, plain):
    """Every level has its marks on one scale."""
    lines = bar_lines(four, 64)[:4]
    assert all(len(line) <= 64 for line in lines)
    assert all("▲" in line and "█" in line for line in lines)
    assert lines[3].index("█") < lines[1].index("█") < lines[1].index("▲")
    assert not any("▲" in line for line in bar_lines(plain, 64))


def test_json(four):
    """Reads back as it was, and is the same for equal reports."""
    text = to_json(four)
    assert RooflineReport.model_validate_json(text, strict=True) == four
    assert text == to_json(four.model_copy())
    assert json.loads(text)["levels"][0]["limit"] == "adc"


def test_figure(four, plain):
    """Four curves with two bands with converters, two with one without; the values are the report's."""
    pytest.importorskip("plotly")
    from nvaudit.report.roofline.document import roofline_figure

    def lines(found):
        return {t.name: list(t.y) for t in roofline_figure(found).data if t.fill != "toself"}

    def bands(found):
        return [t for t in roofline_figure(found).data if t.fill == "toself"]

    drawn = lines(four)
    assert drawn["quantised"] == [one.quantised for one in four.levels]
    assert drawn["ADC"] == [one.adc for one in four.levels]
    assert drawn["device variation: KPP 1 %"] == [one.device.kpp.value for one in four.levels]
    assert drawn["device variation: mean"] == [one.device.mean for one in four.levels]
    assert drawn["device variation and ADC: KPP 1 %"] == [one.both.kpp.value for one in four.levels]
    assert len(bands(four)) == 2
    first = four.levels[0].device.kpp
    assert (bands(four)[0].y[0], bands(four)[0].y[-1]) == (first.high, first.low)
    assert list(bands(four)[0].x) == [2, 4, 8, 16, 16, 8, 4, 2]
    assert set(lines(plain)) == {"quantised", "device variation: mean", "device variation: KPP"}
    assert len(bands(plain)) == 1


def test_page(four, plain):
    """Opens offline, has the picture, and hostile text stays text."""
    pytest.importorskip("plotly")
    from nvaudit.report.render.html import html_document
    from nvaudit.report.roofline.document import roofline_document

    page = html_document(roofline_document(four))
    assert page.startswith("<!DOCTYPE html>")
    assert "default-src &#39;none&#39;" in page
    assert '"roofline":{"data":[' in page
    assert "&lt;for&gt;" in page
    assert "<for>" not in page
    assert [figure.name for figure in roofline_document(plain).figures] == ["roofline"]
    assert len(roofline_document(four).hero.numbers) == 4
