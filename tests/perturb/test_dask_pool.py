"""The pool on a real Dask cluster: a scheduler and two Dask workers, one of which sees none of our files."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from dask_hosts import Setup, local_cluster

import nvaudit.perturb.dask.cluster as dask_cluster
import nvaudit.perturb.dask.pool as dask_pool
from nvaudit.errors import EngineError, ModelError, OptionError
from nvaudit.perturb.dask.cluster import refusals
from nvaudit.perturb.dask.pool import DaskPool
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.pools import check_pool, open_pool
from nvaudit.perturb.workers import MAX_DEATHS, WorkerPool
from nvaudit.perturb.workload import ArrayFile
from nvaudit.session import prepare, settle_metric
from nvaudit.spec import make_spec

pytest.importorskip("distributed", reason="needs Dask: pip install 'nvaudit[dask]'")
psutil = pytest.importorskip("psutil", reason="comes with Dask")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One cluster for all tests of this file."""
    with local_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run, with an array in it."""
    run = tmp_path_factory.mktemp("run")
    np.save(run / "x.npy", np.arange(5))
    return run


@pytest.fixture(scope="module")
def shared_pool(cluster, folder):
    """A pool with both Dask workers, and its events."""
    events: list[str] = []
    setup = Setup(str(folder), ArrayFile(str(folder / "x.npy")))
    with DaskPool(cluster.address, setup, str(folder), events.append) as made:
        yield made, events


@pytest.fixture
def events(shared_pool):
    """What the pool tells during one test."""
    shared_pool[1].clear()
    return shared_pool[1]


@pytest.fixture
def pool(shared_pool, events):
    """The pool, once both Dask workers are ready."""
    pool, _ = shared_pool
    deadline = time.monotonic() + 60
    while len({parent for _, parent in results(both(pool))}) < 2:
        assert time.monotonic() < deadline, "two Dask workers should have come"
    events.clear()
    return pool


def both(pool):
    """Calls that keep both Dask workers busy, so that each has some."""
    return [pool.submit("who", "who", 0.2) for _ in range(4)]


def results(futures):
    return [future.result(timeout=60) for future in futures]


def test_values_are_those_of_local_workers(cluster, example, tmp_path):
    """Probe, nominal outputs and chips come out bit for bit alike, and the reference file travels."""
    folder = tmp_path / "run"
    folder.mkdir()
    spec = make_spec(model=example, device="fefet1", metric="agreement", limit=100)
    session = prepare(spec, folder)

    def run(pool):
        with pool:
            probe = pool.submit("the first batch", "probe").result()
            metric = settle_metric(session, probe)
            keep = session.reference_file(metric)
            nominal = pool.submit("nominal", "nominal", metric, keep, session.workload.ideal).result()
            reference = np.load(keep)
            Path(keep).unlink()
            np.save(keep, reference)
            chips = [pool.submit(f"trial {i}", "chip", metric, keep, 0, i) for i in range(40)]
            values = [future.result().value for future in chips]
            Path(keep).unlink()
        return probe.output.tobytes(), nominal.value, reference.tobytes(), values

    here = run(open_pool(0, None, session.workload, session.workload.folder))
    there = run(open_pool(0, cluster.address, session.workload, session.workload.folder))
    assert there == here
    assert len(set(here[3])) > 1


def test_calls_run_in_processes_of_every_dask_worker(pool, events):
    """One process for each thread of a Dask worker, used again; the Dask workers run no call themselves."""
    found = {*results(both(pool)), *results(both(pool))}
    assert len(found) == 2
    assert len({parent for _, parent in found}) == 2
    assert pool.width == 2
    assert events == []


def test_answers_belong_to_their_calls(pool):
    """Many short calls, each future with its own answer."""
    futures = [pool.submit(f"call {i}", "double", i) for i in range(3000)]
    assert results(futures) == [2 * i for i in range(3000)]
    assert pool.depth > 100, "short calls should be queued far ahead"


def test_files_are_sent_where_they_are_not_seen(pool, folder, cluster):
    """The Dask worker that sees the file reads it in place, the other has a copy of its own."""
    found = dict(results([pool.submit("read", "where", 0.1) for _ in range(8)]))
    seen = str(folder / "x.npy")
    (copy,) = found.keys() - {seen}
    assert copy.startswith(str(cluster.folder / "blind"))
    assert found[seen] == found[copy] == (0, 1, 2, 3, 4)
    assert pool.bytes_sent == os.path.getsize(seen)


def test_a_file_that_a_call_makes_reaches_the_others(pool, folder):
    """It arrives here, and every Dask worker reads it; a new content under the same path is a new file."""
    path = folder / "made.txt"
    for text in ("first", "second"):
        pool.submit("make", "nominal", str(path), text).result(timeout=30)
        assert path.read_text() == text
        futures = [pool.submit("read", "read", str(path)) for _ in range(20)]
        assert {future.result(timeout=30)[1] for future in futures} == {text}


def test_errors_keep_their_class(pool):
    """What a host raises on purpose arrives as it is; a bug is an engine error in one line."""
    with pytest.raises(ModelError, match=r"^the model is wrong$"):
        pool.submit("a call", "model_error").result(timeout=30)
    with pytest.raises(EngineError, match=r"^a worker failed in bug: KeyError: 'missing'$"):
        pool.submit("a call", "bug").result(timeout=30)


def test_a_native_crash_ends_a_process_and_not_the_dask_worker(pool, events, tmp_path):
    """The call is made again beside the same Dask worker, and the event tells where."""
    before = {parent for _, parent in results(both(pool))}
    assert pool.submit("trial 17", "die_until", str(tmp_path / "m"), 1, "child").result(timeout=30) == 1
    assert {parent for _, parent in results(both(pool))} == before
    (event,) = events
    assert event.startswith("on the Dask worker tcp://")
    assert ", a worker died in trial 17: signal SIGKILL" in event
    assert event.endswith("; replaced, trial 17 done again")


def test_a_call_that_ends_three_processes_is_named(pool, tmp_path):
    """As with local workers, with what to try on a cluster."""
    with pytest.raises(
        EngineError, match=r"^trial 3 ended 3 workers in a row: signal SIGKILL\. If memory is"
    ):
        pool.submit("trial 3", "die_until", str(tmp_path / "m"), MAX_DEATHS, "child").result(timeout=30)


def test_a_lost_dask_worker_costs_nothing_but_an_event(pool, events, tmp_path):
    """Its calls are made elsewhere; the one that its nanny starts again is used."""
    others = [pool.submit(f"trial {i}", "nap", 0.02, i) for i in range(40)]
    deadly = pool.submit("trial 99", "die_until", str(tmp_path / "m"), 1, "dask worker")
    assert results(others) == list(range(40))
    assert deadly.result(timeout=60) == 1
    assert events[0].startswith("the Dask worker tcp://")
    assert "was lost; " in events[0]
    deadline = time.monotonic() + 60
    while len(events) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert events[1].endswith("takes the place of one that was lost")
    assert len({parent for _, parent in results(both(pool))}) == 2


def test_leaving_the_pool_stops_calls_and_leaves_the_cluster(cluster, folder):
    """Calls under way are ended, those not begun cancelled; the Dask workers serve the next run."""
    threads = set(threading.enumerate())
    with DaskPool(cluster.address, Setup(str(folder)), str(folder)) as pool:
        children = {child for child, _ in results(both(pool))}
        running = [pool.submit(f"trial {i}", "nap", 30.0, i) for i in range(2)]
        queued = pool.submit("trial 9", "nap", 30.0, 9)
        time.sleep(0.5)
        begin = time.perf_counter()
    assert time.perf_counter() - begin < 10
    assert queued.cancelled()
    for future in running:
        with pytest.raises(EngineError, match="the run was stopped"):
            future.result(timeout=1)
    for pid in children:
        wait_until_gone(pid)
    assert not {t.name for t in set(threading.enumerate()) - threads if t.name.startswith("nvaudit")}
    with DaskPool(cluster.address, Setup(str(folder)), str(folder)) as pool:
        assert pool.submit("a call", "double", 4).result(timeout=30) == 8


def test_a_group_that_is_under_way_is_not_finished(cluster, pool, folder):
    """Leaving the pool ends a task at the call that runs; no process is started for the rest of it."""
    parents = [psutil.Process(pid) for pid in {parent for _, parent in results(both(pool))}]
    before = {child.pid for parent in parents for child in parent.children()}
    with DaskPool(cluster.address, Setup(str(folder)), str(folder)) as other:
        results([other.submit("timed", "nap", 0.02, 0) for _ in range(20)])
        rest = [other.submit("trial", "nap", 0.02, 0) for _ in range(1000)]
        results(rest[:1])
    time.sleep(0.3)
    for _ in range(5):
        assert {child.pid for parent in parents for child in parent.children()} == before
        time.sleep(0.05)


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")


def test_two_runs_share_a_cluster(pool, cluster, folder):
    """Each has its own processes and answers."""
    with DaskPool(cluster.address, Setup(str(folder)), str(folder)) as other:
        futures = [p.submit(f"call {i}", "who", 0.05) for i in range(10) for p in (pool, other)]
        found = [child for child, _ in results(futures)]
    assert not set(found[0::2]) & set(found[1::2])


def test_a_metric_of_the_users_must_be_the_same_on_every_machine(pool, tmp_path, monkeypatch):
    """A module that is missing there, or another version of it, is refused; the same one is used."""
    (tmp_path / "metric_on_dask.py").write_text("def right(output, labels):\n    return labels\n")
    monkeypatch.syspath_prepend(tmp_path)
    missing = Metric("metric_on_dask:right", "function")
    with pytest.raises(
        OptionError, match=r"cannot import it: ModuleNotFoundError.*on the Dask worker on .*PYTHONPATH"
    ):
        pool.submit("a call", "scored", missing).result(timeout=30)
    shared = Metric("dask_hosts:array_like", "function")
    monkeypatch.setattr(dask_pool, "metric_digest", lambda name: 64 * "0")
    with pytest.raises(OptionError, match="has another version of its module; put the same file there"):
        pool.submit("a call", "scored", shared).result(timeout=30)
    monkeypatch.undo()
    pool._code.clear()
    assert pool.submit("a call", "scored", shared).result(timeout=30) == np.__version__


def test_other_versions_are_refused(cluster, folder, monkeypatch):
    """With the Dask worker, both versions, and what to do."""
    monkeypatch.setattr(dask_cluster, "versions", lambda: {"nvaudit": "9.9", "numpy": np.__version__})
    with pytest.raises(OptionError) as caught:
        DaskPool(cluster.address, Setup(str(folder)), str(folder))
    text = str(caught.value)
    assert text.startswith("--dask: the Dask worker tcp://127.0.0.1:")
    assert "nvaudit is 0." in text
    assert "there and 9.9 here (and 1 more); install the same versions on every machine" in text


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            ModuleNotFoundError("No module named 'nvaudit'"),
            "is not installed there (ModuleNotFoundError No module named 'nvaudit')",
        ),
        (
            Exception("ModuleNotFoundError(\"No module named 'nvaudit.perturb'\")"),
            "is not installed there (Exception ModuleNotFoundError(\"No module named 'nvaudit.perturb'\"))",
        ),
        (EngineError("ONNX Runtime is not installed"), "ONNX Runtime is not installed"),
        (TimeoutError(), "it cannot be asked for its versions (TimeoutError)"),
    ],
)
def test_a_dask_worker_that_cannot_answer_is_refused(answer, expected):
    """Nothing is installed there, or it does not speak."""

    class Asked:
        def ask(self, workers, function):
            return dict.fromkeys(workers, answer)

    assert refusals(Asked(), ["tcp://a:1"])["tcp://a:1"].endswith(expected)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nonsense", "missing port number"),
        ("tcp://127.0.0.1:1", "Timed out"),
        ("tcp://127.0.0.1:nan", "invalid literal"),
        ("http://127.0.0.1:8786", "unknown address scheme"),
    ],
)
def test_an_address_without_a_scheduler(address, reason, tmp_path, monkeypatch):
    """Refused within the time to connect, with the address, the reason and what to do."""
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 2.0)
    with pytest.raises(OptionError) as caught:
        DaskPool(address, Setup(str(tmp_path)), str(tmp_path))
    assert str(caught.value).startswith(f"--dask {address}: no Dask scheduler there: ")
    assert reason in str(caught.value)
    assert str(caught.value).endswith("start one with `dask scheduler`, or give the address that it prints")


def test_something_else_listens_there(tmp_path, monkeypatch):
    """A server that takes the call and says nothing is found out."""
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(OptionError, match="what listens there is no Dask scheduler"):
            DaskPool(address, Setup(str(tmp_path)), str(tmp_path))


def test_a_scheduler_file_that_is_missing(tmp_path):
    """Dask would wait for it for ever."""
    with pytest.raises(
        OptionError, match=r"there is no such scheduler file; `dask scheduler --scheduler-file"
    ):
        DaskPool(str(tmp_path / "s.json"), Setup(str(tmp_path)), str(tmp_path))


def test_a_cluster_without_workers(tmp_path, monkeypatch):
    """After a while the run ends with the command that starts one."""
    monkeypatch.setattr(dask_pool, "FIRST_WORKER_S", 0.5)
    with local_cluster(tmp_path, workers=()) as empty, pytest.raises(OptionError) as caught:
        DaskPool(empty.address, Setup(str(tmp_path)), str(tmp_path))
    assert "the cluster has no workers after 0.5 s; start some with `dask worker " in str(caught.value)


def test_a_scheduler_that_ends_in_the_middle(tmp_path, monkeypatch):
    """The run ends with what to do; leaving the pool does not hang."""
    monkeypatch.setattr(dask_cluster, "CONNECT_S", 4.0)
    with local_cluster(tmp_path, workers=("only",)) as doomed:
        with DaskPool(doomed.address, Setup(str(tmp_path)), str(tmp_path)) as pool:
            pool.submit("a call", "double", 1).result(timeout=60)
            future = pool.submit("trial 1", "nap", 60.0, 1)
            doomed.processes[0].send_signal(signal.SIGKILL)
            with pytest.raises(EngineError, match="with --resume, finished chips are kept"):
                future.result(timeout=60)
            begin = time.perf_counter()
        assert time.perf_counter() - begin < 10
        doomed.processes[1].kill()


def test_without_dask_the_extra_is_named(tmp_path, monkeypatch):
    """Dask is not among the dependencies."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EngineError, match=r"^--dask needs Dask; run: pip install 'nvaudit\[dask\]'$"):
        DaskPool("tcp://127.0.0.1:1", Setup(str(tmp_path)), str(tmp_path))


def test_a_cluster_can_be_looked_for_beforehand(cluster, tmp_path):
    """A wrong address is found before anything is read."""
    check_pool(None)
    check_pool(cluster.address)
    with pytest.raises(OptionError, match="no such scheduler file"):
        check_pool(str(tmp_path / "s.json"))


def test_without_an_address_the_pool_is_local(tmp_path):
    """The same interface in processes of this machine, or in this process."""
    with open_pool(2, None, Setup(str(tmp_path)), str(tmp_path)) as local:
        assert isinstance(local, WorkerPool)
        assert (local.width, local.depth) == (2, 8)
