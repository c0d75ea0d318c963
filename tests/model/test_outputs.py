"""What the graph proves of outputs: decisions or scores, and the axis of the classes."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from nvaudit.model import (
    class_list,
    load_model,
    output_facts,
    scoreable_outputs,
    scores_beside_label,
    zipped_classes,
)
from tests.model.onnx_cases import make_model, numbers, save, tensor, value

node = helper.make_node
CONV = node("Conv", ["x", "K"], ["s"])
ARGMAX = node("ArgMax", ["s"], ["a"], axis=1)
STORED = {"K": numbers(4, 3, 1, 1), "W": numbers(8, 5)}


def load(tmp_path, nodes, shape, *, inputs=("N", 3, 6, 8), dtype=TensorProto.FLOAT, stored=None):
    """A model of some nodes from x to y."""
    found = {**STORED, **(stored or {})}
    used = {name for one in nodes for name in one.input}
    model = make_model(
        nodes,
        [value("x", list(inputs))],
        [value("y", shape, dtype)],
        {name: array for name, array in found.items() if name in used},
    )
    return load_model(save(tmp_path, model))


DECISIONS = {
    "uint8 arg max": ([CONV, ARGMAX, node("Cast", ["a"], ["y"], to=2)], TensorProto.UINT8),
    "float arg max": ([CONV, ARGMAX, node("Cast", ["a"], ["y"], to=1)], TensorProto.FLOAT),
    "renumbered": (
        [CONV, ARGMAX, node("Cast", ["a"], ["f"], to=1), node("Add", ["f", "one"], ["y"])],
        TensorProto.FLOAT,
    ),
    "compared": ([CONV, node("Greater", ["s", "one"], ["y"])], TensorProto.BOOL),
    "looked up": (
        [CONV, ARGMAX, node("Gather", ["table", "a"], ["y"])],
        TensorProto.FLOAT,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DECISIONS)
def test_class_numbers_are_decisions(tmp_path, case):
    """Arg max, comparisons, and what is only cast, renumbered or looked up from them, also as floats."""
    nodes, dtype = DECISIONS[case]
    stored = {"one": np.ones(1, np.float32), "table": numbers(4)}
    assert output_facts(load(tmp_path, nodes, None, dtype=dtype, stored=stored), "y", 4).decisions


def test_scores_times_a_mask_are_no_decisions(tmp_path):
    """Arithmetic of decisions with scores gives scores."""
    nodes = [
        CONV,
        ARGMAX,
        node("Cast", ["a"], ["f"], to=1),
        node("Mul", ["s", "f"], ["y"]),
    ]
    assert not output_facts(load(tmp_path, nodes, None), "y", 4).decisions  # fmt: skip


def test_quantised_scores_are_scores(tmp_path):
    """An integer output straight from QuantizeLinear holds numbers, not labels."""
    nodes = [CONV, node("QuantizeLinear", ["s", "scale", "zero"], ["y"])]
    stored = {"scale": np.float32(1), "zero": np.uint8(0)}
    facts = output_facts(load(tmp_path, nodes, None, dtype=TensorProto.UINT8, stored=stored), "y", 4)
    assert (facts.decisions, facts.class_axis) == (False, 1)


def test_what_topk_gives(tmp_path):
    """Its values are scores in order, which say nothing of classes; its indices are ranked decisions."""
    nodes = [CONV, node("TopK", ["s", "k"], ["v", "i"], axis=1)]
    stored = {"k": np.array([2])}
    first = load(tmp_path, [*nodes, node("Identity", ["v"], ["y"])], None, stored=stored)
    assert output_facts(first, "y", 4).ranked
    second = load(
        tmp_path, [*nodes, node("Identity", ["i"], ["y"])], None, dtype=TensorProto.INT64, stored=stored
    )
    facts = output_facts(second, "y", 4)
    assert (facts.decisions, facts.ranked_axis) == (True, 1)


ONE_HOT = [CONV, ARGMAX, node("OneHot", ["a", "depth", "values"], ["h"], axis=1)]


@pytest.mark.parametrize(
    ("nodes", "values", "axis"),
    [
        ([*ONE_HOT, node("Squeeze", ["h", "two"], ["y"])], [0, 1], 1),
        ([*ONE_HOT, node("Squeeze", ["h", "two"], ["y"])], [1, 0], None),
        ([CONV, node("Hardmax", ["s"], ["y"], axis=1)], [0, 1], 1),
        ([node("Cast", ["x"], ["a"], to=7), node("OneHot", ["a", "depth", "values"], ["y"])], [0, 1], None),
    ],
    ids=["one-hot", "one-cold", "hardmax", "of the input"],
)
def test_a_one_hot_of_what_was_decided_is_decisions(tmp_path, nodes, values, axis):
    """OneHot of an arg max, and Hardmax, with the axis of the classes; not where 0 marks the class."""
    stored = {"depth": np.array(4), "values": np.array(values, np.float32), "two": np.array([2])}
    loaded = load(tmp_path, nodes, None, stored=stored)
    facts = output_facts(loaded, "y", 4)
    assert (facts.one_hot_axis, facts.decisions) == (axis, axis is not None)


AXES = {
    "softmax": ([CONV, node("Softmax", ["s"], ["y"], axis=1)], 4, (1, True)),
    "softmax between transposes": (
        [
            CONV,
            node("Transpose", ["s"], ["t"], perm=[0, 2, 3, 1]),
            node("Softmax", ["t"], ["p"], axis=-1),
            node("Transpose", ["p"], ["y"], perm=[0, 3, 1, 2]),
        ],
        4,
        (1, True),
    ),
    "convolution": ([CONV, node("Relu", ["s"], ["y"])], 4, (1, False)),
    "channels moved last": ([CONV, node("Transpose", ["s"], ["y"], perm=[0, 2, 3, 1])], 4, (3, False)),
    "dense layer": ([node("MatMul", ["x", "W"], ["y"])], 4, (3, True)),
    "dense layer moved": (
        [node("MatMul", ["x", "W"], ["s"]), node("Transpose", ["s"], ["y"], perm=[0, 3, 1, 2])],
        4,
        (1, True),
    ),
    "flattened positions": ([CONV, node("Reshape", ["s", "to"], ["y"])], 3, (1, False)),
    "boxes beside classes": ([CONV, node("Concat", ["s", "x"], ["y"], axis=1)], 4, (None, False)),
    "no layer": ([node("ReduceMean", ["x"], ["y"], axes=[1])], 4, (None, False)),
}


@pytest.mark.parametrize("case", AXES)
def test_the_class_axis_is_proved_or_not_known(tmp_path, case):
    """Softmax and dense layers prove scores of classes, convolutions an axis of channels, others nothing."""
    nodes, rank, (axis, scores) = AXES[case]
    facts = output_facts(load(tmp_path, nodes, None, stored={"to": np.array([0, 4, -1])}), "y", rank)
    found = None if facts.class_axis is None else facts.class_axis % rank
    assert (found, facts.scores) == (axis, scores)


def classifier(tmp_path, first, second, more):
    """A label, and an output beside it."""
    mlp = [node("MatMul", ["x", "W"], ["s"]), node("ArgMax", ["s"], ["a"], axis=1, keepdims=0)]
    model = make_model([*mlp, *more], [value("x", ["N", 8])], [first, second], {"W": STORED["W"]})
    return load_model(save(tmp_path, model))


def test_the_scores_of_a_classifier_are_found_beside_its_label(tmp_path):
    """Labels as numbers or text: the one output [N, C] of floats; a list of names is the model's own."""
    scores = value("s", ["N", 5])
    numbered = classifier(tmp_path, value("a", ["N"], TensorProto.INT64), scores, [])
    assert scores_beside_label(numbered) == "s"
    assert class_list(numbered).names == ()
    table = {"keys_int64s": [4, 3, 2, 1, 0], "values_strings": list("edcba")}
    encode = node("LabelEncoder", ["a"], ["n"], domain="ai.onnx.ml", **table)
    named = classifier(tmp_path, value("n", ["N"], TensorProto.STRING), scores, [encode])
    assert scores_beside_label(named) == "s"
    assert scoreable_outputs(named) == ("s",)
    assert class_list(named).names == tuple("abcde")


def test_boxes_beside_labels_are_no_scores(tmp_path):
    """An output of more dimensions is not chosen in place of the labels."""
    boxes = [node("Reshape", ["s", "to"], ["b"])]
    model = make_model(
        [node("MatMul", ["x", "W"], ["s"]), node("ArgMax", ["s"], ["a"], axis=1, keepdims=0), *boxes],
        [value("x", ["N", 8])],
        [value("a", ["N"], TensorProto.INT64), value("b", ["N", 5, 1])],
        {"W": STORED["W"], "to": np.array([0, 5, 1])},
    )
    assert scores_beside_label(load_model(save(tmp_path, model))) is None


def test_a_zip_map_is_the_scores_it_holds(tmp_path):
    """Its classes are known in order, and it is chosen as the scores of a classifier."""
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    zipped = node("ZipMap", ["s"], ["p"], domain="ai.onnx.ml", classlabels_int64s=[3, 5, 7, 8, 9])
    loaded = classifier(
        tmp_path, value("a", ["N"], TensorProto.INT64), helper.make_value_info("p", maps), [zipped]
    )
    assert scores_beside_label(loaded) == "p"
    assert zipped_classes(loaded, "p") == (3, 5, 7, 8, 9)
    assert class_list(loaded).numbers == (3, 5, 7, 8, 9)


@pytest.mark.parametrize(
    ("key", "text", "names"),
    [
        ("names", "{0: 'cat', 1: 'dog'}", ("cat", "dog")),
        ("classes", '["cat", "dog"]', ("cat", "dog")),
        ("labels", "cat,dog", ("cat", "dog")),
        ("names", "{0: 'cat', 2: 'dog'}", ()),
        ("author", "cat,dog", ()),
        ("names", "__import__('os').getcwd()", ()),
    ],
)
def test_classes_in_the_metadata(tmp_path, key, text, names):
    """Lists and numbered names are read, as JSON, literals or plain text; anything else is none."""
    model = make_model([CONV], [value("x", ["N", 3, 6, 8])], [value("s", None)], {"K": STORED["K"]})
    model.metadata_props.add(key=key, value=text)
    assert class_list(load_model(save(tmp_path, model))).names == names


def test_a_table_of_names_behind_an_arg_max_is_the_list(tmp_path):
    """skl2onnx picks the label from a stored array of the classes."""
    pick = node("ArrayFeatureExtractor", ["names", "a"], ["n"], domain="ai.onnx.ml")
    mlp = [node("MatMul", ["x", "W"], ["s"]), node("ArgMax", ["s"], ["a"], axis=1, keepdims=0)]
    model = make_model(
        [*mlp, pick],
        [value("x", ["N", 8])],
        [value("n", None, TensorProto.INT64), value("s", ["N", 5])],
        {"W": STORED["W"]},
    )
    model.graph.initializer.append(tensor(np.array([2, 4, 6, 8, 10]), "names"))
    loaded = load_model(save(tmp_path, model))
    assert class_list(loaded).numbers == (2, 4, 6, 8, 10)
    assert scores_beside_label(loaded) == "s"
