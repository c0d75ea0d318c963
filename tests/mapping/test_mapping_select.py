"""Which tensors go on the array, with a reason for each that does not."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit.errors import OptionError
from nvaudit.mapping.select import select
from nvaudit.model import constants, load_model


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Two layers with biases: ``block.0.weight``, ``block.1.weight``."""
    rng = np.random.default_rng(0)
    arrays = {
        "block.0.weight": rng.standard_normal((4, 8)),
        "block.0.bias": rng.standard_normal(8),
        "block.1.weight": rng.standard_normal((8, 3)),
        "block.1.bias": rng.standard_normal(3),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "block.0.weight", "block.0.bias"], ["h"]),
            helper.make_node("Gemm", ["h", "block.1.weight", "block.1.bias"], ["y"]),
        ],
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()],
    )
    path = Path(tmp_path_factory.mktemp("select")) / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return constants(load_model(path))


def mapped(decisions):
    return [d.constant.name for d in decisions if d.mapped]


def test_weights_are_mapped_and_the_rest_says_why(found):
    """By default every weight is mapped; each other constant has a reason; the order is kept."""
    decisions = select(found)
    assert [d.constant for d in decisions] == found
    assert mapped(decisions) == ["block.0.weight", "block.1.weight"]
    assert all(d.reason for d in decisions)


@pytest.mark.parametrize(
    ("layers", "digital", "wanted"),
    [
        (["block.0.*"], [], ["block.0.weight"]),
        (["*.weight"], [], ["block.0.weight", "block.1.weight"]),
        (["block.0.weight", "block.?.weight"], [], ["block.0.weight", "block.1.weight"]),
        ([], ["block.1.*"], ["block.0.weight"]),
        (["block.*"], ["*.0.*"], ["block.1.weight"]),
        ([], ["*"], []),
    ],
)
def test_globs_choose(found, layers, digital, wanted):
    """--layers keeps what matches any glob, --digital takes out what matches any; digital wins."""
    assert mapped(select(found, layers, digital)) == wanted


def test_reasons_name_the_option(found):
    """What an option decided says so, with the glob."""
    reasons = {d.constant.name: d.reason for d in select(found, ["*.1.*"])}
    assert reasons["block.0.weight"] == "not selected by --layers"
    reasons = {d.constant.name: d.reason for d in select(found, [], ["*.1.*"])}
    assert reasons["block.1.weight"] == "kept digital by --digital *.1.*"


@pytest.mark.parametrize("option", ["layers", "digital"])
@pytest.mark.parametrize("glob", ["conv*", "BLOCK.0.weight", "block.0.bias", ""])
def test_a_glob_without_a_match_is_refused(found, option, glob):
    """A misspelt name, also in case, or one of a bias, is an error that lists weights."""
    with pytest.raises(OptionError) as caught:
        select(found, **{option: [glob]})
    assert str(caught.value) == (
        f"--{option} {glob!r} matches no weight; `nvaudit inspect` lists them, e.g. "
        "block.0.weight, block.1.weight"
    )


def test_without_weights_there_is_nothing_to_select():
    """No constants, no decisions; a glob then matches nothing."""
    assert select([]) == ()
    with pytest.raises(OptionError, match="--layers '\\*' matches no weight"):
        select([], ["*"])


def test_an_exact_name_matches_whatever_characters_it_has(tmp_path):
    """Names with brackets: the name itself means that weight alone; without a match brackets are literal."""
    names = ["layers[0].w", "layers0.w", "layers[1].w"]
    nodes = [
        helper.make_node("MatMul", [before, name], [after])
        for before, name, after in zip(("x", "a", "b"), names, ("a", "b", "y"), strict=True)
    ]
    stored = [numpy_helper.from_array(np.eye(4, dtype=np.float32), name) for name in names]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4])] for name in ("x", "y")]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", *ends, stored)), path)
    known = constants(load_model(path))
    assert mapped(select(known, layers=["layers[0].w"])) == ["layers[0].w"]
    assert mapped(select(known, digital=["layers[0].w"])) == ["layers0.w", "layers[1].w"]
    assert mapped(select(known, layers=["layers[1]*"])) == ["layers[1].w"]
    assert mapped(select(known, layers=["layers[0-9].w"])) == ["layers0.w"]
    with pytest.raises(OptionError, match=r"--layers 'layers\[2\]\.w' matches no weight"):
        select(known, layers=["layers[2].w"])
