"""Bad files, bad places and bad luck: a clear message, the right exit code, nothing left behind."""

import errno
import json
import os
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from nvaudit.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EXIT_INTERRUPTED

FEW = ("-n", 2, "-j", 0, "--limit", 8)
IMAGES = np.zeros((8, 1, 8, 8), np.float32)
LABELS = np.zeros(8, np.int64)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of one's own; temporary files go into its subfolder `scratch`."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_refused(ran, message: str, code: int = EXIT_BAD_INPUT) -> None:
    assert ran.err == f"nvaudit: error: {message}\n"
    assert (ran.code, ran.out) == (code, "")
    assert list(Path("scratch").iterdir()) == []
    assert not Path("r.json").exists()


def write_model(path: Path, *, weights: bool) -> None:
    """x → x @ w, or x → Relu(x)."""
    node = (
        helper.make_node("MatMul", ["x", "w"], ["y"]) if weights else helper.make_node("Relu", ["x"], ["y"])
    )
    values = [helper.make_tensor("w", TensorProto.FLOAT, [4, 4], np.eye(4).ravel())] if weights else []
    shape = ["N", 4]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        values,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.onnx", "none.onnx: no such file; give an .onnx model"),
        ("folder", "folder: is not a file; give an .onnx model"),
        ("empty.onnx", "empty.onnx: is empty; export the model again"),
        (
            "relu.onnx",
            "relu.onnx: no tensor would be mapped to the array, so there is nothing to audit; "
            "`nvaudit inspect` lists every tensor with its reason",
        ),
    ],
)
def test_what_is_no_model_to_audit(command, place, name, message):
    """A missing model, a folder, an empty file, a model without weights."""
    Path("folder").mkdir()
    Path("empty.onnx").touch()
    write_model(Path("relu.onnx"), weights=False)
    assert_refused(command("audit", name, *FEW, "-o", "r.json"), message)


def test_a_text_file_is_no_model(command, place):
    """The parser's complaint is wrapped in ours, on one line."""
    Path("t.onnx").write_text("this is no model\n" * 50)
    ran = command("audit", "t.onnx", *FEW, "-o", "r.json")
    assert ran.err.startswith(
        "nvaudit: error: t.onnx: not a readable ONNX model: it does not parse as protobuf"
    )
    assert ran.err.endswith("it is another format, truncated or damaged\n")
    assert ran.err.count("\n") == 1
    assert (ran.code, ran.out, os.listdir("scratch")) == (EXIT_BAD_INPUT, "", [])


def bad_data(name: str) -> None:
    """Write a data file that is wrong in one way."""
    image, label = IMAGES.copy(), LABELS.copy()
    if name == "shape":
        image = np.zeros((8, 3, 8, 8), np.float32)
    elif name == "count":
        label = label[:5]
    elif name == "labels":
        label[6] = 12
    elif name == "negative":
        label[2] = -1
    elif name == "nan":
        image[3, 0, 2, 1] = np.nan
    elif name == "empty":
        image, label = image[:0], label[:0]
    elif name == "object":
        np.savez("d.npz", image=np.array([{}, []], object), y=label, allow_pickle=True)
        return
    elif name == "names":
        np.savez("d.npz", picture=image, y=label)
        return
    np.savez("d.npz", image=image, y=label)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shape", "shape [8, 3, 8, 8]"),
        ("count", "8"),
        ("labels", "label 12 is out of range: the model has 10 classes (0 … 9); first seen at sample 6"),
        ("negative", "d.npz: labels y: all labels are -1 or one other number"),
        ("nan", "[3, 0, 2, 1]"),
        ("empty", "d.npz: "),
        ("object", "d.npz: array 'image'"),
        ("names", "image"),
    ],
)
def test_data_that_do_not_fit(command, place, example, name, message):
    """Wrong shape, count, labels, NaN, nothing at all, pickled objects, other names."""
    bad_data(name)
    ran = command("audit", example, *FEW, "--data", "d.npz", "-o", "r.json")
    assert_refused(ran, ran.err.removeprefix("nvaudit: error: ").removesuffix("\n"))
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert "internal" not in ran.err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no/such/r.json", "its folder does not exist; create it or choose another path"),
        ("folder", "it is a folder; name a file"),
        ("model.onnx/r.json", "a part of its folder is a file; choose another path"),
        (f"{'x' * 300}.json", "the name is too long; choose a shorter one"),
    ],
)
def test_a_report_that_cannot_be_written_stops_before_the_run(
    command, place, example, monkeypatch, name, reason
):
    """Nobody waits for an hour to learn that the folder is missing."""
    Path("folder").mkdir()
    shutil.copy(example, "model.onnx")
    monkeypatch.setattr("nvaudit.jobs.auditing.run_audit", lambda *_: pytest.fail("the run was started"))
    assert_refused(command("audit", example, *FEW, "-o", name), f"{name}: cannot be written: {reason}")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_report_in_a_folder_without_permission(command, place, example):
    """A read-only folder is found before the run."""
    Path("locked").mkdir(mode=0o500)
    ran = command("audit", example, *FEW, "-o", "locked/r.json")
    assert_refused(ran, "locked/r.json: cannot be written: permission denied; choose another path")


@pytest.mark.parametrize(
    ("name", "what"),
    [("model.onnx", "the model"), ("model.npz", "the data"), ("dev.json", "the device profile")],
)
def test_a_report_never_replaces_an_input(command, place, example, name, what):
    """`-o` with the name of an input is refused, also through a link, and the input is untouched."""
    shutil.copy(example, "model.onnx")
    shutil.copy(example.with_suffix(".npz"), "model.npz")
    shutil.copy(example.parents[1] / "devices" / "rram.json", "dev.json")
    before = Path(name).read_bytes()
    Path("link").symlink_to(name)
    for path in (name, "link"):
        ran = command("audit", "model.onnx", *FEW, "--device", "dev.json", "-o", path)
        assert_refused(ran, f"-o {path}: this is {what}; choose another path")
    assert Path(name).read_bytes() == before


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this build has CUDA"
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_provider_that_is_not_there(command, place, example, workers):
    """One line says what this ONNX Runtime offers."""
    ran = command(
        "audit", example, "-n", 2, "-j", workers, "--limit", 8, "--provider", "cuda", "-o", "r.json"
    )
    offered = ", ".join(onnxruntime.get_available_providers())
    assert_refused(
        ran,
        f"--provider cuda: this ONNX Runtime offers only {offered}; "
        "use --provider cpu, or install the build of ONNX Runtime that has it: pip uninstall onnxruntime, "
        "then pip install 'nvaudit[gpu]', which brings onnxruntime-gpu",
    )


def test_a_full_disk_under_the_working_files(command, place, example, monkeypatch):
    """A full scratch disk is our failure, with what to do."""

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    ran = command("audit", example, *FEW, "-o", "r.json")
    assert ran.err.startswith(
        f"nvaudit: error: cannot write the run's working files to {place}/scratch/nvaudit-"
    )
    assert ran.err.endswith(": No space left on device; free space or set TMPDIR\n")
    assert (ran.code, ran.out, os.listdir("scratch")) == (EXIT_FAILURE, "", [])


def test_no_place_for_working_files(command, place, example, monkeypatch):
    """A scratch folder that cannot be made is our failure, with what to do."""

    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkdtemp", denied)
    assert_refused(
        command("audit", example, *FEW, "-o", "r.json"),
        "cannot make a folder for the run's working files: Permission denied; set TMPDIR to a folder that "
        "can be written",
        EXIT_FAILURE,
    )


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MemoryError(), 3, "error: out of memory; use fewer --workers, a smaller --batch-size or --limit"),
        (OSError(errno.EMFILE, "Too many open files", "f"), 3, "error: f: Too many open files"),
        (
            RuntimeError("odd"),
            3,
            "internal error: RuntimeError: odd\nThis is our fault. Please report it with the output of the "
            "same command under NVAUDIT_DEBUG=1.",
        ),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
    ],
)
def test_what_nobody_foresaw(command, place, example, monkeypatch, error, code, message):
    """Even then there is no traceback, and the exit code is right."""

    def fail(*args):
        raise error

    monkeypatch.setattr("nvaudit.session.prepare", fail)
    ran = command("audit", example, *FEW, "-o", "r.json")
    assert ran.err.lstrip("\n") == f"nvaudit: {message}\n"
    assert (ran.code, ran.out, os.listdir("scratch")) == (code, "", [])
    assert not Path("r.json").exists()


def test_the_traceback_is_there_for_those_who_ask(command, place, example, monkeypatch):
    """NVAUDIT_DEBUG=1 shows where an internal error came from."""
    monkeypatch.setenv("NVAUDIT_DEBUG", "1")
    monkeypatch.setattr("nvaudit.session.prepare", lambda *_, **__: 1 / 0)
    ran = command("audit", example, *FEW)
    assert ran.err.startswith("Traceback (most recent call last):")
    assert ran.code == EXIT_FAILURE


METRICS = """
import sys
def raises(outputs, labels): raise ValueError("boom")
def short(outputs, labels): return outputs[1:, 0]
def wide(outputs, labels): return outputs
def words(outputs, labels): return ["a"] * len(outputs)
def leaves(outputs, labels): sys.exit(5)
def one(outputs): return outputs[:, 0]
number = 3
class Unfinished:
    def update(self, outputs, labels): pass
class Fails(Unfinished):
    def compute(self): raise ValueError("boom")
class Several(Unfinished):
    def compute(self): return [1.0, 2.0]
unfinished = Unfinished()
"""

FORMS = (
    "; a metric is a function of (outputs, labels), or a class or an object with update(outputs, labels) and "
    "compute()"
)
SCORES = "for 8 samples; it must return one score per sample, or one number for all"

FUNCTIONS = [
    ("raises", " failed on 8 samples: ValueError: boom"),
    (
        "short",
        f" returned shape [7] {SCORES}",
    ),
    ("Several", " gave '[1.0, 2.0]' for all samples; it must be one number"),
    (
        "wide",
        f" returned shape [8, 10] {SCORES}",
    ),
    ("words", f" returned texts: {['a'] * 8}; it must return one score per sample, or one number for all"),
    ("leaves", " failed on 8 samples: SystemExit: 5"),
    ("one", " failed on 8 samples: TypeError: one() takes 1 positional argument but 2 were given"),
    ("Fails", " failed: ValueError: boom"),
    ("number", f": it is of type int and has no update and no compute{FORMS}"),
    ("unfinished", f": it is of type Unfinished, has update and has no compute{FORMS}"),
    ("none", ": there is no 'none' in it; it has raises, short, wide, words, leaves, one, Unfinished, Fails"),
]


@pytest.mark.parametrize(
    ("name", "message", "workers"),
    [*((*case, 0) for case in FUNCTIONS), *((*case, 1) for case in FUNCTIONS[:3])],
)
def test_a_metric_function_that_fails_is_the_users(command, place, example, name, message, workers):
    """The function is named with what it did, in this process and in a worker alike."""
    Path("bad_metrics.py").write_text(METRICS)
    ran = command("audit", example, "-n", 2, "-j", workers, "--limit", 8, "-o", "r.json",
                  "--metric", f"bad_metrics:{name}")  # fmt: skip
    assert_refused(ran, f"--metric bad_metrics:{name}{message}")


def test_a_metric_function_may_return_one_number_for_all(command, place, example):
    """It is called once for each chip, and its number is the chip's score."""
    Path("one_number.py").write_text("def flat(outputs, labels): return len(outputs) / 16\n")
    ran = command("audit", example, "-n", 2, "-j", 0, "--limit", 8, "--metric", "one_number:flat")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("KPP 1 % one_number:flat 0.5 on rram")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("no_such_module:f", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("bad_syntax:f", "SyntaxError: "),
        ("bad_import:f", "ZeroDivisionError: division by zero"),
        (":f", "ValueError: Empty module name"),
        (".x:f", "TypeError: "),
    ],
)
def test_a_metric_module_that_cannot_be_imported(command, place, example, metric, message):
    """Whatever goes wrong in the user's module is said with its name."""
    Path("bad_syntax.py").write_text("x = = 2\n")
    Path("bad_import.py").write_text("1 / 0\n")
    ran = command("audit", example, *FEW, "-o", "r.json", "--metric", metric)
    assert ran.err.startswith(f"nvaudit: error: --metric {metric}: cannot import it: {message}")
    assert (ran.code, ran.out, os.listdir("scratch")) == (EXIT_BAD_INPUT, "", [])


def test_an_interrupt_inside_a_metric(command, place, example):
    """Ctrl-C inside the user's function is an interrupt, not an error."""
    Path("stop_metric.py").write_text("def f(outputs, labels):\n    raise KeyboardInterrupt\n")
    ran = command("audit", example, *FEW, "-o", "r.json", "--metric", "stop_metric:f")
    assert ran.err.lstrip("\n") == "nvaudit: interrupted; nothing was written\n"
    assert (ran.code, ran.out, os.listdir("scratch")) == (EXIT_INTERRUPTED, "", [])


def test_an_archive_that_is_none(command, place, example):
    """Text named .npz, and an archive cut in the middle, are refused as data."""
    Path("text.npz").write_text("hello")
    whole = example.with_suffix(".npz").read_bytes()
    Path("cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("text.npz", "cut.npz"):
        ran = command("audit", example, *FEW, "--data", name, "-o", "r.json")
        assert ran.err.startswith(f"nvaudit: error: {name}: not an intact .npz archive: ")
        assert (ran.code, ran.out, os.listdir("scratch")) == (EXIT_BAD_INPUT, "", [])


def test_an_archive_that_declares_more_than_it_holds(command, place, example):
    """A shape without its data is refused."""
    with (
        zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("image.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(
            member, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 1, 8, 8)}
        )
        member.write(bytes(1 << 20))
    ran = command("audit", example, *FEW, "--data", "bomb.npz", "-o", "r.json")
    assert ran.err.startswith("nvaudit: error: bomb.npz: ")
    assert (ran.code, ran.out, os.listdir("scratch")) == (EXIT_BAD_INPUT, "", [])


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Flip bytes, cut, or insert."""
    kind = rng.randrange(3)
    if kind == 0:
        changed = bytearray(data)
        for _ in range(rng.choice([1, 4, 32])):
            # The front holds the graph, the rest mostly weights.
            end = len(data) if rng.random() < 0.3 else min(len(data), 4000)
            changed[rng.randrange(end)] = rng.randrange(256)
        return bytes(changed)
    at = rng.randrange(len(data))
    if kind == 1:
        return data[:at]
    return data[:at] + rng.randbytes(rng.choice([1, 7, 100])) + data[at:]


def audit_mutants(command, source: Path, count: int, seed: int) -> list[int]:
    """Audit mutated copies in worker processes; gives the exit codes."""
    data = source.read_bytes()
    rng = random.Random(seed)
    codes = []
    for index in range(count):
        path = Path(f"mutant-{index}.onnx")
        path.write_bytes(mutate(data, rng))
        ran = command("audit", path, "-n", 2, "-j", 1, "--limit", 8, "-o", "r.json")
        message = f"mutant {index} of {source.name}, seed {seed}: exit code {ran.code}: {ran.err}"
        assert ran.code in (0, 1, 2, 3), message
        assert "Traceback" not in ran.err, message
        assert "internal error" not in ran.err, message
        if ran.code == 3:  # only where ONNX Runtime itself crashed
            assert "ended 3 workers in a row" in ran.err, message
        if ran.code == 0:
            assert json.loads(Path("r.json").read_text())["trials"]["count"] == 2
            Path("r.json").unlink()
        assert not Path("r.json").exists()
        assert os.listdir("scratch") == []
        codes.append(ran.code)
        path.unlink()
    return codes


def test_damaged_examples(command, place, example):
    """Mutated copies of the example end with a result or a message, never in a traceback."""
    assert EXIT_BAD_INPUT in audit_mutants(command, example, 16, seed=1)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["mnist_cnn_tf2onnx", "mnist_cnn_pt_opset9", "imp_qlstm_scan"])
def test_damaged_models_of_other_tools(command, place, shared_data, name):
    """The same for models of three exporters."""
    assert EXIT_BAD_INPUT in audit_mutants(command, shared_data / "models" / f"{name}.onnx", 8, seed=2)
