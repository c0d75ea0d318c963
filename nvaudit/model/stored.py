"""Where weights are stored in the file, and in which layout."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nvaudit.errors import ModelError
from nvaudit.model.analysis import analyse
from nvaudit.model.cause import cause
from nvaudit.model.layout import Layout
from nvaudit.model.load import LoadedModel
from nvaudit.model.tensors import Array
from nvaudit.model.weights import choose


@dataclass(frozen=True)
class StoredWeight:
    """The stored tensor that a weight is.

    Attributes
    ----------
    key : str
        Of the weight: the tensor's name, with its graph's path where several share it.
    origin : str
        ``"initializer"``, ``"constant"``, ``"attribute"``, ``"sparse"``, or ``"folded"`` (computed from
        several tensors; then name and layout are those of the computed value).
    shape : tuple of int
        As it is stored.
    back : Layout
        From the primary layout to the stored one.
    """

    key: str
    origin: str
    shape: tuple[int, ...]
    back: Layout

    def stored(self, values: Array) -> Array:
        """Bring an array from the weight's primary layout to the stored one."""
        return self.back.apply(values)


def stored_weights(loaded: LoadedModel, keys: Collection[str]) -> dict[str, StoredWeight]:
    """Find where weights are stored.

    Raises
    ------
    ModelError
        If the graph cannot be analysed.
    """
    try:
        found = {}
        for root in analyse(loaded.model).roots:
            if root.key in keys:
                back = choose(root).to_stored
                found[root.key] = StoredWeight(root.key, root.origin, root.state.shape, back)
        return found
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{loaded.path}: the graph cannot be analysed: {cause(error)}; check it with onnx.checker"
        ) from error
