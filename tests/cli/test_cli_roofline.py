"""`nvaudit roofline`: what it prints and writes, its exit codes, and what it refuses."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nvaudit.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_OK
from nvaudit.jobs import rooflining
from nvaudit.option_texts import read_whole
from nvaudit.report.roofline.result import RooflineReport

FEW = ("-n", 8, "--limit", 40, "-j", 0)
DEVICE = ("--device", "rram_65nm")


@pytest.fixture
def model(example, tmp_path, monkeypatch) -> str:
    """The example with its data, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(example, "m.onnx")
    shutil.copy(example.with_suffix(".npz"), "m.npz")
    return "m.onnx"


def test_text_and_files(command, model):
    """The best number of levels stands first; JSON and page agree; the text says where they are."""
    pytest.importorskip("plotly")
    ran = command(
        "roofline", model, *DEVICE, "--cell-bits", "1,2,4", *FEW, "-o", "r.json", "--html", "r.html"
    )
    assert ran.code == EXIT_OK
    lines = ran.out.splitlines()
    assert "report: r.json" in lines
    assert "page: r.html" in lines
    for title in ("Roofline", "What limits", "How it was run"):
        assert title in lines
    assert max(map(len, lines)) <= 100
    found = RooflineReport.model_validate_json(Path("r.json").read_text(encoding="utf-8"), strict=True)
    assert ran.out.startswith(f"{found.best} levels are best of 3 by KPP 1 %")
    assert [level.levels for level in found.levels] == [2, 4, 16]
    page = Path("r.html").read_text(encoding="utf-8")
    start = page.index('"roofline":{"data":[')
    for level in found.levels:  # the picture has the numbers
        assert str(level.device.kpp.value) in page[start:]
    assert "ideal converters (1 of 3)" not in ran.out


def test_converters(command, model):
    """--adc-bits adds the ceiling of the ADC and the chips with both."""
    words = ("--levels", "16", "--adc-bits", 3, "--crossbar", "64x64", "-n", 2, "--limit", 24, "-j", 0)
    ran = command("roofline", model, *DEVICE, *words, "-o", "r.json")
    assert ran.code == EXIT_OK
    assert "converters: --crossbar 64×64, --adc-bits 3, --adc-range max" in " ".join(ran.out.split())
    level = json.loads(Path("r.json").read_text(encoding="utf-8"))["levels"][0]
    assert level["adc"] < level["quantised"]
    assert level["both"]["mean"] < level["device"]["mean"]


@pytest.mark.parametrize("text", ["1,2,4", "1-2,4", " 1 , 2,4", "1-1,2,4"])
def test_numbers(text):
    """With commas, and as ranges."""
    assert read_whole(text) == (1, 2, 4)


@pytest.mark.parametrize("words", [("--levels", "4,2"), ("--cell-bits", "2,1,2")])
def test_ways_of_giving_levels(command, model, words):
    """As numbers of levels, or as bits; the order does not matter."""
    ran = command("roofline", model, *DEVICE, *words, "-n", 2, "--limit", 8, "-j", 0, "-q", "--json")
    assert [level["levels"] for level in json.loads(ran.out)["levels"]] == [2, 4]
    assert ran.err.splitlines()[0].startswith(("2 levels", "4 levels"))


def test_interrupted_with_resume(command, model, monkeypatch):
    """Says that the same command goes on."""

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rooflining, "run_audit", stop)
    ran = command("roofline", model, *DEVICE, *FEW, "--resume", "kept")
    assert ran.code == EXIT_INTERRUPTED
    assert "run the same command again" in ran.err
    assert command("roofline", model, *DEVICE, *FEW).code == EXIT_INTERRUPTED


def test_a_folder_of_another_run_is_refused(command, model):
    """Chips of another seed are not mixed in."""
    words = (
        "roofline",
        model,
        *DEVICE,
        "--levels",
        "4",
        "-n",
        2,
        "--limit",
        8,
        "-j",
        0,
        "-q",
        "--resume",
        "k",
    )
    assert command(*words).code == EXIT_OK
    ran = command(*words, "--seed", 1)
    assert ran.code == EXIT_BAD_INPUT
    assert "its chips are of another run" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'MODEL'."),
        (("gone.onnx",), "gone.onnx"),
        (("m.onnx", "--device", "nope"), "nope"),
        (
            ("m.onnx", "--cell-bits", "1,x"),
            "--cell-bits: got '1,x'; use whole numbers from 1 to 8, such as 1,2,4 or 1-4",
        ),
        (("m.onnx", "--cell-bits", "4-1"), "--cell-bits: 4-1 runs backwards; write 1:4"),
        (("m.onnx", "--cell-bits", "0"), "--cell-bits: got 0; use whole numbers from 1 to 8"),
        (
            ("m.onnx", "--levels", "6"),
            "--levels: got 6: a cell holds whole bits of a weight; use powers of two",
        ),
        (("m.onnx", "--levels", "1"), "--levels: got 1"),
        (("m.onnx", "--levels", "4", "--cell-bits", "2"), "--cell-bits and --levels: choose one"),
        (("m.onnx", "--device", "fefet1", "--levels", "8"), "4 entries for 8 levels"),
        (("m.onnx", "--sigma", "0.1:0.3:0.1"), "got 3 values; a roofline stands at one operating point"),
        (("m.onnx", "--dac-bits", "8"), "--dac-bits is for crossbars with converters; give --adc-bits too"),
        (("m.onnx", "--adc-bits", "1"), "--adc-bits: got 1; use a whole number from 2 to 16"),
        (("m.onnx", "--sigma", "9"), "sigma: 9 is outside the valid range"),
        (("m.onnx", "--rank", "beauty"), "--rank: got 'beauty'; use one of kpp, mean"),
        (("m.onnx", "--margin", "-1"), "-1"),
        (("m.onnx", "--data", "gone.npz"), "gone.npz"),
        (("m.onnx", "-o", "m.onnx"), "-o m.onnx: this is the model"),
        (("m.onnx", "--html", "m.npz"), "--html m.npz: this is the data"),
        (("m.onnx", "-o", "no/r.json"), "its folder does not exist"),
        (("m.onnx", "-o", "r", "--html", "r"), "choose two paths"),
    ],
)
def test_wrong_usage(command, model, arguments, message):
    """Exit code 2 and one line that says what is wrong; nothing is written."""
    before = sorted(Path().iterdir())
    ran = command("roofline", *arguments, *(("-n", 2, "-j", 0) if arguments else ()))
    assert ran.code == EXIT_BAD_INPUT
    assert ran.out == ""
    assert message in " ".join(ran.err.split())
    assert sorted(Path().iterdir()) == before


@pytest.mark.reference
def test_reference_model(command, shared_data, tmp_path):
    """A real network: on this device two levels are nearer to the quantised model than all 16."""
    spec = importlib.util.spec_from_file_location("reference_load", shared_data / "load.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    feeds, labels = loader.load("mnist_cnn_pt_opset14", n=100)
    np.savez(tmp_path / "d.npz", **feeds, y=labels)
    model = shared_data / "models" / "mnist_cnn_pt_opset14.onnx"
    words = ("--levels", "2,16", "--data", tmp_path / "d.npz", "-n", 6, "-j", 0, "-q", "--json")
    ran = command("roofline", model, *DEVICE, *words)
    assert ran.code == EXIT_OK
    two, sixteen = json.loads(ran.out)["levels"]
    assert two["quantised"] == sixteen["quantised"] > 0.9
    assert two["device"]["mean"] > sixteen["device"]["mean"]
    assert two["size"]["devices"] == 4 * sixteen["size"]["devices"]
