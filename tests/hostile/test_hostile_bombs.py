"""A few bytes that stand for much memory or for endless time: refused at once, or stopped with a message."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit.device import fit as fit_module
from nvaudit.device.fit import fit_profile
from nvaudit.errors import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    DataError,
    ModelError,
    OptionError,
    ProfileError,
)
from nvaudit.model import activation_bytes, analyse_batch, constants
from nvaudit.model.evaluate import MAX_ADDED
from nvaudit.model.inline import MAX_GROWN
from nvaudit.model.load import load_model
from nvaudit.perturb import memory, watchdog
from nvaudit.perturb.session import open_session, run_session

node = helper.make_node
WEIGHT = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "W")
PRODUCT = node("MatMul", ["x", "W"], ["m"])


def save(path, nodes, tensors=(), sparse=()):
    """A model of x [N, 4] and y."""
    value = helper.make_tensor_value_info
    x, y = value("x", TensorProto.FLOAT, ["N", 4]), value("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], [WEIGHT, *tensors])
    graph.sparse_initializer.extend(sparse)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def ints(name, *numbers):
    return numpy_helper.from_array(np.array(numbers, np.int64), name)


def number(name, value):
    return numpy_helper.from_array(np.int64(value), name)


def endless(path):
    """A Loop without a trip count whose condition stays true."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["c"], ["co"]), node("Identity", ["v"], ["vo"])], "b",
        [value("i", 7, []), value("c", 9, []), value("v", 1, None)],
        [value("co", 9, []), value("vo", 1, None)],
    )  # fmt: skip
    return save(path, [PRODUCT, node("Loop", ["", "", "m"], ["y"], name="forever", body=body)])


def sparse_of(name, *dims):
    return helper.make_sparse_tensor(
        helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0]), helper.make_tensor("i", 7, [1], [0]), dims
    )


def test_sparse_tensors_have_a_limit_together(tmp_path):
    """Each is within the limit of one, and nothing is expanded before all are counted."""
    path = save(
        tmp_path / "m.onnx",
        [node("MatMul", ["x", "W"], ["y"])],
        sparse=[sparse_of(f"s{k}", 2**27) for k in range(4)],
    )
    begin = time.monotonic()
    with pytest.raises(ModelError, match=r"sparse initializer 's2': .* at most 1 GiB is expanded in all"):
        load_model(path)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("nodes", "tensors"),
    [
        ([node("ConstantOfShape", ["s"], ["b"])], [ints("s", 2**16, 2**16)]),
        ([node("Expand", ["W", "s"], ["b"])], [ints("s", 2**28, 4, 3)]),
        ([node("Tile", ["W", "s"], ["b"])], [ints("s", 1, 2**28)]),
        ([node("Range", ["s", "e", "d"], ["b"])], [number("s", 0), number("e", 2**40), number("d", 1)]),
        ([node("Pad", ["W", "s"], ["b"])], [ints("s", 0, 0, 2**31, 0)]),
        ([node("RandomNormal", [], ["b"], shape=[2**16, 2**16])], []),
    ],
)  # fmt: skip
def test_constants_that_say_how_much_is_made(tmp_path, nodes, tensors):
    """Operators that make a tensor of any size."""
    last = node("Add", ["m", "r"], ["y"])
    reduced = [node("Cast", ["b"], ["f"], to=1), node("ReduceSum", ["f"], ["r"], keepdims=0), last]
    path = save(tmp_path / "m.onnx", [PRODUCT, *nodes, *reduced], tensors)
    kind = nodes[0].op_type
    with pytest.raises(ModelError, match=rf"\({kind}\) makes a tensor of .* elements; at most {MAX_GROWN}"):
        load_model(path)


def test_csv_rows_have_a_limit(tmp_path, monkeypatch):
    """Rows that no profile can hold are not read to the end; empty ones count too."""
    monkeypatch.setattr(fit_module, "MAX_ROWS", 100)
    for rows in ("0,1\n" * 101, "0,1\n" + "\n" * 500):
        (tmp_path / "c.csv").write_text("level,value\n" + rows)
        with pytest.raises(ProfileError, match="more than 100 rows make a profile above 1 MiB"):
            fit_profile(tmp_path / "c.csv", "x")


def test_a_pass_that_does_not_end_is_stopped(tmp_path, command):
    """The Loop is named, with what to do; here and in worker processes."""
    path = endless(tmp_path / "m.onnx")
    ran = command("audit", path, "-n", 2, "-j", 0, "-q", "--pass-timeout", 0.5)
    assert (ran.code, ran.out) == (EXIT_BAD_INPUT, "")
    assert ran.err == (
        "nvaudit: error: a forward pass of the model has taken more than 0.5 s and was stopped: it holds the "
        "Loop node 'forever', which may never end; export it with a bound on its iterations, or allow more "
        "with --pass-timeout SECONDS\n"
    )
    assert command("audit", path, "-n", 2, "-j", 1, "-q", "--pass-timeout", 0.5).err == ran.err
    assert watchdog.VARIABLE not in os.environ


def test_without_the_option_only_a_loop_has_a_limit(tmp_path, monkeypatch):
    """And the others are told to allow more where the option was given."""
    monkeypatch.setattr(watchdog, "LOOP_SECONDS", 0.3)
    session = open_session(endless(tmp_path / "m.onnx").read_bytes(), {})
    x = {"x": np.ones((1, 4), np.float32)}
    with pytest.raises(ModelError, match=r"has taken more than 0\.3 s .* Loop node 'forever'"):
        run_session(session, ["y"], x)
    assert watchdog.guarded(lambda: time.sleep(0.8), lambda: None, tuple) is None
    stopped = []

    def sleep():
        while not stopped:
            time.sleep(0.01)
        raise RuntimeError

    monkeypatch.setenv(watchdog.VARIABLE, "0.2")
    with pytest.raises(ModelError, match=r"more than 0\.2 s and was stopped; allow more with --pass-timeout"):
        watchdog.guarded(sleep, lambda: stopped.append(1), tuple)


def test_a_loop_that_grows_is_stopped(tmp_path, monkeypatch):
    """No shape tells how much it will take; half of what is free is the end of it."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["c"], ["co"]), node("Concat", ["v", "row"], ["vo"], axis=0)],
        "b",
        [value("i", 7, []), value("c", 9, []), value("v", 1, None)],
        [value("co", 9, []), value("vo", 1, None)],
    )
    many = numpy_helper.from_array(np.ones((2**20, 3), np.float32), "row")
    loop = node("Loop", ["M", "", "m"], ["l"], name="growing", body=body)
    last = node("ReduceMax", ["l"], ["y"], axes=[0])
    path = save(tmp_path / "m.onnx", [PRODUCT, loop, last], [many, number("M", 200)])
    monkeypatch.setattr(watchdog, "available_bytes", lambda: 2**27)
    session = open_session(path.read_bytes(), {})
    with pytest.raises(
        ModelError, match=r"half of the memory that was free .* the Loop node 'growing', which"
    ):
        run_session(session, ["y"], {"x": np.ones((1, 4), np.float32)})


@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon"])
def test_a_limit_that_is_none_is_refused(monkeypatch, text):
    """Of the environment."""
    monkeypatch.setenv(watchdog.VARIABLE, text)
    with pytest.raises(OptionError, match=r"NVAUDIT_PASS_TIMEOUT: got .*; use a number of seconds above 0"):
        watchdog.pass_limit()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_pass_in_this_process(tmp_path, number):
    """With -j 0 the model runs in the process that the signal is sent to."""
    path = endless(tmp_path / "m.onnx")
    command = [sys.executable, "-m", "nvaudit", "audit", str(path), "-n", "2", "-j", "0", "-q"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        busy = 0.0
        while busy < 3:  # seconds of processor time: it is in the Loop, on a busy machine too
            time.sleep(0.2)
            with open(f"/proc/{process.pid}/stat") as file:
                busy = sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == EXIT_INTERRUPTED
    assert said.splitlines()[0].startswith("nvaudit: interrupted") or "interrupted" in said


def doubled(start, times):
    """A chain of Concat, each of its own result twice."""
    names = [start, *(f"d{i}" for i in range(times))]
    return [node("Concat", [a, a], [b], axis=0) for a, b in itertools.pairwise(names)], names[-1]


def growing(kind):
    """Nodes and tensors of a model whose pass takes much of little."""
    reduced = node("ReduceSum", ["b"], ["r"], keepdims=0)
    last = [node("Cast", ["r"], ["f"], to=1), node("Add", ["m", "f"], ["y"])]
    row = node("Unsqueeze", ["m", "axis"], ["u"])
    if kind == "Concat of weights":
        chain, end = doubled("W", 30)
        return [*chain, node("ReduceSum", [end], ["r"], keepdims=0), PRODUCT, *last], []
    if kind == "Concat":
        chain, end = doubled("m", 28)
        return [PRODUCT, *chain, node("ReduceSum", [end], ["r"], keepdims=0), *last], []
    ones = numpy_helper.from_array(np.ones((2**17, 1), np.float32), "c")
    if kind == "MatMul":
        flat = ints("flat", 1, 2**17)
        outer = [node("Reshape", ["c", "flat"], ["t"]), node("MatMul", ["c", "t"], ["b"])]
        return [PRODUCT, *outer, reduced, *last], [ones, flat]
    if kind == "Expand":
        made = node("Expand", ["u", "to"], ["b"])
        return [PRODUCT, row, made, reduced, *last], [ints("axis", 0), ints("to", 2**28, 1, 1)]
    scales = numpy_helper.from_array(np.array([1, 1, 2**14, 2**14], np.float32), "to")
    four = node("Reshape", ["m", "four"], ["u"])
    made = node("Resize", ["u", "", "to"], ["b"])
    return [PRODUCT, four, made, reduced, *last], [ints("four", -1, 1, 1, 3), scales]


@pytest.mark.parametrize("kind", ["Concat of weights", "Concat", "MatMul", "Expand", "Resize"])
def test_a_pass_that_makes_much_of_little_is_refused(tmp_path, command, kind):
    """Before it runs: at one sample already it takes gigabytes."""
    path = save(tmp_path / "m.onnx", *growing(kind))
    ran = command("audit", path, "-n", 2, "-j", 0, "-q", "--limit", 2)
    assert (ran.code, ran.out) == (EXIT_BAD_INPUT, "")
    assert "more than 1 GiB" in ran.err
    assert "--batch-size" in ran.err


def test_the_memory_of_a_pass_may_be_asked_for_but_not_beyond_the_machine(tmp_path, monkeypatch):
    """With a batch size the user takes the memory of a sample; what is not there is refused still."""
    loaded = load_model(save(tmp_path / "m.onnx", *growing("Expand")))
    rebatch = analyse_batch(loaded.model)
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**35)
    with pytest.raises(ModelError, match="take 3 GiB, more than 1 GiB"):
        memory.check_pass(loaded, rebatch, 2, chosen=False)
    memory.check_pass(loaded, rebatch, 2, chosen=True)
    with pytest.raises(DataError, match=r"of 64 samples take 192 GiB and 32 GiB of memory are free; use a"):
        memory.check_pass(loaded, rebatch, 64, chosen=True)


def test_the_memory_of_this_machine_is_read():
    """Whole numbers of bytes, more than a test takes."""
    assert 2**26 < memory.available_bytes() <= sys.maxsize


def test_a_small_file_cannot_make_weights_of_any_size(tmp_path):
    """An outer product of short vectors stays digital, and a weight behind a chain of copies too."""
    outer = [node("MatMul", ["u", "v"], ["b"]), PRODUCT, node("MatMul", ["m", "b"], ["y"])]
    tall = numpy_helper.from_array(np.ones((3, 1), np.float32), "u")
    wide = numpy_helper.from_array(np.ones((1, MAX_ADDED), np.float32), "v")
    found = {one.name: one for one in constants(load_model(save(tmp_path / "o.onnx", outer, [tall, wide])))}
    assert [name for name, one in found.items() if one.weight is not None] == ["W"]
    assert "more than 33,554,432 elements" in found["v"].reason
    chain, end = doubled("W", 24)
    graph = [*chain, node("Slice", [end, "from", "to"], ["b"]), node("MatMul", ["x", "b"], ["y"])]
    path = save(tmp_path / "c.onnx", graph, [ints("from", 0), ints("to", 4)])
    (found,) = (one for one in constants(load_model(path)) if one.name == "W")
    assert found.weight is None
    assert "above the limit of" in found.reason


def test_a_value_without_a_type_counts_as_float32(tmp_path):
    """A file may state the type UNDEFINED; the estimate of memory does not fail on it."""
    loaded = load_model(save(tmp_path / "m.onnx", [PRODUCT, node("Relu", ["m"], ["y"])]))
    rebatch = analyse_batch(loaded.model)
    known = activation_bytes(loaded.model, rebatch, 4)
    for one in loaded.model.graph:
        one.outputs[0].dtype = ir.DataType.UNDEFINED
    assert activation_bytes(loaded.model, rebatch, 4) == known


def _declared(tmp_path, *, shape, typed=True):
    """A product whose input is declared in an odd way."""
    path = tmp_path / "m.onnx"
    weights = [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, weights),
                              opset_imports=[helper.make_opsetid("", 17)], ir_version=8)  # fmt: skip
    if not typed:
        model.graph.input[0].ClearField("type")
    path.write_bytes(model.SerializeToString())
    return path


def test_inputs_that_end_the_process_elsewhere_are_refused(tmp_path):
    """Without a type (onnx's shape inference), and with the least integer as a size (ONNX Runtime)."""
    with pytest.raises(ModelError, match=r"input 'x' has no type"):
        load_model(_declared(tmp_path, shape=["N", 4], typed=False))
    with pytest.raises(ModelError, match=r"'x' is declared with shape \[-9223372036854775808, 4\]"):
        load_model(_declared(tmp_path, shape=[-(2**63), 4]))
    assert load_model(_declared(tmp_path, shape=[-1, 4])).inputs[0].shape == (None, 4)


def test_a_fixed_batch_beyond_memory_is_refused(tmp_path, command):
    """The few samples there are would be repeated as often as the batch wants."""
    ran = command("audit", _declared(tmp_path, shape=[2**31 - 1, 4]), "-n", 2, "-j", 0, "--limit", 2)
    assert ran.code == 2, ran.err
    assert "2147483647 samples" in ran.err
