"""In which order to verify the weights on the array, and the plan that takes the first of them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.data import Dataset
from nvaudit.errors import OptionError
from nvaudit.mapping.tiling import device_columns
from nvaudit.model import Weight
from nvaudit.perturb.chip import MappedTensor
from nvaudit.perturb.schedule import Progress
from nvaudit.rng import stream
from nvaudit.session import Session
from nvaudit.write_verify.correction import VerifiedSpread, magnitude, noise_removed
from nvaudit.write_verify.resume import load_ranking, save_ranking
from nvaudit.write_verify.spec import VerifySpec
from nvaudit.write_verify.swim import CUTS, LossCurvature


@dataclass(frozen=True)
class RankedWeights:
    """The weights in the order in which to verify them.

    Attributes
    ----------
    place : list of ndarray, int32, by tensor
        The place of each weight over all tensors, 0 first, in its primary layout.
    basis : str
        What the ranking rests on, in plain words.
    """

    tensors: list[MappedTensor]
    place: list[NDArray[np.int32]]
    basis: str

    @property
    def total(self) -> int:
        """Weights on devices; those that are digital come after them."""
        return sum(tensor.code.size - len(_digital(tensor)) for tensor in self.tensors)

    def devices(self, count: int) -> int:
        """Devices of the first ``count`` weights."""
        return sum(
            device_columns(tensor.array) * int(np.count_nonzero(place < count))
            for tensor, place in zip(self.tensors, self.place, strict=True)
        )

    def masks(self, count: int, weights: Mapping[str, Weight]) -> dict[str, NDArray[np.bool_]]:
        """Whether each weight is among the first ``count``, by initializer and in its layout."""
        return {
            tensor.key: np.asarray(weights[tensor.key].to_stored.apply(place < count), np.bool_)
            for tensor, place in zip(self.tensors, self.place, strict=True)
        }


def rank_weights(
    spec: VerifySpec,
    session: Session,
    correction: VerifiedSpread,
    samples: Dataset | None,
    progress: Progress,
    folder: Path | None = None,
) -> RankedWeights:
    """Give every weight its place.

    Parameters
    ----------
    samples : Dataset or None
        What the ranking by sensitivity looks at.
    folder : Path, optional
        Keeps the ranking by sensitivity, or has it; its record is of this run.
    """
    tensors = [tensor.open() for tensor in session.workload.tensors]
    sizes = [magnitude(tensor) for tensor in tensors]
    digital = [_digital(tensor) for tensor in tensors]
    if spec.own.ranking == "swim":
        shapes = [tensor.code.shape for tensor in tensors]
        known = None if folder is None else load_ranking(folder, shapes)
        if known is not None:
            return RankedWeights(tensors, *known)
        assert samples is not None
        curvature = LossCurvature(session, tensors, spec, correction, samples, progress)
        removed = [noise_removed(tensor, session.points[0], correction) for tensor in tensors]

        def gains(verified: list[NDArray[np.bool_]]) -> list[Floats]:
            """Expected loss that verifying each weight takes off."""
            # E[L(W + e)] − L(W) ≈ ½ Σ_w L''_w E[e_w²] for independent errors e of mean 0: verifying weight w
            # takes off ½ L''_w (σ²_w − σ²_w,verified). SWIM (Yan 2022) ranks by L''_w alone, which is the
            # same where all weights have the same noise; here it depends on the code.
            second = curvature.estimate(verified)
            return [0.5 * one * noise for one, noise in zip(second, removed, strict=True)]

        ranked = RankedWeights(tensors, ranked_places(gains, sizes, CUTS, digital), curvature.basis)
        if folder is not None:
            save_ranking(folder, ranked.place, ranked.basis)
        return ranked
    if spec.own.ranking == "magnitude":
        return RankedWeights(
            tensors, ranked_places(lambda _: sizes, sizes, digital=digital), "|W| as mapped, over all tensors"
        )
    scores = random_scores(tensors, spec.run.seed)
    return RankedWeights(
        tensors, ranked_places(lambda _: scores, sizes, digital=digital), f"at random by seed {spec.run.seed}"
    )


def _digital(tensor: MappedTensor) -> NDArray[np.int64]:
    """Places of the weights that no device holds: there is nothing to verify."""
    return np.empty(0, np.int64) if tensor.outliers is None else tensor.outliers.place


def random_scores(tensors: Sequence[MappedTensor], seed: int) -> list[Floats]:
    """Numbers without meaning."""
    return [stream(seed, "verify-order", tensor.key).random(tensor.code.shape) for tensor in tensors]


def ranked_places(
    score_of: Callable[[list[NDArray[np.bool_]]], Sequence[Floats]],
    magnitudes: Sequence[Floats],
    cuts: Sequence[float] = (),
    digital: Sequence[NDArray[np.int64]] = (),
) -> list[NDArray[np.int32]]:
    """Rank weights over all tensors.

    Parameters
    ----------
    score_of : callable
        Given which weights are verified already, by tensor, the score of every weight, by tensor; the largest
        comes first. Asked once, and again at every cut.
    magnitudes : sequence of ndarray, by tensor
        Decide between equal scores, largest first; then the order of the tensors does.
    cuts : sequence of float
        Shares of the weights, ascending, after which scores are taken anew.
    digital : sequence of ndarray of int, by tensor
        Places in the flattened tensors of weights that no device holds: they come last.

    Returns
    -------
    list of ndarray, int32, by tensor
        The place of each weight, 0 first.

    Raises
    ------
    OptionError
        If there are more weights than can be counted.
    """
    size = np.concatenate([value.reshape(-1) for value in magnitudes])
    if size.size > np.iinfo(np.int32).max:
        raise OptionError(f"{size.size:,} weights are too many to rank; keep some digital with --digital")
    ends = np.cumsum([value.size for value in magnitudes])[:-1]
    place = np.full(size.size, size.size, np.int32)
    apart = [begin + where for begin, where in zip([0, *ends], digital, strict=False)]
    out = np.concatenate([*apart, np.empty(0, np.int64)])
    total = size.size - len(out)
    place[out] = np.arange(total, size.size)

    def parts() -> list[NDArray[np.int32]]:
        return [
            part.reshape(value.shape) for part, value in zip(np.split(place, ends), magnitudes, strict=True)
        ]

    # Scores are taken anew at every cut, with what is verified so far: a weight counts among the noise that
    # is left, and that gets less as the ranking goes on.
    begin = 0
    for stop in sorted({round(cut * total) for cut in cuts} | {total}):
        if stop == begin:
            continue
        scores = score_of([part < begin for part in parts()])
        flat = np.concatenate([score.reshape(-1) for score in scores])
        # Their places are settled; at −∞ they come last and are cut off by [: stop − begin].
        flat[place < begin] = -np.inf  # those are ranked
        flat[out] = -np.inf
        order = np.lexsort((-size, -flat))[: stop - begin]  # stable: else in the order of the tensors
        place[order] = np.arange(begin, stop, dtype=np.int32)
        begin = stop
    return parts()


_EPOCH = (1980, 1, 1, 0, 0, 0)  # one date for all: equal plans are equal files


def mask_bytes(masks: Mapping[str, NDArray[np.bool_]]) -> bytes:
    """Pack masks as numpy's ``.npz``.

    Parameters
    ----------
    masks : mapping of str to ndarray of bool
        By initializer; any name will do, which :func:`numpy.savez` does not allow.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mask in masks.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, mask.copy(order="C"), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue())
    return packed.getvalue()
