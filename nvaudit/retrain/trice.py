"""TRICE (T, Algorithm 3): the spread of the injected noise is searched for while training.

Three networks are trained in lock-step with right-censored Gaussian noise, σ_t at the quartiles of an
interval. After every epoch past the warm-up each is scored by its KPP on simulated chips; the best one's
weights go to all three, and the interval shrinks around its σ_t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["left", "mid", "right"]
SIDES: tuple[Side, Side, Side] = ("left", "mid", "right")

# An epoch past the warm-up leaves half of the interval (middle wins) or three quarters (a side wins): a width
# w is down to this after log2(w / 1e-4) to 2.4 log2(w / 1e-4) of them.
CONVERGED = 1e-4
"""Below this width one network is trained (Algorithm 3, line 4)."""


@dataclass(frozen=True)
class SigmaInterval:
    """Where σ_t is searched for.

    Attributes
    ----------
    start, end : float
        Fractions of max|W|.
    """

    start: float
    end: float

    @property
    def converged(self) -> bool:
        """Whether one network is left."""
        return self.end - self.start < CONVERGED

    def candidates(self) -> tuple[float, ...]:
        """σ_t of each network: the quartiles (lines 9 to 11), or the start once converged (line 6)."""
        if self.converged:
            return (self.start,)
        width = self.end - self.start
        return tuple(self.start + i * width / 4 for i in (1, 2, 3))

    def shrunk(self, winner: Side) -> SigmaInterval:
        """The next interval (lines 21 to 26).

        Examples
        --------
        >>> SigmaInterval(0.0, 4.0).shrunk("mid"), SigmaInterval(0.0, 4.0).shrunk("left")
        (SigmaInterval(start=1.0, end=3.0), SigmaInterval(start=0.0, end=3.0))
        """
        # A KPP with one peak over σ_t that is best in the middle has its peak between the outer two: the
        # interval halves. One that is best at a side would have it before the middle, but scores of a few
        # hundred chips are noisy: only the quarter farthest from the winner is given up.
        left, _, right = self.candidates()
        if winner == "mid":
            return SigmaInterval(left, right)
        return SigmaInterval(self.start, right) if winner == "left" else SigmaInterval(left, self.end)


def winner(scores: Sequence[float], higher_is_better: bool = True) -> Side:
    """Which of three networks is best, given left, mid and right; of equals the middle, then the left one.

    Parameters
    ----------
    scores : sequence of float
        KPP of the networks at left, mid and right.
    higher_is_better : bool
        False for a loss.

    References
    ----------
    Algorithm 3, lines 21 to 26, in the order of its branches.
    """
    # KPPs on few samples tie often. A tie that goes to the middle takes as much off both ends; one that went
    # to a side would drift to that end of an interval in which scores tell nothing apart.
    left, mid, right = scores if higher_is_better else [-score for score in scores]
    best = max(left, mid, right)
    if mid == best:
        return "mid"
    return "left" if left == best else "right"
