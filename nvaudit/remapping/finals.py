"""The last choice: the best candidates once more, on further chips."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from nvaudit.errors import ModelError
from nvaudit.remapping.centre import CHIPS
from nvaudit.remapping.choose import SURELY, RemapCandidate, RemapSearch, order_of

MOST = 4
"""Candidates that go into the finals at most."""

TIMES = 3
"""Each round ends on so many times the chips of the one before it."""

SHARE = 0.7
"""Of the time that is left."""

_FEWEST = 4
"""Chips that a round is worth opening models for."""


def settle_finalists(search: RemapSearch) -> None:
    """Measure the best candidates on further chips and drop the worse half of them, until one is left.

    The best of many candidates on few chips owes a part of its lead to these very chips. So those that are
    not surely behind it see others, all the same ones: what these have in common cancels in the differences.
    The worse half goes after every round (sequential halving: Karnin, Koren and Somekh, ICML 2013), so that
    most chips are run where candidates are close.
    """
    entrants, out = _entrants(search), list[RemapCandidate]()
    end = time.perf_counter() + SHARE * (search.deadline - time.perf_counter())
    # Not the chips on which means were fitted.
    next_chip, count = search.conditions.chips + CHIPS, search.conditions.chips
    while len(entrants) > 1:
        wanted = (TIMES - 1) * count
        room = (end - time.perf_counter()) / max(search.pass_s, 1e-9) / len(entrants) - 2  # to open a model
        more = wanted if room >= wanted else int(room)
        if more < _FEWEST:
            break
        search.tell(f"the {len(entrants)} best on {more} further chips", len(search.tried), len(search.tried))
        measured = [_measured(search, one, range(next_chip, next_chip + more)) for one in entrants]
        entrants = sorted((one for one in measured if one is not None), key=order_of, reverse=True)
        next_chip, count = next_chip + more, count + more
        # Among the last two the worst chips decide unless the mean speaks against them.
        if len(entrants) == 2 and entrants[0].measured.behind(entrants[1].measured):
            entrants.reverse()
        half = (len(entrants) + 1) // 2
        entrants, out = entrants[:half], entrants[half:] + out
    if count > search.conditions.chips:
        search.settle([*entrants, *out])


def _entrants(search: RemapSearch) -> list[RemapCandidate]:
    """The best candidate, and those that are not surely behind it, best first."""
    best, every = search.best(), search.conditions.chips
    if len(best.measured.chips) != every:
        return [best]
    since = 0 if search.required is None else search.tried.index(search.required)
    rivals = [
        one
        for one in search.tried[since:]
        if one is not best
        and one.name not in search.refused
        and len(one.measured.chips) == every
        and not one.measured.behind(best.measured, SURELY)
    ]
    return [best, *sorted(rivals, key=order_of, reverse=True)[: MOST - 1]]


def _measured(search: RemapSearch, candidate: RemapCandidate, chips: range) -> RemapCandidate | None:
    """A candidate with further chips; None where its outputs overflow on one."""
    begin = time.perf_counter()
    try:
        found = candidate.bench.chips(candidate.arrays()).run(chips)
    except ModelError as error:
        search.refused[candidate.name] = str(error)
        return None
    values = np.concatenate([candidate.measured.chips, found])
    seconds = candidate.seconds + time.perf_counter() - begin
    more = replace(candidate, measured=replace(candidate.measured, chips=values), seconds=seconds)
    search.exchange(candidate, more)
    return more
