"""Arrays out, chips in: `nvaudit map`, its check, and simulated chips that come back as measured ones."""

import json
import shutil

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import nvaudit
from nvaudit.errors import OptionError
from nvaudit.mapping.array_files import read_arrays, write_arrays
from nvaudit.mapping.manifest import content_digest, manifest_text, read_manifest, schema_text
from nvaudit.model import constants, load_model

AUDIT = ("--no-roughness", "-n", 3, "--workers", 0, "--limit", 60, "--exhaustive")


MAPPINGS = {
    "slices": ("--device", "fefet1"),
    "a window in µS": ("--device", "pcm"),
    "offset": ("--device", "rram", "--encoding", "offset"),
    "a narrow top slice": ("--device", "rram", "--bits", 7),
    "per channel": ("--device", "rram", "--scale", "per_channel"),
    "a code": ("--device", "fefet1", "--code", "8,4,2,1"),
    "a code with signs": ("--device", "fefet1", "--code", "4,2,1", "--encoding", "sign_per_device"),
    "small crossbars": ("--device", "rram", "--crossbar", "24x10"),
    "some digital": ("--device", "rram", "--digital", "fc*"),
    "outliers": ("--device", "rram", "--digital-outliers", "2%"),
    "outliers of channels": ("--device", "rram", "--digital-outliers", "2%", "--scale", "per_channel"),
    "outliers beside a code": ("--device", "fefet1", "--digital-outliers", "1%", "--code", "auto"),
    "converters": ("--device", "rram", "--adc-bits", 6, "--dac-bits", 6, "--limit", 60),
}


@pytest.mark.parametrize("options", MAPPINGS.values(), ids=MAPPINGS)
def test_a_mapping_computes_what_the_quantised_model_computes(command, example, tmp_path, options):
    """What is written is put together again bit for bit: weights, scales and outputs."""
    folder = tmp_path / "mapping"
    ran = command("map", example, *options, "-o", folder, "-q")
    assert ran.code == 0, ran.err
    jsonschema.validate(json.loads((folder / "manifest.json").read_text()), json.loads(schema_text()))
    ran = command("map", "--check", folder, "-q", "--report", tmp_path / "check.json")
    assert ran.code == 0, ran.out
    report = json.loads((tmp_path / "check.json").read_text())
    found = report["check"]
    assert found["tensors"] == len(report["tensors"]) > 0
    assert found["samples"] in (8, 60)
    assert found["outputs"] == 10 * found["samples"]
    assert (found["different"], found["faults"]) == (0, [])
    assert 0 <= found["digital_part"] < 1e-5  # digital.onnx, given the products


CHIPS = {
    "one draw per weight": ("--device", "fefet1"),
    "device by device": ("--device", "fefet1", "--every-device"),
    "a log-normal law": ("--device", "rram_65nm"),
    "drift and read noise": ("--device", "pcm", "--time", "1d"),
    "stuck devices": ("--device", "rram", "--stuck-at", "0.01,0.01"),
    "a common component": ("--device", "rram", "--correlated", "0.05:16x16"),
    "offset": ("--device", "cmo_hfox", "--time", "1d"),
    "a code": ("--device", "fefet1", "--code", "8,4,2,1"),
    "a scale per channel": ("--device", "rram", "--scale", "per_channel"),
    "outliers": ("--device", "fefet1", "--digital-outliers", "2%"),
    "outliers on a device with read noise": ("--device", "pcm", "--digital-outliers", "2%"),
    "groups of zeros": ("--device", "fefet1", "--skip-zero-groups", "--crossbar", "32x32"),
    "converters": ("--device", "rram", "--adc-bits", 6, "--dac-bits", 6, "--limit", 60),
    "converters on devices with read noise": ("--device", "pcm", "--adc-bits", 6, "--limit", 60),
}


@pytest.mark.parametrize("options", CHIPS.values(), ids=CHIPS)
def test_simulated_chips_come_back_as_the_audit_has_them(command, example, tmp_path, options):
    """map --simulate, then audit --chip: the metric of each is that of the audit, bit for bit."""
    chips, report = tmp_path / "chips", tmp_path / "r.json"
    assert command("map", example, *options, "--simulate", 3, "--seed", 7, "-o", chips, "-q").code == 0
    ran = command(
        "audit", example, "--chip", chips, *AUDIT, "-q", "--metric", "cross_entropy", "--report", report
    )
    assert ran.code == 0, ran.err
    found = json.loads(report.read_text())
    measured = found["measured_chips"]["chips"]
    # The cross-entropy is a real number: one bit of one weight would show.
    assert [chip["value"] for chip in measured] == found["trials"]["values"]
    assert len(set(found["trials"]["values"])) == 3
    # Each is ranked among the others, not against itself.
    assert {(chip["simulated"], chip["equal"]) for chip in measured} == {(2, 0)}
    (note,) = (note for note in found["notes"] if "left out of its own comparison" in note)
    assert note.startswith("chip-0, chip-1 and chip-2: simulated with --seed 7, the one of this audit")
    assert [chip["worse"] + 1 for chip in measured] == [
        1 + sum(other > chip["value"] for other in found["trials"]["values"]) for chip in measured
    ]


def test_chips_of_another_seed_are_ranked_against_all(command, example, tmp_path):
    """With a seed of its own the audit draws other chips, and none is left out."""
    chips, report = tmp_path / "chips", tmp_path / "r.json"
    assert command("map", example, "--simulate", 2, "--seed", 7, "-o", chips, "-q").code == 0
    ran = command("audit", example, "--chip", chips, *AUDIT, "--seed", 8, "-q", "--report", report)
    assert ran.code == 0, ran.err
    found = json.loads(report.read_text())
    assert {chip["simulated"] for chip in found["measured_chips"]["chips"]} == {found["trials"]["count"]}
    assert not any("left out of its own comparison" in note for note in found["notes"])


def test_formats_hold_the_same(command, example, tmp_path):
    """CSV has the same chips as .npz, to the last bit."""
    for form in ("npz", "csv"):
        ran = command("map", example, "--simulate", 1, "--format", form, "-o", tmp_path / form, "-q")
        assert ran.code == 0, ran.err
    manifest = read_manifest(tmp_path / "npz")
    for tensor in manifest.tensors:
        for crossbar in tensor.crossbars:
            stem = f"chip-0/{crossbar.file}"
            one = read_arrays(tmp_path / "npz" / f"{stem}.npz", (256, 256))["conductance"]
            other = read_arrays(tmp_path / "csv" / f"{stem}.csv", (256, 256))["conductance"]
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", ["hdf5", "zarr"])
def test_other_formats_come_with_their_library(command, example, tmp_path, form):
    """HDF5 and zarr pass the check where their library is installed; else the extra is named."""
    name = {"hdf5": "h5py", "zarr": "zarr"}[form]
    ran = command("map", example, "--format", form, "-o", tmp_path / "m", "-q")
    try:
        __import__(name)
    except ImportError:
        assert ran.code == 2
        assert f"pip install 'nvaudit[{form}]'" in ran.err
        assert not (tmp_path / "m").exists()
        return
    assert ran.code == 0, ran.err
    assert command("map", "--check", tmp_path / "m", "-q").code == 0


def test_several_reads_give_the_noise_of_reading(command, example, tmp_path):
    """Devices that were read 16 times: the mean is the conductance, the variance the noise of one read."""
    chips = tmp_path / "chips"
    noisy = ("--device", "rram", "--sigma", 0.02, "--read-noise", "0.05", "--crossbar", "64x64")
    assert command("map", example, *noisy, "--simulate", 1, "--reads", 16, "-o", chips, "-q").code == 0
    stem = read_manifest(chips).tensors[2].crossbars[0].file
    arrays = read_arrays(chips / "chip-0" / f"{stem}.npz", (64, 64))
    assert arrays["conductance"].shape == (16, 64, 64)
    spread = np.sqrt(arrays["conductance"].var(axis=0, ddof=1)[arrays["used"]].mean())
    assert spread == pytest.approx(0.05 * 3, rel=0.02)  # of the full scale, three level spacings
    ran = command("audit", example, "--chip", chips, *AUDIT, "-q", "--report", tmp_path / "r.json")
    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert any("read up to 16 times" in note for note in report["notes"])
    assert report["measured_chips"]["chips"][0]["reads"] == 16


def test_the_plan_of_write_verify_is_in_the_arrays(command, example, tmp_path):
    """Devices to verify are marked as the plan's weights are, and come last in the order."""
    with np.load(example.with_suffix(".npz")) as data:
        assert data.files
    manifest_of = tmp_path / "plain"
    assert command("map", example, "--device", "rram", "-o", manifest_of, "-q").code == 0
    shapes = {t.name: t.shape for t in read_manifest(manifest_of).tensors}
    masks = {name: np.zeros(shape, bool) for name, shape in shapes.items()}
    masks["fc1.weight"][3, 5:9] = True
    np.savez(tmp_path / "plan.npz", **masks)
    out = tmp_path / "planned"
    ran = command("map", example, "--device", "rram", "--verify-plan", tmp_path / "plan.npz", "-o", out, "-q")
    assert ran.code == 0, ran.err
    manifest = read_manifest(out)
    assert {t.name: sum(c.verify for c in t.crossbars) for t in manifest.tensors} == {
        name: 4 * int(mask.sum()) for name, mask in masks.items()
    }
    last = manifest.tensors[manifest.order[-1][0]]
    assert last.name == "fc1.weight"
    marked = read_arrays(out / f"{last.crossbars[0].file}.npz", (256, 256))["verify"]
    assert marked.sum() == 16


def _first(folder):
    return next(iter(sorted(folder.glob("arrays/*/*.npz"))))


def _rewrite(path, change):
    arrays = read_arrays(path, (256, 256))
    path.unlink()
    write_arrays(path.with_suffix(""), change(arrays), "npz")


def test_a_check_names_what_is_wrong(command, example, tmp_path):
    """A level, a file and a scale that are not as they were: exit 1, and each is named."""
    folder = tmp_path / "m"
    assert command("map", example, "-o", folder, "-q").code == 0

    def other(arrays):
        level = arrays["level"].copy()
        level[2, 1] ^= 1
        return arrays | {"level": level}

    _rewrite(_first(folder), other)
    ran = command("map", "--check", folder, "-q")
    assert ran.code == 1
    assert "level of row 2, column 1" in " ".join(ran.out.split())
    _first(folder).unlink()
    ran = command("map", "--check", folder, "-q")
    assert ran.code == 1
    assert "is missing" in ran.out


@pytest.mark.parametrize("encoding", ["sign_magnitude", "differential"])
def test_equal_significances_are_all_named(command, example, tmp_path, encoding):
    """2,2,1 are three devices of each polarity, not two."""
    ran = command("map", example, "--device", "rram", "--code", "2,2,1", "--encoding", encoding, "-q",
                  "-o", tmp_path / "m", "--report", tmp_path / "r.json")  # fmt: skip
    assert ran.code == 0, ran.err
    tensors = json.loads((tmp_path / "r.json").read_text())["tensors"]
    assert [tensor["significances"] for tensor in tensors] == [[2, 2, 1]] * 4


def test_digital_weights_are_written_and_checked(command, example, tmp_path):
    """The largest weights with their places; a value that is not the model's is found."""
    folder, outliers = tmp_path / "m", ("--digital-outliers", "2%")
    assert command("map", example, *outliers, "-o", folder, "-q").code == 0
    entries = read_manifest(folder).tensors
    assert [entry.outliers.weights for entry in entries] == [1, 23, 327, 12]
    weights = {c.name: np.asarray(c.weight.load().values) for c in constants(load_model(example)) if c.weight}
    for entry in entries:
        place, value = (np.load(folder / name) for name in (entry.outliers.places, entry.outliers.values))
        sizes = np.abs(weights[entry.name]).reshape(-1)
        assert sizes[place].min() >= np.delete(sizes, place).max()
        np.testing.assert_array_equal(value, weights[entry.name].reshape(-1)[place])
    np.save(folder / entries[0].outliers.values, np.float32([1.0]))
    ran = command("map", "--check", folder, "-q")
    assert ran.code == 2
    assert "not the digital weights of the manifest" in ran.err
    (folder / entries[0].outliers.values).unlink()
    assert command("map", "--check", folder, "-q").code == 2


def test_a_digital_part_that_computes_something_else_is_named(command, example, tmp_path):
    """digital.onnx with a bias changed, and without it: exit 1, and it is named."""
    folder = tmp_path / "m"
    assert command("map", example, "-o", folder, "-q").code == 0
    tensors = json.loads((folder / "manifest.json").read_text())["tensors"]
    model = onnx.load(folder / "digital.onnx")
    products = {one["product"] for tensor in tensors for one in tensor["operators"]}
    assert products == {value.name for value in model.graph.input[1:]}
    bias = next(one for one in model.graph.initializer if one.name == "fc2.bias")
    bias.raw_data = numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1)).raw_data
    onnx.save(model, folder / "digital.onnx")
    ran = command("map", "--check", folder, "-q")
    assert (ran.code, "digital.onnx: logits is off" in " ".join(ran.out.split())) == (1, True)
    (folder / "digital.onnx").unlink()
    ran = command("map", "--check", folder, "-q")
    assert (ran.code, "digital.onnx: is missing" in " ".join(ran.out.split())) == (1, True)


def test_nothing_is_left_half_written(command, example, tmp_path, monkeypatch):
    """A mapping that fails on the way leaves no folder, and one that is there stays as it was."""
    from nvaudit.jobs import deploying

    folder = tmp_path / "m"
    assert command("map", example, "-o", folder, "-q").code == 0
    before = sorted(path.name for path in folder.rglob("*"))
    assert "--overwrite" in command("map", example, "-o", folder, "-q").err
    monkeypatch.setattr(deploying, "manifest_text", lambda manifest: 1 / 0)
    assert command("map", example, "-o", folder, "--overwrite", "-q").code == 3
    assert command("map", example, "-o", tmp_path / "new", "-q").code == 3
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_only_a_mapping_is_replaced(command, example, tmp_path, monkeypatch):
    """--overwrite takes a mapping away, never other files, or the folder that the command runs in."""
    folder = tmp_path / "m"
    for simulate in ((), ("--simulate", 1)):
        for _ in range(2):
            assert command("map", example, *simulate, "-o", folder, "--overwrite", "-q").code == 0
    (folder / "notes.txt").write_text("mine")
    ran = command("map", example, "-o", folder, "--overwrite", "-q")
    assert (ran.code, "'notes.txt' in this folder is none of that" in ran.err) == (2, True)
    assert (folder / "notes.txt").read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    assert command("map", example, "-o", tmp_path / "other", "--overwrite", "-q").code == 2
    with pytest.raises(OptionError, match="thesis"):
        nvaudit.map_model(example, out=tmp_path / "other", overwrite=True)
    assert (tmp_path / "other" / "thesis.txt").read_text() == "mine"
    (folder / "notes.txt").unlink()
    monkeypatch.chdir(folder)
    ran = command("map", example, "-o", ".", "--overwrite", "-q")
    assert (ran.code, "the folder that this runs in" in ran.err) == (2, True)
    assert (folder / "manifest.json").exists()


@pytest.fixture
def chips(command, example, tmp_path):
    """One simulated chip with a window in µS."""
    folder = tmp_path / "chips"
    words = ("--device", "rram_wan2022_1d", "--crossbar", "256x256")
    assert command("map", example, *words, "--simulate", 1, "-o", folder, "-q").code == 0
    return folder


def _with(value, where=(0, 0)):
    def change(arrays):
        g = arrays["conductance"].copy()
        g[where] = value
        return arrays | {"conductance": g}

    return change


def _scaled(factor):
    return lambda arrays: arrays | {"conductance": arrays["conductance"] * factor}


BAD = {
    "infinite": (_with(np.inf, (3, 2)), "row 3, column 2: infinite"),
    "negative": (_with(-400.0, (1, 1)), "no conductance is that negative"),
    "siemens": (_scaled(1e-6), "10^6 times too small for µS"),
    "nanosiemens": (_scaled(1e3), "10^3 times too large for µS"),
    "shape": (lambda arrays: {"conductance": arrays["conductance"][:, :100]}, "has shape [256, 100]"),
    "far off": (_with(1e9, (1, 0)), "windows off"),
    "no conductance": (lambda arrays: {"g": arrays["conductance"]}, "has no 'conductance'"),
}


@pytest.mark.parametrize(("change", "said"), BAD.values(), ids=BAD)
def test_conductances_that_cannot_be_right_are_refused(command, example, tmp_path, chips, change, said):
    """Exit 2 with the file, what was found and what to do; no report is written."""
    path = _first(chips / "chip-0")
    _rewrite(path, change)
    report = tmp_path / "r.json"
    ran = command("audit", example, "--chip", chips, *AUDIT, "-q", "--report", report)
    assert ran.code == 2
    assert said in ran.err
    assert str(path) in ran.err
    assert not report.exists()


def test_a_file_that_is_no_npz_is_refused(command, example, tmp_path, chips):
    """Text by the name of an array: exit 2, and no advice to load it unsafely."""
    path = sorted((chips / "chip-0").glob("arrays/*/*.npz"))[0]
    path.write_text("hello")
    ran = command("audit", example, "--chip", chips, *AUDIT)
    assert (ran.code, "it is no .npz" in ran.err, "pickle" in ran.err) == (2, True, False)


def test_missing_crossbars_and_other_models_are_refused(command, example, tmp_path, chips):
    """A crossbar without a file, a manifest of another model, an option that says otherwise."""
    ran = command("audit", example, "--chip", chips, "--bits", 6, *AUDIT, "-q")
    assert ran.code == 2
    assert "--bits: the chips" in ran.err
    _first(chips / "chip-0").unlink()
    ran = command("audit", example, "--chip", chips, *AUDIT, "-q")
    assert ran.code == 2
    assert "lacks arrays/000-conv1.weight/000000" in ran.err
    other = read_manifest(chips)
    other = other.model_copy(update={"model": other.model.model_copy(update={"sha256": "0" * 64})})
    other = other.model_copy(update={"sha256": content_digest(other)})
    (chips / "manifest.json").write_text(manifest_text(other))
    ran = command("audit", example, "--chip", chips, *AUDIT, "-q")
    assert ran.code == 2
    assert "was made for another model" in ran.err
    (chips / "manifest.json").unlink()
    ran = command("audit", example, "--chip", chips, *AUDIT, "-q")
    assert ran.code == 2
    assert "has no manifest.json" in ran.err


def test_what_was_not_measured_is_at_its_target_and_said(command, example, tmp_path, chips):
    """NaN everywhere is the quantised model; how many there were stands in the notes."""
    for path in sorted((chips / "chip-0").glob("arrays/*/*.npz")):
        _rewrite(path, lambda arrays: arrays | {"conductance": np.full((256, 256), np.nan)})
    report = tmp_path / "r.json"
    ran = command("audit", example, "--chip", chips, *AUDIT, "-q", "--report", report)
    assert ran.code == 0, ran.err
    found = json.loads(report.read_text())
    chip = found["measured_chips"]["chips"][0]
    assert chip["value"] == found["quantised"]
    assert chip["missing"] == chip["errors"]["devices"] > 0
    assert any("were not measured (NaN)" in note for note in found["notes"])
    words = " ".join(ran.out.split())
    assert "chip-0: none of its devices was measured (NaN), so its value is that of the quantised" in words


def test_a_chip_that_computes_nothing_is_no_ordinary_chip(command, tmp_path):
    """Its outputs are NaN on every sample: that is said beside its value, in the notes and in the report."""
    weight = np.eye(4, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Sub", ["s", "least"], ["d"]),
         helper.make_node("Sqrt", ["d"], ["y"])], "roots",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.float32(0.2), "least")],
    )  # fmt: skip
    model, folder = tmp_path / "roots.onnx", tmp_path / "chips"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), model)
    labels = np.arange(20) % 4
    np.savez(tmp_path / "roots.npz", x=np.eye(4, dtype=np.float32)[labels] + 0.5, y=labels)
    assert command("map", model, "--device", "rram_wan2022_1d", "--simulate", 1, "-o", folder, "-q").code == 0
    path = _first(folder / "chip-0")
    _rewrite(path, lambda arrays: {**arrays, "conductance": np.full_like(arrays["conductance"], 1.0)})
    ran = command("audit", model, "--chip", folder, *AUDIT, "-q", "-o", tmp_path / "r.json")
    assert ran.code == 0, ran.err
    chip = json.loads((tmp_path / "r.json").read_text())["measured_chips"]["chips"][0]
    assert chip["undefined"] == 20, chip
    words = " ".join(ran.out.split())
    assert "chip-0: its outputs are not numbers (NaN) on every sample" in words
    assert "outputs are not numbers (NaN) for 20 of 20 samples" in words


def test_dead_lines_and_the_worst_tensor_are_found(command, example, tmp_path, chips):
    """A column that is open and a row that is shorted are dead; the tensor that lost them costs most."""
    path = next(iter(sorted((chips / "chip-0").glob("arrays/*fc1*/*.npz"))))

    def broken(arrays):
        g = arrays["conductance"].copy()
        g[:, 4] = np.where(np.isnan(g[:, 4]), np.nan, 0.0)
        g[7] = np.where(np.isnan(g[7]), np.nan, 40.0)
        return arrays | {"conductance": g}

    _rewrite(path, broken)
    report = tmp_path / "r.json"
    page = tmp_path / "r.html"
    ran = command("audit", example, "--chip", chips, *AUDIT, "-q", "--report", report, "--html", page)
    assert ran.code == 0, ran.err
    chip = json.loads(report.read_text())["measured_chips"]["chips"][0]
    dead = {(one["tensor"], tuple(one["dead_rows"]), tuple(one["dead_columns"])) for one in chip["crossbars"]}
    assert ("fc1.weight", (7,), (4,)) in dead
    assert sum(len(rows) + len(columns) for _, rows, columns in dead) == 2
    assert [(place["line"], place["index"], place["dead"]) for place in chip["worst"][:2]] in (
        [("row", 7, True), ("column", 4, True)],
        [("column", 4, True), ("row", 7, True)],
    )
    text = page.read_text()
    assert "Errors by row" in text
    assert "Errors by column" in text


def test_a_table_is_enough_for_one_crossbar(command, example, tmp_path):
    """row,column,conductance for a model on one crossbar; a line that is given twice is two reads."""
    one = ("--device", "fefet1", "--layers", "fc2.weight")
    mapped = tmp_path / "m"
    assert command("map", example, *one, "--format", "csv", "--simulate", 1, "-o", mapped, "-q").code == 0
    table = next(iter((mapped / "chip-0").glob("arrays/*/*.csv")))
    lone = shutil.copy(table, tmp_path / "chip.csv")
    values = []
    for chip in (mapped, lone):
        report = tmp_path / "r.json"
        given = () if chip == mapped else one
        assert command("audit", example, *given, "--chip", chip, *AUDIT, "-q", "--report", report).code == 0
        values.append(json.loads(report.read_text())["measured_chips"]["chips"][0]["value"])
    assert values[0] == values[1]
    ran = command("audit", example, "--device", "fefet1", "--chip", lone, *AUDIT, "-q")
    assert ran.code == 2
    assert "one crossbar, and the model lies on several" in ran.err
    (tmp_path / "bad.csv").write_text("row,column,conductance\n0,300,1\n")
    ran = command("audit", example, *one, "--chip", tmp_path / "bad.csv", *AUDIT, "-q")
    assert ran.code == 2
    assert "row 0, column 300" in ran.err
