"""The report as JSON, and its schema."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from pydantic import ValidationError
from report_samples import full_report, report

import nvaudit.report
from nvaudit.errors import DataError
from nvaudit.report import from_json, to_json
from nvaudit.report.jsontext import write_json
from nvaudit.report.kinds import KINDS, schema_text
from nvaudit.report.sections import TrialSummary

KEYS = [
    "kind", "schema_version", "nvaudit_version", "libraries", "headline", "label_free", "metric",
    "metric_info", "model", "data", "device", "operating_point", "codes", "runtime", "run", "hashes",
    "timing", "events", "notes", "verdict", "interrupted", "time_boxed", "nominal", "quantised", "kpp",
    "yields", "gate", "drops", "baseline", "mapped", "mapped_gate", "tail", "rare", "rare_tail",
    "rare_attribution", "trials",
    "sweep", "calibrated", "measured_chips", "roughness", "landscape", "tensors", "device_levels",
    "crossbar", "zero_groups", "cost", "attribution", "attribution_detail", "remedy",
]  # fmt: skip


@pytest.mark.parametrize("make", [report, full_report])
def test_round_trip_is_exact(make):
    """Writing, reading and writing again gives the same report and the same text."""
    original = make()
    text = to_json(original)
    again = from_json(text, "report.json")
    assert again == original
    assert to_json(again) == text
    assert json.loads(text)["trials"]["values"] == list(original.trials.values)


def test_keys_are_the_promised_ones_in_order():
    """The top-level keys are exactly those of the contract."""
    assert list(json.loads(to_json(report()))) == KEYS


def test_floats_are_exact():
    """Values that decimals cannot hold shortly come back bit for bit."""
    values = np.array([1 / 3, np.nextafter(0.9, 1), 5e-324, 0.1 + 0.2])
    back = from_json(to_json(report(values)), "r")
    assert back.trials.values == tuple(values.tolist())


def test_lists_of_numbers_stay_compact():
    """A thousand trials do not take a thousand lines."""
    text = to_json(report(np.linspace(0.9, 1, 1000)))
    assert text.count("\n") < 500
    assert max(map(len, text.splitlines())) < 200


SCHEMAS = Path(nvaudit.report.__file__).with_name("schemas")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_schemas_are_fresh(kind):
    """The committed schema of every kind is that of the code; if not: make schema."""
    committed = SCHEMAS / f"{kind.name}.schema.json"
    assert committed.read_text(encoding="utf-8") == schema_text(kind)


def test_there_is_no_schema_of_another_kind():
    """A file of a kind that is gone is no promise any more."""
    assert {path.name for path in SCHEMAS.iterdir()} == {f"{kind.name}.schema.json" for kind in KINDS}


@pytest.mark.parametrize("make", [report, full_report])
def test_report_obeys_the_schema(make):
    """Reports validate against the schema; a foreign key or a missing one does not."""
    validator = jsonschema.Draft202012Validator(json.loads(schema_text(KINDS[0])))
    content = json.loads(to_json(make()))
    validator.validate(content)
    assert not validator.is_valid(content | {"extra": 1})
    assert not validator.is_valid({key: content[key] for key in KEYS if key != "headline"})
    assert not validator.is_valid(content | {"verdict": "maybe"})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_must_be_finite(number):
    """NaN and infinity are refused, in typed fields and in free-form ones."""
    for changes in ({"nominal": number}, {"timing": {"x": number}}, {"run": {"deep": [{"x": number}]}}):
        with pytest.raises(ValidationError, match="finite"):
            report(**changes)
    with pytest.raises(ValueError, match="JSON"):
        write_json({"deep": [{"x": number}]})


def change(**changes: object) -> str:
    return json.dumps(json.loads(to_json(report())) | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "r.json: is no JSON; give "),
        ("[1, 2", "r.json: is no JSON at line 1, column 6; give "),
        ("[1, 2]", "r.json: schema_version: missing: this nvaudit reads version 1"),
        ("{}", "r.json: schema_version: missing"),
        ('{"schema_version": 2}', "r.json: schema_version: got 2: this nvaudit reads version 1"),
        ('{"schema_version": true}', "r.json: schema_version: got True"),
        ('{"schema_version": 1, "schema_version": 1}', "r.json: not a report: schema_version is given twice"),
        ('{"schema_version": 1}', r"r.json: nvaudit_version: missing \(and \d+ more\)"),
        ("[" * 100_000, "r.json: not a report: "),
        ('{"schema_version": ' + "1" * 5000 + "}", "r.json: not a report: "),
        (change(nominal="0.9"), "r.json: nominal: got '0.9': "),
        (change(surprise=1), "r.json: surprise: got 1: unknown key"),
        (change(run={"x": float("nan")}), "r.json: not a report: got NaN, which is not a JSON number"),
        (change(run={"x": float("inf")}), "r.json: not a report: got Infinity"),
        (change(run={"x": 0}).replace('"x": 0', '"x": 1e999'), "r.json: not a report: the number 1e999"),
        (change(verdict="fail"), "r.json: the report as a whole: .*'fail', but the gates say 'pass'"),
        (change(gate=[]), "r.json: the report as a whole: .*'pass' without a gate"),
        (change(label_free=1), "r.json: label_free: got 1: "),
    ],
    ids=range(18),
)  # fmt: skip
def test_bad_reports_are_refused(text, message):
    """A text that is not a report gives an error that says where and what."""
    with pytest.raises(DataError, match=message):
        from_json(text, "r.json")


def test_every_cut_is_refused():
    """A report cut anywhere is refused with an error of ours."""
    text = to_json(report(np.array([0.9, 0.95])))
    for end in range(0, len(text) - 1, 97):
        with pytest.raises(DataError):
            from_json(text[:end], "r.json")


def test_one_value_for_each_trial():
    """Count and values must agree."""
    with pytest.raises(ValidationError, match="2 values for 3 trials"):
        TrialSummary(
            count=3, values=(1.0, 2.0), images_evaluated=1, images_exhaustive=1, exact=True,
            mean=1.5, std=0.5, min=1.0, max=2.0,
        )  # fmt: skip


def test_reports_are_frozen():
    """A report cannot be changed by accident."""
    with pytest.raises(ValidationError, match="frozen"):
        report().nominal = 1.0
