"""`nvaudit compare` of reports of several devices, sigmas, times: named differences, gates, the best."""

import json
import shutil
from pathlib import Path

import pytest

import nvaudit
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_GATE, EXIT_OK
from nvaudit.report.jsontext import to_json

FEW = {"trials": 60, "limit": 60, "workers": 0, "roughness": False, "percentiles": (10.0,)}


@pytest.fixture(scope="module")
def made(example, tmp_path_factory) -> Path:
    """Reports of one model: two devices, and another sigma."""
    folder = tmp_path_factory.mktemp("conditions")
    runs = {
        "mild": ("rram", {}),
        "harsh": ("rram", {"sigmas": (0.3,)}),
        "old": ("pcm", {"time_s": 86400.0}),
    }
    for name, (device, more) in runs.items():
        report = nvaudit.audit(example, device, **FEW, **more)
        (folder / f"{name}.json").write_text(to_json(report), encoding="utf-8")
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch) -> Path:
    """A copy of the reports as the working folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_conditions_are_named(command, here):
    """What differs has a column, what does not has none; the headline states the conditions of the best."""
    ran = command("compare", "mild.json", "harsh.json", "old.json", "-o", "c.json")
    assert ran.code == EXIT_OK, ran.err
    report = json.loads(Path("c.json").read_text(encoding="utf-8"))
    conditions = {model["name"]: model["conditions"] for model in report["models"]}
    assert {name: (words["device"], words["σ"], words["time"]) for name, words in conditions.items()} == {
        "mild": ("rram", "0.1 level spacings", "0 s"),
        "harsh": ("rram", "0.3 level spacings", "0 s"),
        "old": ("pcm", conditions["old"]["σ"], "1 d"),
    }
    assert ran.out.startswith("mild and old share the first place of 3 by KPP 10 %")
    assert "on rram, sigma 0.1 level spacings, time 0 s" in " ".join(ran.out.split())
    ran = command("compare", "mild.json", "harsh.json", "-o", "c.json")
    report = json.loads(Path("c.json").read_text(encoding="utf-8"))
    assert [list(model["conditions"]) for model in report["models"]] == [["σ"], ["σ"]]
    assert {item["chips"] for item in report["differences"]} == {"partly_shared"}
    for form in ("--markdown", "--csv", "--junit"):
        assert command("report", "c.json", form, "-").code == EXIT_OK


def test_a_gate_of_reports(command, here):
    """--min-kpp asks the chips of the reports; nothing that fails is called best."""
    ran = command("compare", "mild.json", "harsh.json", "--min-kpp", 0.96)
    assert ran.code == EXIT_OK
    assert ran.out.startswith("PASS: mild is best of the 1 of 2 that pass")
    ran = command("compare", "mild.json", "harsh.json", "--min-kpp", 0.999)
    assert ran.code == EXIT_GATE
    first = " ".join(ran.out.split()).partition(";")[0]
    assert first.startswith("FAIL: mild ranks first of 2, none of which passes")
    assert "is best" not in ran.out


def test_chips_that_do_not_say(command, here):
    """A report whose chips were stopped early is refused where it does not say."""
    report = json.loads(Path("mild.json").read_text(encoding="utf-8"))
    report["trials"]["values"][0] = None
    Path("mild.json").write_text(json.dumps(report), encoding="utf-8")
    ran = command("compare", "mild.json", "harsh.json", "--min-kpp", 0.96)
    assert ran.code == EXIT_BAD_INPUT
    assert "do not say how many miss 0.96" in ran.err


def test_metrics_must_agree(command, here, example):
    """Numbers of another metric, or another percentile, stand in no table with these."""
    report = nvaudit.audit(example, **{**FEW, "metric": "cross_entropy"})
    Path("loss.json").write_text(to_json(report), encoding="utf-8")
    ran = command("compare", "mild.json", "loss.json")
    assert ran.code == EXIT_BAD_INPUT
    assert "cannot be compared: metric" in ran.err
