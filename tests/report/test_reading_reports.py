"""Reports are read back as they were written, also those of a version that wrote no kind."""

import io
import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from nvaudit.errors import DataError
from nvaudit.report.header import Header
from nvaudit.report.jsontext import to_json
from nvaudit.report.kinds import KINDS, print_report, read_any, schema_text
from nvaudit.report.result import from_json

GOLDEN = Path(__file__).parents[1] / "golden"
OLD = sorted(
    path for path in GOLDEN.glob("*/report.json") if '"libraries"' not in path.read_text(encoding="utf-8")
)
"""Written by the version before, which wrote no kind and the device of most kinds by name only."""

OF = {"audit": "audit", "write_verify": "verify-plan"}


def kind_of(path):
    """The kind that a golden case is of, by its name."""
    return OF.get(path.parent.name.split("_")[0], OF.get(path.parent.name, path.parent.name))


def named_as_today(value):
    """The same with the options of every run, at any depth, under their names of today."""
    if isinstance(value, list):
        return [named_as_today(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: named_as_today(item) for key, item in value.items()}
    if isinstance(found.get("run"), dict) and "output" in found["run"]:
        found["run"] = {"output_name" if k == "output" else k: v for k, v in found["run"].items()}
    return found


def holds(new, old) -> bool:
    """Whether everything of an old part is in the new one, which may say more of the same thing."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(key in new and holds(new[key], old[key]) for key in old)
    if isinstance(old, list):
        return isinstance(new, list) and len(new) == len(old) and all(map(holds, new, old))
    return bool(new == old)


FIRST_WRITTEN_NOW = {"cost"}
"""Kinds without an older file, whose reports hold measured numbers and are kept as files therefore."""


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.parent.name)
def test_an_old_file_is_read(path):
    """Its kind is known, nothing of it is lost, and what is written again is read as the same."""
    text = path.read_text(encoding="utf-8")
    old = json.loads(text)
    if kind_of(path) not in FIRST_WRITTEN_NOW:
        assert "nvaudit_version" not in old if kind_of(path) == "plan" else "kind" not in old
    kind, report = read_any(text, "r.json")
    assert report.kind == kind.name == kind_of(path)
    assert report.libraries == {}
    written = to_json(report)
    assert read_any(written, "r.json") == (kind, report)
    new = json.loads(written)
    assert set(old) <= set(new)
    today = named_as_today(old)
    for key in set(old) - {"device", "model", "operating_point", "hashes", "verify_plan"}:
        assert holds(new[key], today[key]), key
    if isinstance(old.get("device"), str):
        assert new["device"] == {"name": old["device"]}
        assert report.device_name == old["device"]


def test_every_kind_has_a_golden_report():
    """So that every schema is tried."""
    assert {json.loads(path.read_text(encoding="utf-8"))["kind"] for path in WRITTEN} == {
        kind.name for kind in KINDS
    }


def test_every_kind_has_an_old_file():
    """But those that only this version writes."""
    later = {"inspect", "device", "devices", "map", "fit", "calibrate", "check", "config", "explore"}
    later |= {"cost", "technology", "technologies", "sweep"}
    assert {kind_of(path) for path in OLD} == {kind.name for kind in KINDS} - later


WRITTEN = sorted(GOLDEN.glob("*/written.json"))


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.parent.name)
def test_what_is_written_fits_its_schema(path):
    """Every golden JSON is valid by the schema of its kind, by no other, and is read as it was written."""
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    kind, report = read_any(text, "r.json")
    assert to_json(report) + "\n" == text
    fitting = [
        other.name
        for other in KINDS
        if jsonschema.Draft202012Validator(json.loads(schema_text(other))).is_valid(content)
    ]
    assert fitting == [kind.name]


def test_the_header_is_the_same_everywhere():
    """Every kind has every field of it, in the same order, before its own."""
    for kind in KINDS:
        assert list(kind.model.model_fields)[: len(Header.model_fields)] == list(Header.model_fields)


def test_an_old_hardening_says_where_it_stood():
    """Its operating point was a sentence; the numbers in it are read."""
    _, report = read_any((GOLDEN / "harden" / "report.json").read_text(encoding="utf-8"), "r.json")
    assert (report.operating_point.sigma, report.operating_point.sigma_unit) == (0.1, "level")
    assert (report.model.path, report.model.opset) == ("examples/digits_cnn.onnx", None)
    assert report.verify_plan.kind == "verify-plan"


def test_another_kind_is_named():
    """A file of no kind says what it has; an audit is asked for by its name."""
    with pytest.raises(DataError, match=r"it has kind 'price'; give the JSON report of a command"):
        read_any('{"schema_version": 1, "kind": "price"}', "r.json")
    with pytest.raises(DataError, match=r"it has 'a', 'b'; give the JSON report of a command"):
        read_any('{"schema_version": 1, "a": 1, "b": 2}', "r.json")
    with pytest.raises(
        DataError, match=r"r.json: kind: got 'landscape'; give a report.json of nvaudit audit"
    ):
        from_json((GOLDEN / "landscape" / "report.json").read_text(encoding="utf-8"), "r.json")


def test_an_old_audit_is_replayed(command, example, tmp_path, monkeypatch):
    """With the options under their names of today; and compared."""
    monkeypatch.chdir(example.parents[1])
    path = GOLDEN / "audit_plain" / "report.json"
    ran = command("replay", path, "--trial", 0, "-o", tmp_path / "chip.onnx")
    assert ran.code == 0, ran.err
    assert "the file measures the same" in ran.out
    other = shutil.copy(path, tmp_path / "other.json")
    ran = command("compare", path, other, "-q", "-o", tmp_path / "both.json")
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "both.json").read_text())["differences"][0]["kpp"]["value"] == 0


def test_print_report_knows_every_kind():
    """Each is printed for a person."""
    for path in OLD:
        _, report = read_any(path.read_text(encoding="utf-8"), "r.json")
        buffer = io.StringIO()
        print_report(report, Console(file=buffer, width=200))
        assert buffer.getvalue().strip()
