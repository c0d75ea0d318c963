"""What is no chip, or is one chip twice, is refused; `chip.json` is read strictly."""

import json
import shutil

import numpy as np
import pytest

from nvaudit.mapping.array_files import read_arrays, write_arrays

AUDIT = ("--no-roughness", "-n", 2, "--workers", 0, "--limit", 20, "-q")
MAPPED = ("--device", "rram_wan2022_1d", "--layers", "conv1.weight")


def mapped(command, example, out, *words):
    """A mapping of the smallest tensor, or chips of it."""
    ran = command("map", example, *MAPPED, *words, "-o", out, "-q")
    assert ran.code == 0, ran.err
    return out


def rewritten(folder, change):
    """Change the arrays of every crossbar below a folder."""
    for path in sorted(folder.glob("**/*.npz")):
        arrays = change(read_arrays(path, (256, 256)))
        path.unlink()
        write_arrays(path.with_suffix(""), arrays, "npz")


@pytest.fixture
def chips(command, example, tmp_path):
    """Two simulated chips."""
    return mapped(command, example, tmp_path / "chips", "--simulate", 2)


@pytest.mark.parametrize("command_words", ["audit", "calibrate", "fit"])
@pytest.mark.parametrize("form", ["npz", "csv"])
def test_a_chip_that_is_given_twice_is_refused(command, example, tmp_path, chips, command_words, form):
    """A copy under another name, in whatever format: exit 2, both are named, nothing is written."""
    copy = chips / "copy"
    shutil.copytree(chips / "chip-1", copy)
    if form == "csv":
        for path in copy.glob("**/*.npz"):
            arrays = read_arrays(path, (256, 256))
            path.unlink()
            write_arrays(path.with_suffix(""), arrays, "csv")
    out = tmp_path / ("out.onnx" if command_words == "calibrate" else "out.json")
    words = {
        "audit": ("audit", example, "--chip", chips, *AUDIT, "--report", out),
        "calibrate": ("calibrate", example, "--chip", chips, "--name", "chip-0", "-o", out, "-q"),
        "fit": ("devices", "fit", tmp_path / "m", chips, "-o", out, "-q"),
    }[command_words]
    if command_words == "fit":
        mapped(command, example, tmp_path / "m")
    ran = command(*words)
    assert (ran.code, out.exists()) == (2, False)
    assert f"{chips / 'chip-1'} and {copy}: the same conductances" in ran.err


def test_the_same_folder_twice_is_refused(command, example, tmp_path, chips):
    """`devices fit mapping measured measured` would count every device twice."""
    mapped(command, example, tmp_path / "m")
    ran = command("devices", "fit", tmp_path / "m", chips, chips, "-o", tmp_path / "p.json", "-q")
    assert (ran.code, "one chip given twice" in ran.err, (tmp_path / "p.json").exists()) == (2, True, False)


def test_chips_without_noise_are_alike_and_let_through(command, example, tmp_path):
    """Simulated chips at sigma 0 hold their targets, all of them: that is said."""
    chips = mapped(command, example, tmp_path / "ideal", "--simulate", 2, "--sigma", 0)
    ran = command("audit", example, "--chip", chips, *AUDIT, "--report", tmp_path / "r.json")
    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert sum("holds its target exactly" in note for note in report["notes"]) == 2
    assert all(chip["exact"] == chip["errors"]["measured"] for chip in report["measured_chips"]["chips"])


@pytest.mark.parametrize("command_words", ["audit", "calibrate", "cost"])
def test_a_folder_of_targets_is_no_chip(command, example, tmp_path, command_words):
    """What `map` wrote to program by, given for what was read back: exit 2, nothing is written."""
    targets, out = mapped(command, example, tmp_path / "m"), tmp_path / "out"
    words = {
        "audit": (*AUDIT, "--report", out),
        "calibrate": ("-o", out, "-q"),
        "cost": ("--technology", "cmos_22nm_neurosim", "--adc-bits", 8, "-q", "--report", out),
    }
    ran = command(command_words, example, "--chip", targets, *words[command_words])
    assert (ran.code, out.exists()) == (2, False)
    assert "this is the file that `nvaudit map` wrote to program by" in ran.err


def test_targets_without_their_levels_are_asked_about(command, example, tmp_path):
    """Conductances alone that are all at their targets may be read back from a digital array: it is said."""
    folder = mapped(command, example, tmp_path / "m")
    rewritten(folder, lambda arrays: {"conductance": arrays["conductance"]})
    ran = command("audit", example, "--chip", folder, *AUDIT, "--report", tmp_path / "r.json")
    assert ran.code == 0, ran.err
    notes = json.loads((tmp_path / "r.json").read_text())["notes"]
    assert any("holds its target exactly" in note and "are these targets?" in note for note in notes)


def test_measured_values_beside_the_levels_are_a_chip(command, example, tmp_path):
    """A laboratory may write into the files of the mapping; unmeasured crossbars may stay NaN."""
    folder = mapped(command, example, tmp_path / "m")

    def read_back(arrays):
        g = arrays["conductance"].astype(np.float64)
        g[arrays["used"]] += 0.25
        g[0, :3] = np.nan
        return arrays | {"conductance": g}

    rewritten(folder, read_back)
    ran = command("audit", example, "--chip", folder, *AUDIT, "--report", tmp_path / "r.json")
    assert ran.code == 0, ran.err
    (chip,) = json.loads((tmp_path / "r.json").read_text())["measured_chips"]["chips"]
    assert (chip["missing"], chip["exact"]) == (3, 0)


FACTS = {
    "too long": ('{"time_s": 1e300}', "time_s: got 1e+300: it should be less than or equal to 10000000000"),
    "negative": ('{"time_s": -1}', "time_s: got -1: it should be greater than or equal to 0"),
    "infinite": ('{"time_s": Infinity}', "time_s: got Infinity: it should be a finite number"),
    "a truth": ('{"time_s": true}', "time_s: got true: it should be a valid number"),
    "a word": ('{"time_s": "1h"}', "time_s: got '1h': it should be a valid number"),
    "another key": ('{"time": 60}', "time: got 60: unknown key"),
    "a list": ("[60]", "the file: got [60]: it should be an object"),
    "no JSON": ("{", "the file: Invalid JSON"),
}


@pytest.mark.parametrize(("text", "said"), FACTS.values(), ids=FACTS)
def test_a_chip_json_that_cannot_be_right_is_refused(command, example, chips, text, said):
    """Exit 2 with the file, the key, what is wrong and how it is written."""
    (chips / "chip-0" / "chip.json").write_text(text)
    ran = command("audit", example, "--chip", chips, *AUDIT)
    assert ran.code == 2
    assert f"{chips / 'chip-0' / 'chip.json'}: {said}" in ran.err
    assert '{"time_s": 3600, "note": "25 °C"}' in ran.err


def test_a_note_in_chip_json_is_let_through(command, example, tmp_path, chips):
    """What people want to keep beside the time."""
    (chips / "chip-0" / "chip.json").write_text('{"time_s": 1e9, "note": {"by": "A. B."}}')
    ran = command("audit", example, "--chip", chips, *AUDIT, "--report", tmp_path / "r.json")
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "r.json").read_text())["measured_chips"]["chips"][0]["time_s"] == 1e9
