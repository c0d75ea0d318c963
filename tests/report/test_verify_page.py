"""The page of a write-verify plan, and what it says in words."""

from itertools import pairwise

import pytest
from report_samples import IMAGES, accuracies

from nvaudit.report.jsontext import to_json
from nvaudit.report.paired import paired_difference
from nvaudit.report.sections import DataInfo, Hashes, MetricInfo, ModelInfo, OperatingPointInfo
from nvaudit.report.write_verify.document import reason_text
from nvaudit.report.write_verify.result import (
    VerifyChoice,
    VerifyPoint,
    VerifyReport,
    VerifyTensor,
    verify_report,
)
from nvaudit.stats.kpp import kpp

WEIGHTS, EACH = 1000, 4
MEANS = {0: 0.6, 10: 0.7, 100: 0.92, 1000: 0.97}


def point(count, values, none):
    return VerifyPoint(
        share=count / WEIGHTS,
        weights=count,
        devices=EACH * count,
        saved=EACH * (WEIGHTS - count),
        kpp=kpp(values, 1, 0.95, True),
        mean=float(values.mean()),
        worst=float(values.min()),
        difference=paired_difference(none, values, 1, 0.95, True) if count else None,
        values=tuple(values.tolist()),
    )


POINT = OperatingPointInfo(sigma=0.3, sigma_unit="level", time_s=0.0, terms=("programming", "drift"))


def plan(counts=tuple(MEANS), chosen=100, target=None, chips=500, **changes) -> VerifyReport:
    """A plan as a run would make it."""
    values = {count: accuracies(chips, MEANS[count]) for count in counts}
    curve = [point(count, values[count], values[0]) for count in counts]
    choice = None
    if chosen is not None:
        found = next(one for one in curve if one.weights == chosen)
        choice = VerifyChoice(
            share=found.share, weights=chosen, devices=found.devices, saved=found.saved,
            kpp=found.kpp.value, why="the smallest <share>", short=0.01 if chosen > 10 else None,
        )  # fmt: skip
    content = {
        "label_free": False, "ranking": "swim", "ranked_by": "second derivative",
        "device": {"name": "rram"}, "model": ModelInfo(path="folder/net.onnx"),
        "operating_point": POINT,
        "sigma": 0.3, "sigma_unit": "level", "time_s": 0.0, "verify_sigma": 0.0, "reduced": ("programming",),
        "left": ("drift",), "metric": "top1",
        "metric_info": MetricInfo(higher_is_better=True, unit="fraction", assumed=("scores on axis 1",)),
        "nominal": 0.985, "quantised": 0.98, "weights": WEIGHTS, "devices": EACH * WEIGHTS, "target": target,
        "tensors": (
            VerifyTensor(name="<b>conv</b>", op="Conv", shape=(10, 4), stored="initializer", weights=40,
                         devices=160, verified=40),
            VerifyTensor(name="fc", op="Gemm", shape=(960,), stored="folded", weights=960, devices=3840,
                         verified=60),
        ),
        "plan": None if chosen is None else "plan.npz",
        "data": DataInfo(source="d.npz", count=IMAGES, label_kind="class"),
        "timing": {"total": 2.5}, "run": {"model": "folder/net.onnx", "seed": 7},
        "hashes": Hashes(model="a" * 64, data="b" * 64, device="c" * 64),
        "events": ("resumed: 5 of 20 chips",), "notes": ("a note",), "nvaudit_version": "9.9",
    }  # fmt: skip
    return verify_report(curve, choice, **{**content, **changes})


@pytest.fixture
def page_of():
    """Work out a page; plotly draws its figure."""
    pytest.importorskip("plotly")
    from nvaudit.report.write_verify.document import verify_document

    return verify_document


def blocks(page, section):
    return next(one.blocks for one in page.sections if one.name == section)


def cells(table, column):
    place = table.columns.index(column)
    return [row[place] if isinstance(row[place], str) else row[place].text for row in table.rows]


def test_page():
    """Opens offline, has the picture, the hashes and the events, and hostile text stays text."""
    pytest.importorskip("plotly")
    from nvaudit.report.render.html import html_document
    from nvaudit.report.write_verify.document import verify_document

    page = html_document(verify_document(plan()))
    assert page.startswith("<!DOCTYPE html>")
    assert "default-src &#39;none&#39;" in page
    assert '"verify":{"data":[' in page
    assert "&lt;share&gt;" in page
    assert "<b>conv" not in page
    for text in ("net.<wbr>onnx", "a" * 64, "b" * 64, "c" * 64, "resumed: 5 of 20 chips", "a note", "seed 7"):
        assert text in page
    assert "leaves nothing of it; drift stays" in page


def test_tables(page_of):
    """Every share with its numbers, the plan marked; every tensor with what is verified of it."""
    found = plan()
    page = page_of(found)
    figure, shares, _ = blocks(page, "curve")
    assert cells(shares, "share") == ["none", "1 %", "10 % (plan)", "all"]
    assert cells(shares, "devices") == ["0", "40", "400", "4,000"]
    assert cells(shares, "KPP 1 %") == [f"{100 * one.kpp.value:.2f} %" for one in found.curve]
    gains = cells(shares, "gain, points")
    assert gains[0] == ""
    last = found.curve[-1].difference.kpp
    assert gains[-1] == f"{100 * last.value:+.2f} ({100 * last.low:+.2f} to {100 * last.high:+.2f})"
    (tensors,) = blocks(page, "tensors-section")
    assert cells(tensors, "verify") == ["40", "60"]
    assert cells(tensors, "share") == ["all", "6.25 %"]
    assert tensors.caption == "Where the 100 weights of the plan are. plan.npz has the mask of each."
    assert "The plan: 10 % for" in figure.caption
    assert figure.legend.endswith("Ring: the plan.")


def test_without_a_target(page_of):
    """The hero says the share and what it gives, beside none, all and the work; it is no verdict."""
    found = plan()
    hero = page_of(found).hero
    chosen = f"{100 * found.choice.kpp:.2f} %"
    assert (hero.role, hero.word) == ("none", "")
    assert hero.title == f"Verify 10 % of the weights for {chosen}"
    assert hero.lines == ("10 % is the smallest <share>; 1 % is not enough.",)
    labels = ["KPP 1 %, 10 % verified", "KPP 1 %, none verified", "KPP 1 %, all verified"]
    assert [big.label for big in hero.numbers] == [*labels, "Write-verify operations"]
    assert [big.main for big in hero.numbers] == [True, False, False, False]
    assert hero.numbers[0].value == chosen
    assert (hero.numbers[3].value, hero.numbers[3].note) == ("400", "of 4,000 devices; 3,600 need none")


def test_a_target_that_is_reached(page_of):
    """It says so, and whether the interval of the KPP is beyond the target too."""
    low, value = plan().curve[2].kpp.low, plan().curve[2].kpp.value
    sure = page_of(plan(target=low - 0.001)).hero
    assert (sure.role, sure.word, len(sure.lines)) == ("pass", "Reached", 1)
    open_ = page_of(plan(target=value)).hero
    assert (open_.role, len(open_.lines)) == ("pass", 2)
    assert "has values that miss the target" in open_.lines[1]
    assert len(page_of(plan(target=0.5, chips=50)).hero.lines) == 2, "no bound is no promise"


def test_a_target_that_is_missed(page_of):
    """It says so, shows what the largest share gives, and that there is no plan."""
    found = plan(counts=(0, 10), chosen=None, target=0.9)
    page = page_of(found)
    assert (page.hero.role, page.hero.word) == ("fail", "Missed")
    assert page.hero.title == "No share that was tried reaches 90 %"
    assert page.hero.numbers[0].label == "KPP 1 %, 1 % verified"
    assert [big.label for big in page.hero.numbers][2] == "Without noise"
    assert blocks(page, "tensors-section")[0].caption.startswith("There is no plan; what 1 % of the weights")
    assert all("(plan)" not in share for share in cells(blocks(page, "curve")[1], "share"))


@pytest.mark.parametrize(
    ("counts", "verify_sigma", "ways"),
    [
        ((0, 1000), 0.0, "harden or remap"),
        ((0, 1000), 0.1, "a smaller --verify-sigma, harden or remap"),
        ((0, 10), 0.1, "larger --shares, a smaller --verify-sigma, harden or remap"),
    ],
)
def test_what_else_may_reach_a_target(counts, verify_sigma, ways):
    """Only what is left to try is advised."""
    found = plan(counts=counts, chosen=None, target=0.99, verify_sigma=verify_sigma)
    assert reason_text(found) == f"{ways[0].upper()}{ways[1:]} may reach it"


def test_figure():
    """Band, mean and KPP over the square root of the share; lines for no noise and the target; the ring."""
    pytest.importorskip("plotly")
    from nvaudit.report.write_verify.figures import verify_figure

    found = plan(target=0.85)
    drawn = verify_figure(found)
    traces = {trace.name: trace for trace in drawn.data}
    assert list(traces) == ["interval", "without noise", "target 85 %", "mean", "KPP 1 %", "plan: 10 %"]
    places = pytest.approx([0, 0.1, 0.1**0.5, 1])
    assert list(traces["KPP 1 %"].x) == list(traces["mean"].x) == places
    assert list(traces["KPP 1 %"].y) == [one.kpp.value for one in found.curve]
    assert list(traces["mean"].y) == [one.mean for one in found.curve]
    band = list(traces["interval"].y)
    assert band[:4] == [one.kpp.high for one in found.curve]
    assert band[:3:-1] == [one.kpp.low for one in found.curve]
    assert set(traces["target 85 %"].y) == {0.85}
    assert set(traces["without noise"].y) == {0.98}
    assert (list(traces["plan: 10 %"].x), list(traces["plan: 10 %"].y)) == ([0.1**0.5], [found.choice.kpp])
    assert [shape.x0 for shape in drawn.layout.shapes] == [0.1**0.5]
    bare = verify_figure(plan(counts=(0, 10), chosen=None, target=0.9))
    assert not any(trace.name.startswith("plan") for trace in bare.data)
    assert bare.layout.shapes == ()


def test_few_chips(page_of):
    """A bound that is missing is said; the band then ends at the KPP."""
    page = page_of(plan(chips=50))
    figure, shares, _ = blocks(page, "curve")
    assert "KPP 1 %: no lower bound" in figure.caption
    assert "where it has no bound, the band ends at the KPP" in figure.legend
    assert cells(shares, "interval")[0].startswith("[no bound, ")
    assert "(" not in cells(shares, "gain, points")[-1], "there is no interval to stand behind the gain"


def test_one_share(page_of):
    """A curve of one point, where nothing is to be verified, is a page too."""
    page = page_of(plan(counts=(0,), chosen=0))
    assert page.hero.title.startswith("Verify none of the weights for")
    assert [big.label for big in page.hero.numbers] == [
        "KPP 1 %, none verified", "Without noise", "As given", "Write-verify operations",
    ]  # fmt: skip


def test_label_free(page_of):
    """The page warns before anything else."""
    assert page_of(plan(label_free=True)).hero.warnings[0].startswith("Label-free")
    assert page_of(plan()).hero.warnings == ()


@pytest.mark.parametrize(
    ("largest", "ticks"),
    [(1.0, [0, 0.05, 0.2, 0.5, 1]), (0.3, [0, 0.02, 0.05, 0.1, 0.2, 0.3]), (1e-3, None), (0.0, [0])],
)
def test_ticks(largest, ticks):
    """The axis names none, the largest share and round ones between, none of them close to another."""
    pytest.importorskip("plotly")
    from nvaudit.report.write_verify.figures import share_ticks

    found = share_ticks(largest)
    assert ticks is None or found == ticks
    places = [share**0.5 for share in found]
    assert all(b - a > 0.14 * largest**0.5 for a, b in pairwise(places))


def test_json_reads_back():
    """What is written is what was found."""
    found = plan(target=0.8)
    assert VerifyReport.model_validate_json(to_json(found), strict=True) == found
