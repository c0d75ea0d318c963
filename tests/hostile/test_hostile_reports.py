"""Reports whose parts contradict each other: exit code 2, the key, and nothing written."""

import json

import pytest

from nvaudit.errors import EXIT_BAD_INPUT

AUDIT = [
    (lambda r: r.update(kpp=[]), "kpp is empty"),
    (lambda r: r["trials"].update(values=[None] * 4), "trials.values knows no chip"),
    (lambda r: r["sweep"][1].update(sigma=r["sweep"][0]["sigma"]), "sweep: two entries have the same sigma"),
    (lambda r: r["operating_point"].update(sigma=0.17), "operating_point.sigma 0.17 is not in the sweep"),
    (lambda r: r["sweep"][0].update(kpp=[]), "sweep.0.kpp is empty"),
]
COMPARISON = [
    (lambda r: r.update(chosen="x"), "chosen 'x' is none of the models"),
    (lambda r: r.update(baseline="x"), "baseline 'x' is none of the models"),
    (lambda r: r.update(models=[]), "models is empty"),
    (lambda r: r["models"][1].update(name=r["models"][0]["name"]), "models: two entries have the same name"),
    (lambda r: r["differences"][0].update(model="x"), "differences.0.model 'x' is none of the models"),
]
PLAN = [
    (lambda r: r.update(curve=[]), "curve is empty"),
    (lambda r: r["curve"].reverse(), "curve: its shares do not ascend"),
    (lambda r: r["choice"].update(weights=7), "choice.weights 7: no point of the curve has as many"),
]
FEW = ("-n", 4, "-j", 0, "-q", "--limit", 8)


@pytest.fixture
def edited(command, example, tmp_path):
    """Make a report by a command, edit it, and show it in every form."""

    def show(arguments, option, edit, forms):
        report = tmp_path / "r.json"
        made = command(*arguments, *FEW, option, report)
        assert made.code == 0, made.err
        content = json.loads(report.read_text())
        edit(content)
        report.write_text(json.dumps(content))
        outputs = [part for form in forms for part in (f"--{form}", tmp_path / f"shown.{form}")]
        ran = command("report", report, "--text", *outputs)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("shown")] == []
        return ran

    return show


@pytest.mark.parametrize(("edit", "message"), AUDIT)
def test_audit(edited, example, edit, message):
    """Of an audit with a sweep."""
    ran = edited(("audit", example, "--sigma", "0.1:0.2:0.1"), "-o", edit, ("html", "markdown", "junit"))
    assert (ran.code, ran.out) == (EXIT_BAD_INPUT, "")
    assert message in ran.err
    assert ran.err.endswith("give a report.json of nvaudit audit\n")


@pytest.mark.parametrize(("edit", "message"), COMPARISON)
def test_comparison(edited, example, tmp_path, edit, message):
    """Of a comparison."""
    other = tmp_path / "other.onnx"
    other.write_bytes(example.read_bytes())
    data = example.with_suffix(".npz")
    ran = edited(("compare", example, other, "--data", data, "--no-roughness"), "-o", edit, ("html",))
    assert (ran.code, ran.out) == (EXIT_BAD_INPUT, "")
    assert message in ran.err


@pytest.mark.parametrize(("edit", "message"), PLAN)
def test_plan(edited, example, edit, message):
    """Of a write-verify plan."""
    plan = ("verify-plan", example, "--ranking", "magnitude", "--shares", "0,0.5,1")
    ran = edited(plan, "--report", edit, ("html",))
    assert (ran.code, ran.out) == (EXIT_BAD_INPUT, "")
    assert message in ran.err


def test_what_no_rule_foresees_is_found_before_anything_is_written(edited, example, monkeypatch):
    """Every form is made once before the first is written."""
    monkeypatch.setattr("nvaudit.report.render.html.figure_data", lambda figure: [][0])
    ran = edited(("audit", example), "-o", lambda report: None, ("junit", "html"))
    assert (ran.code, ran.out) == (EXIT_BAD_INPUT, "")
    assert "its parts contradict each other (IndexError: list index out of range)" in ran.err


def test_an_accuracy_beyond_one_is_shown_without_a_remark(command, example, tmp_path, recwarn):
    """Text and page look for the step of an accuracy; one of 1e308 has none, and nothing overflows."""
    path = tmp_path / "r.json"
    assert command("audit", example, "-n", 6, "-j", 0, "-q", "--limit", 8, "-o", path).code == 0
    report = json.loads(path.read_text())
    report["trials"]["values"][0] = 1e308
    path.write_text(json.dumps(report))
    ran = command("report", path, "--text", "--html", tmp_path / "r.html")
    assert ran.code in (0, 2)
    assert not [str(one.message) for one in recwarn if "overflow" in str(one.message)]
