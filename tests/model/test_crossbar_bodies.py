"""Layers inside If, Loop and Scan: split over crossbars, and their column sums can be looked at."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from crossbar_cases import STEP, codes, mapped
from onnx import helper, numpy_helper

from nvaudit.model import CellReadout, Converter, Converters, CrossbarPlan, build_template, load_model
from nvaudit.model.probe import expose
from nvaudit.perturb.cells import device_factors, device_offset, place_cells, target_cells

ROWS, COLS, COUNT = 12, 5, 4
_F = onnx.TensorProto.FLOAT


def _value(name, shape=None, kind=_F):
    return helper.make_tensor_value_info(name, kind, shape)


def _product(given, weight, made):
    return helper.make_node("MatMul", [given, weight], [made], name=f"layer_{made}")


def _neg(given, made):
    return helper.make_node("Neg", [given], [made])


def _branch(name, weight):
    """Both branches call their inner value ``h``: names are only unique within a branch."""
    nodes = [_neg("x", "h"), _product("h", weight, f"{name}_y")]
    return helper.make_graph(nodes, name, [], [_value(f"{name}_y")])


def _if(weights=("W", "V")):
    then, other = _branch("then", weights[0]), _branch("else", weights[1])
    return [helper.make_node("If", ["c"], ["y"], name="if", then_branch=then, else_branch=other)]


def _nested():
    inner = [helper.make_node("If", ["d"], ["n"], name="in", then_branch=_branch("a", "W"),
                              else_branch=_branch("b", "V"))]  # fmt: skip
    outer = helper.make_graph(
        [*inner, helper.make_node("Identity", ["n"], ["o"])], "outer", [], [_value("o")]
    )
    plain = helper.make_graph([_product("x", "V", "p")], "plain", [], [_value("p")])
    return [helper.make_node("If", ["c"], ["y"], name="out", then_branch=outer, else_branch=plain)]


def _loop():
    """y = x W after two rounds, each adding x V."""
    body = helper.make_graph(
        [
            _product("x", "V", "more"),
            helper.make_node("Add", ["acc", "more"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [_value("i", [], 7), _value("go", [], 9), _value("acc")],
        [_value("on", [], 9), _value("next")],
    )
    return [
        _product("x", "W", "start"),
        helper.make_node("Loop", ["rounds", "", "start"], ["y"], name="loop", body=body),
    ]


def _turns():
    """Rounds of a Loop that take turns between the branches of an If; none, where it does not run at all."""
    inner = helper.make_node(
        "If", ["even"], ["n"], name="in",
        then_branch=helper.make_graph([_product("x", "W", "p")], "a", [], [_value("p")]),
        else_branch=helper.make_graph([_product("x", "V", "q")], "b", [], [_value("q")]),
    )  # fmt: skip
    body = helper.make_graph(
        [
            helper.make_node("Mod", ["i", "two"], ["odd"]),
            helper.make_node("Equal", ["odd", "none"], ["even"]),
            inner,
            helper.make_node("Add", ["acc", "n"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Identity", ["n"], ["each"]),
        ],
        "body",
        [_value("i", [], 7), _value("go", [], 9), _value("acc")],
        [_value("on", [], 9), _value("next"), _value("each")],
    )
    return [
        helper.make_node("Expand", ["zero", "shape"], ["start"]),
        helper.make_node("Loop", ["rounds3", "", "start"], ["y", "all"], name="loop", body=body),
    ]


def _scan():
    """A product with each of the samples, one after another, and a state that is summed up."""
    body = helper.make_graph(
        [
            _product("row", "W", "p"),
            helper.make_node("Add", ["p", "s"], ["t"]),
            helper.make_node("Identity", ["t"], ["each"]),
        ],
        "body",
        [_value("s", [COLS]), _value("row", [ROWS])],
        [_value("t", [COLS]), _value("each", [COLS])],
    )
    return [
        helper.make_node("Scan", ["zero", "x"], ["last", "y"], name="scan", num_scan_inputs=1, body=body,
                         scan_output_axes=[0]),
    ]  # fmt: skip


def _model(tmp_path, nodes, weights):
    tensors = {key: (code * STEP).astype("f") for key, code in weights.items()}
    whole = {"rounds": 2, "rounds3": 3, "two": 2, "none": 0, "shape": (COUNT, COLS)}
    tensors |= {name: np.array(value, np.int64) for name, value in whole.items()}
    tensors["zero"] = np.zeros(COLS, "f")
    graph = helper.make_graph(
        nodes, "g", [_value("x", [COUNT, ROWS]), _value("c", [], 9), _value("d", [], 9)], [_value("y")],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _split(path, weights, encoding, converters=None):
    tensors = {key: mapped(code, encoding) for key, code in weights.items()}
    cells = {
        k: CellReadout(device_factors(t.array), device_offset(t.array), t.scale) for k, t in tensors.items()
    }
    plan = CrossbarPlan(8, cells, {} if converters is None else dict.fromkeys(weights, converters))
    template = build_template(load_model(path), list(weights), crossbars=plan)
    devices = {key: target_cells(tensor) for key, tensor in tensors.items()}
    return template, {s.name: place_cells(devices[s.weight_key], s) for s in template.slots if s.cells}


def _run(proto, fills, feeds, wanted=("y",)):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_external_initializers(
        list(fills), [ort.OrtValue.ortvalue_from_numpy(a) for a in fills.values()]
    )
    session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    there = {value.name for value in session.get_inputs()}
    return session.run(list(wanted), {name: value for name, value in feeds.items() if name in there})


def _feeds(c=True, d=True):
    x = np.random.Generator(np.random.SFC64(5)).integers(-9, 10, (COUNT, ROWS)).astype("f")
    return {"x": x, "c": np.array(c), "d": np.array(d)}


CASES = {
    "if": (_if, ("W", "V")),
    "one weight in both branches": (lambda: _if(("W", "W")), ("W",)),
    "nested": (_nested, ("W", "V")),
    "loop": (_loop, ("W", "V")),
    "loop of branches": (_turns, ("W", "V")),
    "scan": (_scan, ("W",)),
}


@pytest.mark.parametrize("encoding", ["sign_magnitude", "differential", "offset"])
@pytest.mark.parametrize("name", CASES)
def test_layers_in_bodies_are_split_and_ideal_converters_change_nothing(tmp_path, name, encoding):
    """Whatever branch is taken, however often a body runs: exactly the model's outputs."""
    nodes, keys = CASES[name]
    weights = {key: codes(ROWS, COLS) for key in keys}
    path = _model(tmp_path, nodes(), weights)
    template, fills = _split(path, weights, encoding)
    assert [(one.reason, len(one.blocks)) for one in template.splits] == [(None, 2)] * len(keys)
    assert any(one.inside for one in template.splits)
    for c, d in [(True, True), (True, False), (False, True)]:
        wanted = _run(path.read_bytes(), {}, _feeds(c, d))[0]
        assert np.array_equal(_run(template.proto, fills, _feeds(c, d))[0], wanted)


@pytest.mark.parametrize("name", CASES)
def test_column_sums_in_bodies_leave_them(tmp_path, name):
    """All that an ADC sees is seen, and it is what numpy says; a branch that is not taken gives nothing."""
    nodes, keys = CASES[name]
    weights = {key: np.abs(codes(ROWS, COLS)) for key in keys}
    path = _model(tmp_path, nodes(), weights)
    template, fills = _split(path, weights, "sign_magnitude")
    names = [value for one in template.splits for value in (*one.inputs, *one.sums)]
    shown, given = expose(template.proto, names)
    feeds = _feeds()
    asked = [given[name] for name in names if given[name] not in feeds]
    made = feeds | dict(zip(asked, _run(shown, fills, feeds, asked), strict=True))
    found = {name: made[given[name]] for name in names}
    x = {"if": -feeds["x"], "one weight in both branches": -feeds["x"], "nested": -feeds["x"]}.get(
        name, feeds["x"]
    )
    for one in template.splits:
        seen = np.concatenate([found[value].reshape(-1) for value in one.inputs])
        sums = np.concatenate([found[value].reshape(-1) for value in one.sums])
        taken = name not in ("if", "nested") or one.key == "W"
        if name == "nested" and not taken:
            assert not seen.size or np.array_equal(np.sort(seen), np.sort(feeds["x"].reshape(-1)))
            continue
        rounds = 2 if (name, one.key) in (("loop", "V"), ("loop of branches", "W")) else 1
        assert sums.size == (taken and rounds * 2 * 3 * COUNT * COLS)  # row blocks, slices
        assert np.array_equal(np.unique(seen), np.unique(x) if taken else [])
        if taken:
            wanted = [
                x[:, start:stop] @ ((weights[one.key][start:stop] >> 2 * i) & 3)
                for start, stop in (block.rows for block in one.blocks)
                for i in range(3)
            ]
            assert np.array_equal(np.sort(sums), np.sort(np.tile(np.ravel(wanted), rounds)))


def test_converters_in_a_branch_convert(tmp_path):
    """An ADC of 2 bits moves the output of the branch that is taken, and of no other."""
    weights = {key: codes(ROWS, COLS) for key in ("W", "V")}
    path = _model(tmp_path, _if(), weights)
    adc = Converters(None, Converter(32.0, -1, 1))
    template, fills = _split(path, weights, "sign_magnitude", adc)
    scale = STEP * 32 * np.array([1, 4, 16])
    for c in (True, False):
        feeds = _feeds(c)
        code, total = weights["W" if c else "V"], np.zeros((COUNT, COLS))
        for start, stop in (block.rows for block in template.splits[0].blocks):
            for i in range(3):
                digit = (np.sign(code) * ((np.abs(code) >> 2 * i) & 3))[start:stop]
                total += scale[i] * np.clip(np.rint(-feeds["x"][:, start:stop] @ digit / 32), -1, 1)
        assert np.allclose(_run(template.proto, fills, feeds)[0], total, rtol=1e-6)


def test_a_branch_within_a_scan_is_left_whole(tmp_path):
    """What leaves a Scan has one shape in every round, and a branch that is not taken gives nothing."""
    weights = {"W": codes(ROWS, COLS)}
    branch = helper.make_node(
        "If", ["c"], ["p"], name="in",
        then_branch=helper.make_graph([_product("row", "W", "q")], "a", [], [_value("q", [COLS])]),
        else_branch=helper.make_graph([_neg("s", "r")], "b", [], [_value("r", [COLS])]),
    )  # fmt: skip
    nodes = [
        branch,
        helper.make_node("Add", ["p", "s"], ["t"]),
        helper.make_node("Identity", ["t"], ["each"]),
    ]
    body = helper.make_graph(
        nodes, "body", [_value("s", [COLS]), _value("row", [ROWS])],
        [_value("t", [COLS]), _value("each", [COLS])],
    )  # fmt: skip
    scan = helper.make_node("Scan", ["zero", "x"], ["last", "y"], name="scan", num_scan_inputs=1, body=body)
    template, fills = _split(_model(tmp_path, [scan], weights), weights, "differential")
    assert fills == {}
    assert template.splits[0].reason == "its operator is in the body of an If within a Scan"


def test_an_old_scan_is_left_whole(tmp_path):
    """With a batch axis its further outputs are laid out otherwise."""
    weights = {"W": codes(ROWS, COLS)}
    body = helper.make_graph(
        [_product("row", "W", "p")], "body", [_value("row", [ROWS])], [_value("p", [COLS])]
    )
    nodes = [helper.make_node("Scan", ["", "x3"], ["y"], num_scan_inputs=1, body=body, name="scan")]
    graph = helper.make_graph(
        nodes, "g", [_value("x3", [1, COUNT, ROWS])], [_value("y")],
        [numpy_helper.from_array((weights["W"] * STEP).astype("f"), "W")],
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=8), path)
    template, fills = _split(path, weights, "differential")
    assert fills == {}
    assert template.splits[0].reason == "its operator is in the body of a Scan of operator set 8"
