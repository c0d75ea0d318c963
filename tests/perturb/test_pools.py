"""Calls that keep a pool busy."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from nvaudit.perturb.pools import as_finished


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
    pool: Any = Slow(depth)
    found = dict(as_finished(pool, range(10), pool.submit))
    assert found == {call: call**2 for call in range(10)}
    assert pool.most == min(10, max(1, depth))


def test_an_error_of_a_call_is_raised() -> None:
    def submit(call: int) -> Future[int]:
        future: Future[int] = Future()
        future.set_exception(ValueError(f"call {call}"))
        return future

    pool: Any = Slow(1)
    with pytest.raises(ValueError, match="call 0"):
        list(as_finished(pool, [0], submit))
