"""Whether samples of a set influence each other, and how a set is run where they do."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from nvaudit.data import Dataset
from nvaudit.errors import DataError
from nvaudit.model import analyse_batch, load_model
from nvaudit.perturb import apart
from nvaudit.perturb.apart import settle_cut
from nvaudit.rng import stream

F, I64 = TensorProto.FLOAT, TensorProto.INT64
N = 40


def draw(shape, *address):
    """Seeded normal float32 numbers."""
    return stream(0, "test-apart", *address).standard_normal(shape).astype(np.float32)


def node(op, inputs, outputs, **attributes):
    """A node named after its first output."""
    return helper.make_node(
        op, inputs.split(), outputs.split(), name=f"{op}_{outputs.split()[0]}", **attributes
    )


def write(path, nodes, constants=None, *, shape=("N", 4), outputs=("y",), inputs=None, kinds=None, opset=17):
    """A model of ``x`` and more inputs, with output shapes left open."""
    every = {"x": (F, shape), **(inputs or {})}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, list(dims)) for name, (kind, dims) in every.items()],
        [helper.make_tensor_value_info(name, (kinds or {}).get(name, F), None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    save(helper.make_model(graph, opset_imports=domains, ir_version=8), path)
    return path


def samples(x=None, **more):
    """A set of N samples; more inputs are batched where their first axis has as many."""
    arrays = {"x": draw((N, 4), "x") if x is None else x, **more}
    count = len(arrays["x"])
    axes = {name: 0 for name, array in arrays.items() if array.shape[:1] == (count,)}
    return Dataset(arrays, frozenset(axes), axes, None, "none", count, "test", "0" * 64, given=count)


def cut_of(path, data=None, batch_size=None, output="y"):
    """How the set is run."""
    loaded = load_model(path)
    data = samples() if data is None else data
    rebatch = analyse_batch(loaded.model)
    assert rebatch.batch_axes.items() >= {"x": 0}.items()
    return settle_cut(loaded, rebatch, data, output, batch_size)


H = 3
LSTM = {"W": draw((1, 4 * H, 4), "W"), "R": draw((1, 4 * H, H), "R")}
ONE = {
    "w": draw((4, 4), "w"),
    "a0": np.int64([0]),
    "a1": np.int64([1]),
    "zero": np.int64(0),
    "one": np.int64(1),
}
SWITCH = {"mean": np.zeros(4, np.float32), "var": np.ones(4, np.float32), "s": np.ones(4, np.float32)}


def loop(body, name):
    """A Scan over the first axis, with a state of 4 numbers."""
    graph = helper.make_graph(
        body,
        name,
        [helper.make_tensor_value_info(n, F, [4]) for n in ("s", "e")],
        [helper.make_tensor_value_info(n, F, [4]) for n in ("s_out", "e_out")],
    )
    return node("Scan", "start x", "end y", body=graph, num_scan_inputs=1)


START = {"start": np.zeros(4, np.float32)}

# Nodes and constants; x is [N, 4], and what stands on its first axis is no batch.
DEPENDENT = {
    "attention": (
        [node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", "x t", "p"), node("Softmax", "p", "a"),
         node("MatMul", "a x", "y")], {}),
    "memory": (
        [node("Unsqueeze", "x a1", "u"), node("LSTM", "u W R", "Y", hidden_size=H),
         node("Squeeze", "Y a12", "y")], {**LSTM, "a12": np.int64([1, 2])}),
    "filter along the axis": (
        [node("Unsqueeze", "x a01", "u"), node("Conv", "u k", "c", pads=[1, 0, 1, 0]),
         node("Squeeze", "c a01", "y")], {"a01": np.int64([0, 1]), "k": draw((1, 1, 3, 1), "k")}),
    "symmetric filter": (
        [node("Unsqueeze", "x a01", "u"),
         node("AveragePool", "u", "c", kernel_shape=[3, 1], pads=[1, 0, 1, 0]),
         node("Squeeze", "c a01", "y")],
        {"a01": np.int64([0, 1])}),
    "mean taken off": ([node("ReduceMean", "x", "m", axes=[0]), node("Sub", "x m", "y")], {}),
    "maximum of all": ([node("ReduceMax", "x", "m", keepdims=1), node("Div", "x m", "y")], {}),
    "softmax over samples": ([node("Softmax", "x", "y", axis=0)], {}),
    "statistics of the batch": (
        [node("BatchNormalization", "x s mean mean var", "y rm rv", training_mode=1)],
        {"s": SWITCH["s"], "mean": SWITCH["mean"], "var": SWITCH["var"]}),
    "instance normalisation over samples": (
        [node("Transpose", "x", "t", perm=[1, 0]), node("Unsqueeze", "t a0", "u"),
         node("InstanceNormalization", "u s b", "i"), node("Squeeze", "i a0", "q"),
         node("Transpose", "q", "y", perm=[1, 0])],
        {"s": np.ones(4, np.float32), "b": np.zeros(4, np.float32)}),
    "cumulated": ([node("CumSum", "x zero", "y")], {}),
    "sorted": ([node("Shape", "x", "n", end=1), node("TopK", "x n", "y i", axis=0)], {}),
    "reversed": (
        [node("Slice", "x from to a0 back", "y")],
        {"from": np.int64([-1]), "to": np.int64([-(2**62)]), "back": np.int64([-1])}),
    "neighbour": (
        [node("Pad", "x pads", "p"), node("Slice", "p a0 to a0", "q"), node("Sub", "x q", "y")],
        {"pads": np.int64([1, 0, 0, 0]), "to": np.int64([-1])}),
    "place along the axis": (
        [node("Shape", "x", "n", end=1), node("Squeeze", "n", "k"), node("Range", "zero k one", "r"),
         node("Cast", "r", "f", to=F), node("Unsqueeze", "f a1", "p"), node("Add", "x p", "y")], {}),
    "pairs in one row": (
        [node("Reshape", "x pair", "r"), node("MatMul", "r v", "m"), node("Reshape", "m back", "y")],
        {"pair": np.int64([-1, 8]), "v": draw((8, 8), "v"), "back": np.int64([-1, 4])}),
    "first sample": ([node("Gather", "x a0", "g", axis=0), node("Add", "x g", "y")], {}),
    "Gram matrix": (
        [node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", "t x", "g"), node("MatMul", "x g", "y")],
        {}),
    "einsum over samples": ([node("Einsum", "x x x", "y", equation="ni,mi,mj->nj")], {}),
    "scan": ([loop([node("Add", "s e", "s_out"), node("Identity", "s_out", "e_out")], "sum")], START),
    "rank of each sample": (
        [node("Unsqueeze", "x a1", "p"), node("Unsqueeze", "x a0", "q"), node("Less", "p q", "l"),
         node("Cast", "l", "f", to=F), node("ReduceMean", "f", "y", axes=[1], keepdims=0)], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", DEPENDENT)
def test_what_mixes_samples_is_run_whole(tmp_path, case):
    """The set is one run, nothing is drawn from it, and a note names the node and the batch size."""
    nodes, constants = DEPENDENT[case]
    path = write(tmp_path / "m.onnx", nodes, {**ONE, **constants})
    cut = cut_of(path)
    assert (cut.rebatch.coupled, cut.batch, cut.dataset.together) == (True, N, N)
    (note,) = cut.notes
    assert note.startswith("samples of a batch influence each other in this model: results hold for")
    assert f"--batch-size {N}, the whole set in one run" in note
    assert any(one.name.split("_")[0] in note for one in nodes), note


@pytest.mark.parametrize("case", DEPENDENT)
def test_a_batch_size_that_is_asked_for_is_followed(tmp_path, case):
    """Runs of so many samples in their order, and a note that results hold for this size."""
    nodes, constants = DEPENDENT[case]
    cut = cut_of(write(tmp_path / "m.onnx", nodes, {**ONE, **constants}), batch_size=8)
    assert (cut.rebatch.coupled, cut.batch, cut.dataset.together) == (True, 8, 8)
    assert "results hold for --batch-size 8; no part of the set is drawn" in cut.notes[0]


# As above, where samples are independent though no rule proves it.
UNPROVED = {
    "flattened by computed shape": (
        [node("Shape", "x", "n", end=1), node("Concat", "n four", "s", axis=0), node("MatMul", "x w", "m"),
         node("Reshape", "m s", "y")], {"four": np.int64([4])}),
    "einsum with dots": ([node("Einsum", "x w", "y", equation="...i,ij->...j")], {}),
    "scan without memory": (
        [loop([node("Identity", "s", "s_out"), node("Exp", "e", "e_out")], "each")], START),
    "normaliser": ([helper.make_node("Normalizer", ["x"], ["y"], domain="ai.onnx.ml", norm="L2")], {}),
    "size in a condition": (
        [node("Size", "x", "n"), node("Cast", "n", "f", to=F), node("Mul", "f nil", "o"),
         node("Add", "x o", "y")],
        {"nil": np.float32(0)}),
}  # fmt: skip


@pytest.mark.parametrize("case", UNPROVED)
def test_what_is_not_proved_is_tried(tmp_path, case):
    """Samples that give the same outputs in another order and in parts are cut and drawn from as before."""
    nodes, constants = UNPROVED[case]
    path = write(tmp_path / "m.onnx", nodes, {**ONE, **constants})
    assert not analyse_batch(load_model(path).model).influence_on("y").proved_apart
    cut = cut_of(path)
    assert (cut.rebatch.coupled, cut.batch, cut.dataset.together, cut.notes) == (False, N, 0, ())
    assert "32 samples gave the same outputs in another order and cut into parts" in cut.rebatch.reason


def test_what_is_proved_is_not_run(tmp_path, monkeypatch):
    """The trial costs nothing where the rules prove it all."""
    monkeypatch.setattr(apart, "open_session", lambda *_: pytest.fail("the model was run"))
    cut = cut_of(write(tmp_path / "m.onnx", [node("MatMul", "x w", "m"), node("Relu", "m", "y")], ONE))
    assert (cut.rebatch.coupled, cut.dataset.together, cut.rebatch.reason) == (
        False,
        0,
        "takes any batch size",
    )


def test_only_the_way_to_the_scored_output_counts(tmp_path):
    """A loss over the batch beside the scores couples nothing; scored itself it does."""
    nodes = [node("MatMul", "x w", "y"), node("ReduceMean", "y", "m", axes=[0]), node("Sub", "y m", "other")]
    path = write(tmp_path / "m.onnx", nodes, ONE, outputs=("y", "other"))
    assert not cut_of(path).rebatch.coupled
    assert cut_of(path, output="other").dataset.together == N


def test_a_branch_carries_what_it_reads_from_around_it(tmp_path):
    """An If hands on what its branches read, though it is no input of the node."""
    branch = [
        helper.make_graph(
            [node("Identity", source, f"o{i}")],
            f"b{i}",
            [],
            [helper.make_tensor_value_info(f"o{i}", F, None)],
        )
        for i, source in enumerate("mx")
    ]
    nodes = [
        node("CumSum", "x zero", "m"),
        node("If", "yes", "y", then_branch=branch[0], else_branch=branch[1]),
    ]
    path = write(tmp_path / "m.onnx", nodes, {**ONE, "yes": np.bool_(True)})
    assert cut_of(path).dataset.together == N


def test_a_range_of_the_batch_couples_but_may_be_cut(tmp_path):
    """Dynamic quantisation: the axis is a batch, results hold for its size, and no whole set is asked for."""
    nodes = [
        node("DynamicQuantizeLinear", "x", "q s z"),
        node("MatMulInteger", "q wi z", "m"),
        node("Cast", "m", "f", to=F),
        node("Mul", "f s", "y"),
    ]
    weights = np.clip(np.round(40 * ONE["w"]), -127, 127).astype(np.int8)
    big = np.concatenate([draw((N, 4), "x")] * 3)
    cut = cut_of(write(tmp_path / "m.onnx", nodes, {"wi": weights}), samples(big))
    assert (cut.rebatch.coupled, cut.batch, cut.dataset.together) == (True, 64, 0)
    assert "results hold for --batch-size 64 (DynamicQuantizeLinear" in cut.notes[0]


def test_decisions_are_tried_on_more_samples(tmp_path):
    """A mean that seldom changes a decision is seen in whole-number outputs, too."""
    nodes = [
        node("ReduceMean", "x", "m", axes=[0]),
        node("Sub", "x m", "c"),
        node("ArgMax", "c", "y", axis=1),
    ]
    x = draw((600, 4), "many") + np.float32([0.3, 0, 0, 0])
    path = write(tmp_path / "m.onnx", nodes, ONE, kinds={"y": I64})
    assert cut_of(path, samples(x)).dataset.together == 600


def test_random_numbers_prove_nothing(tmp_path):
    """A model that gives other outputs every time is run as without the trial."""
    nodes = [node("RandomNormalLike", "x", "r"), node("Add", "x r", "y")]
    cut = cut_of(write(tmp_path / "m.onnx", nodes))
    assert (cut.rebatch.coupled, cut.batch, cut.dataset.together) == (False, N, 0)


def test_rounding_is_no_influence(tmp_path):
    """Sums of thousands of products, in another order for another number of rows, stay independent."""
    nodes = [
        node("Shape", "x", "n", end=1),
        node("Concat", "n rest", "s", axis=0),
        node("MatMul", "x w", "m"),
        node("MatMul", "m v", "k"),
        node("Reshape", "k s", "y"),
    ]
    constants = {"w": draw((3000, 2000), 1), "v": draw((2000, 3), 2), "rest": np.int64([3])}
    path = write(tmp_path / "m.onnx", nodes, constants, shape=("N", 3000))
    assert not cut_of(path, samples(draw((N, 3000), 3))).rebatch.coupled


def adjacency():
    """A graph of N nodes: dense, and as a list of edges."""
    there = np.eye(N, dtype=np.float32) + (draw((N, N), "graph") > 1.5)
    return there.astype(np.float32), np.stack(np.nonzero(there)).astype(np.int64)


def graph_model(path, kind):
    """One layer of a graph network on nodes ``x``."""
    if kind == "dense":
        nodes = [node("MatMul", "x w", "h"), node("MatMul", "adj h", "y")]
        return write(path, nodes, ONE, inputs={"adj": (F, ("N", "N"))}), {"adj": adjacency()[0]}
    nodes = [
        node("MatMul", "x w", "h"), node("Gather", "edges zero", "s"), node("Gather", "h s", "m"),
        node("Gather", "edges one", "d"), node("Unsqueeze", "d a1", "d1"), node("Shape", "m", "ms"),
        node("Expand", "d1 ms", "di"), node("ScatterElements", "h di m", "y", axis=0, reduction="add"),
    ]  # fmt: skip
    return write(path, nodes, ONE, inputs={"edges": (I64, (2, "E"))}), {"edges": adjacency()[1]}


@pytest.mark.parametrize("kind", ["dense", "edges"])
def test_nodes_of_a_graph_are_run_whole(tmp_path, kind):
    """They run only together; a smaller batch size is refused with the one to give, a larger one taken."""
    path, more = graph_model(tmp_path / "m.onnx", kind)
    cut = cut_of(path, samples(**more))
    assert (cut.rebatch.coupled, cut.batch, cut.dataset.together) == (True, N, N)
    assert cut_of(path, samples(**more), batch_size=1000).batch == N
    with pytest.raises(DataError, match=f"--batch-size 8: .* give --batch-size {N}$") as error:
        cut_of(path, samples(**more), batch_size=8)
    assert ("input 'adj' has the axis 'N' twice" in str(error.value)) is (kind == "dense")


def test_a_set_that_is_too_large_is_refused(tmp_path, monkeypatch):
    """Attention over all samples takes N² numbers; the message says how much, and names --batch-size."""
    nodes, constants = DEPENDENT["attention"]
    path = write(tmp_path / "m.onnx", nodes, {**ONE, **constants})
    monkeypatch.setattr(apart, "WHOLE_BYTES", 2 * 4 * N * N)  # two matrices of pairs, and x beside them
    with pytest.raises(DataError, match=r"run whole, .* GiB; give --batch-size N"):
        cut_of(path)
    assert cut_of(path, batch_size=8).batch == 8
    monkeypatch.setattr(apart, "WHOLE_BYTES", 3 * 4 * N * N)
    assert cut_of(path).batch == N


def test_a_model_that_takes_single_samples_only_says_so(tmp_path):
    """A shape of one sample inside a model whose input says N: the message gives the batch size."""
    path = write(tmp_path / "m.onnx", [node("Reshape", "x s", "y")], {"s": np.int64([1, 4])})
    with pytest.raises(DataError, match=r"runs on one sample, and not on 32 together.*--batch-size 1"):
        cut_of(path)
    assert cut_of(path, batch_size=1).batch == 1


@pytest.mark.parametrize("case", ["attention", "memory", "neighbour"])
def test_runs_of_a_fixed_size_stay_in_order(tmp_path, case):
    """A model exported for 8 samples that influence each other: its runs stay in order, the last one told."""
    nodes, constants = DEPENDENT[case]
    path = write(tmp_path / "m.onnx", nodes, {**ONE, **constants}, shape=(8, 4))
    x = draw((20, 4), "fixed")
    cut = cut_of(path, samples(x))
    assert (cut.rebatch.status, cut.rebatch.coupled, cut.dataset.together) == ("fixed", True, 8)
    assert "results hold for runs of 8 samples" in cut.notes[0]
    assert "the last run of 8 holds 4 samples and copies of the last one" in cut.notes[1]


def test_one_sample_per_run_cannot_be_influenced(tmp_path):
    """A model for one sample that was not re-batched: whatever it does along the axis, it does to one."""
    path = write(tmp_path / "m.onnx", [node("Softmax", "x", "y", axis=0)], shape=(1, 4))
    cut = cut_of(path)
    assert (cut.rebatch.fixed_batch, cut.rebatch.coupled, cut.dataset.together) == (1, False, 0)


def test_a_limit_that_cuts_such_a_set_is_told(tmp_path):
    """The first samples of a sequence are another sequence."""
    nodes, constants = DEPENDENT["cumulated"]
    data = replace(samples(), given=100)
    cut = cut_of(write(tmp_path / "m.onnx", nodes, {**ONE, **constants}), data)
    assert cut.notes[1].startswith(f"--limit: the first {N} of 100 samples")


def test_sets_that_were_joined_stay_apart(tmp_path):
    """Each of several sequences is a run of its own; of different lengths they cannot be joined."""
    nodes, constants = DEPENDENT["memory"]
    path = write(tmp_path / "m.onnx", nodes, {**ONE, **constants})
    cut = cut_of(path, replace(samples(), parts=(N // 2, N // 2)))
    assert (cut.batch, cut.dataset.together) == (N // 2, N // 2)
    with pytest.raises(DataError, match=r"different numbers of them \(10, 30\); audit one set at a time$"):
        cut_of(path, replace(samples(), parts=(10, 30)))
