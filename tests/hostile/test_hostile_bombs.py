"""A few bytes that stand for much memory or for endless time: refused at once, or stopped with a message."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit.device import fit as fit_module
from nvaudit.device.fit import fit_profile
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, ModelError, OptionError, ProfileError
from nvaudit.model.growth import MAX_GROWN
from nvaudit.model.load import load_model
from nvaudit.perturb import watchdog
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
