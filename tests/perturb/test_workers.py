"""Worker processes: killed, failing and talkative ones, and none at all."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from worker_hosts import Setup

from nvaudit.errors import DataError, EngineError, ModelError
from nvaudit.perturb.workers import MAX_DEATHS, WorkerPool


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """A setup whose class the worker processes can import."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return Setup(str(tmp_path))


def test_calls_are_answered_in_order_of_submission(setup):
    """Two workers answer many calls, each future with its own answer."""
    with WorkerPool(2, setup) as pool:
        futures = [pool.submit(f"call {i}", "double", i) for i in range(50)]
        assert [future.result(timeout=60) for future in futures] == [2 * i for i in range(50)]


def test_workers_are_processes_that_are_used_again(setup):
    """Two workers are two processes, other than this one, that serve all calls."""
    with WorkerPool(2, setup) as pool:
        pids = {f.result(timeout=60) for f in [pool.submit("pid", "pid", 0.05) for _ in range(10)]}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_without_workers_calls_run_here(setup):
    """count = 0 starts no process: same interface, same errors."""
    events = []
    with WorkerPool(0, setup, events.append) as pool:
        assert pool.submit("pid", "pid").result() == os.getpid()
        assert pool.submit("double", "double", 4).result() == 8
        with pytest.raises(ModelError, match=r"^the model is wrong$"):
            pool.submit("a call", "model_error").result()
    assert events == []


def test_a_killed_worker_is_replaced_and_its_call_made_again(setup):
    """SIGKILL in the middle of a call costs nothing but an event that names call and cause."""
    events = []
    with WorkerPool(1, setup, events.append) as pool:
        assert pool.submit("trial 17", "die_until", 1, "survivor").result(timeout=60) == "survivor"
        assert pool.submit("trial 18", "double", 5).result(timeout=60) == 10
    assert events == ["a worker died in trial 17: signal SIGKILL; replaced, trial 17 done again"]


def test_an_idle_worker_that_dies_is_replaced(setup):
    """A worker killed between two calls is noticed at the next one."""
    events = []
    with WorkerPool(1, setup, events.append) as pool:
        first = pool.submit("pid", "pid").result(timeout=60)
        os.kill(first, signal.SIGKILL)
        assert pool.submit("trial 2", "pid").result(timeout=60) != first
    assert len(events) == 1
    assert "signal SIGKILL" in events[0]


def test_other_calls_go_on_while_one_kills_workers(setup):
    """One worker's death does not disturb the others' answers."""
    with WorkerPool(2, setup) as pool:
        deadly = pool.submit("trial 0", "die_until", 2, "late")
        others = [pool.submit(f"trial {i}", "double", i) for i in range(1, 20)]
        assert [f.result(timeout=60) for f in others] == [2 * i for i in range(1, 20)]
        assert deadly.result(timeout=60) == "late"


def test_a_call_that_kills_every_worker_ends_the_run(setup):
    """After three deaths the error names the call, the cause, and what to try."""
    events = []
    with WorkerPool(1, setup, events.append) as pool, pytest.raises(EngineError) as caught:
        pool.submit("trial 3", "die_until", MAX_DEATHS, "never").result(timeout=60)
    assert str(caught.value) == (
        "trial 3 ended 3 workers in a row: signal SIGKILL. If memory is short, use fewer "
        "--workers or a smaller --batch-size"
    )
    assert len(events) == MAX_DEATHS


def test_the_last_words_of_a_worker_are_kept(setup):
    """Exit code and last line on standard error are part of the cause."""
    with WorkerPool(1, setup) as pool, pytest.raises(EngineError) as caught:
        pool.submit("trial 1", "leave").result(timeout=60)
    assert "exit code 7 (going away now)" in str(caught.value)


def test_a_host_that_cannot_be_made(setup):
    """A failure before the first call is told too, with its last line."""
    with WorkerPool(1, Setup(setup.folder, broken=True)) as pool, pytest.raises(EngineError) as caught:
        pool.submit("trial 1", "double", 1).result(timeout=60)
    assert "this host cannot be made" in str(caught.value)


@pytest.mark.parametrize(("method", "kind"), [("model_error", ModelError), ("data_error", DataError)])
def test_errors_keep_their_class(setup, method, kind):
    """What a host raises on purpose arrives as it is, and the worker goes on."""
    with WorkerPool(1, setup) as pool:
        before = pool.submit("pid", "pid").result(timeout=60)
        with pytest.raises(kind) as caught:
            pool.submit("a call", method).result(timeout=60)
        assert type(caught.value) is kind
        assert str(caught.value).startswith("the ")
        assert pool.submit("pid", "pid").result(timeout=60) == before


def test_a_bug_is_told_in_one_line_and_with_its_place_on_request(setup, monkeypatch):
    """An unforeseen exception is an engine error with its kind; NVAUDIT_DEBUG adds the traceback."""
    with WorkerPool(1, setup) as pool, pytest.raises(EngineError) as caught:
        pool.submit("a call", "bug").result(timeout=60)
    assert str(caught.value) == "a worker failed in bug: KeyError: 'missing'"
    monkeypatch.setenv("NVAUDIT_DEBUG", "1")
    with WorkerPool(1, setup) as pool, pytest.raises(EngineError) as caught:
        pool.submit("a call", "bug").result(timeout=60)
    assert "a worker failed in bug: KeyError: 'missing'" in str(caught.value)
    assert "worker_hosts.py" in str(caught.value)


def test_what_libraries_print_does_not_garble_messages(setup):
    """Text on a worker's standard output, from Python or native code, goes elsewhere."""
    with WorkerPool(1, setup) as pool:
        assert pool.submit("a call", "chatter").result(timeout=60) == "quiet"
        assert pool.submit("a call", "double", 3).result(timeout=60) == 6


def test_large_answers(setup):
    """Answers beyond the size of a pipe's buffer arrive whole."""
    with WorkerPool(1, setup) as pool:
        assert len(pool.submit("a call", "large", 20_000_000).result(timeout=60)) == 20_000_000


def test_workers_use_one_thread_each(setup):
    """Numerical libraries in a worker are told to use one thread."""
    with WorkerPool(1, setup) as pool:
        assert pool.submit("a call", "environment", "OMP_NUM_THREADS").result(timeout=60) == "1"


def test_leaving_the_pool_ends_its_processes(setup):
    """After the pool no worker is left, and no thread of it."""
    with WorkerPool(2, setup) as pool:
        pids = {f.result(timeout=60) for f in [pool.submit("pid", "pid", 0.05) for _ in range(6)]}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not [t for t in threading.enumerate() if t.name.startswith("nvaudit-worker")]


def test_leaving_the_pool_does_not_wait_for_running_calls(setup):
    """An error or interrupt stops calls that would take long, and drops those not begun."""
    begin = time.perf_counter()
    with WorkerPool(1, setup) as pool:
        running = pool.submit("trial 1", "pid", 8.0)
        queued = pool.submit("trial 2", "pid", 8.0)
        time.sleep(1.0)
    assert time.perf_counter() - begin < 5
    assert queued.cancelled()
    with pytest.raises(EngineError, match="the run was stopped"):
        running.result(timeout=1)
