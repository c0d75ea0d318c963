"""One name stands for one thing, a node is what its schema says, external data have known keys."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit.errors import EXIT_BAD_INPUT, ModelError
from nvaudit.model.load import load_model

node, value = helper.make_node, helper.make_tensor_value_info
FIRST, SECOND = (np.full((4, 3), number, np.float32) for number in (1, 2))
PRODUCT = node("MatMul", ["x", "W"], ["y"])


def tensor(array=FIRST, name="W"):
    return numpy_helper.from_array(array, name)


def sparse(array=SECOND, name="W"):
    values = helper.make_tensor(name, TensorProto.FLOAT, [12], array.ravel())
    return helper.make_sparse_tensor(values, helper.make_tensor("i", 7, [12], list(range(12))), array.shape)


def model(nodes=(PRODUCT,), tensors=(), inputs=(), outputs=("y",), sparses=(), functions=()):
    graph = helper.make_graph(
        list(nodes),
        "g",
        [value("x", 1, ["N", 4]), *inputs],
        [value(name, 1, None) for name in outputs],
        list(tensors),
    )
    graph.sparse_initializer.extend(sparses)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("l", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))


def branching(tensors=(), inner=None, outer=()):
    """An If of the sum of x whose branches hold tensors of their own."""
    nodes = inner or [node("MatMul", ["x", "W"], ["o"])]
    branches = [helper.make_graph(nodes, name, [], [value("o", 1, None)], list(tensors)) for name in "te"]
    return [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Cast", ["s"], ["c"], to=9),
        *outer,
        node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]


def function(name="f"):
    return helper.make_function(
        "l", name, ["a"], ["b"], [node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )


def refused(tmp_path, proto, message):
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=f"^{re.escape(str(path))}: .*{re.escape(message)}"):
        load_model(path)


CASES = {
    "dense and dense": (model(tensors=[tensor(), tensor(SECOND)]), "the graph: 'W' is stored twice"),
    "dense and sparse": (model(tensors=[tensor()], sparses=[sparse()]), "the graph: 'W' is stored twice"),
    "sparse and sparse": (model(sparses=[sparse(), sparse(FIRST)]), "the graph: 'W' is stored twice"),
    "in a branch": (model(branching([tensor(), tensor(SECOND)])), "'W' is stored twice"),
    "dense and constant": (
        model([node("Constant", [], ["W"], value=tensor(SECOND)), PRODUCT], [tensor()]),
        "'W' is produced twice",
    ),
    "input of another type": (
        model(tensors=[tensor()], inputs=[value("W", TensorProto.DOUBLE, [4, 3])]),
        "input 'W' is declared as double and its initializer is float",
    ),
    "input of another shape": (
        model(tensors=[tensor()], inputs=[value("W", 1, [4, 5])]),
        "input 'W' is declared with shape [4, 5] and its initializer has [4, 3]",
    ),
    "inputs": (model(tensors=[tensor()], inputs=[value("x", 1, ["N", 4])]), "'x' is an input twice"),
    "outputs": (model(tensors=[tensor()], outputs=["y", "y"]), "'y' is an output twice"),
    "outputs of one node": (
        model([node("Split", ["m"], ["y", "y"], axis=1), node("MatMul", ["x", "W"], ["m"])], [tensor()]),
        "'y' is produced twice",
    ),
    "hidden by a branch's tensor": (
        model(branching([tensor(SECOND)]), [tensor()]),
        "'W' hides a value of the same name outside of it",
    ),
    "hidden by a branch's node": (
        model(
            branching(
                inner=[node("Abs", ["x"], ["t"]), node("MatMul", ["t", "W"], ["o"])],
                outer=[node("Neg", ["x"], ["t"])],
            ),
            [tensor()],
        ),
        "'t' hides a value of the same name outside of it",
    ),
    "functions": (
        model(tensors=[tensor()], functions=[function(), function()]),
        "function 'f' of domain 'l' is stored twice",
    ),
    "unknown attribute": (
        model([node("MatMul", ["x", "W"], ["y"], alpha=1.0)], [tensor()]),
        "has an attribute 'alpha', which ONNX does not know",
    ),
    "attribute of another type": (
        model([node("Gemm", ["x", "W"], ["y"], alpha=[1, 2])], [tensor()]),
        "attribute 'alpha' is ints, and ONNX wants float",
    ),
    "missing attribute": (
        model([node("Cast", ["x"], ["y"])], [tensor()]),
        "has no attribute 'to', which ONNX requires",
    ),
    "number of inputs": (model([node("MatMul", ["x"], ["y"])], [tensor()]), "has 1 inputs, and ONNX wants 2"),
}


@pytest.mark.parametrize("case", CASES)
def test_contradictions_are_refused(tmp_path, case):
    """Readers disagree on which of two things of one name is meant."""
    refused(tmp_path, *CASES[case])


def test_an_attribute_given_twice_or_in_two_types_is_refused(tmp_path):
    """What helper functions cannot write."""
    proto = model([node("Gemm", ["x", "W"], ["y"], transB=0)], [tensor()])
    proto.graph.node[0].attribute.add().CopyFrom(helper.make_attribute("transB", 1))
    refused(tmp_path, proto, "'transB' is given twice")
    proto = model([node("Gemm", ["x", "W"], ["y"], transB=0)], [tensor()])
    proto.graph.node[0].attribute[0].floats.append(1.0)
    refused(
        tmp_path,
        proto,
        "attribute 'transB' is declared as int and holds a value of another type too (floats)",
    )


def test_operator_sets_imported_twice_are_refused(tmp_path):
    """In two versions; '' and 'ai.onnx' are one domain."""
    proto = model(tensors=[tensor()])
    proto.opset_import.add(domain="ai.onnx", version=13)
    refused(tmp_path, proto, "operator set 'ai.onnx' is imported as version 17 and as 13")


@pytest.mark.parametrize(
    "proto",
    [
        model(tensors=[tensor()], inputs=[value("W", 1, [4, 3])]),
        model(tensors=[tensor()], inputs=[value("W", 1, ["a", 3])]),
        model(branching(), [tensor()]),
        model([*branching(), node("Neg", ["y"], ["o"])], [tensor()], outputs=["o"]),
    ],
)
def test_what_onnx_allows_is_read(tmp_path, proto):
    """An initializer among the inputs; two branches with equal names; a name that is used outside later."""
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("command_name", ["inspect", "audit", "landscape", "roofline", "verify-plan"])
def test_every_command_refuses(tmp_path, command, command_name):
    """In one line, with exit code 2."""
    (tmp_path / "m.onnx").write_bytes(CASES["dense and dense"][0].SerializeToString())
    ran = command(command_name, tmp_path / "m.onnx")
    assert (ran.code, ran.out) == (EXIT_BAD_INPUT, "")
    assert (
        ran.err
        == f"nvaudit: error: {tmp_path}/m.onnx: the graph: 'W' is stored twice; export the model again\n"
    )


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("note", "'note' is unknown; ONNX has location, offset, length, checksum: remove it or export again"),
        ("", "'' is unknown; ONNX has location, offset, length, checksum: remove it or export again"),
        ("offset", "'offset' occurs twice; export the model again"),
    ],
)
def test_keys_of_external_data(tmp_path, command, key, message):
    """inspect and audit say the same, and no library says anything."""
    path = tmp_path / "m.onnx"
    onnx.save_model(
        model(tensors=[tensor()]), path, save_as_external_data=True, location="w", size_threshold=0
    )
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data.add(key=key, value="1")
    path.write_bytes(proto.SerializeToString())
    line = f"nvaudit: error: {path}: initializer 'W': external data key {message}\n"
    assert [command(name, path).err for name in ("inspect", "audit")] == [line, line]
