"""Calls on a Dask cluster, without one: how they are grouped, and what becomes of them."""

import pickle
import threading
import time
from concurrent.futures import Future

import pytest

import nvaudit.perturb.dask.dispatch as dispatching
import nvaudit.perturb.dask.roster as rosters
from nvaudit.errors import DataError, EngineError
from nvaudit.perturb.dask.calls import Answer, Answers, RemoteCall
from nvaudit.perturb.dask.dispatch import Dispatcher
from nvaudit.perturb.dask.files import FileRef
from nvaudit.perturb.dask.queue import GROUP_S, GROUP_S_PER_THREAD, CallQueue, QueuedCall, group_s
from nvaudit.perturb.workers import CALLS_AHEAD, MAX_DEATHS


def make_call(number: int, needs: dict[str, FileRef] | None = None) -> QueuedCall:
    files = needs or {}
    remote = RemoteCall(f"trial {number}", "chip", (number,), {}, files, ())
    return QueuedCall(remote, Future(), frozenset(ref.sha256 for ref in files.values()))


def queue_of(count: int, seconds: float | None = None) -> CallQueue:
    queue = CallQueue()
    if seconds is not None:
        queue.note("chip", seconds)
    for number in range(count):
        queue.add(make_call(number))
    return queue


def numbers(calls) -> list[int]:
    return [call.remote.args[0] for call in calls]


# How calls are grouped.


def test_a_call_that_was_never_timed_travels_alone():
    """Nobody knows how long it takes: more of them on one thread might take for ever."""
    assert numbers(queue_of(100).draw(set(), 2)) == [0]


def test_short_calls_fill_the_time_of_a_task():
    """As many calls as last half a second, in order."""
    queue = queue_of(1000, seconds=0.1)
    assert numbers(queue.draw(set(), 2)) == [0, 1, 2, 3, 4]
    assert numbers(queue.draw(set(), 2)) == [5, 6, 7, 8, 9]


def test_long_calls_travel_alone():
    """A call that is as long as a task is a task."""
    assert len(queue_of(100, seconds=GROUP_S).draw(set(), 2)) == 1


def test_tasks_are_longer_in_a_large_cluster():
    """The scheduler sees at most 200 tasks a second, however many threads there are."""
    assert group_s(2) == GROUP_S
    assert group_s(1000) == 1000 * GROUP_S_PER_THREAD
    assert max(threads / group_s(threads) for threads in range(1, 5000)) == pytest.approx(200)


def test_the_last_calls_are_spread():
    """No thread gets more than its share of what is left."""
    queue = queue_of(10, seconds=0.001)
    assert [len(queue.draw(set(), 4)) for _ in range(7)] == [3, 2, 2, 1, 1, 1, 0]


def test_a_suspect_travels_alone():
    """A call that may have ended a Dask worker has no company, before or behind it."""
    queue = queue_of(20, seconds=0.001)
    suspect = make_call(99)
    suspect.deaths = 1
    first = queue.draw(set(), 10)
    queue.put_back([suspect])
    queue.put_back(first)
    assert [numbers(queue.draw(set(), 1)) for _ in range(3)] == [[0, 1], [99], list(range(2, 20))]


def test_a_call_waits_for_its_file():
    """A Dask worker without the file is given what stands before, and no more."""
    queue = queue_of(1, seconds=0.001)
    queue.add(make_call(1, {"/f": FileRef("/f", 1, "abc")}))
    assert numbers(queue.draw(set(), 1)) == [0]
    assert queue.draw(set(), 1) == []
    assert numbers(queue.draw({"abc"}, 1)) == [1]


def test_depth_follows_threads_and_pace():
    """Enough calls for three tasks on each thread; at least as many as for a local worker."""
    assert queue_of(0).depth(7) == 7 * CALLS_AHEAD
    assert queue_of(0, seconds=10.0).depth(7) == 7 * CALLS_AHEAD
    assert queue_of(0, seconds=0.1).depth(2) == 2 * 15
    assert queue_of(0, seconds=0.1).depth(1000) == 1000 * 150


def test_pace_follows_the_newest_calls():
    """The first call of a process starts it; that is forgotten soon."""
    queue = queue_of(1000, seconds=2.0)
    for _ in range(20):
        queue.note("chip", 0.05)
    assert len(queue.draw(set(), 1)) in (9, 10)


# What becomes of them.


class Task:
    """Dask's future, in the hands of the test."""

    def __init__(self, worker, payload):
        self.worker, self.status, self.result = worker, "pending", None
        self.calls = pickle.loads(payload)
        self._callback = None

    def add_done_callback(self, callback):
        self._callback = callback

    def exception(self, timeout):
        return self.result

    def end(self, status, result):
        self.status, self.result = status, result
        self._callback(self)

    def answer(self, seconds=0.01, error=None):
        answers = tuple(Answer(None if error else 10 * call.args[0], error, seconds) for call in self.calls)
        self.end("finished", pickle.dumps(Answers(answers, ())))


class Cluster:
    """A cluster whose workers come, go and answer as the test says."""

    address = "tcp://fake:1"

    def __init__(self, **threads):
        self.there, self.tasks, self.closed, self.cancelled = threads, [], False, []
        self.gone = False

    def threads(self):
        if self.gone:
            raise OSError("no answer")
        return dict(self.there)

    def start(self, worker, key, function, run, payload):
        task = Task(worker, payload)
        self.tasks.append(task)
        return task

    def results(self, tasks):
        return [task.result for task in tasks]

    def cancel(self, tasks):
        self.cancelled += tasks

    def open(self, worker=None):
        """Tasks that are not answered."""
        return [t for t in self.tasks if t.status == "pending" and worker in (None, t.worker)]


class Shipper:
    """Brings files at once, to everyone but those that it is told to fail at."""

    def __init__(self):
        self.stopped, self.failing, self.brought = False, {}, []
        self.hold = threading.Event()
        self.hold.set()

    def welcome(self, workers, extras, checked):
        self.brought += [(worker, ref.sha256) for worker in workers for ref in extras]
        return {worker: why for worker, why in self.failing.items() if worker in workers}

    def bring(self, workers, refs):
        self.hold.wait(10)
        return self.welcome(workers, refs, True)


def wait_for(condition):
    """Poll until it holds; gives its last value."""
    deadline = time.monotonic() + 10
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)
    return found


@pytest.fixture
def quick(monkeypatch):
    """Look for workers every few milliseconds."""
    monkeypatch.setattr(rosters, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(dispatching, "LOOK_EVERY_S", 0.01)


@pytest.fixture
def make(quick):
    """A dispatcher on a fake cluster."""
    made = []

    def build(**threads):
        cluster, shipper, events = Cluster(**threads), Shipper(), []
        dispatcher = Dispatcher(cluster, "run", shipper, threads, events.append)
        made.append(dispatcher)
        return cluster, shipper, events, dispatcher

    yield build
    for dispatcher in made:
        dispatcher.stop()


def enter(dispatcher, count, start=0):
    calls = [make_call(number) for number in range(start, start + count)]
    for call in calls:
        dispatcher.enter(call)
    return calls


def answer_all(cluster, calls, seconds=0.01):
    """Answer tasks as they come until every call is done."""
    while not all(call.future.done() for call in calls):
        for task in cluster.open():
            task.answer(seconds)
        time.sleep(0.001)


def test_every_call_gets_its_own_answer(make):
    """However calls were grouped, each future has the answer of its call."""
    cluster, _, events, dispatcher = make(a=1, b=2)
    calls = enter(dispatcher, 500)
    answer_all(cluster, calls)
    assert [call.future.result() for call in calls] == [10 * n for n in range(500)]
    assert len(cluster.tasks) < 100, "short calls should travel in groups"
    assert {task.worker for task in cluster.tasks} == {"a", "b"}
    assert events == []


def test_a_thread_is_never_given_more_than_the_task_after_its_own(make):
    """What is not under way or next stays here, where it can still go to anybody."""
    cluster, _, _, dispatcher = make(a=2)
    calls = enter(dispatcher, 50)
    wait_for(lambda: len(cluster.open()) == 2)
    for task in cluster.open():
        task.answer(seconds=0.2)
    wait_for(lambda: len(cluster.open()) == 4)
    time.sleep(0.05)
    assert len(cluster.open()) == 4
    answer_all(cluster, calls)


def test_long_calls_do_not_wait_on_a_dask_worker(make):
    """A call of a minute should go to whoever is free first."""
    cluster, _, _, dispatcher = make(a=2)
    calls = enter(dispatcher, 6)
    wait_for(lambda: len(cluster.open()) == 2)
    cluster.open()[0].answer(seconds=60.0)
    wait_for(lambda: len(cluster.open()) == 2)
    time.sleep(0.05)
    assert len(cluster.open()) == 2
    answer_all(cluster, calls, 60.0)


def test_calls_of_a_lost_worker_are_made_again(make):
    """What it ran travels alone from then on, what waited there does not; all of it is answered."""
    cluster, _, events, dispatcher = make(a=1)
    calls = enter(dispatcher, 40)
    wait_for(cluster.open)[0].answer(seconds=0.1)
    running, waiting = wait_for(lambda: len(cluster.open()) == 2 and cluster.open())
    assert len(running.calls) == 5
    cluster.there = {"b": 1}
    alone = wait_for(lambda: cluster.open("b"))
    assert [len(task.calls) for task in alone[:2]] == [1, 1]
    assert alone[0].calls[0].args == running.calls[0].args
    for task in (running, waiting):
        task.answer()  # too late: nobody listens any more
    answer_all(cluster, calls)
    assert [call.future.result() for call in calls] == [10 * n for n in range(40)]
    assert [call.deaths for call in calls] == [0] + 5 * [1] + 34 * [0]
    lost = len(running.calls) + len(waiting.calls)
    assert events == [
        f"the Dask worker a was lost; {lost} of its calls are made again",
        "the Dask worker b takes the place of one that was lost",
    ]


def test_a_call_that_ends_three_dask_workers_is_named(make):
    """The others of its group are answered; it is not tried a fourth time."""
    cluster, _, _, dispatcher = make(a0=1)
    answer_all(cluster, enter(dispatcher, 1), 0.1)
    calls = enter(dispatcher, 4, start=1)
    for death in range(MAX_DEATHS):
        while (3,) not in [call.args for call in wait_for(cluster.open)[0].calls]:
            cluster.open()[0].answer(0.1)
        assert death == 0 or len(cluster.open()[0].calls) == 1
        cluster.there = {f"a{death + 1}": 1}
        wait_for(lambda lost=f"a{death}": lost not in dispatcher._roster.seats)
        for task in cluster.open(f"a{death}"):
            task.status = "gone"
    with pytest.raises(EngineError, match=r"^trial 3 ended 3 Dask workers in a row, the last a2\. If memory"):
        calls[2].future.result(timeout=5)
    rest = [call for call in calls if call is not calls[2]]
    answer_all(cluster, rest)
    assert [call.future.result() for call in rest] == [10, 20, 40]


def test_a_dask_worker_that_was_started_again_is_prepared_again(make):
    """It does not know the run: its calls come back and it is welcomed as a new one."""
    cluster, _, events, dispatcher = make(a=1)
    calls = enter(dispatcher, 1)
    wait_for(cluster.open)[0].end("finished", None)
    wait_for(cluster.open)
    answer_all(cluster, calls)
    assert calls[0].future.result() == 0
    assert events[0].startswith("the Dask worker a was lost")


@pytest.mark.parametrize("status", ["cancelled", "lost"])
def test_tasks_that_dask_has_lost_are_made_again(make, status):
    """Somebody restarted the cluster: the calls go out once more."""
    cluster, _, _, dispatcher = make(a=1)
    calls = enter(dispatcher, 1)
    wait_for(cluster.open)[0].end(status, None)
    wait_for(cluster.open)
    answer_all(cluster, calls)
    assert calls[0].future.result() == 0


def test_errors_of_calls_arrive_as_they_are(make):
    """What a host raised on purpose keeps its class; a failure of the task names call and Dask worker."""
    cluster, _, _, dispatcher = make(a=1)
    one = enter(dispatcher, 1)[0]
    wait_for(cluster.open)[0].answer(error=DataError("the data is wrong"))
    with pytest.raises(DataError, match=r"^the data is wrong$"):
        one.future.result(timeout=5)
    two = enter(dispatcher, 1)[0]
    wait_for(cluster.open)[0].end("error", ValueError("no such thing"))
    with pytest.raises(EngineError, match=r"^trial 0: the Dask worker a failed: ValueError: no such thing$"):
        two.future.result(timeout=5)


def test_a_dask_worker_that_joins_is_used(make):
    """The depth follows it, and it is given calls."""
    cluster, _, events, dispatcher = make(a=1)
    depth = dispatcher.depth
    calls = enter(dispatcher, 10)
    wait_for(cluster.open)
    cluster.there = {"a": 1, "b": 3}
    wait_for(lambda: cluster.open("b"))
    assert (dispatcher.width, dispatcher.depth) == (4, 4 * depth)
    answer_all(cluster, calls)
    assert events == []


def test_a_dask_worker_that_joins_with_other_versions_is_not_used(make):
    """The run goes on without it, and says why, once."""
    cluster, shipper, events, dispatcher = make(a=1)
    shipper.failing = {"b": "numpy is 1.0 there"}
    cluster.there = {"a": 1, "b": 3}
    wait_for(lambda: events)
    calls = enter(dispatcher, 20)
    answer_all(cluster, calls)
    time.sleep(0.05)
    assert events == ["the Dask worker b is not used: numpy is 1.0 there"]
    assert dispatcher.width == 1
    assert {task.worker for task in cluster.tasks} == {"a"}


def test_a_run_that_no_dask_worker_can_serve_ends(quick):
    """With the reason of the first."""
    cluster, shipper = Cluster(a=1), Shipper()
    shipper.failing = {"a": "the disk is full"}
    dispatcher = Dispatcher(cluster, "run", shipper, cluster.there, lambda text: None)
    with pytest.raises(EngineError, match=r"the Dask worker a: the disk is full$"):
        enter(dispatcher, 1)[0].future.result(timeout=5)
    dispatcher.stop()


def test_a_call_is_sent_once_its_file_is_there(make):
    """The file goes to every Dask worker, also to those that join later."""
    cluster, shipper, _, dispatcher = make(a=1)
    shipper.hold.clear()
    call = make_call(5, {"/f": FileRef("/f", 1, "abc")})
    dispatcher.enter(call)
    time.sleep(0.05)
    assert cluster.tasks == []
    shipper.hold.set()
    answer_all(cluster, [call])
    cluster.there = {"a": 1, "b": 1}
    wait_for(lambda: ("b", "abc") in shipper.brought)
    assert shipper.brought == [("a", "abc"), ("b", "abc")]


def test_a_call_that_was_cancelled_is_not_sent(make):
    """The caller has no use for it any more."""
    cluster, _, _, dispatcher = make(a=1)
    first, second, third = enter(dispatcher, 3)
    wait_for(cluster.open)
    assert second.future.cancel()
    answer_all(cluster, [first, third])
    assert [call.args for task in cluster.tasks for call in task.calls] == [(0,), (2,)]


def test_without_a_scheduler_every_call_fails(make):
    """Those in hand and those that come later, with what to do."""
    cluster, _, _, dispatcher = make(a=1)
    calls = enter(dispatcher, 3)
    wait_for(cluster.open)
    cluster.gone = cluster.closed = True
    for call in (*calls, *enter(dispatcher, 1)):
        with pytest.raises(EngineError, match=r"the scheduler is gone \(OSError\); with --resume, finished"):
            call.future.result(timeout=5)


def test_a_scheduler_may_be_slow(make):
    """One look without an answer is no reason to give up."""
    cluster, _, _, dispatcher = make(a=1)
    cluster.gone = True
    time.sleep(0.05)
    cluster.gone = False
    calls = enter(dispatcher, 3)
    answer_all(cluster, calls)


def test_a_run_waits_for_new_workers_but_not_for_ever(make, monkeypatch):
    """After the last Dask worker is lost, another may come; if none does, the run ends."""
    monkeypatch.setattr(rosters, "GONE_S", 0.2)
    cluster, _, _, dispatcher = make(a=1)
    calls = enter(dispatcher, 3)
    wait_for(cluster.open)
    cluster.there = {}
    with pytest.raises(
        EngineError, match=r"no Dask worker for 0\.2 s; with --resume, finished chips are kept"
    ):
        calls[0].future.result(timeout=5)


def test_stopping_cancels_what_is_under_way(make):
    """Calls not begun are cancelled, those under way fail, and Dask is told."""
    cluster, _, _, dispatcher = make(a=1)
    calls = enter(dispatcher, 3)
    wait_for(cluster.open)
    assert dispatcher.stop() == ["a"]
    assert [call.future.cancelled() for call in calls] == [False, True, True]
    with pytest.raises(EngineError, match="the run was stopped"):
        calls[0].future.result(timeout=1)
    assert cluster.cancelled == cluster.tasks
