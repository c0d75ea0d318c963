"""Multiply-accumulates: which operators make them, with which weight, how many, and what is on the array."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit.coverage import count_coverage, declared_coverage
from nvaudit.data import load_dataset
from nvaudit.mapping.select import select
from nvaudit.model import analyse_batch, constants, load_model
from nvaudit.model.macs.rules import terms
from nvaudit.session import input_specs

FLOAT = TensorProto.FLOAT
MS = "com.microsoft"


def weight(name, *shape, dtype=np.float32):
    values = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    return numpy_helper.from_array(
        (np.sin(values + 1) * (50 if dtype != np.float32 else 1)).astype(dtype), name
    )


def ints(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def save(path, nodes, stored, inputs, outputs=("out",), dtype=FLOAT):
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        stored,
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    onnx.save(model, path)
    return path


def covered(path, layers=(), digital=()):
    """Coverage of a model on made-up data, as an audit counts it."""
    loaded = load_model(path)
    rebatch = analyse_batch(loaded.model)
    decisions = select(constants(loaded), layers, digital)
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    data = load_dataset(None, input_specs(loaded, rebatch), model_path=path, limit=2, scratch=scratch)
    return count_coverage(loaded, rebatch, decisions, data).share


X = ("x", FLOAT, ["N", 3, 8, 8])
V = ("v", FLOAT, ["N", 6])
S = ("s", FLOAT, ["N", 5, 6])
CASES = {
    # name: (nodes, stored, input, products of one sample, weights)
    "conv": (
        [helper.make_node("Conv", ["x", "w"], ["out"], pads=[1, 1, 1, 1], strides=[2, 2])],
        [weight("w", 4, 3, 3, 3)], X, 4 * 4 * 4 * 27, 108,
    ),
    "grouped conv": (
        [helper.make_node("Conv", ["x", "w"], ["out"], group=3)],
        [weight("w", 6, 1, 3, 3)], X, 6 * 6 * 6 * 9, 54,
    ),
    "transposed conv": (
        [helper.make_node("ConvTranspose", ["x", "w"], ["out"], strides=[2, 2])],
        [weight("w", 3, 5, 2, 2)], X, 3 * 64 * 5 * 4, 60,
    ),
    "gemm": (
        [helper.make_node("Gemm", ["v", "w"], ["out"], transB=1)], [weight("w", 7, 6)], V, 42, 42,
    ),
    "matmul on the left": (
        [helper.make_node("MatMul", ["w", "s"], ["out"])], [weight("w", 2, 5)], S, 2 * 5 * 6, 10,
    ),
    "einsum with a stack": (
        [helper.make_node("Einsum", ["s", "w"], ["out"], equation="bti,hio->bhto")],
        [weight("w", 2, 6, 3)], S, 5 * 6 * 2 * 3, 36,
    ),
    "lstm": (
        [helper.make_node("Transpose", ["s"], ["t"], perm=[1, 0, 2]),
         helper.make_node("LSTM", ["t", "w", "r"], ["out"], hidden_size=4)],
        [weight("w", 1, 16, 6), weight("r", 1, 16, 4)], S, 5 * (16 * 6 + 16 * 4), 160,
    ),
    "integer matmul": (
        [helper.make_node("DynamicQuantizeLinear", ["v"], ["q", "qs", "qz"]),
         helper.make_node("MatMulInteger", ["q", "w", "qz"], ["i"]),
         helper.make_node("Cast", ["i"], ["out"], to=FLOAT)],
        [weight("w", 6, 3, dtype=np.int8)], V, 18, 18,
    ),
    "fused matmul": (
        [helper.make_node("FusedMatMul", ["v", "w"], ["out"], domain=MS, transB=1)],
        [weight("w", 3, 6)], V, 18, 18,
    ),
    "used twice": (
        [helper.make_node("MatMul", ["v", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["out"])],
        [weight("w", 6, 6)], V, 72, 36,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_products_are_counted(case, tmp_path):
    """Every operator that takes weights: products and weights by hand, all on the array."""
    nodes, stored, given, products, weights = case
    found = covered(save(tmp_path / "m.onnx", nodes, stored, [given]))
    assert (found.products, found.products_total, found.share_of_products) == (products, products, 1.0)
    assert (found.weights, found.weights_total) == (weights, weights)
    assert (found.activation_products, found.off, found.uncounted) == (0, (), ())


def test_what_the_user_keeps_digital_is_off_the_array(tmp_path):
    """--digital and --layers move products off the array, with the option as their reason."""
    nodes = [helper.make_node("MatMul", ["v", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["out"])]
    path = save(tmp_path / "m.onnx", nodes, [weight("a", 6, 10), weight("b", 10, 4)], [V])
    found = covered(path, digital=["b"])
    assert (found.products, found.products_total, found.weights, found.weights_total) == (60, 100, 60, 100)
    (item,) = found.off
    assert (item.weight, item.products, item.weights) == ("b", 40, 40)
    assert item.reason == "kept digital by --digital b"
    assert covered(path, layers=["b"]).share_of_products == 0.4


def test_products_of_two_activations_stand_apart(tmp_path):
    """Queries with keys are in no share; the projections are."""
    nodes = [
        helper.make_node("MatMul", ["s", "q"], ["a"]),
        helper.make_node("MatMul", ["s", "k"], ["b"]),
        helper.make_node("Transpose", ["b"], ["bt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a", "bt"], ["out"]),
    ]
    found = covered(save(tmp_path / "m.onnx", nodes, [weight("q", 6, 4), weight("k", 6, 4)], [S]))
    assert found.products == found.products_total == 2 * 5 * 6 * 4
    assert found.activation_products == 5 * 5 * 4


def test_a_weight_that_depends_on_the_input_is_an_activation(tmp_path):
    """A hyper-network's weight is computed in every inference."""
    nodes = [
        helper.make_node("MatMul", ["v", "w"], ["h"]),
        helper.make_node("Reshape", ["h", "shape"], ["own"]),
        helper.make_node("Unsqueeze", ["v", "one"], ["row"]),
        helper.make_node("MatMul", ["row", "own"], ["out"]),
    ]
    stored = [weight("w", 6, 12), ints("shape", 0, 6, 2), ints("one", 1)]
    found = covered(save(tmp_path / "m.onnx", nodes, stored, [V]))
    assert (found.products_total, found.activation_products) == (72, 12)


def test_experts_that_are_picked_are_weights(tmp_path):
    """A stack of matrices picked at run time and then multiplied: all of it is a weight, once it is used."""
    nodes = [
        helper.make_node("ArgMax", ["v"], ["best"], axis=1, keepdims=0),
        helper.make_node("Mod", ["best", "two"], ["which"]),
        helper.make_node("Gather", ["stack", "which"], ["own"]),
        helper.make_node("Unsqueeze", ["v", "one"], ["row"]),
        helper.make_node("MatMul", ["row", "own"], ["h"]),
        helper.make_node("Squeeze", ["h", "one"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["out"]),
    ]
    stored = [weight("stack", 2, 6, 4), weight("head", 4, 3), ints("two", 2), ints("one", 1)]
    found = covered(save(tmp_path / "m.onnx", nodes, stored, [V]))
    assert (found.products_total, found.weights_total, found.activation_products) == (24 + 12, 48 + 12, 0)
    if found.off:  # not mapped yet: then it says so
        assert (found.products, found.weights) == (12, 12)
        assert "Gather" in found.off[0].reason


def test_two_rows_of_an_embedding_are_activations(tmp_path):
    """Looked-up rows multiplied with each other: no operand is a weight."""
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["a"]),
        helper.make_node("Gather", ["table", "j"], ["b"]),
        helper.make_node("Transpose", ["b"], ["bt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a", "bt"], ["out"]),
    ]
    given = [(name, TensorProto.INT64, ["N", 3]) for name in "ij"]
    loaded = load_model(save(tmp_path / "m.onnx", nodes, [weight("table", 9, 4)], given))
    found = declared_coverage(loaded, analyse_batch(loaded.model), select(constants(loaded)))[0].share
    assert (found.products_total, found.activation_products, found.share) == (0, 3 * 3 * 4, None)


def test_operators_that_hold_their_weight_are_counted(tmp_path):
    """Coefficients in attributes: on the array where a product is put before them, else counted off it."""
    coefficients = [float(i) for i in range(18)]
    nodes = [
        helper.make_node("MatMul", ["v", "w"], ["h"]),
        helper.make_node(
            "LinearRegressor", ["h"], ["out"], domain="ai.onnx.ml", coefficients=coefficients,
            intercepts=[0.0, 0.0, 0.0], targets=3,
        ),
    ]  # fmt: skip
    found = covered(save(tmp_path / "m.onnx", nodes, [weight("w", 6, 6)], [V]))
    assert (found.products, found.products_total) == (36 + 18, 36 + 18)
    assert found.off == ()
    del nodes[1].attribute[1:]  # one output, and 18 coefficients for 6 inputs: no product
    nodes[1].attribute.append(helper.make_attribute("targets", 4))
    found = covered(save(tmp_path / "m.onnx", nodes, [weight("w", 6, 6)], [V]))
    (item,) = found.off
    assert (item.op, item.weights) == ("LinearRegressor", 18)
    assert "attributes of the operator" in item.reason


def test_packed_weights_are_counted(tmp_path):
    """MatMulNBits unpacks its weight itself: K × N numbers, several to a stored byte."""
    nodes = [
        helper.make_node("MatMul", ["v", "w"], ["h"]),
        helper.make_node("MatMulNBits", ["h", "p", "scale"], ["out"], domain=MS, K=32, N=4, bits=4,
                         block_size=32),
    ]  # fmt: skip
    packed = numpy_helper.from_array(np.full((4, 1, 16), 17, np.uint8), "p")
    found = covered(save(tmp_path / "m.onnx", nodes, [weight("w", 6, 32), packed, weight("scale", 4)], [V]))
    assert (found.products_total, found.weights_total) == (6 * 32 + 32 * 4, 6 * 32 + 32 * 4)
    if found.off:
        assert (found.products, found.weights) == (192, 192)


def test_a_scan_is_counted_step_by_step(tmp_path):
    """The body runs once for each step."""
    body = helper.make_graph(
        [helper.make_node("MatMul", ["h", "w"], ["m"]), helper.make_node("Add", ["m", "i"], ["h2"]),
         helper.make_node("Identity", ["h2"], ["o"])],
        "body",
        [helper.make_tensor_value_info(name, FLOAT, [1, 6]) for name in ("h", "i")],
        [helper.make_tensor_value_info(name, FLOAT, [1, 6]) for name in ("h2", "o")],
    )  # fmt: skip
    nodes = [helper.make_node("Scan", ["h0", "t"], ["last", "out"], body=body, num_scan_inputs=1)]
    stored = [weight("w", 6, 6), numpy_helper.from_array(np.zeros((1, 6), np.float32), "h0")]
    found = covered(save(tmp_path / "m.onnx", nodes, stored, [("t", FLOAT, [5, 1, 6])]))
    assert (found.products, found.weights) == (5 * 36, 36)


def branches(second):
    def body(name, *others):
        nodes = [helper.make_node("MatMul", ["v", name], [f"{name}_out"]), *others]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}_out", FLOAT, None)])

    return [
        helper.make_node("ReduceMax", ["v"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "limit"], ["cond"]),
        helper.make_node("If", ["cond"], ["h"], then_branch=body("a"), else_branch=body("b")),
        helper.make_node(second, ["h", "c"], ["out"]),
    ]


@pytest.mark.parametrize(("limit", "off"), [(-1e9, "a"), (1e9, "b")])
def test_the_branch_that_runs_is_counted(limit, off, tmp_path):
    """One sample shows which branch is taken; the weights of the other are counted, its products are not."""
    stored = [weight("a", 6, 4), weight("b", 6, 4), weight("c", 4, 3),
              numpy_helper.from_array(np.float32(limit), "limit")]  # fmt: skip
    path = save(tmp_path / "m.onnx", branches("MatMul"), stored, [V])
    found = covered(path, digital=[off])
    assert (found.products, found.products_total, found.weights_total) == (12, 36, 60)
    other = covered(path, digital=["a" if off == "b" else "b"])
    assert (other.products, other.products_total, other.share_of_weights) == (36, 36, 0.6)


def test_a_weight_that_is_drawn_at_inference_is_off_the_array(tmp_path):
    """Bayesian layers, w = mean + spread · noise: no activation, so the share does not leave them out."""
    nodes = [
        helper.make_node("RandomNormalLike", ["mean"], ["noise"], name="draw"),
        helper.make_node("Mul", ["spread", "noise"], ["n"]),
        helper.make_node("Add", ["mean", "n"], ["w"]),
        helper.make_node("MatMul", ["v", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "c"], ["out"]),
    ]
    stored = [weight("mean", 6, 4), weight("spread", 6, 4), weight("c", 4, 3)]
    found = covered(save(tmp_path / "m.onnx", nodes, stored, [V]))
    assert (found.products, found.products_total) == (12, 36)
    assert (found.weights, found.weights_total, found.activation_products) == (12, 36, 0)
    assert found.off[0].reason == "its weight is drawn at random at inference by RandomNormalLike 'draw'"


def test_a_weight_with_dropout_is_off_the_array(tmp_path):
    """DropConnect: Dropout in training mode on a weight."""
    nodes = [
        helper.make_node("Dropout", ["a", "ratio", "training"], ["w"], name="drop"),
        helper.make_node("MatMul", ["v", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "c"], ["out"]),
    ]
    flags = [
        numpy_helper.from_array(np.float32(0.5), "ratio"),
        numpy_helper.from_array(np.array(True), "training"),
    ]
    found = covered(save(tmp_path / "m.onnx", nodes, [weight("a", 6, 4), weight("c", 4, 3), *flags], [V]))
    assert (found.products, found.products_total, found.off[0].weight) == (12, 36, "a")


def test_noise_on_activations_is_no_weight(tmp_path):
    """What is drawn in the shape of an activation depends on the input, and so does a product with it."""
    nodes = [
        helper.make_node("MatMul", ["s", "a"], ["h"]),
        helper.make_node("RandomNormalLike", ["h"], ["noise"]),
        helper.make_node("Transpose", ["noise"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["h", "t"], ["out"]),
    ]
    found = covered(save(tmp_path / "m.onnx", nodes, [weight("a", 6, 4)], [S]))
    assert (found.share_of_products, found.activation_products) == (1.0, 5 * 5 * 4)


def test_a_branch_that_is_known_is_counted_without_a_run(tmp_path):
    """A constant condition needs no data."""
    nodes = [helper.make_node("If", ["go"], ["h"], then_branch=branches("MatMul")[2].attribute[1].g,
                              else_branch=branches("MatMul")[2].attribute[0].g),
             helper.make_node("MatMul", ["h", "c"], ["out"])]  # fmt: skip
    stored = [weight("a", 6, 4), weight("b", 6, 4), weight("c", 4, 3),
              numpy_helper.from_array(np.array(False), "go")]  # fmt: skip
    loaded = load_model(save(tmp_path / "m.onnx", nodes, stored, [V]))
    decisions = select(constants(loaded))
    found, more = declared_coverage(loaded, analyse_batch(loaded.model), decisions)
    assert (found.share.products, more) == (36, False)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("LSTM", ["s", "w", "r"], ["out"], hidden_size=4),
        helper.make_node("Einsum", ["s", "w"], ["out"], equation="b->b"),
        helper.make_node("Conv", ["s", "w"], ["out"]),
        helper.make_node("Gemm", ["s", "w"], ["out"], transA=1),
        helper.make_node("MoE", ["s", "s", "w"], ["out"], domain=MS, k=1),
        helper.make_node("Scan", [], ["out"]),
    ],
    ids=lambda node: node.op_type,
)
def test_what_does_not_fit_its_operator_is_no_failure(node):
    """Wrong ranks, missing operands and missing attributes give no count, and no exception."""
    graph = helper.make_graph([node], "g", [], [])
    ir_node = next(iter(ir.serde.deserialize_graph(graph)))
    for sizes in ((), (3,), (3, 4), (2, 3, 4), (0, 0, 0), None):
        for term in terms(ir_node, lambda value, sizes=sizes: sizes):
            assert term.products is None or term.products >= 0


def test_sizes_that_depend_on_data_are_seen(tmp_path):
    """A shape computed at run time is no obstacle: one sample shows it."""
    nodes = [
        helper.make_node("NonZero", ["v"], ["where"]),
        helper.make_node("Cast", ["where"], ["t"], to=FLOAT),
        helper.make_node("MatMul", ["w", "t"], ["out"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, [weight("w", 3, 2)], [V])
    np.savez(path.with_suffix(".npz"), v=np.array([[1, 0, 2, 3, 0, 0]] * 2, np.float32))
    assert covered(path).products == 3 * 2 * 3


def test_a_loop_that_ends_when_it_will_is_not_counted(tmp_path):
    """Products in it are unknown: the share is that of the weights, and the operator is named."""
    body = helper.make_graph(
        [helper.make_node("MatMul", ["h", "w"], ["h2"]),
         helper.make_node("ReduceMax", ["h2"], ["top"], keepdims=0),
         helper.make_node("Less", ["top", "limit"], ["go2"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("h", FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("go2", TensorProto.BOOL, []),
         helper.make_tensor_value_info("h2", FLOAT, ["N", 6])],
    )  # fmt: skip
    nodes = [helper.make_node("Loop", ["most", "", "v"], ["g"], body=body),
             helper.make_node("MatMul", ["g", "c"], ["out"])]  # fmt: skip
    stored = [weight("w", 6, 6), weight("c", 6, 4), numpy_helper.from_array(np.float32(9), "limit"),
              numpy_helper.from_array(np.array(3, np.int64), "most")]  # fmt: skip
    path = save(tmp_path / "m.onnx", nodes, stored, [V])
    found = covered(path, digital=["c"])
    assert (found.products, found.products_total, found.share_of_products) == (None, None, None)
    assert (found.share, found.noun) == (36 / 60, "product weights")
    assert len(found.uncounted) == 1
    assert covered(path).share_of_products == 1.0  # all of it, however many that is


def test_names_that_come_twice_do_not_mix(tmp_path):
    """Two operators of one name: each is judged by its own weight."""
    nodes = [helper.make_node("MatMul", ["v", "a"], ["h"], name="same"),
             helper.make_node("MatMul", ["h", "b"], ["out"], name="same")]  # fmt: skip
    path = save(tmp_path / "m.onnx", nodes, [weight("a", 6, 10), weight("b", 10, 4)], [V])
    assert covered(path, digital=["a"]).products == 40


def test_a_batch_that_cannot_be_cut_is_one_run(tmp_path):
    """Where rows of different samples are mixed the products are those of the whole batch."""
    nodes = [
        helper.make_node("Reshape", ["v", "shape"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["m"]),
        helper.make_node("Reshape", ["m", "back"], ["out"]),
    ]
    stored = [ints("shape", 6, 4), ints("back", 4, 3), weight("w", 4, 2)]
    found = covered(save(tmp_path / "m.onnx", nodes, stored, [("v", FLOAT, [4, 6])]))
    assert found.products == 6 * 4 * 2
