"""A template that is optimised once for all chips: the bits of every chip are the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit.errors import ModelError
from nvaudit.model.layout import Layout
from nvaudit.model.optimised import read_optimised, trial_fills
from nvaudit.model.template import Slot
from nvaudit.perturb import session as session_module
from nvaudit.perturb.engine import QUANTISED, Engine
from nvaudit.rng import stream
from nvaudit.session import prepare
from nvaudit.spec import make_spec

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"


def normalised(path: Path) -> Path:
    """A convolution to 16 channels, a batch normalisation, and a dense layer."""
    rng = stream(1, "test normalised")
    arrays = {
        "w": rng.normal(size=(16, 3, 3, 3)),
        "scale": rng.uniform(0.5, 2, 16),
        "shift": rng.normal(size=16),
        "mean": rng.normal(size=16),
        "var": rng.uniform(0.5, 2, 16),
        "dense": rng.normal(size=(16 * 36, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"]),
        helper.make_node("BatchNormalization", ["conv", "scale", "shift", "mean", "var"], ["norm"]),
        helper.make_node("Relu", ["norm"], ["relu"]),
        helper.make_node("Flatten", ["relu"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "normalised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    np.savez(
        path.with_suffix(".npz"), x=rng.normal(size=(20, 3, 8, 8)).astype(np.float32), y=np.arange(20) % 5
    )
    return path


def outputs(workload, monkeypatch, after: int) -> tuple[Engine, list[bytes]]:
    """What some chips give, bit for bit, and the engine that ran them."""
    monkeypatch.setattr(session_module, "OPTIMISED_AFTER", after)
    engine, found = Engine(workload), []
    for trial in (0, 1, 2, QUANTISED, 3):
        session = engine._chip_session(0, trial)
        parts = engine._outputs(session, workload.template, workload.count)
        found.append(b"".join(part.tobytes() for _, _, part in parts))
    return engine, found


@pytest.mark.parametrize("which", ["example", "normalised"])
def test_chips_are_the_same_bit_for_bit(which, tmp_path, monkeypatch):
    """With blocked layouts of convolutions and a batch normalisation that goes into its weights."""
    data = None
    model = EXAMPLE
    if which == "normalised":
        model = normalised(tmp_path / "model.onnx")
        data = model.with_suffix(".npz")
    (tmp_path / "run").mkdir()
    spec = make_spec(model=model, data=data, device="rram", limit=20, sigmas=(0.3,), trials=4)
    workload = prepare(spec, tmp_path / "run").workload
    each, wanted = outputs(workload, monkeypatch, 1000)
    once, found = outputs(workload, monkeypatch, 2)
    assert each._sessions.optimised is None
    assert once._sessions.optimised is not None
    assert found == wanted
    assert len(set(found)) == 5
    moved = [
        how
        for how in once._sessions.optimised._open.values()
        if how.place is not None or how.factor is not None
    ]
    assert moved or which == "example"  # else nothing of the above was tried


def test_a_template_that_is_refused_once_optimised_is_run_as_it_was_given(example, tmp_path, monkeypatch):
    """Chips have their own sessions then, and the same bits."""
    workload = prepare(make_spec(model=example, device="rram", limit=20), tmp_path).workload
    _, wanted = outputs(workload, monkeypatch, 1000)
    tried = []

    def refused(template, fills):
        tried.append(template)
        raise ModelError("ONNX Runtime cannot load the model")

    monkeypatch.setattr(session_module.TemplateSessions, "_again", staticmethod(refused))
    engine, found = outputs(workload, monkeypatch, 2)
    assert found == wanted
    assert len(tried) == 1
    assert engine._sessions.optimised is None


def written(slots, made) -> bytes:
    """A graph whose one initializer was made of the weights."""
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(made, "folded")])
    return helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize(
    ("fold", "understood"),
    [
        (lambda w: w.T, True),
        (lambda w: np.pad(w, ((0, 2), (0, 0))) * np.float32(0.37), True),
        (lambda w: w + 1, False),
        (lambda w: w / w.sum(), False),
        (np.sqrt, False),
    ],
)
def test_what_is_computed_of_weights_is_refused_and_what_moves_them_is_not(fold, understood):
    """Weights moved, filled up and multiplied are laid out for any chip; of all else nothing is assumed."""
    slots = [Slot("w", "w", "float32", (4, 3), Layout(()))]
    trials = trial_fills(slots)
    assert trials is not None
    rng = stream(2, "test fold")
    chip, other = (rng.uniform(0.1, 1, (4, 3)).astype(np.float32) for _ in range(2))
    tried = (*trials, {"w": chip})
    found = read_optimised(slots, tried, [written(slots, fold(fills["w"])) for fills in tried])
    assert (found is not None) == understood
    if found is not None:
        assert found.fills({"w": other})["folded"].tobytes() == fold(other).tobytes()


def test_half_precision_cannot_hold_the_numbers():
    """Slots whose type cannot tell so many weights apart are optimised for each chip."""
    assert trial_fills([Slot("w", "w", "float16", (64, 64), Layout(()))]) is None
