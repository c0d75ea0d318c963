"""Inner values on samples, batch by batch: of a model as it is, and of a chip."""

import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from nvaudit.data import Dataset
from nvaudit.model import build_template, load_model
from nvaudit.model.probe import expose, inner_values
from nvaudit.perturb.engine import QUANTISED, Engine
from nvaudit.perturb.probe import exposing, probe_model
from nvaudit.session import prepare
from nvaudit.spec import make_spec

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from onnx_cases import make_model, numbers, save, value

W, V = numbers(6, 5, seed=1), numbers(5, 3, seed=2)
X = numbers(11, 6, seed=3)


def _model(tmp_path, batch="N"):
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "V"], ["y"]),
        helper.make_node("Neg", ["r"], ["dead"]),
    ]
    model = make_model(nodes, [value("x", [batch, 6])], [value("y", [batch, 3])], {"W": W, "V": V})
    return load_model(save(tmp_path, model))


def _data(x=X, together=0):
    return Dataset({"x": x}, frozenset(["x"]), {"x": 0}, None, "none", len(x), "t", "d", together=together)


def test_a_graph_lists_its_inner_values_and_returns_those_asked_for(tmp_path):
    """Inputs come first; what no output depends on is not computed, so it is not given."""
    proto = build_template(_model(tmp_path), []).proto
    assert inner_values(proto) == ["x", "h", "r", "y"]
    _, given = expose(proto, ["r", "x", "dead"])
    assert given == {"r": "r", "x": "x"}


@pytest.mark.parametrize("at_once", [None, 1, 4, 100])
def test_batches_give_every_chosen_sample_once_and_in_order(tmp_path, at_once):
    """Whatever the batch size: the values are numpy's, and the moments of a layer's input follow."""
    chosen = np.array([7, 0, 3, 10, 9, 1])
    probe = probe_model(_model(tmp_path), _data(), ["x", "r", "y"])
    seen, parts, moment = [], [], 0.0
    for samples, values in probe.batches(chosen, at_once=at_once):
        seen += list(samples)
        parts.append(values["r"])
        assert np.array_equal(values["x"], X[samples])
        assert at_once is None or len(samples) <= at_once
        moment = moment + values["r"].astype(np.float64).T @ values["r"]
    assert seen == list(chosen)
    wanted = np.maximum(X[chosen] @ W, 0)
    np.testing.assert_allclose(np.concatenate(parts), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moment, wanted.T.astype(np.float64) @ wanted, rtol=1e-5, atol=1e-5)


def test_a_batch_that_must_be_full_is_filled_with_its_last_sample(tmp_path):
    """Samples that are run together are as many as they must be; what repeats stands at the end."""
    probe = probe_model(_model(tmp_path), _data(together=4), ["h"])
    batches = [(len(samples), values["h"]) for samples, values in probe.batches(np.arange(6))]
    assert [count for count, _ in batches] == [4, 2]
    np.testing.assert_allclose(batches[1][1], X[[4, 5, 5, 5]] @ W, rtol=1e-5, atol=1e-6)


def test_a_chip_shows_what_its_own_weights_make(example, tmp_path):
    """The last layer's result on a chip is that of the chip's weights, and differs from chip to chip."""
    spec = make_spec(
        model=example, device="rram", data=example.with_suffix(".npz"), limit=16, workers=0, sigmas=(0.3,)
    )
    session = prepare(spec, tmp_path)
    last = [d.constant.weight for d in session.decisions if d.mapped][-1]
    (name,) = [use.node.outputs[0].name for use in last.uses]
    (taken,) = [use.node.inputs[0].name for use in last.uses]
    shown, outputs = exposing(session.workload, [name, taken], tmp_path, "shown")
    assert outputs == {name: name, taken: taken}
    engine, samples = Engine(shown), np.arange(5)
    made = {}
    for trial in (QUANTISED, 0, 1):
        ((_, values),) = engine.inner(outputs, trial=trial).batches(samples, at_once=5)
        (weights,) = [array for slot, array in engine.fill(0, trial) if slot.weight_key == last.key]
        plain = values[taken] @ (weights if weights.shape[0] == values[taken].shape[-1] else weights.T)
        bias = values[name] - plain
        np.testing.assert_allclose(bias, np.broadcast_to(bias[:1], bias.shape), atol=1e-4)
        made[trial] = values[name]
    assert not np.allclose(made[0], made[1], atol=1e-3)
    assert not np.allclose(made[0], made[QUANTISED], atol=1e-3)
