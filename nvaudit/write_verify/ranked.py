"""The weights on the array in the order in which to verify them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvaudit.data import Dataset
from nvaudit.mapping.conductance import Array
from nvaudit.model.stored import StoredWeight
from nvaudit.perturb.chip import MappedTensor
from nvaudit.perturb.schedule import Progress
from nvaudit.session import Session
from nvaudit.write_verify.kept import load_ranking, save_ranking
from nvaudit.write_verify.rank import Correction, magnitude, noise_removed, places, random_scores
from nvaudit.write_verify.sensitive import CUTS, Sensitivity
from nvaudit.write_verify.spec import VerifySpec

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranked:
    """The weights in the order in which to verify them.

    Attributes
    ----------
    tensors : list of MappedTensor
    place : list of ndarray, int32, by tensor
        The place of each weight over all tensors, 0 first, in its primary layout.
    said : str
        What the ranking rests on, in plain words.
    """

    tensors: list[MappedTensor]
    place: list[NDArray[np.int32]]
    said: str

    @property
    def total(self) -> int:
        """Weights."""
        return sum(tensor.code.size for tensor in self.tensors)

    def devices(self, count: int) -> int:
        """Devices of the first ``count`` weights."""
        return sum(
            per_weight(tensor.array) * int(np.count_nonzero(place < count))
            for tensor, place in zip(self.tensors, self.place, strict=True)
        )

    def masks(self, count: int, stored: Mapping[str, StoredWeight]) -> dict[str, NDArray[np.bool_]]:
        """Whether each weight is among the first ``count``, by initializer and in its layout."""
        return {
            tensor.key: np.asarray(stored[tensor.key].stored(place < count), np.bool_)
            for tensor, place in zip(self.tensors, self.place, strict=True)
        }


def per_weight(array: Array) -> int:
    """Devices of a weight."""
    return array.slices * array.polarities


def rank_weights(
    spec: VerifySpec,
    session: Session,
    correction: Correction,
    samples: Dataset | None,
    progress: Progress,
    folder: Path | None = None,
) -> Ranked:
    """Give every weight its place.

    Parameters
    ----------
    spec : VerifySpec
    session : Session
    correction : Correction
        What verifying does.
    samples : Dataset or None
        What the ranking by sensitivity looks at.
    progress : callable
        Told (what, done, total).
    folder : Path, optional
        Keeps the ranking by sensitivity, or has it; its record is of this run.

    Returns
    -------
    Ranked
    """
    tensors = [tensor.open() for tensor in session.workload.tensors]
    sizes = [magnitude(tensor) for tensor in tensors]
    if spec.own.ranking == "swim":
        shapes = [tensor.code.shape for tensor in tensors]
        known = None if folder is None else load_ranking(folder, shapes)
        if known is not None:
            return Ranked(tensors, *known)
        assert samples is not None
        found = Sensitivity(session, tensors, spec, correction, samples, progress)
        removed = [noise_removed(tensor, session.points[0], correction) for tensor in tensors]

        def gains(verified: list[NDArray[np.bool_]]) -> list[Floats]:
            """Expected loss that verifying each weight takes off: half the second derivative × variance."""
            curvatures = found.estimate(verified)
            return [0.5 * second * noise for second, noise in zip(curvatures, removed, strict=True)]

        ranked = Ranked(tensors, places(gains, sizes, CUTS), found.said)
        if folder is not None:
            save_ranking(folder, ranked.place, ranked.said)
        return ranked
    if spec.own.ranking == "magnitude":
        return Ranked(tensors, places(lambda _: sizes, sizes), "|W| as mapped, over all tensors")
    scores = random_scores(tensors, spec.run.seed)
    return Ranked(tensors, places(lambda _: scores, sizes), f"at random by seed {spec.run.seed}")
