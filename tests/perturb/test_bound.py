"""One session for all chips, its weights bound on a device: as on a GPU, but in memory of the processor."""

import numpy as np
import onnxruntime
import pytest

from nvaudit.jobs.auditing import run_audit
from nvaudit.jobs.landscaping import landscape
from nvaudit.perturb import bound, engine, session
from nvaudit.perturb.engine import QUANTISED, Engine
from nvaudit.perturb.session import run_session
from nvaudit.session import prepare
from nvaudit.spec import make_spec


@pytest.fixture
def on_device(monkeypatch):
    """Switch between sessions that stay open, for the processor too, and one for each chip."""

    def switch(kept):
        if kept:
            monkeypatch.setitem(bound.DEVICES, "cpu", "cpu")
        else:
            monkeypatch.delitem(bound.DEVICES, "cpu", raising=False)

    return switch


@pytest.fixture
def unpacked(monkeypatch):
    """Let ONNX Runtime run a graph as it is written: constants, packed, are multiplied in another order."""
    own = session._options

    def options(ort):
        made = own(ort)
        made.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        made.add_session_config_entry("session.disable_prepacking", "1")
        return made

    monkeypatch.setattr(session, "_options", options)


def outputs_of(model, folder, trials, **options):
    """Outputs of chips on every sample, one chip after the other in one engine."""
    folder.mkdir(parents=True)
    spec = make_spec(model=model, device="fefet1", sigmas=(0.2,), roughness=False, **options)
    chips = Engine(prepare(spec, folder).workload)
    work, found = chips._w, {}
    for trial in trials:
        opened = chips._chip_session(0, trial)
        parts = [np.array(out) for _, _, out in chips._outputs(opened, work.template, work.count)]
        found[trial] = np.concatenate(parts)
    return found, chips


TRIALS = (0, 1, QUANTISED, 1, 0)


def test_every_chip_is_bit_for_bit_that_of_its_own_session(example, tmp_path, on_device, unpacked):
    """Whatever chip was there before; one session is opened for all."""
    on_device(False)
    plain, _ = outputs_of(example, tmp_path / "plain", TRIALS, limit=100, batch_size=32)
    on_device(True)
    kept, chips = outputs_of(example, tmp_path / "kept", TRIALS, limit=100, batch_size=32)
    assert len(chips._bound.open) == 1
    for trial in TRIALS:
        np.testing.assert_array_equal(kept[trial], plain[trial])
    assert not np.array_equal(plain[0], plain[1])


@pytest.mark.reference
@pytest.mark.parametrize(
    "name", ["mnist_lenet_keras", "cifar_resnet20_fp16_keepio", "cifar_resnet20_qdq_int8",
             "mnist_lstm_keras", "cifar_vit_pgd_2_3_16", "cifar_resnet14_opset9_b1"],
)  # fmt: skip
def test_reference_models_bit_for_bit(name, shared_data, tmp_path, on_device, unpacked):
    """Half precision, integers, recurrence, attention, a fixed batch."""
    model = shared_data / "models" / f"{name}.onnx"
    on_device(False)
    plain, _ = outputs_of(model, tmp_path / "plain", (0, 1), limit=4)
    on_device(True)
    kept, chips = outputs_of(model, tmp_path / "kept", (0, 1), limit=4)
    assert len(chips._bound.open) == 1
    for trial, output in plain.items():
        np.testing.assert_array_equal(kept[trial], output)


def test_an_audit_and_a_landscape_use_it(example, on_device, monkeypatch):
    """Races, full runs, attribution, corrected chips and the loss surface: the same within rounding."""
    options = {
        "model": example, "device": "rram", "trials": 12, "limit": 200, "workers": 0, "roughness": False,
        "attribute": ("tensors",), "attribution_trials": 2, "calibrate_chips": 20,
    }  # fmt: skip
    on_device(False)
    plain, surface = run_audit(make_spec(**options)), landscape(example, grid=3, pairs=1, images=8, workers=0)
    on_device(True)
    opened = []
    own = bound.BoundSession.__init__
    monkeypatch.setattr(bound.BoundSession, "__init__", lambda self, *rest: opened.append(own(self, *rest)))
    kept = run_audit(make_spec(**options))
    # The chip, what finds its correction, and the corrected chip.
    assert 1 <= len(opened) <= 4
    np.testing.assert_allclose(kept.trials.values, plain.trials.values, atol=1 / 180)
    assert kept.calibrated.points[0].trials.count == plain.calibrated.points[0].trials.count
    near = landscape(example, grid=3, pairs=1, images=8, workers=0)
    np.testing.assert_allclose(near.surface.losses, surface.surface.losses, rtol=1e-5)


def test_samples_are_brought_once(example, tmp_path, on_device, monkeypatch):
    """All chips run on the samples that lie on the device, unless there is no room."""
    on_device(True)
    made, own = [], engine.feed_samples
    monkeypatch.setattr(engine, "feed_samples", lambda *rest: made.append(rest) or own(*rest))
    outputs_of(example, tmp_path / "roomy", (0, 1, 2), limit=64, batch_size=32)
    assert len(made) == 2
    monkeypatch.setattr(bound, "KEPT_BYTES", 0)
    outputs_of(example, tmp_path / "narrow", (0, 1, 2), limit=64, batch_size=32)
    assert len(made) == 2 + 6


def test_read_noise_has_a_session_for_each_chip(example, tmp_path, on_device):
    """Its seeds are part of the graph."""
    on_device(True)
    _, chips = outputs_of(example, tmp_path / "noisy", (0, 1), limit=16, read_noise="0.02")
    assert chips._w.read_noise
    assert chips._bound is None


def test_a_pass_that_fails_says_so(example, tmp_path, on_device):
    """What ONNX Runtime says of bad samples is a bad-input error, as of an ordinary session."""
    on_device(True)
    _, chips = outputs_of(example, tmp_path / "bad", (0,), limit=4)
    opened = chips._chip_session(0, 0)
    with pytest.raises(session.ModelError, match="cannot run the model on this data"):
        run_session(opened, [chips._w.output], {name: np.zeros(3, np.float32) for name in chips._inputs})


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="ONNX Runtime has CUDA here"
)
def test_what_is_missing_names_what_to_install(example, command):
    """The extra of nvaudit, and that the processor's build must go first."""
    ran = command("audit", example, "-n", 2, "-j", 0, "--provider", "cuda")
    assert ran.code == 2
    assert "pip uninstall onnxruntime, then pip install 'nvaudit[gpu]'" in ran.err
