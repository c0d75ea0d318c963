"""LSTM, GRU and RNN written out and split over crossbars: the operator's own outputs, in every form."""

import numpy as np
import onnx
import pytest
from crossbar_cases import STEP, codes, mapped, run
from onnx import helper, numpy_helper

from nvaudit.model import CellReadout, CrossbarPlan, build_template, load_model
from nvaudit.perturb.cells import device_factors, device_offset, place_cells, target_cells

HIDDEN, INPUTS, STEPS, BATCH = 5, 7, 4, 3
FORMS = [
    ("LSTM", {}),
    ("LSTM", {"direction": "reverse"}),
    ("LSTM", {"direction": "bidirectional"}),
    ("GRU", {}),
    ("GRU", {"linear_before_reset": 1, "direction": "reverse"}),
    ("GRU", {"direction": "bidirectional"}),
    ("RNN", {"direction": "reverse"}),
    ("RNN", {"direction": "bidirectional", "activations": ["Relu", "Relu"]}),
]


def _model(tmp_path, op, attributes, bias, state, steps=STEPS, opset=17):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    count = 2 if attributes.get("direction") == "bidirectional" else 1
    weights = {"W": codes(count, gates * HIDDEN, INPUTS), "R": codes(count, gates * HIDDEN, HIDDEN)}
    extra = {"B": codes(count, 2 * gates * HIDDEN)} if bias else {}
    names = ["x", "W", "R", "B" if bias else "", ""]
    if state:
        extra["h"] = codes(count, BATCH, HIDDEN)
        names.append("h")
        if op == "LSTM":
            extra["c"] = codes(count, BATCH, HIDDEN)
            names.append("c")
    outputs = ["y", "last", "cell"][: 3 if op == "LSTM" else 2]
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, hidden_size=HIDDEN, name="layer", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", 1, [steps, BATCH, INPUTS])],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [numpy_helper.from_array((v * STEP).astype("f"), k) for k, v in (weights | extra).items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path, weights, outputs


def _split(path, weights, encoding, keys=("W", "R")):
    tensors = {key: mapped(weights[key], encoding) for key in keys}
    cells = {
        key: CellReadout(device_factors(t.array), device_offset(t.array), t.scale)
        for key, t in tensors.items()
    }
    template = build_template(load_model(path), list(keys), crossbars=CrossbarPlan(4, cells))
    devices = {key: target_cells(tensor) for key, tensor in tensors.items()}
    return template, {s.name: place_cells(devices[s.weight_key], s) for s in template.slots if s.cells}


@pytest.mark.parametrize("encoding", ["sign_magnitude", "offset"])
@pytest.mark.parametrize(("op", "attributes"), FORMS)
@pytest.mark.parametrize(("bias", "state"), [(False, False), (True, True)])
def test_a_recurrent_layer_is_the_same_on_ideal_crossbars(tmp_path, op, attributes, bias, state, encoding):
    """Every output: all states, the last one, the last cell."""
    path, weights, outputs = _model(tmp_path, op, attributes, bias, state)
    template, fills = _split(path, weights, encoding)
    assert [split.reason for split in template.splits] == [None, None]
    assert op not in {node.op_type for node in onnx.ModelProto.FromString(template.proto).graph.node}
    x = np.random.Generator(np.random.SFC64(1)).normal(size=(STEPS, BATCH, INPUTS)).astype("f")
    plain = build_template(load_model(path), [])
    for found, wanted in zip(
        run(template, fills, x, outputs), run(plain, dict(plain.digital), x, outputs), strict=True
    ):
        assert found.shape == wanted.shape
        assert np.allclose(found, wanted, atol=2e-5)


def test_both_matrices_have_crossbars_of_their_own_for_each_direction(tmp_path):
    """Two directions are two matrices; no crossbar holds both inputs and states."""
    path, weights, _ = _model(tmp_path, "LSTM", {"direction": "bidirectional"}, True, False)
    template, _ = _split(path, weights, "sign_magnitude")
    first, second = template.splits
    assert (first.groups, first.columns, [b.used for b in first.blocks]) == (2, 4 * HIDDEN, [4, 3])
    assert (second.groups, second.columns, [b.used for b in second.blocks]) == (2, 4 * HIDDEN, [4, 1])


@pytest.mark.parametrize(
    ("op", "attributes", "steps", "keys", "reason"),
    [
        ("LSTM", {}, 300, ("W", "R"), "its LSTM has sequences of no fixed length from 1 to 256"),
        ("LSTM", {}, "T", ("W", "R"), "its LSTM has sequences of no fixed length from 1 to 256"),
        (
            "LSTM",
            {"clip": 1.0},
            4,
            ("W", "R"),
            "its LSTM has sequence lengths, clipping, or other activations or",
        ),
        ("LSTM", {}, 4, ("W",), "not all weights of its operator are to be split"),
        (
            "RNN",
            {"activations": ["Sigmoid"]},
            4,
            ("W", "R"),
            "its RNN has sequence lengths, clipping, or other",
        ),
    ],
)
def test_what_is_not_written_out_says_why(tmp_path, op, attributes, steps, keys, reason):
    """The layer stays whole, with ideal converters."""
    path, weights, _ = _model(tmp_path, op, attributes, True, False, steps)
    template, fills = _split(path, weights, "sign_magnitude", keys)
    assert fills == {}
    assert all(split.reason.startswith(reason) for split in template.splits)
    assert op in {node.op_type for node in onnx.ModelProto.FromString(template.proto).graph.node}
