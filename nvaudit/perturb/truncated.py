"""Normal errors within a tolerance, as write-verify leaves them: exact, by the inverse of the distribution.

A device is written again until the error that is read back is within ± tolerance. If every attempt is an
independent draw, what is left is the normal on the condition that it lies there. One uniform number gives
one error, however rarely an attempt would succeed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri_exp

from nvaudit.arrays import Floats

_BELOW_ONE = -(2.0**-54)
"""Largest logarithm of a probability: the error stays finite where the tolerance is no limit."""


@dataclass(frozen=True)
class Truncated:
    """N(mean, std²) within ± limit, by level (or code).

    Attributes
    ----------
    sign : ndarray, float64
        1, or −1 where the law is mirrored so that it lies in the lower tail, which keeps its digits.
    top, ratio : ndarray, float64
        Logarithm of the distribution function at the upper end, and the share of it that lies below the
        lower end.
    """

    mean: Floats
    std: Floats
    limit: Floats
    sign: Floats
    top: Floats
    ratio: Floats

    @classmethod
    def of(cls, mean: Floats, std: Floats, limit: Floats) -> Truncated:
        """Prepare the law of every level."""
        # The law of −mean is the mirror image. With |mean| an interval far from the mean lies below it, in
        # the lower tail, where log Φ keeps relative precision; in the upper one both Φ round to 1.
        sign = np.where(mean < 0, -1.0, 1.0)
        spread = np.where(std > 0, std, 1.0)
        with np.errstate(over="ignore"):  # infinitely far away is right
            low, high = (-limit - np.abs(mean)) / spread, (limit - np.abs(mean)) / spread
        top = log_ndtr(high)
        return cls(mean, std, limit, sign, top, np.exp(log_ndtr(low) - top))

    def draw(self, index: NDArray[np.integer], gen: np.random.Generator) -> NDArray[np.float32]:
        """Draw an error for each level in ``index``.

        Returns
        -------
        ndarray, float32, of the same shape
        """
        # Inversion: error = Φ⁻¹(Φ(low) + u (Φ(high) − Φ(low))), one uniform number for each device. Far
        # from the mean Φ(low) and Φ(high) underflow or round to 1, so all of it is done with log Φ in the
        # lower tail: with ratio = Φ(low)/Φ(high), log Φ(error) = log Φ(high) + log(u + (1 − u) ratio).
        u = 1.0 - gen.random(index.shape)  # 0 < u ≤ 1
        p = np.minimum(self.top[index] + np.log(u + (1.0 - u) * self.ratio[index]), _BELOW_ONE)
        size, limit = np.abs(self.mean)[index], self.limit[index]
        # Without spread what remains is the mean, or the end nearest to it: the limit of the law as std → 0.
        # Elsewhere clip only takes back what rounding has put beyond an end.
        error = np.where(self.std[index] > 0, size + self.std[index] * ndtri_exp(p), size)
        return np.asarray(self.sign[index] * np.clip(error, -limit, limit), np.float32)
