"""Nodes with more, fewer or empty inputs and outputs are analysed or refused, never a fault of ours."""

import contextlib
import random
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper, save

from nvaudit.errors import ModelError
from nvaudit.mapping.select import select
from nvaudit.model import analyse_batch, build_template, constants, load_model
from nvaudit.rng import stream

F = TensorProto.FLOAT
node, value = helper.make_node, helper.make_tensor_value_info


def draw(*shape):
    return stream(0, "test-odd-nodes", *shape).standard_normal(shape).astype(np.float32)


def write(path, nodes, shape, arrays, outputs=("y",)):
    graph = helper.make_graph(
        nodes, "g", [value("x", F, shape)], [value(name, F, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


# Nodes of which the last one ends with an empty name, the shape of x, constants, and an x to run.
TRAILING = {
    "dropout": (
        [node("MatMul", ["x", "W"], ["m"]), node("Dropout", ["m"], ["y", ""])], ["N", 4], {"W": (4, 3)}),
    "max pool": (
        [node("Conv", ["x", "K"], ["m"]), node("MaxPool", ["m"], ["y", ""], kernel_shape=[2, 2])],
        ["N", 1, 8, 8], {"K": (2, 1, 3, 3)}),
    "lstm": (
        [node("LSTM", ["x", "W", "R"], ["y", "", ""], hidden_size=3)], [5, "N", 4],
        {"W": (1, 12, 4), "R": (1, 12, 3)}),
    "gru": (
        [node("GRU", ["x", "W", "R"], ["", "y"], hidden_size=3)], [5, "N", 4],
        {"W": (1, 9, 4), "R": (1, 9, 3)}),
    "normalisation": (
        [node("MatMul", ["x", "W"], ["m"]), node("LayerNormalization", ["m", "s"], ["y", "", ""])], ["N", 4],
        {"W": (4, 3), "s": (3,)}),
}  # fmt: skip


@pytest.mark.parametrize("case", TRAILING)
def test_an_empty_name_at_the_end_changes_nothing(tmp_path, case):
    """The same weights and batch as without it; ONNX Runtime takes both files."""
    nodes, shape, sizes = TRAILING[case]
    arrays = {name: draw(*size) for name, size in sizes.items()}
    odd = write(tmp_path / "odd.onnx", nodes, shape, arrays)
    plain = []
    for one in nodes:
        copy = type(one).FromString(one.SerializeToString())
        while copy.output and not copy.output[-1]:
            del copy.output[-1]
        plain.append(copy)
    same = write(tmp_path / "plain.onnx", plain, shape, arrays)
    found = []
    for path in (odd, same):
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        loaded = load_model(path)
        decisions = select(constants(loaded), (), ())
        keys = [d.constant.weight.key for d in decisions if d.mapped]
        build_template(loaded, keys, batch="free", read_noise=set(keys))
        found.append((analyse_batch(loaded.model), [(d.constant.name, d.mapped) for d in decisions]))
    assert found[0] == found[1]
    assert found[0][0].reason == "takes any batch size"


@pytest.mark.parametrize(("outputs", "given"), [(("y",), (1, 2)), (("y", "z"), (1, 1)), (("y",), (2, 2))])
def test_branches_must_give_what_the_if_returns(tmp_path, outputs, given):
    """Another number of values is an error of the model that names the node."""
    branches = [
        helper.make_graph(
            [node("Relu", ["x"], [f"b{i}{j}"]) for j in range(count)], f"g{i}", [],
            [value(f"b{i}{j}", F, None) for j in range(count)],
        )
        for i, count in enumerate(given)
    ]  # fmt: skip
    choice = node("If", ["c"], list(outputs), name="pick", then_branch=branches[0], else_branch=branches[1])
    path = write(tmp_path / "m.onnx", [choice], ["N", 4], {"c": np.bool_(True)})
    said = f"else_branch {given[1]}, then_branch {given[0]}"
    with pytest.raises(ModelError, match=rf"node 'pick' \(If\): it has {len(outputs)} outputs.*\({said}\)"):
        load_model(path)


def mutate(model, rng):
    """Make a node or a few odd: names added, emptied or left out, attributes and types changed."""
    nodes = list(model.graph.node)
    nodes += [n for one in nodes for a in one.attribute if a.HasField("g") for n in a.g.node]
    for _ in range(rng.choice([1, 1, 2, 3])):
        one, kind = rng.choice(nodes), rng.randrange(7)
        if kind < 4:
            _rename(rng.choice([one.input, one.output]), kind, rng)
        elif kind == 4 and one.attribute:
            del one.attribute[rng.randrange(len(one.attribute))]
        elif kind == 5 and one.attribute:
            chosen = rng.choice(list(one.attribute))
            chosen.type = rng.choice([0, *AttributeProto.AttributeType.values()])
        elif kind == 6:
            one.op_type = rng.choice(["MatMul", "LSTM", "Reshape", "If", "Loop", "TopK", "Constant"])


def _rename(names, kind, rng):
    place = rng.randrange(len(names) + 1)
    if kind < 2:
        names.append("" if kind else rng.choice([*names, f"more{rng.random()}"]))
        return
    rest = list(names[place + 1 :])
    del names[place:]
    names.extend(rest if kind == 2 else ["", *rest])


def examples():
    """Models of ONNX's own suite, whose inputs after the first become weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cases for which numpy is asked for NaN
        from onnx.backend.test.loader import load_model_tests

        cases = [case for kind in ("node", "pytorch-operator") for case in load_model_tests(kind=kind)]
    for case in sorted(cases, key=lambda case: case.name)[::4]:
        model = case.model
        if model is None:
            model = onnx.load(f"{case.model_dir}/model.onnx", load_external_data=False)
        stored = {tensor.name for tensor in model.graph.initializer}
        for given in list(model.graph.input)[1:]:
            kind = given.type.tensor_type
            sizes = [dim.dim_value for dim in kind.shape.dim]
            if kind.elem_type == F and given.name not in stored and 0 < np.prod(sizes, dtype=int) < 10_000:
                model.graph.initializer.append(numpy_helper.from_array(draw(*sizes), given.name))
        yield case.name, model


def test_odd_models_of_the_onnx_suite_are_analysed_or_refused(tmp_path):
    """Whatever is done to a node: tensors, batch and template are found, or a ModelError says why not."""
    rng, path, tried, refused = random.Random(0), tmp_path / "m.onnx", 0, 0
    for name, model in examples():
        mutate(model, rng)
        with contextlib.suppress(ValueError):  # what the message itself refuses to hold
            path.write_bytes(model.SerializeToString())
        tried += 1
        try:
            loaded = load_model(path)
            analyse_batch(loaded.model)
            chosen = [d.constant.weight for d in select(constants(loaded), (), ()) if d.mapped]
            for weight in chosen:
                weight.load()
            if chosen:
                build_template(loaded, [weight.key for weight in chosen], batch="free")
        except ModelError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    assert tried > 400
    assert tried - refused > 100, "nearly all are refused: what is analysed is hardly tried"
