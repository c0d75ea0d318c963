"""Comparisons of audits: ranks, the choice, differences, what is refused, and every renderer."""

import csv
import io
import json

import numpy as np
import pytest
from report_samples import accuracies, report, tensors
from rich.console import Console

from nvaudit.errors import OptionError
from nvaudit.report.comparison.build import Entry, compare_reports
from nvaudit.report.comparison.document import bar_lines, comparison_document
from nvaudit.report.comparison.result import ComparisonReport
from nvaudit.report.jsontext import to_json
from nvaudit.report.kinds import csv_of
from nvaudit.report.render.html import html_document
from nvaudit.report.render.terminal import print_document
from nvaudit.report.sections import DataInfo, Hashes, MetricInfo, ModelInfo, OperatingPointInfo, Roughness
from nvaudit.stats.kpp import kpp, yield_at

CHIPS = 500


def rough(value, **changes):
    content = {"value": value, "spread": value / 2, "pairs": 4, "grid": 9, "span": 0.3, "images": 64}
    return Roughness(**(content | {"batch_norm": "stored", "loss": "cross_entropy"} | changes))


def audit(mean, address, roughness=0.001, prefix="", **changes):
    """An audit of 500 chips; with a prefix, of tensors of its own."""
    named = tuple(t.model_copy(update={"name": prefix + t.name}) for t in tensors())
    values = accuracies(CHIPS, mean, address=address)
    content = {
        "tensors": named,
        "roughness": rough(roughness) if isinstance(roughness, float) else roughness,
        "timing": {"total": 1.5},
    }
    return report(values, **(content | changes))


def entries(**reports):
    return {name: Entry(found) for name, found in reports.items()}


@pytest.fixture(scope="module")
def three() -> dict[str, Entry]:
    """Models a, b and c: b is best, a close to it, c far behind; b fails no gate, c does."""
    return entries(
        a=audit(0.950, 1, 0.002), b=audit(0.956, 2, 0.001), c=audit(0.85, 3, 0.004, prefix="other.")
    )


@pytest.fixture(scope="module")
def compared(three) -> ComparisonReport:
    return compare_reports(three, version="1", timing={"total": 5.0})


def shown(found, width=100):
    stream = io.StringIO()
    print_document(comparison_document(found), Console(file=stream, width=width, legacy_windows=False))
    return stream.getvalue()


def test_the_best_stands_first(three, compared):
    """Models are ordered by KPP, and the numbers are those of their reports."""
    assert [model.name for model in compared.models] == ["b", "a", "c"]
    assert [model.place for model in compared.models] == [1, 2, 3]
    assert (compared.best, compared.baseline) == ("b", "b")
    for model in compared.models:
        source = three[model.name].report
        assert model.kpp == source.kpp
        assert model.mean == source.trials.mean
        assert model.size.weights == 16 * 9 + 32 * 16 * 9
        assert (model.size.devices, model.size.crossbars) == (576 + 18432, 8)
        assert model.roughness.standard_error == pytest.approx(source.roughness.value / 4)


@pytest.mark.parametrize(
    ("measure", "order"), [("kpp", "bac"), ("mean", "bac"), ("roughness", "bac"), ("yield", "bac")]
)
def test_every_measure_ranks(three, measure, order):
    """By each measure the best stands first, whatever order the models were given in."""
    for names in ("abc", "cba"):
        found = compare_reports({name: three[name] for name in names}, measure, version="1")
        assert "".join(model.name for model in found.models) == order
        assert found.rank_by == measure


def test_lower_is_better_for_roughness_and_size():
    """And equal sizes share a place and are ordered by KPP."""
    found = compare_reports(
        entries(a=audit(0.95, 1, 0.003), b=audit(0.90, 2, 0.001), c=audit(0.92, 3, 0.002)),
        "roughness",
        version="1",
    )
    assert [model.name for model in found.models] == ["b", "c", "a"]
    assert [model.places["size"] for model in found.models] == [1, 1, 1]
    by_size = compare_reports(
        entries(a=audit(0.95, 1), b=audit(0.90, 2, tensors=tensors()[1:]), c=audit(0.96, 3)),
        "size",
        version="1",
    )
    assert [(model.name, model.place) for model in by_size.models] == [("b", 1), ("c", 2), ("a", 2)]


def test_a_loss_ranks_upwards():
    """Of a loss the smallest KPP is the best, and the worst end of its interval is the upper one."""
    values = {name: 0.1 + 0.05 * i + 0.01 * accuracies(CHIPS, address=i) for i, name in enumerate("abc")}
    found = compare_reports(
        entries(**{name: report(each, higher=False, unit="nats") for name, each in values.items()}),
        version="1",
    )
    assert [model.name for model in found.models] == ["a", "b", "c"]
    assert all(item.kpp.low > 0 for item in found.differences)


def test_a_gate_restricts_the_choice(three):
    """The chosen model is the best of those that pass; the comparison passes if one does."""
    passing = {name: entry.report.verdict for name, entry in three.items()}
    assert passing["c"] == "fail"
    smallest = audit(0.85, 3, 0.0001, prefix="other.")
    found = compare_reports({**three, "c": Entry(smallest)}, "roughness", version="1")
    assert (found.best, found.chosen) == ("c", "b")
    assert found.verdict == "pass"
    assert found.baseline == "b"
    assert found.headline.startswith("PASS: b is best of the ")


def test_no_model_passes():
    """Then none is chosen, and the headline says so."""
    found = compare_reports(entries(a=audit(0.85, 1), b=audit(0.8, 2)), version="1")
    assert (found.best, found.chosen, found.verdict) == ("a", None, "fail")
    assert "none of which passes" in found.headline
    assert "0 of 2 models pass" in shown(found)


def test_different_gates_are_left_out():
    """Verdicts on different questions say nothing together."""
    other = audit(0.9, 2, gate=(), verdict=None, yields=())
    found = compare_reports(entries(a=audit(0.95, 1), b=other), version="1")
    assert (found.verdict, found.chosen) == (None, "a")
    assert "the gates of the runs differ and are left out" in found.notes
    assert found.models[0].yields == ()


def test_chips_are_told_apart(compared):
    """Equal tensors have the same noise, others noise of their own, and the interval takes that in."""
    relations = {item.model: (item.chips, item.method) for item in compared.differences}
    assert relations == {"a": ("same", "chips"), "c": ("independent", "chips")}
    far = next(item for item in compared.differences if item.model == "c")
    assert far.kpp.high < 0
    assert far.mean.high < 0


def test_partly_shared_chips():
    """One tensor of the same name is enough for chips that are not independent."""
    one = (tensors()[0], tensors()[1].model_copy(update={"name": "own"}))
    found = compare_reports(entries(a=audit(0.95, 1), b=audit(0.9, 2, tensors=one)), version="1")
    assert found.differences[0].chips == "partly_shared"


def test_another_seed_makes_chips_independent():
    """Also of equal tensors."""
    found = compare_reports(
        entries(a=audit(0.95, 1), b=audit(0.9, 2, run={"seed": 7, "trials": CHIPS, "sigmas": [0.1]})),
        version="1",
    )
    assert found.differences[0].chips == "independent"
    assert "the runs differ in seed: a 0, b 7" in found.notes


def test_stopped_chips():
    """A raced audit has an interval of the KPP difference, but not of the mean."""
    values = accuracies(1000, 0.95, address=1)
    limit = np.sort(values)[17]
    base = audit(0.95, 1)
    trials = base.trials.model_copy(
        update={
            "count": 1000,
            "values": tuple(v if v <= limit else None for v in values.tolist()),
            "weights": None,
        }
    )
    raced = base.model_copy(update={"trials": trials, "kpp": (kpp(values, 1, 0.95, True),)})
    found = compare_reports(entries(a=raced, b=audit(0.94, 2)), version="1").differences[0]
    assert found.method == "bounds"
    assert found.kpp.low < found.kpp.value < found.kpp.high
    assert "--exhaustive" in found.mean.missing


@pytest.mark.parametrize(
    ("data", "labels", "images"),
    [
        ("89abcdef01234567" * 4, (None, None), "same"),
        ("0" * 64, ("x", "x"), "same"),
        ("0" * 64, ("x", "y"), "different"),
        ("0" * 64, ("x", None), "unknown"),
    ],
)
def test_images(data, labels, images):
    """The same labels mean the same images; others add an error that the intervals do not contain."""
    changed = audit(0.9, 2, hashes=Hashes(model="0" * 64, data=data, device="0" * 64))
    pair = {"a": Entry(audit(0.95, 1), labels[0]), "b": Entry(changed, labels[1])}
    found = compare_reports(pair, version="1")
    item = found.differences[0]
    assert item.images == images
    assert (item.image_error is None) == (images == "same")
    if images != "same":
        assert item.image_error == pytest.approx(0.0073 * 2**0.5)
        assert "the images add a standard error of 1.03 points" in " ".join(shown(found).split())


def test_other_counts_are_other_images():
    """Whatever the labels' digests say."""
    fewer = audit(0.9, 2, hashes=Hashes(model="0" * 64, data="1" * 64, device="0" * 64),
                  data=DataInfo(source="d.npz", count=100, label_kind="class"))  # fmt: skip
    found = compare_reports({"a": Entry(audit(0.95, 1), "x"), "b": Entry(fewer, "x")}, version="1")
    assert found.differences[0].images == "different"


def test_correlation_of_roughness(compared):
    """Roughness and KPP in opposite order correlate at −1, with the remark that three models say little."""
    assert [(c.first, c.second) for c in compared.correlations] == [
        ("roughness", "kpp"),
        ("roughness", "mean"),
    ]
    assert compared.correlations[0].value == pytest.approx(-1)
    assert "3 models say little" in compared.correlations[0].remark


def test_roughness_of_other_settings_is_left_out():
    """Roughnesses are compared only if they were measured alike."""
    other = audit(0.9, 2, roughness=rough(0.001, span=0.5))
    found = compare_reports(entries(a=audit(0.95, 1), b=other), version="1")
    assert all(model.roughness is None for model in found.models)
    assert found.correlations == ()
    assert "different settings" in found.notes[0]


TABULATED = {
    "device": {"device": {"name": "rram", "schema_version": 1, "window": None}},
    "device: window": {"device": {"name": "fefet1", "schema_version": 1, "window": {"unit": "us"}}},
    "sigma": {
        "operating_point": OperatingPointInfo(sigma=0.2, sigma_unit="level", time_s=0, terms=("programming",))
    },
    "unit of sigma": {
        "operating_point": OperatingPointInfo(
            sigma=0.1, sigma_unit="full_scale", time_s=0, terms=("programming",)
        )
    },
    "time": {
        "operating_point": OperatingPointInfo(sigma=0.1, sigma_unit="level", time_s=9, terms=("programming",))
    },
    "noise terms": {"operating_point": OperatingPointInfo(sigma=0.1, sigma_unit="level", time_s=0, terms=())},
}
REFUSED = {
    "percentile": {"kpp": (kpp(accuracies(CHIPS), 5, 0.95, True),)},
    "confidence": {"kpp": (kpp(accuracies(CHIPS), 1, 0.9, True),)},
    "metric": {"metric": "top5"},
    "unit of the metric": {"metric_info": MetricInfo(higher_is_better=True, unit="score")},
    "labels": {"label_free": True},
}


IN_THE_TABLE = {"device: window": "profile", "sigma": "σ", "unit of sigma": "σ"}
"""Names of conditions in the table where they are other words."""


@pytest.mark.parametrize("what", TABULATED)
def test_other_devices_and_operating_points_are_named(what):
    """Each model has what it differs in, and nothing else, beside its numbers."""
    made = compare_reports(entries(a=audit(0.95, 1), b=audit(0.9, 2, **TABULATED[what])), version="1")
    first, second = (model.conditions for model in made.models)
    assert set(first) == set(second) == {IN_THE_TABLE.get(what, what)}
    assert first != second


def test_where_a_profile_comes_from_is_no_condition():
    """Another citation or description makes no other chips, and is not named."""
    first = audit(0.95, 1)
    described = {**first.device, "description": "New words.", "source": {"citation": "Another paper."}}
    made = compare_reports(entries(a=first, b=audit(0.9, 2, device=described)), version="1")
    assert [model.conditions for model in made.models] == [{}, {}]


@pytest.mark.parametrize("what", REFUSED)
def test_numbers_of_another_kind_are_refused(what):
    """Percentile and metric must be equal; the message names what is not."""
    with pytest.raises(OptionError, match=f"a and b cannot be compared: {what}: "):
        compare_reports(entries(a=audit(0.95, 1), b=audit(0.9, 2, **REFUSED[what])), version="1")


def test_what_makes_no_comparison_is_refused(three):
    """One model, a baseline that is none of them, a measure that no model has."""
    with pytest.raises(OptionError, match="needs two models or more, got 1"):
        compare_reports({"a": three["a"]}, version="1")
    with pytest.raises(OptionError, match="--baseline 'x' is none of the models; use one of a, b, c"):
        compare_reports(three, baseline="x", version="1")
    bare = entries(a=audit(0.95, 1, yields=(), roughness=0.1), b=audit(0.9, 2, yields=()))
    with pytest.raises(OptionError, match="--rank yield: no model has it; give a threshold"):
        compare_reports(bare, "yield", version="1")


def test_a_given_baseline(three):
    """Differences are taken from it, and nothing is said of a choice by the same chips."""
    found = compare_reports(three, baseline="c", version="1")
    assert {item.model for item in found.differences} == {"a", "b"}
    assert all(item.baseline == "c" and item.kpp.low > 0 for item in found.differences)
    assert "favours it" not in shown(found)
    assert "favours it" in shown(compare_reports(three, version="1"))


def test_json_reads_back(compared):
    """The JSON holds the comparison exactly, and equal comparisons give equal text."""
    text = to_json(compared)
    assert ComparisonReport.model_validate_json(text, strict=True) == compared
    assert json.loads(text)["models"][0]["places"] == {
        "kpp": 1, "mean": 1, "nominal": 1, "yield": 1, "roughness": 1, "size": 1
    }  # fmt: skip


def test_csv(compared):
    """A line for each model, with exact numbers; what is missing is empty."""
    rows = list(csv.DictReader(io.StringIO(csv_of(compared))))
    assert [row["model"] for row in rows] == ["b", "a", "c"]
    for row, model in zip(rows, compared.models, strict=True):
        assert float(row["kpp_1"]) == model.kpp[0].value
        assert float(row["kpp_1_low"]) == model.kpp[0].low
        assert float(row["yield_0.9"]) == model.yields[0].share
        assert int(row["devices"]) == model.size.devices
    assert rows[0]["kpp_difference"] == ""
    assert float(rows[2]["kpp_difference_high"]) < 0


def test_csv_holds_no_formula():
    """A name that a spreadsheet would compute is text."""
    hostile = audit(0.95, 1, model=ModelInfo(path="=cmd()", opset=1, inputs=(), outputs=(), batching=""))
    found = compare_reports({"=1+1": Entry(hostile), "b": Entry(audit(0.9, 2))}, version="1")
    rows = list(csv.DictReader(io.StringIO(csv_of(found))))
    assert (rows[0]["model"], rows[0]["path"]) == ("'=1+1", "'=cmd()")


@pytest.mark.parametrize("width", [40, 100, 200])
def test_text_is_complete_at_every_width(compared, width):
    """All numbers of the table are there, on one or two tables or in paragraphs, and no line is too long."""
    text = shown(compared, width)
    assert text.startswith("PASS: b is best of the 2 of 3 that pass"[:width].rsplit(" ", 1)[0])
    for model in compared.models:
        assert f"{100 * model.kpp[0].value:.2f} %" in text
        assert f"{100 * model.mean:.2f} %" in text
        assert f"{1e3 * model.roughness.value:.4g}" in text
        assert "19,008" in text
    if width >= 100:
        assert max(len(line) for line in text.splitlines()) <= width


def test_text_of_many_percentiles(three):
    """Only percentiles that all models have are compared; the first one ranks."""
    values = {name: np.array(entry.report.trials.values) for name, entry in three.items()}
    more = {
        name: Entry(
            entry.report.model_copy(update={"kpp": tuple(kpp(values[name], k, 0.95, True) for k in ks)})
        )
        for (name, entry), ks in zip(three.items(), [(5, 1, 10), (5, 10), (5, 10, 1)], strict=True)
    }
    found = compare_reports(more, version="1")
    assert [[item.percentile for item in model.kpp] for model in found.models] == [[5, 10]] * 3
    assert found.percentile == 5


def test_ascii_terminal(compared):
    """A console without Unicode gets the same picture in ASCII."""
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding="ascii", write_through=True)
    print_document(comparison_document(compared), Console(file=stream, width=100))
    assert b"# KPP, - its interval" in buffer.getvalue()


def test_bars_stand_in_order(compared):
    """The KPP stands inside its interval, the mean to its right, and a better model further right."""
    drawn = bar_lines(compared, 63)[: len(compared.models)]
    lines = dict(zip((m.name for m in compared.models), drawn, strict=True))
    for name, line in lines.items():
        assert line.startswith(f"{name}  ")
        assert len(line) <= 63
        assert line.index("█") < line.index("·") < line.index("|")
        assert "─" in line
    assert lines["b"].index("█") > lines["c"].index("█")


def test_bars_of_equal_models():
    """Where nothing differs at all there is still a picture."""
    same = report(np.full(CHIPS, 0.9), nominal=0.9)
    found = compare_reports(entries(a=same, b=same), version="1")
    assert bar_lines(found, 5)[:2] == ["a  █", "b  █"]
    assert "a" in shown(found)


def test_no_model_is_best_of_equal_ones(three):
    """Models with the same value share the first place, in the headline and on the page; others do not."""
    same = report(np.full(CHIPS, 0.9), nominal=0.9)
    found = compare_reports(entries(a=same, b=same), version="1")
    assert found.equals == ("a", "b")
    assert found.headline.startswith("PASS: a and b share the first place of the 2 of 2 that pass by KPP 1 %")
    title = comparison_document(found).hero.title
    assert title == "a and b share the first place by KPP of those that pass"
    better = report(np.full(CHIPS, 0.91), nominal=0.91)
    found = compare_reports(entries(a=same, b=better), version="1")
    assert found.equals == ("b",)
    assert found.headline.startswith("PASS: b is best of the 2 of 2 that pass by ")


def test_hostile_names_are_harmless(compared):
    """Names from files are text in the page and on the terminal."""
    pytest.importorskip("plotly")
    name = "<script>alert(1)</script>\x1b[2J"
    found = compare_reports({name: Entry(audit(0.95, 1)), "b": Entry(audit(0.9, 2))}, version="1")
    page = html_document(comparison_document(found))
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert "\x1b[2J" not in shown(found)


def test_page(compared):
    """The page holds the table, two figures, and refers to no other file."""
    pytest.importorskip("plotly")
    page = html_document(comparison_document(compared))
    assert len(page.encode()) < 6_000_000
    assert page.count("data-figure=") >= 2
    for name in ("a", "b", "c"):
        assert f">{name}</th>" in page
    assert "Spearman correlation of roughness and KPP" in page
    assert 'src="http' not in page


def test_page_without_roughness():
    """There is one figure less, and the page says why."""
    pytest.importorskip("plotly")
    found = compare_reports(
        entries(a=audit(0.95, 1, roughness=None), b=audit(0.9, 2, roughness=None)), version="1"
    )
    page = html_document(comparison_document(found))
    assert 'id="plot-kpp"' in page
    assert 'id="plot-roughness"' not in page
    assert "No model has a roughness" in page


def test_missing_yield_direction():
    """Yields of a loss rank the larger share first."""
    values = [0.1 + 0.01 * accuracies(CHIPS, address=i) + 0.02 * i for i in range(2)]
    pair = [report(v, higher=False, unit="nats", gate=(), verdict=None,
                   yields=(yield_at(v, 0.125, 0.95, False),)) for v in values]  # fmt: skip
    found = compare_reports(entries(a=pair[0], b=pair[1]), "yield", version="1")
    assert [model.name for model in found.models] == ["a", "b"]
