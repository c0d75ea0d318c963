"""`nvaudit audit` as a user types it: what is printed where, what is written, and the exit code."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

import nvaudit.report
from nvaudit import __version__

SCHEMA = Path(nvaudit.report.__file__).with_name("schemas") / "audit.schema.json"
FEW = ("-n", 4, "-j", 0, "--limit", 32)


def test_results_go_to_standard_output_and_nothing_else_anywhere(command, example):
    """A plain run prints the report, its headline first."""
    ran = command("audit", example, *FEW)
    assert ran.code == 0
    assert ran.err == ""
    assert re.match(
        r"KPP 1 % top1 \d+\.\d\d % on rram, sigma 0\.1 level spacings, 4 chips; 100 % of the products",
        ran.out,
    )
    names = ("\n  ideal ", "\n  quantised ", "\n  mean of the chips ", "\n  KPP 1 % ")
    order = [ran.out.index(name) for name in names]
    assert order == sorted(order)
    assert "data found beside the model: digits_cnn.npz" in ran.out


@pytest.mark.parametrize(
    ("threshold", "trials", "code", "verdict"),
    [(0.2, 400, 0, "PASS"), (1.0, 60, 1, "FAIL"), (0.2, 5, 1, "UNDECIDED")],
)
def test_the_gate_decides_the_exit_code(command, example, threshold, trials, code, verdict):
    """0 only if the gate surely holds; the verdict is the first word."""
    ran = command(
        "audit", example, "-n", trials, "-j", 0, "--limit", 8, "--sigma", 0.4, "--min-kpp", threshold
    )
    assert ran.code == code
    assert ran.out.startswith(f"{verdict}: KPP 1 % top1 ")
    assert f"\n  {verdict}: at most 1 % of chips may be below" in ran.out
    assert ("302 more chips without a failure would" in ran.out) == (verdict == "UNDECIDED")


def test_a_report_file_is_written_and_named(command, example, tmp_path):
    """`-o` writes the JSON beside the text; the last line says where."""
    path = tmp_path / "report.json"
    ran = command("audit", example, *FEW, "-o", path)
    assert ran.code == 0
    assert ran.out.endswith(f"report: {path}\n")
    report = json.loads(path.read_text())
    assert report["headline"] == ran.out.splitlines()[0]
    assert report["nvaudit_version"] == __version__
    assert list(tmp_path.iterdir()) == [path]


def test_an_old_report_is_replaced(command, example, tmp_path):
    """A report can be written over the last one."""
    path = tmp_path / "report.json"
    path.write_text("old")
    assert command("audit", example, *FEW, "-o", path).code == 0
    assert json.loads(path.read_text())["trials"]["count"] == 4


def test_a_dash_makes_standard_output_pure_json(command, example):
    """`-o -` can be piped: the text moves to standard error."""
    ran = command("audit", example, *FEW, "-o", "-")
    assert ran.code == 0
    report = json.loads(ran.out)
    assert ran.out.startswith("{")
    assert ran.out.endswith("}\n")
    assert ran.err.splitlines()[0] == report["headline"]
    assert "report:" not in ran.err


@pytest.mark.parametrize("where", ["text", "json"])
def test_without_labels_the_first_line_says_so(command, unlabelled, where):
    """Nobody can take agreement for accuracy."""
    ran = command("audit", unlabelled, *FEW, *(("-o", "-") if where == "json" else ()))
    assert ran.code == 0
    text = ran.out if where == "text" else ran.err
    said = "LABEL-FREE (no labels: compared with the unperturbed model only): "
    assert text.startswith(said + "KPP 1 % agreement ")
    assert "no data given: 32 seeded synthetic samples, no labels" in text
    if where == "json":
        report = json.loads(ran.out)
        assert report["headline"].startswith(said)
        assert report["label_free"] is True


def test_without_labels_a_gate_says_so_too(command, unlabelled):
    """The verdict does not hide that labels were missing."""
    ran = command("audit", unlabelled, *FEW, "--min-kpp", 0.1)
    assert ran.code == 1
    assert ran.out.startswith("LABEL-FREE (no labels: compared with the unperturbed model only): UNDECIDED: ")


OPTION_SETS = [
    (),
    ("--sigma", "0:0.4:0.1", "--min-kpp", "0.5", "--yield-at", "0.9"),
    ("-k", "1", "-k", "5", "-k", "50", "--yield-at", "0.9", "--yield-at", "0.95", "--confidence", "0.99"),
    ("--device", "rram_65nm", "--enable", "aging", "--scale", "per_channel"),
    ("--device", "pcm", "--time", "1d", "--metric", "cross_entropy", "--every-device"),
    ("--bits", "5", "--cell-bits", "2", "--encoding", "offset", "--crossbar", "64x32"),
    ("--encoding", "differential", "--layers", "conv*", "--digital", "conv2*", "--metric", "agreement"),
    ("--sigma", "0.05", "--sigma-unit", "weight_max", "--seed", "3", "--metric", "top5"),
]


@pytest.mark.parametrize("options", OPTION_SETS, ids=lambda options: " ".join(options) or "none")
def test_every_report_fits_the_schema(command, example, options):
    """The JSON is what the committed schema promises, and `run` holds what was asked."""
    ran = command("audit", example, *FEW, "-o", "-", *options)
    report = json.loads(ran.out)
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert report["run"]["trials"] == report["trials"]["count"] == 4
    assert len(report["kpp"]) == max(1, options.count("-k"))
    assert report["run"]["enable"] == (["aging"] if "aging" in options else [])
    assert report["trials"]["exact"] is True


def test_a_report_without_labels_fits_the_schema(command, unlabelled):
    """Label-free reports have the same form."""
    ran = command("audit", unlabelled, *FEW, "-o", "-")
    jsonschema.validate(json.loads(ran.out), json.loads(SCHEMA.read_text()))


def test_a_sweep_shows_every_point(command, example):
    """`0:0.4:0.1` runs five points, both ends included, and the strongest stands at the top."""
    ran = command("audit", example, *FEW, "--sigma", "0:0.4:0.1", "--sigma", "0.2")
    assert ran.code == 0
    assert "sigma 0.4 level spacings" in ran.out.splitlines()[0]
    table = ran.out[ran.out.index("  σ, level ") :].split("\n\n")[0]
    points = [line.split()[0] for line in table.splitlines()[2:]]
    assert points == ["0", "0.1", "0.2", "0.3", "0.4"]


def test_several_percentiles_and_yields(command, example):
    """Each question gets an answer of its own."""
    ran = command("audit", example, *FEW, "-k", 1, "-k", 25, "--yield-at", 0.5, "--yield-at", 1)
    assert "KPP 1 % " in ran.out
    assert "KPP 25 % " in ran.out
    assert re.search(r"\n  yield, at least 50 % +100 %  ", ran.out)
    assert "\n  yield, at least 100 % " in ran.out


@pytest.mark.parametrize("metric", ["top1", "top3", "cross_entropy", "loss", "agreement"])
def test_metrics(command, example, metric):
    """The metric is named in the first line."""
    ran = command("audit", example, *FEW, "--metric", metric)
    assert ran.code == 0
    name = "cross_entropy" if metric == "loss" else metric
    assert ran.out.startswith(f"KPP 1 % {name} ")
    assert ("lower is better" in ran.out) == (name == "cross_entropy")


def test_a_metric_of_the_users_own(command, example, tmp_path, monkeypatch):
    """`module:function` is found in the current folder, by workers too."""
    (tmp_path / "own_metric.py").write_text(
        "def margin(outputs, labels):\n    return outputs.max(axis=1) - outputs.mean(axis=1)\n"
    )
    monkeypatch.chdir(tmp_path)
    values = []
    for workers in (0, 1):
        ran = command("audit", example, "-n", 2, "-j", workers, "--limit", 8, "-o", "-",
                      "--metric", "own_metric:margin")  # fmt: skip
        assert ran.code == 0, ran.err
        values.append(json.loads(ran.out)["trials"]["values"])
    assert values[0] == values[1]


def test_limit_takes_the_first_samples(command, example):
    """`--limit` beyond the set takes all."""
    assert json.loads(command("audit", example, *FEW, "-o", "-").out)["data"]["count"] == 32
    ran = command("audit", example, "-n", 1, "-j", 0, "--limit", 10**6, "-o", "-")
    assert json.loads(ran.out)["data"]["count"] == 597


def test_one_chip(command, example):
    """The smallest run is not an error."""
    ran = command("audit", example, "-n", 1, "-j", 0, "--limit", 1)
    assert ran.code == 0
    assert "the only chip" in ran.out


def test_quiet_and_more_workers_give_the_same_report(command, example):
    """Neither progress nor the number of processes is part of the result."""
    texts = []
    for options in (("-q", "-j", 2), ("-j", 0)):
        ran = command("audit", example, "-n", 6, "--limit", 32, "-o", "-", *options)
        report = json.loads(ran.out)
        del report["timing"], report["run"]["workers"]
        texts.append(report)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_lines_fit_the_terminal(command, example, monkeypatch, columns):
    """No line is longer than the terminal is wide, and nothing is cut."""
    monkeypatch.setenv("COLUMNS", str(columns))
    ran = command(
        "audit", example, *FEW, "--sigma", "0:0.4:0.2", "--min-kpp", 0.5, "-k", 1, "-k", 5,
        "--device", "fefet1",
    )  # fmt: skip
    assert ran.code == 1
    # A path or a hash may be longer than a narrow terminal; words are never cut.
    assert [line for line in ran.out.splitlines() if len(line) > columns and " " in line.strip()] == []
    assert "…" not in ran.out
