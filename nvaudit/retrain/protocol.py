"""What training needs of a network; the executor of an ONNX graph is one, a hand-written module may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


class TrainableNetwork(Protocol):
    """A torch module whose weights are known by name and can be replaced for one pass.

    Names are those of :class:`nvaudit.model.Weight` and of constants; layouts are the stored ones.
    """

    @property
    def weights(self) -> Mapping[str, torch.nn.Parameter]:
        """Parameters by name: weights on the array, biases, normalisations."""
        ...

    def clean(self, keys: Iterable[str] | None = None) -> Mapping[str, torch.Tensor]:
        """Weights as the network uses them, differentiable."""
        ...

    def recalibrate(
        self,
        batches: Iterable[Mapping[str, torch.Tensor]],
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> int:
        """Replace the running statistics by averages over batches; gives their number."""
        ...

    def seed(self, seed: int) -> None:
        """Seed what the network itself draws (dropout)."""
        ...

    def values(self) -> dict[str, NDArray[np.generic]]:
        """Parameters and statistics by name, for write-back."""
        ...

    def __call__(
        self, inputs: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor] | None = None
    ) -> Mapping[str, torch.Tensor]:
        """Outputs by name; ``weights`` stand in for parameters of these keys."""
        ...

    def train(self, mode: bool = True) -> Any:
        """Batch statistics are used and learned, or the stored ones are used."""
        ...

    def eval(self) -> Any:
        """As ``train(False)``."""
        ...

    def load_values(self, values: Mapping[str, Any]) -> None:
        """Set parameters and statistics by name."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Parameters and statistics, not copied."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Copy parameters and statistics in."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """What an optimiser updates."""
        ...

    def buffers(self) -> Iterator[torch.Tensor]:
        """Running statistics."""
        ...

    def to(self, device: str) -> Any:
        """Move everything to a device, in place."""
        ...
