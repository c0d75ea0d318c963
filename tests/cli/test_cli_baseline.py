"""`--baseline REPORT --max-drop D`: the same chips, decided one after another; and what is refused."""

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import nvaudit
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_GATE, EXIT_OK
from nvaudit.report.jsontext import to_json

RRAM = Path(__file__).parents[2] / "devices" / "rram.json"

FEW = ("--limit", 100, "-k", 10, "-j", 0, "-q")


@pytest.fixture(scope="module")
def made(example, tmp_path_factory) -> Path:
    """A folder with a model, one that is worse, and the report of the first."""
    folder = tmp_path_factory.mktemp("baseline")
    (folder / ".git").mkdir()
    for name in ("m", "worse"):
        shutil.copy(example, folder / f"{name}.onnx")
        shutil.copy(example.with_suffix(".npz"), folder / f"{name}.npz")
    spoilt = onnx.load(folder / "worse.onnx")
    generator = np.random.default_rng(0)
    for tensor in spoilt.graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.ndim > 1:
            noisy = weight + 0.25 * weight.std() * generator.standard_normal(weight.shape)
            tensor.CopyFrom(numpy_helper.from_array(noisy.astype(weight.dtype), tensor.name))
    onnx.save(spoilt, folder / "worse.onnx")
    report = nvaudit.audit(
        folder / "m.onnx", trials=200, limit=100, percentiles=(10.0,), workers=0, roughness=False
    )
    (folder / "base.json").write_text(to_json(report), encoding="utf-8")
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch) -> Path:
    """A copy of it as the working folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_same_model_passes(command, here):
    """Chips are drawn until it is decided; JUnit has a case for it with the numbers of both reports."""
    ran = command("audit", "m.onnx", *FEW, "--baseline", "base.json", "--max-drop", 0.05, "-n", 200,
                  "-o", "a.json", "--junit", "j.xml")  # fmt: skip
    assert ran.code == EXIT_OK, ran.out
    report = json.loads(Path("a.json").read_text(encoding="utf-8"))
    (drop,) = report["drops"]
    assert (report["verdict"], drop["verdict"], drop["drop"]) == ("pass", "pass", 0.0)
    assert drop["chips"] == report["trials"]["count"] < 200
    base = json.loads(Path("base.json").read_text(encoding="utf-8"))
    assert report["trials"]["values"] == base["trials"]["values"][: drop["chips"]]
    assert report["baseline"]["path"] == "base.json"
    names = [case.get("name") for case in ET.parse("j.xml").iter("testcase")]
    assert "KPP 10 % at most 5 points below the baseline's, sigma 0.1 level spacings" in names
    assert command("report", "a.json", "--markdown", "-").code == EXIT_OK


def test_a_worse_model_fails(command, here):
    """A model that lost more than is allowed fails, after few chips."""
    ran = command("audit", "worse.onnx", *FEW, "--baseline", "base.json", "--max-drop", 0.01, "-n", 200)
    assert ran.code == EXIT_GATE
    assert ran.out.startswith("FAIL: ")
    assert "FAIL: KPP 10 % at most 1 point below the baseline's" in " ".join(ran.out.split())


def test_too_close_is_undecided(command, here):
    """Too few chips leave it open, and it says how many would decide it."""
    ran = command("audit", "m.onnx", *FEW, "--baseline", "base.json", "--max-drop", 0.05, "-n", 16)
    assert ran.code == EXIT_GATE
    assert "chips like these would decide it, in the baseline too (made with --all-trials --trials " in (
        " ".join(ran.out.split())
    )


def test_beside_a_threshold(command, here):
    """With --min-kpp both must hold, on the same chips."""
    both = ("--baseline", "base.json", "--max-drop", 0.05, "-n", 200)
    assert command("audit", "m.onnx", *FEW, *both, "--min-kpp", 0.5).code == EXIT_OK
    ran = command("audit", "m.onnx", *FEW, *both, "--min-kpp", 0.999)
    assert ran.code == EXIT_GATE


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--sigma", 0.2), "sigma: 0.1 there, 0.2 here"),
        (("--seed", 1), "seed: 0 there, 1 here"),
        (("-d", "fefet1"), "of other conditions: device: rram there, fefet1 here; audit both under the same"),
        (("-d", "renamed.json"), "of other conditions: device: rram there, mine here; audit both"),
        (("-d", "noisier.json"), "of other conditions: device: noise differs; audit both under the same"),
        (("-d", "wider.json"), "of other conditions: device: top_slice: window there, lowest here; audit"),
        (("--limit", 50), "samples: 100 there, 50 here"),
        (("--metric", "cross_entropy"), "metric: "),
        (("--adc-bits", 6), "adc bits: none there, 6 here"),
        (("--data", "other.npz"), "data: "),
    ],
)
def test_other_conditions(command, here, more, said):
    """A report of other conditions is refused with each difference."""
    _profile("renamed.json", name="mine", description="Measured by ourselves.")
    profile = json.loads(RRAM.read_text(encoding="utf-8"))
    noise = profile["noise"]
    _profile("noisier.json", noise=[{**noise[0], "sigma": {"kind": "constant", "value": 1.1}}])
    _profile("wider.json", top_slice="lowest", source={**profile["source"], "citation": "Another."})
    with np.load("m.npz") as arrays:
        np.savez("other.npz", **{name: value[::-1] for name, value in arrays.items()})
    ran = command("audit", "m.onnx", *FEW, "--baseline", "base.json", "--max-drop", 0.1, "-n", 20, *more)
    assert ran.code == EXIT_BAD_INPUT, ran.out
    assert "--baseline base.json: it is of other conditions: " in ran.err
    assert said in ran.err


def _profile(path: str, **changes: object) -> None:
    """Write the profile of rram with changes."""
    Path(path).write_text(
        json.dumps(json.loads(RRAM.read_text(encoding="utf-8")) | changes), encoding="utf-8"
    )


@pytest.mark.parametrize("drop", ["3", "1", "100%"])
def test_a_drop_that_no_metric_can_exceed(command, here, drop):
    """A percentage where a fraction is meant makes no gate that cannot fail, in nvaudit.toml neither."""
    gate = ("--baseline", "base.json", "--max-drop", drop)
    ran = command("audit", "m.onnx", *FEW, *gate, "-n", 20)
    assert ran.code == EXIT_BAD_INPUT, ran.out
    value = 1 if drop == "100%" else int(drop)
    said = (
        f"--max-drop {value}: top1 is a fraction from 0 to 1, which cannot drop by more; for {value} % write "
        f"{value / 100:g}"
    )
    assert said in " ".join(ran.err.split())
    Path("nvaudit.toml").write_text(
        f'limit = 100\nmax-drop = "{drop}"\nbaseline = "base.json"\n[check]\nmodels = ["m.onnx"]\n',
        encoding="utf-8",
    )
    ran = command("check", "-j", 0, "-q")
    assert ran.code == EXIT_BAD_INPUT, ran.out
    assert said in " ".join(ran.err.split())


def test_a_drop_in_percent(command, here):
    """`--max-drop 5%` is 0.05, and a loss may rise by any number."""
    gate = ("--baseline", "base.json", "--max-drop")
    ran = command("audit", "m.onnx", *FEW, *gate, "5%", "-n", 200, "-o", "a.json")
    assert ran.code == EXIT_OK, ran.out
    assert json.loads(Path("a.json").read_text(encoding="utf-8"))["drops"][0]["max_drop"] == 0.05
    more = ("--metric", "cross_entropy", "-n", 100)
    assert command("audit", "m.onnx", *FEW, *more, "-o", "loss.json").code == EXIT_OK
    ran = command("audit", "m.onnx", *FEW, *more, "--baseline", "loss.json", "--max-drop", 3)
    assert ran.code != EXIT_BAD_INPUT, ran.err


def test_refused(command, here):
    """One without the other, a file that is no report, and chips that were stopped early."""
    for alone in (("--baseline", "base.json"), ("--max-drop", 0.1)):
        ran = command("audit", "m.onnx", *FEW, *alone)
        assert ran.code == EXIT_BAD_INPUT
        assert "the gate on a drop needs both" in ran.err
    ran = command("audit", "m.onnx", *FEW, "--baseline", "m.npz", "--max-drop", 0.1)
    assert ran.code == EXIT_BAD_INPUT
    report = json.loads(Path("base.json").read_text(encoding="utf-8"))
    report["trials"]["values"][3] = None
    Path("raced.json").write_text(json.dumps(report), encoding="utf-8")
    ran = command("audit", "m.onnx", *FEW, "--baseline", "raced.json", "--max-drop", 0.1)
    assert ran.code == EXIT_BAD_INPUT
    assert "make it once more, or with --exhaustive" in ran.err


def test_the_first_baseline_has_all_chips(command, here):
    """What a verdict advises, --all-trials, also makes the first baseline, with no gate yet."""
    ran = command("audit", "m.onnx", *FEW, "-n", 30, "--all-trials", "--no-roughness", "-o", "first.json")
    assert ran.code == EXIT_OK
    found = nvaudit.load("first.json")
    assert len(found.trials.values) == 30
    assert found.verdict is None


def test_a_baseline_whose_chips_raced(command, here):
    """Chips that races stopped have limits, which decide; the exact values give the same verdicts."""
    with np.load("m.npz") as arrays:
        (name,) = [key for key in arrays.files if key != "y"]
        many = {name: np.tile(arrays[name], (2, 1, 1, 1)), "y": np.tile(arrays["y"], 2)}
    np.savez("many.npz", **many)
    run = ("-d", "rram", "--sigma", 0.3, "-k", 10, "-j", 0, "-q", "--data", "many.npz", "--no-roughness")
    assert command("audit", "m.onnx", *run, "-n", 150, "-o", "raced.json").code == EXIT_OK
    race = json.loads(Path("raced.json").read_text(encoding="utf-8"))["trials"]["race"]
    assert len(race["at_least"]) == race["stopped"] > 0
    assert any(limit is not None for limit in race["at_least"])
    held = ("--baseline", "raced.json", "-n", 150, "--no-suggest")
    assert command("audit", "m.onnx", *run, *held, "--max-drop", 0.2).code == EXIT_OK
    ran = command("audit", "worse.onnx", *run, *held, "--max-drop", 0.01)
    assert (ran.code, ran.out[:5]) == (EXIT_GATE, "FAIL:"), ran.out


def test_a_matrix_against_the_last_one(command, here):
    """The report of the last `nvaudit check` is the baseline of the next: each audit finds its own."""
    Path("nvaudit.toml").write_text(
        'trials = 200\nlimit = 100\npercentile = 10\n[check]\nmodels = ["m.onnx"]\n'
        'conditions = [{name = "fresh"}, {name = "noisy", sigma = 0.2}]\n',
        encoding="utf-8",
    )
    assert command("check", "-j", 0, "-q", "-o", "last.json").code == EXIT_OK
    gate = ("--baseline", "last.json", "--max-drop", 0.05)
    ran = command("check", "-j", 0, "-q", *gate, "-o", "now.json")
    assert ran.code == EXIT_OK, ran.out
    shutil.copy("worse.onnx", "m.onnx")
    ran = command("check", "-j", 0, "-q", *gate, "-o", "now.json")
    assert ran.code == EXIT_GATE
    assert "FAIL: KPP 10 % at most 5 points below the baseline's" in " ".join(ran.out.split())
