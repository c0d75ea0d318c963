"""The loop that keeps a pool busy: every call once, in any order, and an end in good order."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Any

import pytest

from nvaudit.perturb.schedule import Ending, completed, in_order, labelled


class Slow:
    """Finishes what it was given last when a result is waited for, so that order and number show."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.open: dict[int, Future[int]] = {}
        self.most = 0

    def submit(self, call: int) -> Future[int]:
        future: Future[int] = Future()
        self.open[call] = future
        self.most = max(self.most, len(self.open))
        if len(self.open) >= max(1, self.depth) or call == 9:
            for number in sorted(self.open, reverse=True):
                self.open.pop(number).set_result(number**2)
        return future


@pytest.mark.parametrize("depth", [0, 1, 3, 100])
def test_every_call_has_its_result_and_never_more_run_than_the_pool_wants(depth: int) -> None:
    """Also where the pool has no use for any now: one is then in hand."""
    pool: Any = Slow(depth)
    found = [(call, result) for call, result, _ in completed(pool, deque(range(10)), pool.submit)]
    assert sorted(found) == [(call, call**2) for call in range(10)]
    assert pool.most == min(10, max(1, depth))


def test_results_come_in_the_order_of_the_calls_where_that_is_asked() -> None:
    """However late the first one is."""
    pool: Any = Slow(4)
    assert list(in_order(pool, range(10), pool.submit)) == [(call, call**2) for call in range(10)]


def test_a_known_result_is_not_run_again_and_may_bring_calls_that_come_first() -> None:
    """What follows from a result is done before what was waiting."""
    pool: Any = Slow(1)
    todo = deque([0, 1, 9])
    seen = []
    for call, result, known in completed(pool, todo, pool.submit, lambda call: 100 if call == 0 else None):
        seen.append((call, result, known))
        todo.extendleft([5] if call == 0 else [])
    assert seen == [(0, 100, True), (5, 25, False), (1, 1, False), (9, 81, False)]


def test_an_error_of_a_call_is_raised() -> None:
    """As it is."""

    def submit(call: int) -> Future[int]:
        future: Future[int] = Future()
        future.set_exception(ValueError(f"call {call}"))
        return future

    pool: Any = Slow(1)
    with pytest.raises(ValueError, match="call 0"):
        list(completed(pool, deque([0]), submit))


def test_a_run_that_ends_finishes_what_is_begun_and_what_it_is_told_to() -> None:
    """Calls that wait are dropped but for those still to be made; running ones are brought to their end."""
    waiting: list[Future[int]] = []

    def submit(call: int) -> Future[int]:
        future: Future[int] = Future()
        if call in (0, 7):
            future.set_running_or_notify_cancel()
            future.set_result(call)
        else:
            waiting.append(future)  # a pool has not begun it: it can be cancelled
        return future

    pool: Any = Slow(3)
    over: list[bool] = []
    rest: list[list[int]] = []

    def still(calls: Any) -> list[int]:
        rest.append(list(calls))
        return [7]

    seen = []
    for call, _, _ in completed(pool, deque(range(5)), submit, ending=Ending(lambda call: bool(over), still)):
        seen.append(call)
        over.append(True)
    assert seen == [0, 7]
    assert rest == [[1, 2, 3, 4]]
    assert all(future.cancelled() for future in waiting)


def test_what_cannot_be_brought_to_its_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time to drain, calls that still run are given up and named."""
    monkeypatch.setattr("nvaudit.perturb.schedule._LOOK_S", 0.01)

    def submit(call: int) -> Future[int]:
        future: Future[int] = Future()
        future.set_running_or_notify_cancel()
        return future

    left: list[int] = []
    pool: Any = Slow(2)
    todo = deque([3, 4])
    steps = iter([False, True])
    ending = Ending[int](lambda call: next(steps, True), left=left.append, drain_s=lambda: 0.05)
    assert list(completed(pool, todo, submit, ending=ending)) == []
    assert left == [3, 4]


def test_a_label_stands_before_every_step() -> None:
    """So that a job of several audits says which one it is at."""
    told: list[tuple[str, int, int]] = []
    labelled(lambda *step: told.append(step), "rram")("chips", 1, 2)
    assert told == [("rram: chips", 1, 2)]
