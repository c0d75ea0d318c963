"""`nvaudit compare`: what it prints and writes, its exit codes, and what it refuses."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from nvaudit.cli.compare import parse_data_for
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_GATE, EXIT_INTERRUPTED, EXIT_OK, OptionError
from nvaudit.jobs import comparing
from nvaudit.report.comparison.result import ComparisonReport

FEW = ("-n", 20, "--limit", 40, "--sigma", 0.3, "--no-roughness", "-j", 0)


@pytest.fixture
def pair(example, tmp_path, monkeypatch) -> tuple[str, str]:
    """Two models with the same weights, one of them with other data beside it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        shutil.copy(example, f"{name}.onnx")
        shutil.copy(example.with_suffix(".npz"), f"{name}.npz")
    return "a.onnx", "b.onnx"


def test_text(command, pair):
    """The first line is the choice; then the table, the picture, the differences, and how it was run."""
    ran = command("compare", *pair, *FEW)
    assert ran.code == EXIT_OK
    assert ran.out.startswith("a and b share the first place of 2 by KPP 1 %: KPP 1 % top1 ")
    lines = ran.out.splitlines()
    assert any(line.split()[:2] == ["a", "1"] for line in lines)
    assert any(line.split()[:2] == ["b", "1"] for line in lines), "equal models share the place"
    for title in ("The models", "Differences", "How it was run"):
        assert title in lines
    assert "  Each model minus a." in lines
    assert "no change" in ran.out
    assert "b and a have the same chips" in " ".join(ran.out.split())
    assert max(map(len, lines)) <= 100


def test_files(command, pair):
    """JSON, CSV and page agree; the text says where they are."""
    pytest.importorskip("plotly")
    ran = command(
        "compare", *pair, *FEW, "-o", "c.json", "--csv", "c.csv", "--html", "c.html", "--reports", "reports"
    )
    assert ran.code == EXIT_OK
    for line in ("report: c.json", "table: c.csv", "page: c.html"):
        assert line in ran.out.splitlines()
    found = ComparisonReport.model_validate_json(Path("c.json").read_text(encoding="utf-8"), strict=True)
    rows = list(csv.DictReader(io.StringIO(Path("c.csv").read_text(encoding="utf-8"))))
    assert [float(row["kpp_1"]) for row in rows] == [model.kpp[0].value for model in found.models]
    assert Path("c.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    again = command("compare", "reports/a.json", "reports/b.json", "--json")
    assert again.code == EXIT_OK
    from_reports = json.loads(again.out)
    assert [model["kpp"] for model in from_reports["models"]] == [
        model.model_dump(mode="json")["kpp"] for model in found.models
    ]
    assert from_reports["models"][0]["report"].endswith("a.json")


def test_json_on_standard_output(command, pair):
    """Only the JSON goes there; the text goes to standard error."""
    ran = command("compare", *pair, *FEW, "-q", "--json")
    assert json.loads(ran.out)["best"] == "a"
    assert ran.err.startswith("a and b share the first place of 2")


def test_equal_runs_give_equal_json(command, pair):
    """Whatever the number of workers, but for seconds and workers."""
    found = [json.loads(command("compare", *pair, *FEW[:-1], j, "-q", "--json").out) for j in (0, 1)]
    for each in found:
        del each["timing"]
        for model in each["models"]:
            del model["seconds"], model["run"]["workers"]
    assert found[0] == found[1]


@pytest.mark.parametrize(("threshold", "code"), [(0.5, EXIT_OK), (1.0, EXIT_GATE)])
def test_gate(command, pair, threshold, code):
    """0 if a model passes, 1 if none does; the first line begins with the verdict."""
    ran = command("compare", *pair, "-k", 20, "--min-kpp", threshold, *FEW)
    assert ran.code == code
    assert ran.out.startswith("PASS: " if code == EXIT_OK else ("FAIL: ", "UNDECIDED: "))
    assert f"{2 if code == EXIT_OK else 0} of 2 models pass" in " ".join(ran.out.split())


def test_quiet(command, pair):
    """Nothing of the progress with --quiet."""
    assert command("compare", *pair, *FEW, "-q").err == ""


def test_reports_need_a_folder(command, pair, monkeypatch):
    """Found out before the first model runs."""
    monkeypatch.setattr(comparing, "run_audit", lambda *_: pytest.fail("a model ran"))
    ran = command("compare", *pair, *FEW, "--reports", "a.onnx")
    assert ran.code == EXIT_BAD_INPUT
    assert "--reports a.onnx: cannot be made" in ran.err


def test_interrupted_with_resume(command, pair, monkeypatch):
    """Says that the same command goes on; without --resume nothing is kept."""

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "run_audit", stop)
    ran = command("compare", *pair, *FEW, "--resume", "kept")
    assert ran.code == EXIT_INTERRUPTED
    assert "run the same command again" in ran.err
    assert command("compare", *pair, *FEW).code == EXIT_INTERRUPTED


def test_own_data(command, pair):
    """--data-for gives one model its data; the others have --data."""
    Path("b.npz").rename("own.npz")
    ran = command("compare", *pair, *FEW, "--data", "a.npz", "--data-for", "b.onnx=own.npz", "-q", "--json")
    runs = {model["name"]: model["run"]["data"] for model in json.loads(ran.out)["models"]}
    assert runs == {"a": "a.npz", "b": "own.npz"}


@pytest.mark.parametrize(
    ("texts", "models", "found"),
    [
        (["a.onnx=x"], ["a.onnx", "b.onnx"], {"a.onnx": "x"}),
        (["a=x"], ["a.onnx", "b.onnx"], {"a": "x"}),
        (["b=c.onnx=x"], ["b=c.onnx", "b"], {"b=c.onnx": "x"}),
        (["a.onnx=x=y"], ["a.onnx"], {"a.onnx": "x=y"}),
        (["f/a.onnx=x", "a.onnx=y"], ["f/a.onnx", "g/b.onnx"], {"f/a.onnx": "x", "a.onnx": "y"}),
    ],
)
def test_pairs_are_read(texts, models, found):
    """Either side may hold an equals sign; the longest name that fits counts."""
    assert parse_data_for(texts, models) == {name: Path(path) for name, path in found.items()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("d.npz", "write MODEL=PATH with one of a.onnx"),
        ("c.onnx=d.npz", "write MODEL=PATH with one of a.onnx"),
        ("=d.npz", "write MODEL=PATH"),
        ("a.onnx=", "there is no path behind the equals sign"),
    ],
)
def test_wrong_pairs(text, message):
    """Are refused with what is wrong."""
    with pytest.raises(OptionError, match=message):
        parse_data_for([text], ["a.onnx"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument"),
        (("a.onnx",), "needs two models or more, got 1"),
        (("a.onnx", "./a.onnx"), "given twice"),
        (("a.onnx", ""), "it is empty; name a file"),
        (("a.onnx", "gone.onnx"), "gone.onnx"),
        (("a.onnx", "gone.json"), "gone.json: cannot be read"),
        (("a.onnx", "a.npz"), "a.npz"),
        (("a.onnx", "b.onnx", "--sigma", "0.1:0.3:0.1"), "got 3 values; models are compared at one"),
        (("a.onnx", "b.onnx", "--sigma", "9"), "sigma"),
        (("a.onnx", "b.onnx", "--rank", "yield"), "--rank yield: there is no threshold"),
        (("a.onnx", "b.onnx", "--rank", "roughness"), "--rank roughness and --no-roughness: choose one"),
        (("a.onnx", "b.onnx", "--rank", "beauty"), "--rank: got 'beauty'; use one of kpp, mean"),
        (("a.onnx", "b.onnx", "--baseline", "c"), "--baseline: 'c' is none of the models; use one of a, b"),
        (("a.onnx", "b.onnx", "--min-kpp", "90"), "for 90 % write 0.9"),
        (("a.onnx", "b.onnx", "--data-for", "a.onnx=gone.npz"), "gone.npz: no such file"),
        (("a.onnx", "b.onnx", "-o", "a.onnx"), "-o a.onnx: this is the model a"),
        (("a.onnx", "b.onnx", "--csv", "b.npz"), "--csv b.npz: this is the data of b"),
        (("a.onnx", "b.onnx", "-o", "no/c.json"), "its folder does not exist"),
        (("a.onnx", "b.onnx", "-o", "c", "--csv", "c"), "choose two paths"),
        (("a.onnx", "b.onnx", "--json", "--csv", "-"), "both are standard output"),
    ],
)
def test_wrong_usage(command, pair, monkeypatch, arguments, message):
    """Exit code 2 and one line that says what is wrong; nothing is written."""
    if "90" not in arguments:  # a threshold is judged by the metric, which the first model settles
        monkeypatch.setattr(comparing, "run_audit", lambda *_: pytest.fail("a model ran"))
    before = sorted(Path().iterdir())
    ran = command("compare", *arguments, *(FEW if len(arguments) > 1 else ()))
    assert ran.code == EXIT_BAD_INPUT
    assert ran.out == ""
    assert message in " ".join(ran.err.split())
    assert sorted(Path().iterdir()) == before


def test_options_of_an_audit_need_an_audit(command, pair):
    """Where all models are reports, an option that would change an audit says nothing, and is refused."""
    command("compare", *pair, *FEW, "--reports", "r")
    ran = command("compare", "r/a.json", "r/b.json", "--trials", 10)
    assert ran.code == EXIT_BAD_INPUT
    assert "--trials: the models are reports, which are not run again" in ran.err
    assert command("compare", "r/a.json", "r/b.json", "--rank", "mean", "--baseline", "b").code == EXIT_OK
    ran = command("compare", "r/a.json", "b.onnx", *FEW, "--data-for", "r/a.json=a.npz")
    assert ran.code == EXIT_BAD_INPUT
    assert "--data-for a: it is the report of an audit" in ran.err


def test_a_report_is_not_overwritten(command, pair):
    """Output paths are checked against reports that are read."""
    command("compare", *pair, *FEW, "--reports", "r")
    ran = command("compare", "r/a.json", "r/b.json", "-o", "r/a.json")
    assert ran.code == EXIT_BAD_INPUT
    assert "this is the report a" in ran.err


def test_converters(command, pair):
    """All models run on crossbars with the same converters, and the comparison says which."""
    few = ("compare", *pair, "-n", 5, "--limit", 20, "--no-roughness", "-j", 0, "-q", "--json")
    ran = command(*few, "--adc-bits", 5, "--crossbar", "64x64")
    assert ran.code == EXIT_OK, ran.err
    found = json.loads(ran.out)
    assert found["converters"] == {
        "--adc-bits": 5, "--dac-bits": None, "--adc-range": "max", "--crossbar": [64, 64],
    }  # fmt: skip
    assert "converters: --adc-bits 5, --adc-range max, --crossbar 64×64" in " ".join(ran.err.split())
    plain = command(*few)
    assert json.loads(plain.out)["converters"] is None
    assert json.loads(plain.out)["models"][0]["mean"] != found["models"][0]["mean"]
