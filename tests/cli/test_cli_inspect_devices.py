"""`nvaudit inspect` and `nvaudit devices`."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from junitparser import JUnitXml

from nvaudit.device import profile_names

CSV = "level,mean,std\n0,1.0,0.1\n1,5.0,0.2\n2,9.0,0.3\n3,13.0,0.4\n"


def test_inspect_lists_every_constant_with_its_reason(command, example):
    """Mapped and digital tensors are all there, and nothing is cut when the output is no terminal."""
    ran = command("inspect", example)
    assert ran.code == 0
    assert ran.err == ""
    assert ran.out.startswith(f"{example} on rram: 4 tensors on the array, 4 digital; 100 % of the")
    assert "opset 17, IR 8, takes any batch size" in " ".join(ran.out.split())
    rows = json.loads(command("inspect", example, "--json").out)
    assert {row["name"] for row in rows} == {
        f"{layer}.{part}" for layer in ("conv1", "conv2", "fc1", "fc2") for part in ("weight", "bias")
    }
    joined = " ".join(ran.out.split())
    for row in rows:
        assert row["name"] in ran.out
        assert row["reason"]
        assert all(word in joined for word in row["reason"].split())
    assert "…" not in ran.out


def test_inspect_follows_the_options(command, example):
    """Bits, cells, encoding, crossbar size and globs decide what is counted."""
    options = ("--bits", 6, "--cell-bits", 1, "--encoding", "differential", "--crossbar", "16x16",
               "--digital", "fc1*")  # fmt: skip
    rows = {row["name"]: row for row in json.loads(command("inspect", example, "--json", *options).out)}
    weight = rows["fc2.weight"]
    assert (weight["bits"], weight["slices"]) == (6, 6)
    assert weight["devices"] == 2 * 6 * weight["shape"][0] * weight["shape"][1]
    assert rows["fc1.weight"]["decision"] == "digital"
    assert rows["fc1.weight"]["reason"] == "kept digital by --digital fc1*"
    plain = {row["name"]: row for row in json.loads(command("inspect", example, "--json").out)}
    assert weight["crossbars"] > plain["fc2.weight"]["crossbars"]
    assert (
        "6 weight bits, 1 bits per cell, differential, crossbars of 16x16"
        in command("inspect", example, *options).out
    )


@pytest.mark.parametrize("arguments", [("--layers", "zz*"), ("--device", "ram"), ("--crossbar", "0x5")])
def test_inspect_refuses_what_audit_refuses(command, example, arguments):
    """Bad options end with exit code 2 and no output."""
    ran = command("inspect", example, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert arguments[1] in ran.err


def test_devices_list(command):
    """Every bundled profile is listed, in both forms."""
    text = command("devices", "list")
    rows = json.loads(command("devices", "list", "--json").out)
    assert [row["name"] for row in rows] == list(profile_names())
    assert all(row["description"] for row in rows)
    assert (text.code, text.err) == (0, "")
    assert all(name in text.out for name in profile_names())


@pytest.mark.parametrize("name", profile_names())
def test_devices_show(command, name):
    """Every bundled profile can be shown; the text and the JSON agree on the weight's spread."""
    ran = command("devices", "show", name)
    assert (ran.code, ran.err) == (0, "")
    facts = json.loads(command("devices", "show", name, "--json").out)
    assert name in ran.out
    weight = facts["weight_sigma"]["rms"]
    assert f": weight sigma {weight:.4g} of max|W|\n" in ran.out
    assert not re.search(r"\b(nan|inf)\b", ran.out)


def test_devices_show_at_an_operating_point(command):
    """Sigma, its unit, bits and encoding are those asked for."""
    ran = command("devices", "show", "rram", "--sigma", 0.2, "--bits", 4, "--encoding", "differential")
    assert "0.2 level" in ran.out
    assert "H = 4  2 slices, differential\n" in ran.out
    ran = command("devices", "show", "pcm", "--time", "1d")
    assert "1 d after programming" in ran.out
    ran = command("devices", "show", "rram_65nm", "--enable", "aging")
    assert "aging" in ran.out


RENAMED = "nvaudit: --plot is now --html FILE; the old spelling goes with the next release\n"


def test_devices_show_draws_in_the_terminal(command):
    """One line for each level, with or without the `--plot` of before."""
    ran = command("devices", "show", "rram")
    assert ran.out == command("devices", "show", "rram", "--plot").out
    assert ran.code == 0
    rows = [line for line in ran.out.splitlines() if re.match(r" +\d+ \|.*\|$", line)]
    assert [line.split()[0] for line in rows] == ["0", "1", "2", "3"]


def test_devices_show_draws_a_page(command, tmp_path):
    """`--plot FILE` writes a page that loads nothing from elsewhere."""
    pytest.importorskip("plotly")
    page = tmp_path / "p.html"
    ran = command("devices", "show", "rram", "--plot", page)
    assert (ran.code, ran.err) == (0, RENAMED)
    assert ran.out.endswith(f"plot: {page}\n")
    text = page.read_text(encoding="utf-8")
    assert "sigma 0.1 level spacings" in text
    assert '<script src="http' not in text
    assert page.stat().st_size < 20_000_000
    ran = command("devices", "show", "rram", "--json", "--plot", page)
    assert json.loads(ran.out)
    assert ran.err.startswith(RENAMED)
    assert ran.err.endswith(f"plot: {page}\n")


def test_devices_show_json_and_drawing_do_not_mix(command):
    """Standard output is the JSON alone; the text with its drawing goes to standard error."""
    ran = command("devices", "show", "rram", "--json")
    assert (ran.code, json.loads(ran.out)["kind"]) == (0, "device")
    assert ran.err == command("devices", "show", "rram").out


def test_inspect_in_every_form(command, example, tmp_path):
    """The report, a table of every constant, and a case that fails as the exit code does."""
    files = {name: tmp_path / name for name in ("r.json", "t.csv", "j.xml")}
    ran = command(
        "inspect", example, "--digital", "conv2*", "--require-mapped", 0.9, "-o", files["r.json"],
        "--csv", files["t.csv"], "--junit", files["j.xml"],
    )  # fmt: skip
    assert ran.code == 1
    report = json.loads(files["r.json"].read_text())
    assert (report["kind"], report["model"]["path"]) == ("inspect", str(example))
    assert report["run"]["digital"] == ["conv2*"]
    assert report["mapped_gate"]["verdict"] == "fail"
    rows = list(csv.DictReader(io.StringIO(files["t.csv"].read_text())))
    assert [row["name"] for row in rows] == [row["name"] for row in report["tensors"]]
    (suite,) = JUnitXml.fromfile(str(files["j.xml"]))
    assert (suite.name, suite.tests, suite.failures) == ("nvaudit inspect", 1, 1)
    shown = command("report", files["r.json"])
    assert ran.out.startswith(shown.out)


def test_the_json_of_before(command, example):
    """--json prints the bare list for one more release, and says what comes."""
    for words, what in (
        (("inspect", example), "the list of tensors"),
        (("devices", "list"), "the names and descriptions"),
    ):
        ran = command(*words, "--json")
        assert ran.code == 0
        assert isinstance(json.loads(ran.out), list)
        assert ran.err.startswith(f"nvaudit: --json prints {what} alone for one more release")
        assert json.loads(command(*words, "-o", "-").out)["schema_version"] == 1


def test_devices_show_one_point_at_a_time(command):
    """A sweep cannot be shown."""
    ran = command("devices", "show", "rram", "--sigma", "0:0.2:0.1")
    assert (ran.code, ran.err) == (2, "nvaudit: error: --sigma: show one operating point at a time, got 3\n")


def test_devices_fit_makes_a_profile_that_audits(command, tmp_path, example):
    """From a table of measurements to a report, through the public commands."""
    csv, profile = tmp_path / "m.csv", tmp_path / "mine.json"
    csv.write_text(CSV)
    ran = command("devices", "fit", csv, "-o", profile)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{profile}: mine, ")
    ran = command("devices", "validate", profile)
    assert ran.code == 0
    assert ran.out.startswith(f"{profile}: valid: mine, 1 noise term, weight sigma ")
    ran = command("audit", example, "-n", 2, "-j", 0, "--limit", 8, "--device", profile, "-o", "-")
    assert json.loads(ran.out)["device"]["name"] == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "bad.json: "),
        ('{"schema_version": 1}', "bad.json: name: missing; add it"),
        ("[]", "bad.json: "),
    ],
)
def test_devices_validate_says_what_is_wrong(command, tmp_path, text, message):
    """A bad profile is exit code 2, with its findings."""
    path = tmp_path / "bad.json"
    path.write_text(text)
    ran = command("devices", "validate", path)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("validate", "none.json"), "none.json: no such file; name a JSON profile"),
        (("show", "ram"), "device: 'ram' is not a bundled profile; did you mean rram? See `nvaudit devices"),
        (("fit", "none.csv", "-o", "x.json"), "none.csv: "),
        (
            ("fit", "a.csv", "b.csv", "-o", "x.json"),
            "a.csv: not a folder, and the first of several is the MAPPING",
        ),
        (("fit", "a.csv", "-o", "x.json", "--name", ""), "--name: got ''; give the profile a name"),
        (("fit", ".", ".", "-o", "x.json", "--name", " "), "--name: got ''; give the profile a name"),
        (("fit", "a.csv", "-o", "x.json", "--data", "d.npz"), "--data: only of arrays"),
        (("fit", ".", ".", "-o", "x.json", "--data", "d.npz"), "--data: only with --trials"),
        (
            ("fit", ".", ".", "-o", "x.json", "--encoding", "offset"),
            "--encoding: of arrays it is that of the",
        ),
        (("fit", ".", ".", "-o", "x.json", "--bits", "8"), "--bits: of arrays it is that of the mapping"),
    ],
)
def test_devices_that_are_not_there(command, tmp_path, monkeypatch, arguments, message):
    """Missing files and names are exit code 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    ran = command("devices", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert list(tmp_path.iterdir()) == []


def test_devices_fit_into_a_missing_folder(command, tmp_path):
    """A profile that cannot be written is the user's mistake."""
    csv = tmp_path / "m.csv"
    csv.write_text(CSV)
    ran = command("devices", "fit", csv, "-o", tmp_path / "no" / "p.json", "--name", "p")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"nvaudit: error: {tmp_path}/no/p.json: cannot be written: its folder does not exist; create it or "
        "choose another path\n"
    )


@pytest.mark.parametrize("profile", ["fefet1", "hermes_1device"])
def test_devices_show_has_each_column_once(command, tmp_path, profile):
    """A device without a window has no unit of conductance but its levels."""
    assert command("devices", "show", profile, "--markdown", tmp_path / "show.md").code == 0
    lines = (tmp_path / "show.md").read_text(encoding="utf-8").splitlines()
    heads = next(line for line in lines if line.startswith("| level |")).split(" | ")
    assert len(heads) == len(set(heads))
    assert "σ, levels" in heads


def test_devices_list_breaks_no_name(command, monkeypatch):
    """Names are typed after `devices show`, also from a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    words = command("devices", "list").out.split()
    assert {"hermes_1device", "rram_wan2022_1d"} <= set(words)


def test_a_large_model_is_summed_up(command, tmp_path, monkeypatch):
    """Of 1,020 constants a terminal shows sums and the 12 that matter; --all and the files show all."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)  # a path stands in one line, however long it is
    nodes, constants, last = [], [], "x"
    for layer in range(170):
        for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.fc1"):
            weight = f"model.encoder.layers.{layer}.{name}.weight"
            constants.append(onnx.numpy_helper.from_array(np.full((4, 4), 0.5, np.float32), weight))
            constants.append(onnx.numpy_helper.from_array(np.zeros(4, np.float32), f"{weight}.bias"))
            nodes.append(onnx.helper.make_node("Gemm", [last, weight, f"{weight}.bias"], [f"{weight}.y"]))
            last = f"{weight}.y"
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in ("x", last)
    ]
    graph = onnx.helper.make_graph(nodes, "large", ends[:1], ends[1:], constants)
    model = Path("large.onnx")
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), model)
    ran = command("inspect", model, "--csv", "all.csv")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert len(lines) < 60
    assert max(map(len, lines)) <= 80
    assert re.search(r"Gemm +510 +8,160 +8,160 +510", ran.out)
    assert "the 12 of 510 with the most products" in ran.out
    assert "…3.self_attn.k_proj.weight" in ran.out  # layers can be told apart
    assert "bias of Gemm      510" in ran.out
    assert len(Path("all.csv").read_text(encoding="utf-8").splitlines()) == 1021
    every = command("inspect", model, "--all").out
    assert every.count("proj.weight  ") + every.count("fc1.weight  ") == 510
    assert max(map(len, every.splitlines())) <= 80
