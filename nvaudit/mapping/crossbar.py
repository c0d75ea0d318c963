"""How many crossbars a tensor fills. Counting only: the arithmetic of a crossbar is not simulated here."""

from __future__ import annotations

from dataclasses import dataclass

from nvaudit.mapping.conductance import Array


@dataclass(frozen=True)
class Crossbar:
    """Size of one crossbar: ``rows`` word lines (inputs × kernel) by ``cols`` bit lines."""

    rows: int = 256
    cols: int = 256


def crossbars(groups: int, rows: int, cols: int, array: Array, size: Crossbar) -> int:
    """Crossbars that a weight matrix fills.

    Parameters
    ----------
    groups : int
        Independent matrices (groups of a convolution, directions of an LSTM).
    rows, cols : int
        Inputs × kernel and outputs of one matrix.
    array : Array
        Gives slices and polarities: a weight column takes ``slices × polarities`` device columns.
    size : Crossbar
        Size of one crossbar.

    Returns
    -------
    int

    Examples
    --------
    >>> from nvaudit.mapping.conductance import Array
    >>> two_bit = Array("sign_magnitude", 8, 2, 8, 3, 0.0, 3.0)
    >>> crossbars(1, 784, 256, two_bit, Crossbar())
    16
    """
    device_cols = cols * array.slices * array.polarities
    return groups * -(-rows // size.rows) * -(-device_cols // size.cols)
