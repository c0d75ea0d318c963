"""The last choice among candidates: further chips, the same for all, and the worse half goes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from nvaudit.errors import ModelError
from nvaudit.remapping.bench import ChipScores
from nvaudit.remapping.centre import CHIPS
from nvaudit.remapping.choose import RemapCandidate, RemapSearch
from nvaudit.remapping.finals import TIMES, settle_finalists
from nvaudit.rng import stream

FIRST = 16


class _Bench:
    """A structure whose chips score a common luck, its own level, and a little of its own luck."""

    def __init__(self, level, first, number):
        self.level, self.first, self.number, self.ran = level, first, number, []

    def cut(self, limits):
        return {}

    def chips(self, changed):
        return self

    def run(self, trials):
        self.ran += list(trials)
        if self.level is None:
            raise ModelError("outputs overflow")
        return np.array([self._one(trial) for trial in trials])

    def _one(self, trial):
        common = stream(5, "common", trial).normal(0, 0.05)
        own = stream(5, "own", self.number, trial).normal(0, 0.01)
        return (self.first if trial < FIRST else self.level) + common + own


def _search(levels, deadline=float("inf")):
    """A search with candidates of a true level, each with the level that it shows on the first chips."""
    original = SimpleNamespace(conditions=SimpleNamespace(chips=FIRST))
    search = RemapSearch(None, original, None, lambda measured: 1.0, lambda *_: None, deadline)
    for number, (level, first) in enumerate(levels):
        bench = _Bench(level, first, number)
        values = np.array([_Bench(0.0, first, number)._one(trial) for trial in range(FIRST)])
        measured = ChipScores(0.9, 0.9, values, True)
        search.tried.append(RemapCandidate(f"c{number}", bench, None, {}, measured, 0.0))
    search.pass_s = 1.0
    return search


def test_luck_on_the_first_chips_does_not_last():
    """The best on the first chips is worse on all others: the one that is better on these is the result."""
    search = _search([(0.5, 0.5), (0.6, 0.724), (0.7, 0.72), (0.65, 0.722)])
    assert search.best().name == "c1"
    settle_finalists(search)
    assert search.best().name == "c2"
    # c0 is surely behind. Of three one goes after the first round, and one after the second.
    ran = [len(one.bench.ran) for one in search.tried]
    more = (TIMES - 1) * FIRST
    assert ran == [0, more, more + (TIMES - 1) * TIMES * FIRST, more + (TIMES - 1) * TIMES * FIRST]
    # The same chips for all, and none that a mean was fitted on.
    assert search.tried[1].bench.ran == search.tried[2].bench.ran[:more]
    assert min(search.tried[2].bench.ran) == FIRST + CHIPS
    assert search.finalists[0].name == "c2"


def test_the_next_one_stands_where_the_first_is_refused():
    """A finalist that turns out to cost too much makes room for the one behind it, or a later one."""
    search = _search([(0.5, 0.5), (0.6, 0.724), (0.7, 0.72), (0.65, 0.722)])
    settle_finalists(search)
    order = [one.name for one in search.finalists]
    search.refused[order[0]] = "costs too much"
    assert search.best().name == order[1]
    later = replace(search.tried[2], name="later")
    better = replace(later.measured, chips=later.measured.chips[:FIRST] + 0.05)
    search.tried.append(replace(later, measured=better))
    assert search.best().name == "later"


def test_no_time_no_finals():
    """Without time for a round everything is as it was; what overflows in it is refused."""
    search = _search([(0.6, 0.724), (0.7, 0.72)], deadline=0.0)
    settle_finalists(search)
    assert search.best().name == "c0"
    assert not search.finalists
    search = _search([(0.6, 0.724), (None, 0.72)])
    settle_finalists(search)
    assert search.best().name == "c0"
    assert search.refused == {"c1": "outputs overflow"}


@pytest.mark.parametrize("seed", range(3))
def test_equals_are_told_apart_by_little(seed):
    """Whichever of two equally good candidates is kept, the other one is a finalist."""
    search = _search([(0.7, 0.7 + 0.001 * seed), (0.7, 0.7)])
    settle_finalists(search)
    assert {one.name for one in search.finalists} == {"c0", "c1"}


@pytest.mark.parametrize(("shown", "starts"), [(0.719, ["c1", "c1", "c2", "c2"]), (0.70, ["c1", "c1"])])
def test_rounded_weights_are_clipped_too(monkeypatch, shown, starts):
    """Rounding errs less by calculation: it is clipped too unless its chips are surely behind."""
    search = _search([(0.5, 0.5), (0.7, 0.722), (0.7, shown)])
    search.tried = [replace(one, rescaling=SimpleNamespace(power={})) for one in search.tried]
    search.tried[2] = replace(search.tried[2], rounding=SimpleNamespace(numbers={}))
    begun = []
    monkeypatch.setattr(RemapSearch, "_family", lambda self, structure, levels: begun.append(structure.name))
    search.clippings({"w": 0.1}, equalise=False)
    assert begun == starts
