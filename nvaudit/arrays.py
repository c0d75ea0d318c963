"""Types of arrays by what they hold; shapes stand in the docstrings."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]
Singles: TypeAlias = NDArray[np.float32]
Ids: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.intp]
