"""Remap: a model that computes the same, or nearly, and survives noise better on the same chips."""

import json
import shutil
from io import StringIO

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from rich.console import Console
from scaling_cases import outputs, random_model, samples

from nvaudit import audit
from nvaudit.errors import OptionError
from nvaudit.jobs.remapping import remap
from nvaudit.remapping.spec import make_remap_spec
from nvaudit.report.jsontext import to_json
from nvaudit.report.kinds import print_report
from nvaudit.report.remap.result import RemapReport

EXACT = {"clip": False, "recalibrate": False, "rounding": False}
QUICK = {"calibration_chips": 4, "calibration_images": 48, "trials": 0, "time_budget": 0}


@pytest.fixture
def uneven(tmp_path):
    """The example network with channels of very different size between its layers, and its data."""
    return make_uneven(tmp_path)


def make_uneven(folder, source="examples/digits_cnn.onnx"):
    from pathlib import Path

    root = Path(__file__).parents[2]
    model = onnx.load(root / source)
    arrays = {t.name: t for t in model.graph.initializer}
    factor = np.exp(np.random.Generator(np.random.PCG64(0)).normal(0, 1.2, arrays["conv1.weight"].dims[0]))
    for name, shape in (
        ("conv1.weight", (-1, 1, 1, 1)),
        ("conv1.bias", (-1,)),
        ("conv2.weight", (1, -1, 1, 1)),
    ):
        values = onnx.numpy_helper.to_array(arrays[name])
        scale = factor.reshape(shape)
        new = values / scale if name == "conv2.weight" else values * scale
        arrays[name].CopyFrom(onnx.numpy_helper.from_array(new.astype(np.float32), name))
    path = folder / "uneven.onnx"
    onnx.save(model, path)
    shutil.copy(root / "examples" / "digits_cnn.npz", folder / "uneven.npz")
    return path


def test_equalising_helps_and_changes_nothing_else(uneven, tmp_path):
    """On a network with uneven channels the paired audit shows a gain; the function is the same."""
    before = uneven.read_bytes()
    out = tmp_path / "out.onnx"
    report = remap(
        uneven, "rram", out=out, sigma=0.3, trials=40, limit=300, calibration_chips=6,
        calibration_images=100, **EXACT,
    )  # fmt: skip
    assert uneven.read_bytes() == before
    assert report.exact
    assert report.difference.kpp.value > 0.02
    assert report.difference.mean.low > 0.01
    assert report.before.nominal == report.after.nominal
    with np.load(uneven.with_suffix(".npz")) as data:
        x = data["image"][:50]
    for want, got in zip(outputs(uneven, x, "image"), outputs(out, x, "image"), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    after = audit(
        out, "rram", uneven.with_suffix(".npz"), trials=40, sigmas=(0.3,), limit=300, exhaustive=True
    )
    assert after.kpp[0].value == report.after.kpp
    assert {row.scales for row in report.tensors} == {"rescaled"}


def test_every_step_and_every_weight_is_reported(uneven, tmp_path):
    """One step is kept, each other one says why not, and each weight says what became of it."""
    report = remap(uneven, "rram", out=tmp_path / "o.onnx", sigma=0.3, **QUICK)
    assert report.steps[0].name == "original"
    assert sum(step.kept for step in report.steps) == 1
    assert all(step.reason for step in report.steps if not step.kept)
    names = [tensor.name for tensor in report.tensors]
    assert names == ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"]
    assert all(t.clip is not None or t.clip_reason for t in report.tensors)
    assert all(t.noise < 1.05 for t in report.tensors)
    again = RemapReport.model_validate_json(to_json(report))
    assert again == report
    assert json.loads(to_json(report))["run"]["digital_scale"] == "absorb"


@pytest.mark.parametrize("digital_scale", ["absorb", "insert", "insert-both"])
def test_factors_are_added_only_where_they_are_allowed(uneven, tmp_path, digital_scale):
    """By default no operator is added; with insert the factors are ordinary Mul nodes."""
    out = tmp_path / "o.onnx"
    report = remap(
        uneven, "rram", out=out, sigma=0.4, digital_scale=digital_scale, **EXACT,
        **QUICK,
    )  # fmt: skip
    added = len(onnx.load(out).graph.node) - len(onnx.load(uneven).graph.node)
    if digital_scale == "absorb":
        assert added == report.added_factors == 0
    onnx.checker.check_model(onnx.load(out), full_check=True)
    assert report.exact


def test_without_noise_nothing_is_clipped(uneven, tmp_path):
    """With perfect devices no clipping is tried, and every weight says why."""
    report = remap(uneven, "rram", out=tmp_path / "o.onnx", sigma=0.0, **QUICK)
    assert not any("clipped" in step.name for step in report.steps)
    assert {tensor.clip_reason for tensor in report.tensors} == {"carries no noise"}


def test_same_specification_gives_the_same_file(uneven, tmp_path):
    """Nothing depends on the number of workers or on time."""
    for name, workers in (("a", 0), ("b", 2)):
        remap(uneven, "rram", out=tmp_path / name, sigma=0.3, workers=workers, **QUICK)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_clean_loss_is_bounded(uneven, tmp_path):
    """With no loss allowed, what is written is as accurate as the original on all samples."""
    report = remap(
        uneven, "rram", out=tmp_path / "o.onnx", sigma=0.4, max_clean_loss=0.0,
        calibration_chips=4, calibration_images=48, trials=2,
    )  # fmt: skip
    assert report.after.nominal >= report.before.nominal
    kept = next(step for step in report.steps if step.kept)
    assert kept.nominal >= report.steps[0].nominal


def test_without_labels_the_original_is_the_reference(unlabelled, tmp_path):
    """Synthetic inputs calibrate too, and the report says what was compared."""
    report = remap(unlabelled, "rram", out=tmp_path / "o.onnx", sigma=0.3, **QUICK)
    assert report.label_free
    assert report.metric == "agreement"
    assert report.steps[0].nominal == 1.0
    assert any("no labels" in note for note in report.notes)


def test_half_precision_comes_back_as_half_precision(tmp_path):
    """Types of weights and biases stay, and the outputs agree as far as half precision can."""
    model = random_model(["conv", "relu", "norm"], "pool", 13)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    report = remap(path, "rram", out=tmp_path / "o.onnx", sigma=0.3, **EXACT, **QUICK)
    assert report.exact
    out = onnx.load(tmp_path / "o.onnx")
    assert {t.data_type for t in out.graph.initializer} == {TensorProto.FLOAT16}
    x = samples().astype(np.float16)
    want, got = outputs(model, x)[0].astype(float), outputs(tmp_path / "o.onnx", x)[0].astype(float)
    assert np.abs(want - got).max() <= 0.02 * np.abs(want).max()


def test_an_input_is_never_written_over(uneven):
    """The model and its data cannot be the output, and nothing is written then."""
    before = uneven.read_bytes()
    with pytest.raises(OptionError, match="this is the model; choose another path"):
        remap(uneven, "rram", out=uneven, **QUICK)
    with pytest.raises(OptionError, match="this is the data; choose another path"):
        remap(uneven, "rram", out=uneven.with_suffix(".npz"), **QUICK)
    assert uneven.read_bytes() == before


def test_wrong_options_name_what_is_allowed():
    """A message gives the option, what was found and what may be given."""
    with pytest.raises(
        OptionError, match="--digital-scale: got 'all'; use one of absorb, insert, insert-both"
    ):
        make_remap_spec(model="m", digital_scale="all")
    with pytest.raises(OptionError, match="epochs: there is no such option"):
        make_remap_spec(model="m", epochs=3)


def test_text_says_what_the_report_says(uneven, tmp_path):
    """Headline first, then before and after, the steps and every weight, at any width."""
    report = remap(
        uneven, "rram", out=tmp_path / "o.onnx", sigma=0.3, trials=4, limit=60,
        calibration_chips=4, calibration_images=48,
    )  # fmt: skip
    for width in (40, 100):
        stream = StringIO()
        print_report(report, Console(file=stream, width=width))
        text = stream.getvalue()
        assert max(map(len, text.splitlines())) <= width
        squeezed = " ".join(text.split())
        assert squeezed.startswith("KPP 1 %")
        assert "before" in squeezed
        assert all(tensor.name in squeezed for tensor in report.tensors)


def test_costs_stand_beside_the_audits(uneven, tmp_path):
    """With a technology both models are costed as by an audit; options are checked before anything runs."""
    circuits = {
        "technology": "cmos_22nm_neurosim",
        "adc_bits": 5,
        "cell_bits": 2,
        "g_max_us": 100,
        "on_off": 50,
    }
    few = {"trials": 4, "limit": 60, "calibration_chips": 4, "calibration_images": 48}
    out = tmp_path / "o.onnx"
    report = remap(uneven, "fefet1", out=out, **few, **circuits, code="8,4,2,1")
    data = uneven.with_suffix(".npz")
    given = audit(uneven, "fefet1", data, trials=4, limit=60, roughness=False, **circuits)
    made = audit(out, "fefet1", data, trials=4, limit=60, roughness=False, **circuits)
    for side, alone in ((report.before, given), (report.after, made)):
        assert side.cost.energy_j == alone.cost.totals.energy_j
        assert side.cost.technology == "cmos_22nm_neurosim"
    assert report.before.cost.energy_j != report.after.cost.energy_j
    stream = StringIO()
    print_report(report, Console(file=stream, width=100))
    assert "Hardware cost of an inference with cmos_22nm_neurosim" in " ".join(stream.getvalue().split())
    with pytest.raises(OptionError, match="give --adc-bits too"):
        remap(uneven, "fefet1", out=out, **few, technology="cmos_22nm_neurosim")
    with pytest.raises(OptionError, match="--trials 0 has none"):
        remap(uneven, "fefet1", out=out, **QUICK, **circuits)
