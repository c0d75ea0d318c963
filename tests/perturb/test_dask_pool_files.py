"""Files of a run on a Dask cluster: found by content, sent once, and put where the calls look for them."""

import asyncio
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import nvaudit.perturb.dask.files as dask_files
import nvaudit.perturb.dask.worker as dask_worker
from nvaudit.errors import EngineError
from nvaudit.perturb.dask.files import (
    CHUNK,
    FileRef,
    FileStore,
    bundle,
    digest,
    file_ref,
    paths_in,
    place,
    relocate,
)
from nvaudit.perturb.dask.shipping import Shipper
from nvaudit.perturb.session import open_session
from nvaudit.perturb.workload import ArrayFile, GraphFile


@dataclass(frozen=True)
class Setup:
    """Like a workload: files in the run's folder, the user's files outside, and text that is no path."""

    folder: str
    inputs: dict[str, ArrayFile]
    model: GraphFile
    output: str = "output"
    limits: tuple[int, ...] = (1, 2)


@pytest.fixture
def run(tmp_path):
    """A run's folder with an array, and a user's model with external data in another."""
    folder, user = tmp_path / "run", tmp_path / "user"
    (folder / "sub").mkdir(parents=True)
    user.mkdir()
    np.save(folder / "x.npy", np.arange(6))
    np.save(user / "big.npy", np.arange(9))
    save_model(user / "model.onnx", "weights.bin")
    inputs = {"x": ArrayFile(str(folder / "x.npy"), 0, 4), "big": ArrayFile(str(user / "big.npy"))}
    return Setup(str(folder), inputs, GraphFile(str(user / "model.onnx"), {}, None))


def save_model(path: Path, data: str) -> None:
    """A model that adds a constant of external data."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4], np.ones(4, np.float32).tobytes(), raw=True)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, path, save_as_external_data=True, location=data, size_threshold=0)


def upper(path: str) -> str:
    return path.upper()


def test_paths_are_those_of_files_and_of_the_folder(run):
    """Texts that look like nothing stay; a text in the folder is a path wherever it stands."""
    assert paths_in(run, run.folder) == [
        run.folder,
        run.inputs["x"].path,
        run.inputs["big"].path,
        run.model.path,
    ]
    arguments = ("output", 3, None, [{"keep": f"{run.folder}/n.npy"}], f"{run.folder}er/n.npy")
    assert paths_in(arguments, run.folder) == [f"{run.folder}/n.npy"]


def test_relocation_replaces_paths_and_nothing_else(run):
    """Same types, same other fields; the original is not touched."""
    before = repr(run)
    moved = relocate(run, run.folder, upper)
    assert moved == Setup(
        folder=run.folder.upper(),
        inputs={name: ArrayFile(f.path.upper(), f.axis, f.count) for name, f in run.inputs.items()},
        model=GraphFile(run.model.path.upper(), {}, None),
    )
    assert repr(run) == before
    arguments = (1, "text", np.arange(3), [2.5])
    assert relocate(arguments, run.folder, upper) is arguments


def test_a_bundle_has_every_file_with_its_content(run):
    """Arrays, the model and its external data; folders are told apart from files."""
    found = bundle(run, run.folder)
    assert found.folders == (run.folder,)
    assert set(found.files) == {run.inputs["x"].path, run.inputs["big"].path, run.model.path}
    for path, ref in found.files.items():
        assert (ref.size, ref.sha256) == (os.path.getsize(path), digest(path))
    assert set(found.beside) == {run.model.path}
    assert set(found.beside[run.model.path]) == {"weights.bin"}
    assert len(found.refs()) == 4


def test_relative_paths_are_sent_as_absolute_ones(run, monkeypatch):
    """Another process has another working folder."""
    monkeypatch.chdir(Path(run.model.path).parent)
    setup = Setup(run.folder, {}, GraphFile("model.onnx", {}, None))
    assert bundle(setup, run.folder).files["model.onnx"].path == run.model.path


def test_a_file_that_is_seen_with_the_same_content_is_used_where_it_is(run, tmp_path):
    """Nothing is copied; a file of the same path and size but other content is not taken."""
    store = FileStore(tmp_path / "store")
    ref = file_ref(run.inputs["x"].path)
    assert store.find(ref) == ref.path
    assert store.find(FileRef(ref.path, ref.size, 64 * "0")) is None
    assert store.find(FileRef(ref.path, ref.size + 1, ref.sha256)) is None
    assert store.find(FileRef("/no/such/file", ref.size, ref.sha256)) is None
    assert not store.root.exists()


def test_a_content_arrives_in_parts_and_is_checked(tmp_path):
    """It is visible once the last part is there; a damaged one never."""
    store, path = FileStore(tmp_path / "store"), tmp_path / "f"
    path.write_bytes(b"abcdef")
    ref = FileRef("/elsewhere/f", 6, digest(path))
    store.write(ref, "run", 0, b"abc")
    assert store.find(ref) is None
    store.write(ref, "run", 3, b"def")
    there = store.find(ref)
    assert Path(there).read_bytes() == b"abcdef"
    other = FileRef("/elsewhere/g", 6, 64 * "0")
    with pytest.raises(EngineError, match="/elsewhere/g: arrived damaged"):
        store.write(other, "run", 0, b"abcdef")
    assert os.listdir(store.root) == [ref.sha256]


def test_an_empty_file_is_a_file(tmp_path):
    """No bytes are a content too."""
    store = FileStore(tmp_path / "store")
    ref = FileRef("/elsewhere/f", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    store.write(ref, "run", 0, b"")
    assert Path(store.find(ref)).read_bytes() == b""


@pytest.mark.parametrize("links", [True, False])
def test_a_sibling_on_the_same_machine_lends_its_files(tmp_path, monkeypatch, links):
    """By a link where there are links, so that they lie in memory once; else by a copy."""
    if not links:
        monkeypatch.setattr(dask_files.os, "link", lambda source, target: exec("raise OSError"))
    one, other, path = FileStore(tmp_path / "one"), FileStore(tmp_path / "other"), tmp_path / "f"
    path.write_bytes(b"abc")
    ref = FileRef("/elsewhere/f", 3, digest(path))
    one.write(ref, "run", 0, b"abc")
    there = other.find(ref, [str(tmp_path / "no store"), str(one.root)])
    assert Path(there).parent == other.root
    assert os.path.samefile(there, one.path(ref)) == links
    one.prune(())
    assert Path(there).read_bytes() == b"abc"


def test_a_model_is_laid_beside_its_external_data(run, tmp_path):
    """Where contents lie under their digests, a model finds its data; seen files stay where they are."""
    found = bundle(run, run.folder)
    here = {ref.sha256: ref.path for ref in found.refs()}
    assert place(found, here, tmp_path / "local") == {
        run.folder: str(tmp_path / "local" / "."),
        **{path: path for path in found.files},
    }
    store = FileStore(tmp_path / "store")
    for ref in found.refs():
        store.adopt(ref.path, ref)
    table = place(found, {ref.sha256: str(store.path(ref)) for ref in found.refs()}, tmp_path / "local")
    model = Path(table[run.model.path])
    (y,) = open_session(model, {}).run(None, {"x": np.zeros(4, np.float32)})
    assert y.tolist() == [1, 1, 1, 1]
    assert sorted(p.name for p in model.parent.iterdir()) == ["model.onnx", "weights.bin"]
    assert table[run.inputs["x"].path] == str(store.path(found.files[run.inputs["x"].path]))


class Cluster:
    """Dask workers that are folders: coroutines run here, each with a state of its own."""

    def __init__(self, tmp_path, monkeypatch, hosts):
        self.hosts, self.asked, self.down = hosts, [], set()
        self.workers = {
            name: SimpleNamespace(local_directory=str(tmp_path / name), state=SimpleNamespace(nthreads=1))
            for name in hosts
        }
        self.runs = {name: {} for name in hosts}
        self._monkeypatch = monkeypatch

    def ask(self, workers, function, *args, limit_s=None):
        return {worker: self._one(worker, function, args) for worker in workers}

    def _one(self, worker, function, args):
        if worker in self.down:
            return OSError(f"{worker} is down")
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        extra = {"dask_worker": self.workers[worker]} if "dask_worker" in names else {}
        self.asked.append((worker, function.__name__))
        with self._monkeypatch.context() as patch:
            patch.setattr(dask_worker, "_RUNS", self.runs[worker])
            patch.setattr(dask_worker.socket, "gethostname", lambda: self.hosts[worker])
            try:
                return asyncio.run(function(*pickle.loads(pickle.dumps(args)), **extra))
            except Exception as error:
                return error


@pytest.fixture
def blind(monkeypatch):
    """Nobody sees this machine's files."""
    monkeypatch.setattr(dask_files, "lies_there", lambda ref: False)


def total(run) -> int:
    return sum(ref.size for ref in bundle(run, run.folder).refs())


def test_files_go_to_a_machine_once(run, tmp_path, monkeypatch, blind):
    """Of three Dask workers on two machines two are sent the files; the third links them."""
    cluster = Cluster(tmp_path, monkeypatch, {"a": "one", "b": "one", "c": "two"})
    shipper = Shipper(cluster, "run", run, run.folder)
    assert shipper.welcome(["a", "b", "c"], [], checked=True) == {}
    assert shipper.sent == 2 * total(run)
    for name in "abc":
        state = cluster.runs[name]["run"]
        assert state.setup.inputs["x"].open().tolist() == [0, 1, 2, 3]
        assert not [path for path in paths_in(state.setup, run.folder) if path.startswith(run.folder)]


def test_the_next_run_sends_nothing(run, tmp_path, monkeypatch, blind):
    """Contents outlive the run on a Dask worker, until a run that needs others."""
    cluster = Cluster(tmp_path, monkeypatch, {"a": "one"})
    Shipper(cluster, "first", run, run.folder).welcome(["a"], [], checked=True)
    cluster.ask(["a"], dask_worker.end, "first")
    folder = tmp_path / "a" / "nvaudit"
    assert os.listdir(folder) == ["files"]
    second = Shipper(cluster, "second", run, run.folder)
    assert second.welcome(["a"], [], checked=True) == {}
    assert second.sent == 0
    np.save(run.inputs["x"].path, np.arange(7))
    third = Shipper(cluster, "third", run, run.folder)
    cluster.ask(["a"], dask_worker.end, "second")
    third.welcome(["a"], [], checked=True)
    assert third.sent == os.path.getsize(run.inputs["x"].path)
    assert len(os.listdir(folder / "files")) == 4


def test_a_run_keeps_its_files_while_another_comes(run, tmp_path, monkeypatch, blind):
    """What a run under way needs is not removed for the next, even if it is still on its way."""
    cluster = Cluster(tmp_path, monkeypatch, {"a": "one"})
    Shipper(cluster, "first", run, run.folder).welcome(["a"], [], checked=True)
    arriving = FileRef("/elsewhere/f", 4, 64 * "1")
    cluster.ask(["a"], dask_worker.reserve, "second", (arriving,), ())
    cluster.ask(["a"], dask_worker.keep, "second", arriving, 0, b"ab")
    other = Setup(run.folder, {}, GraphFile(run.inputs["x"].path, {}, None))
    Shipper(cluster, "third", other, run.folder).welcome(["a"], [], checked=True)
    names = {name.partition(".")[0] for name in os.listdir(tmp_path / "a" / "nvaudit" / "files")}
    assert names == {ref.sha256 for ref in bundle(run, run.folder).refs()} | {arriving.sha256}


def test_large_files_travel_in_parts(run, tmp_path, monkeypatch, blind):
    """No message is longer than a part."""
    path = Path(run.folder) / "large.npy"
    np.save(path, np.zeros(CHUNK + 1, np.uint8))
    cluster = Cluster(tmp_path, monkeypatch, {"a": "one"})
    setup = Setup(run.folder, {"x": ArrayFile(str(path))}, GraphFile(run.inputs["x"].path, {}, None))
    assert Shipper(cluster, "run", setup, run.folder).welcome(["a"], [], checked=True) == {}
    assert cluster.asked.count(("a", "keep")) == 3
    assert cluster.runs["a"]["run"].setup.inputs["x"].open().shape == (CHUNK + 1,)


def test_a_dask_worker_that_fails_does_not_hold_up_the_others(run, tmp_path, monkeypatch, blind):
    """It is named with what went wrong."""
    cluster = Cluster(tmp_path, monkeypatch, {"a": "one", "b": "two"})
    cluster.down = {"a"}
    failed = Shipper(cluster, "run", run, run.folder).welcome(["a", "b"], [], checked=True)
    assert failed == {"a": "a is down"}
    assert cluster.runs["b"]["run"].setup is not None


def test_a_full_disk_is_told(run, tmp_path, monkeypatch, blind):
    """The message names the folder, the file, and what to do."""

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileStore, "write", full)
    cluster = Cluster(tmp_path, monkeypatch, {"a": "one"})
    failed = Shipper(cluster, "run", run, run.folder).welcome(["a"], [], checked=True)
    assert "cannot take" in failed["a"]
    assert "No space left on device; free space, or start the Dask worker with another" in failed["a"]


def test_files_that_are_seen_are_not_sent(run, tmp_path, monkeypatch):
    """On a shared file system nothing travels."""
    cluster = Cluster(tmp_path, monkeypatch, {"a": "one"})
    shipper = Shipper(cluster, "run", run, run.folder)
    assert shipper.welcome(["a"], [], checked=True) == {}
    assert shipper.sent == 0
    setup = cluster.runs["a"]["run"].setup
    assert setup.model == run.model
    assert setup.inputs == run.inputs
    assert setup.folder != run.folder, "a Dask worker writes in its own folder"
