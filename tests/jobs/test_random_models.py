"""Models that draw random numbers: named, and the same numbers at every call of one command."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from quick import audit

import nvaudit
from nvaudit.jobs.replaying import replay
from nvaudit.model import load_model

RNG = np.random.default_rng(4)
W1, W2 = (RNG.standard_normal(shape).astype(np.float32) for shape in ((6, 12), (12, 4)))
X = RNG.standard_normal((150, 6)).astype(np.float32)
Y = (np.maximum(X @ W1, 0) @ W2).argmax(1)


def constant(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def save(folder, first, stored=(), *, opset=17, functions=(), last=()):
    """Write two layers behind the nodes ``first``, which make ``z`` of ``x``; and their data."""
    nodes = [
        *first,
        helper.make_node("MatMul", ["z", "W1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "W2"], ["s" if last else "y"]),
        *last,
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [constant("W1", W1), constant("W2", W2), *stored],
    )
    domains = sorted({function.domain for function in functions})
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "m.npz", x=X, y=Y)
    return folder / "m.onnx"


def noise(name="noise", **attributes):
    return [
        helper.make_node("RandomNormalLike", ["x"], ["n"], name, scale=0.7, **attributes),
        helper.make_node("Add", ["x", "n"], ["z"]),
    ]


def uniform():
    return [
        helper.make_node("RandomUniform", [], ["n"], "shift", shape=[6], low=-0.8, high=0.8),
        helper.make_node("Add", ["x", "n"], ["z"]),
    ]


def dropout(seed=None):
    more = {} if seed is None else {"seed": seed}
    return [helper.make_node("Dropout", ["x", "ratio", "on"], ["z"], "drop", **more)]


DROPOUT = (constant("ratio", np.float32(0.4)), constant("on", np.array(True)))


def bernoulli():
    return [
        helper.make_node("Sigmoid", ["x"], ["p"]),
        helper.make_node("Bernoulli", ["p"], ["b"], "coin"),
        helper.make_node("Mul", ["x", "b"], ["z"]),
    ]


def sampled():
    return [
        helper.make_node("Multinomial", ["x"], ["i"], "sampler", sample_size=6, dtype=6),
        helper.make_node("Cast", ["i"], ["f"], to=1),
        helper.make_node("Add", ["x", "f"], ["z"]),
    ]


def inside():
    """Noise in the branch of an If."""

    def body(name, nodes, output):
        return helper.make_graph(
            nodes, name, [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        )

    then = body("t", [helper.make_node("RandomNormalLike", ["x"], ["n"], "deep"),
                      helper.make_node("Add", ["x", "n"], ["zt"])], "zt")  # fmt: skip
    other = body("e", [helper.make_node("Identity", ["x"], ["ze"])], "ze")
    return [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Greater", ["top", "low"], ["c"]),
        helper.make_node("If", ["c"], ["z"], "if", then_branch=then, else_branch=other),
    ]


CASES = {
    "noise": (noise(), (), "'noise' (RandomNormalLike)"),
    "uniform": (uniform(), (), "'shift' (RandomUniform)"),
    "dropout": (dropout(), DROPOUT, "'drop' (Dropout in training mode)"),
    "bernoulli": (bernoulli(), (), "'coin' (Bernoulli)"),
    "multinomial": (sampled(), (), "'sampler' (Multinomial)"),
    "branch": (inside(), (constant("low", np.float32(-9)),), "'if/then_branch/deep' (RandomNormalLike)"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_command_gives_the_same_numbers_and_names_the_node(tmp_path, case):
    """Two runs are equal in every value; the notes name the node and what its draws follow."""
    first, stored, named = CASES[case]
    model = save(tmp_path, first, stored)
    runs = [audit(model, "rram", trials=4, workers=0, batch_size=40) for _ in range(2)]
    assert runs[0].trials.values == runs[1].trials.values
    assert (runs[0].nominal, runs[0].quantised) == (runs[1].nominal, runs[1].quantised)
    (note,) = [note for note in runs[0].notes if "draws random numbers at inference" in note]
    assert named in note
    assert "follow --seed" in note
    assert runs[0].nominal < 0.995  # it does draw
    done = replay(runs[0], tmp_path / "chip.onnx", trial=2)
    assert done.measured == runs[0].trials.values[2]


def test_workers_and_order_do_not_matter(tmp_path):
    """Worker processes give what this process gives: a chip's draws are its own."""
    model = save(tmp_path, noise())
    runs = [audit(model, "rram", trials=5, workers=workers, batch_size=64) for workers in (0, 1, 2)]
    assert len({run.trials.values for run in runs}) == 1
    assert len({(run.nominal, run.quantised) for run in runs}) == 1
    alone = audit(model, "rram", trials=2, workers=0, batch_size=64)
    assert alone.trials.values == runs[0].trials.values[:2]


def test_another_seed_is_another_draw(tmp_path):
    """The draws follow the run's seed; the unmodified model, which has no other randomness, shows it."""
    model = save(tmp_path, noise())
    seeds = {audit(model, "rram", trials=1, workers=0, seed=seed).nominal for seed in range(4)}
    assert len(seeds) > 1


def test_a_seed_of_the_file_is_kept_and_said(tmp_path):
    """A node that has a seed attribute keeps it, and the note says whose seed it is."""
    model = save(tmp_path, noise(seed=3.0))
    runs = [audit(model, "rram", trials=1, workers=0, seed=seed) for seed in (0, 1)]
    assert runs[0].nominal == runs[1].nominal
    assert any("follow the file's own seeds" in note for note in runs[0].notes)


def test_no_race_where_results_hang_on_the_order_of_samples(tmp_path):
    """Chips see every sample in order, and the report says why."""
    report = audit(save(tmp_path, noise()), "rram", trials=3, workers=0)
    assert any("every chip was run on every sample: the model draws" in note for note in report.notes)


@pytest.mark.parametrize("stored", [False, 0.0], ids=["off", "ratio 0"])
def test_dropout_that_is_off_draws_nothing(tmp_path, stored):
    """Dropout in inference mode, or of nothing, is no random operator."""
    parts = {"ratio": np.float32(0.4), "on": np.array(True)}
    parts |= {"on": np.array(False)} if stored is False else {"ratio": np.float32(0)}
    model = save(tmp_path, dropout(), [constant(name, value) for name, value in parts.items()])
    assert load_model(model).draws == ()


def test_inlined_functions_draw_apart(tmp_path):
    """Two calls of one local function are two nodes with seeds of their own."""
    body = helper.make_function(
        "my", "Jitter", ["a"], ["b"],
        [helper.make_node("RandomNormalLike", ["a"], ["n"], "j"), helper.make_node("Add", ["a", "n"], ["b"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    calls = [
        helper.make_node("Jitter", ["x"], ["x1"], domain="my"),
        helper.make_node("Jitter", ["x1"], ["z"], domain="my"),
    ]
    loaded = load_model(save(tmp_path, calls, functions=[body]), 5)
    seeds = [draw.node.attributes["seed"].as_float() for draw in loaded.draws]
    assert len(seeds) == 2
    assert seeds[0] != seeds[1]
    again = load_model(tmp_path / "m.onnx", 5)
    assert [draw.node.attributes["seed"].as_float() for draw in again.draws] == seeds


def test_the_other_commands_say_so_and_repeat_themselves(tmp_path):
    """landscape, roofline and compare: equal numbers twice, and the note."""
    model = save(tmp_path, noise())
    other = tmp_path / "other.onnx"
    shutil.copy(model, other)
    shutil.copy(model.with_suffix(".npz"), other.with_suffix(".npz"))

    def once():
        quick = {"trials": 3, "workers": 0}
        surface = nvaudit.landscape(model, pairs=1, grid=5, workers=0)
        levels = nvaudit.roofline(model, "rram", cell_bits=(2,), **quick)
        pair = nvaudit.compare([model, other], "rram", roughness=False, **quick)
        return surface, levels, pair

    first, second = once(), once()
    assert first[0].surface == second[0].surface
    assert [one.device.kpp for one in first[1].levels] == [one.device.kpp for one in second[1].levels]
    assert [m.kpp for m in first[2].models] == [m.kpp for m in second[2].models]
    for report in first[:2]:
        assert any("draws random numbers" in note for note in report.notes)
    assert "draws random numbers" in first[2].model_dump_json()


def test_a_remapped_file_has_no_seed_of_ours(command, tmp_path):
    """The file that remap writes draws as the given one does: our seed stays in the run."""
    model = save(tmp_path, noise())
    out = tmp_path / "r.onnx"
    ran = command("harden", model, "-m", "remap", "-o", out, "-n", "3", "-j", "0", "-q")
    assert ran.code == 0, ran.err
    (node,) = [node for node in onnx.load(out).graph.node if node.op_type == "RandomNormalLike"]
    assert [attribute.name for attribute in node.attribute] == ["scale"]


def test_training_mode_of_batch_normalisation_is_said(tmp_path):
    """It takes its statistics from the batch: named, with the cure."""
    stats = [constant(name, np.ones(4, np.float32)) for name in ("g", "b", "mean", "var")]
    last = [helper.make_node("BatchNormalization", ["s", "g", "b", "mean", "var"], ["y", "m2", "v2"], "bn",
                             training_mode=1)]  # fmt: skip
    first = [helper.make_node("Identity", ["x"], ["z"])]
    report = audit(save(tmp_path, first, stats, last=last), "rram", trials=2, workers=0)
    said = [note for note in report.notes if "in training mode" in note and "'bn'" in note]
    assert any("evaluation mode" in note for note in said), said
