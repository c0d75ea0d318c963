"""The share of the products on the array in every medium, with its warning and its gate."""

import io
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from report_samples import accuracies, report, share, summary
from rich.console import Console

from nvaudit.errors import DataError
from nvaudit.report import from_json, to_json
from nvaudit.report.cases import deciding_point
from nvaudit.report.crossbar import CrossbarInfo
from nvaudit.report.gates import decide
from nvaudit.report.kinds import document_of, junit_of, print_report, read_any
from nvaudit.report.mapped import (
    MOST_OFF,
    MappedShare,
    coverage_text,
    gate_lines,
    joint_verdict,
    judge_share,
    part_text,
    share_clause,
    share_warning,
)
from nvaudit.report.plots import figure_data
from nvaudit.report.render.markdown import markdown_document
from nvaudit.report.sections import OperatingPointInfo, SweepPoint
from nvaudit.stats.gate import overall_verdict
from nvaudit.stats.kpp import kpp


def text_of(audit, width=100):
    buffer = io.StringIO()
    print_report(audit, Console(file=buffer, width=width))
    return " ".join(buffer.getvalue().split())


def page_words(page):
    """Everything that a page says, without its charts."""
    hero = page.hero
    parts = [page.title, *hero.lines, *hero.warnings, hero.title, hero.word]
    parts += [f"{big.label}: {big.value} ({big.note})" for big in hero.numbers]
    for section in page.sections:
        for block in section.blocks:
            parts += [
                str(getattr(block, name))
                for name in ("text", "caption", "items", "rows")
                if hasattr(block, name)
            ]
    return "\n".join(parts)


def media(audit):
    """The text, the Markdown and the page's words."""
    return text_of(audit), markdown_document(document_of(audit)), page_words(document_of(audit))


def everything():
    """All of it on the array."""
    full = {"products": 1000, "share_of_products": 1.0, "weights": 100, "share_of_weights": 1.0, "off": ()}
    return share().model_copy(update=full)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.0, "100 %"), (0.99999, "above 99.9 %"), (0.0, "0 %"), (1e-9, "below 0.1 %"), (0.9925, "99.2 %")],
)
def test_a_share_never_reads_as_all_or_nothing_unless_it_is(value, shown):
    """99.999 % is not 100 %."""
    assert part_text(value) == shown


def test_the_share_is_in_every_medium():
    """Figures, the operator that is off and its reason are in text, Markdown, page and JUnit."""
    audit = report(mapped=share())
    for words in (*media(audit), junit_of(audit)):
        assert "95.0 % of the products" in words
        assert "950 of 1,000" in words
    for words in media(audit):
        assert "this form of the operator is not mapped" in words
        assert "12 products of two activations" in words
    assert from_json(to_json(audit), "r.json").mapped == share()


def test_a_few_percent_off_the_array_are_warned_of():
    """Above the named limit every medium warns with the largest offenders; below it none does."""
    loud, silent = report(mapped=share()), report(mapped=everything())
    for words in media(loud):
        assert "5.0 % of the products and 4.0 % of the product weights are off the array" in words
    for words in media(silent):
        assert "off the array" not in words
        assert "100 % of the products on the array" in words
    edge = share().model_copy(update={"share_of_products": 1 - MOST_OFF, "share_of_weights": 1.0})
    assert share_warning(edge) is None
    assert share_warning(edge.model_copy(update={"share_of_products": 0.9699})) is not None
    only_weights = share().model_copy(update={"share_of_products": 0.999, "share_of_weights": 0.5})
    assert "50.0 % of the product weights" in share_warning(only_weights)


def test_products_that_cannot_be_counted_leave_the_weights():
    """The headline then gives the share of the weights, and says which operator is in the way."""
    found = share().model_copy(
        update={
            "products": None,
            "products_total": None,
            "share_of_products": None,
            "uncounted": ("MatMul 'loop/body/m'",),
        }
    )
    assert share_clause(found) == "; 96.0 % of the product weights on the array"
    assert "cannot be counted beforehand (MatMul 'loop/body/m')" in coverage_text(found)
    assert gate_lines(judge_share(found, 0.97), found)[0].startswith("FAIL: ")
    assert judge_share(found, 0.96).verdict == "pass"


@pytest.mark.parametrize(("required", "verdict"), [(0.95, "pass"), (0.9500001, "fail"), (0.0, "pass")])
def test_the_gate_of_the_share(required, verdict):
    """It holds at the limit itself; a miss by a little is shown with digits that tell."""
    gate = judge_share(share(), required)
    assert gate.verdict == verdict
    first = gate_lines(gate, share())[0]
    assert first.startswith(f"{verdict.upper()}: at least {100 * required:.10g} % of the products must be")
    assert judge_share(share(), None) is None


@pytest.mark.parametrize(
    ("chips", "share_verdict", "all_of_it"),
    [
        (None, "pass", "pass"),
        (None, "fail", "fail"),
        ("pass", "fail", "fail"),
        ("undecided", "pass", "undecided"),
        ("undecided", "fail", "fail"),
        ("fail", "pass", "fail"),
    ],
)
def test_both_gates_must_hold(chips, share_verdict, all_of_it):
    """The verdict is the worse of that of the chips and that of the share."""
    gate = judge_share(share(), 0.9 if share_verdict == "pass" else 0.99)
    assert joint_verdict(chips, gate) == all_of_it


def test_a_missed_share_fails_in_every_medium():
    """Also where the chips pass: the verdict line, a JUnit case of its own, no advice to harden."""
    values = np.full(400, 0.95)
    audit = report(values, mapped=share(), mapped_gate=judge_share(share(), 0.99), verdict="fail")
    for words in media(audit):
        assert re.search(r"FAIL\W+at least 99 % of the products must be on the array, 95.0 % are", words)
        assert "nvaudit harden" not in words
    suite = ET.fromstring(junit_of(audit).encode()).find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    case = suite.findall("testcase")[-1]
    assert case.get("name") == "share of the products on the array at least 99 %"
    assert case.find("failure").get("type") == "fail"
    hero = document_of(audit).hero
    assert (hero.role, hero.word) == ("fail", "FAIL")


def test_a_share_gate_alone_is_a_gate():
    """Without --min-kpp the verdict is that of the share, and no medium says that there is no gate."""
    audit = report(gate=(), verdict="pass", mapped=share(), mapped_gate=judge_share(share(), 0.9))
    for words in media(audit):
        assert "had no gate" not in words
        assert "PASS" in words
    with pytest.raises(DataError, match="verdict"):
        from_json(to_json(audit).replace('"verdict": "pass"', '"verdict": "fail"', 1), "r.json")


def test_older_reports_have_no_share():
    """A report without the keys is read and shown as before."""
    old = json.loads(to_json(report()))
    del old["mapped"], old["mapped_gate"]
    for row in old["tensors"]:
        del row["products"]
    again = from_json(json.dumps(old), "old.json")
    assert again.mapped is None
    for words in media(again):
        assert "of the products" not in words


def sweep_of(*sigmas, threshold, mean=0.97):
    points = []
    for sigma in sigmas:
        values = accuracies(400, mean - 0.2 * sigma)
        points.append(
            SweepPoint(
                sigma=sigma,
                sigma_unit="level",
                kpp=(kpp(values, 1, 0.95, True),),
                gate=(decide(values, threshold, 1, 0.95, True),),
                trials=summary(values),
            )
        )
    top = max(points, key=lambda point: point.sigma)
    gates = tuple(gate for point in points for gate in point.gate)
    return report(
        np.array(top.trials.values),
        kpp=top.kpp,
        gate=gates,
        verdict=overall_verdict(gates),
        sweep=tuple(points),
        operating_point=OperatingPointInfo(sigma=top.sigma, sigma_unit="level", time_s=0.0, terms=()),
    )


def spelt_out(words):
    """At which σ the media spell the gate out."""
    found = re.findall(r"(?:PASS|FAIL|UNDECIDED|most 1 % of chips)[^.]{0,110}?σ = (0\.\d+)", words)
    return {float(sigma) for sigma in found}


@pytest.mark.parametrize("sigmas", [(0.2, 0.05), (0.05, 0.2), (0.05, 0.2, 0.1)])
def test_of_a_sweep_that_passes_every_medium_shows_the_hardest_gate(sigmas):
    """The largest σ, in whatever order they were given."""
    audit = sweep_of(*sigmas, threshold=0.8)
    assert (audit.verdict, deciding_point(audit).sigma) == ("pass", 0.2)
    for words in media(audit):
        assert spelt_out(words) == {0.2}


@pytest.mark.parametrize("sigmas", [(0.4, 0.3, 0.01), (0.01, 0.3, 0.4)])
def test_of_a_sweep_that_fails_every_medium_shows_where_it_begins(sigmas):
    """The smallest σ at which the gate does not hold, and the remedy is for that one."""
    audit = sweep_of(*sigmas, threshold=0.9, mean=0.96)
    failing = [point.sigma for point in audit.sweep if point.gate[0].verdict == "fail"]
    assert (audit.verdict, min(failing)) == ("fail", 0.3)
    assert deciding_point(audit).sigma == 0.3
    for words in media(audit):
        assert spelt_out(words) == {0.3}
        assert "--sigma 0.3" in words


def converted():
    """The example on rram with 4-bit converters: 98.16 % quantised, 95.81 % converted."""
    crossbar = CrossbarInfo(
        rows=256, cols=256, adc_bits=4, dac_bits=None, adc_range="max", samples=64, crossbars=4,
        quantised_ideal=0.98157, layers=(),
    )  # fmt: skip
    return report(nominal=0.98157, quantised=0.95812, crossbar=crossbar)


def test_converters_are_not_called_mapping():
    """Every medium says what the mapping costs and what the converters cost, with the same figures."""
    for words in media(converted()):
        assert "no change by mapping" in words
        assert "−2.35 points by 4-bit ADCs" in words
        assert "points by mapping" not in words
        assert "98.16 %" in words
        assert "95.81 %" in words
    assert "quantised 98.16 %, converted 95.81 %" in junit_of(converted())


def test_the_waterfall_has_a_step_for_converters():
    """Five bars instead of four, and the caption says what each is."""
    (losses,) = [section for section in document_of(converted()).sections if section.name == "losses"]
    figure = losses.blocks[0]
    assert [str(name) for name in figure_data(figure.draw())["data"][0]["x"]][:3] == [
        "ideal",
        "quantised",
        "converted",
    ]
    assert "its converters make it 95.81 %" in figure.caption


def test_a_report_of_no_kind_says_what_was_found():
    """Neither an audit nor any other: what it has instead, and what to give."""
    with pytest.raises(DataError) as raised:
        read_any('{"schema_version": 1, "weather": "fine"}', "r.json")
    message = str(raised.value)
    assert message.startswith("r.json: ")
    assert "'weather'" in message
    assert "give the JSON report of a command of nvaudit" in message


def test_nothing_to_map_has_no_share():
    """A model without products: no clause in the headline, and a gate of the share fails."""
    none = MappedShare(
        products=0, products_total=0, share_of_products=None, weights=0, weights_total=0,
        share_of_weights=None, activation_products=0, samples=1, uncounted=(), off=(),
    )  # fmt: skip
    assert share_clause(none) == ""
    assert judge_share(none, 0.5).verdict == "fail"
    assert "no product with a weight" in gate_lines(judge_share(none, 0.5), none)[0]
