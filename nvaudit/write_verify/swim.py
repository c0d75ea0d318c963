"""Sensitivity of the loss to each weight on the array, through the torch executor."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.data import Dataset, load_dataset
from nvaudit.data.spec import NO_NUMBERS
from nvaudit.errors import ModelError, OptionError
from nvaudit.perturb.chip import MappedTensor, TensorLaw
from nvaudit.perturb.prepare import original_batch
from nvaudit.perturb.reading import read_output
from nvaudit.perturb.schedule import Progress
from nvaudit.perturb.variant import spread_evenly
from nvaudit.perturb.verify import verified_law
from nvaudit.retrain.available import require_torch
from nvaudit.retrain.feed import Batch, Feed, as_array
from nvaudit.session import Session, input_specs, rules_for
from nvaudit.write_verify.correction import VerifiedSpread
from nvaudit.write_verify.spec import VerifySpec

if TYPE_CHECKING:
    from nvaudit.retrain.executor.module import Executor
    from nvaudit.retrain.loss import TrainingLoss

BATCH = 8
"""Samples of one estimate: small batches give many, and their mean is sharper for the same work."""

FEWEST = 32
"""Estimates that are made at least."""

CUTS = (0.02, 0.08, 0.25)
"""Shares of verified weights after which second derivatives are estimated anew: there is less noise then."""

Points = Iterator[tuple[Mapping[str, NDArray[Any]], Batch]]


def check_torch() -> str:
    """Find out before anything else whether torch is there; its version.

    Raises
    ------
    OptionError
    """
    return require_torch("swim", "--ranking", "or use --ranking magnitude")


class LossCurvature:
    """Second derivatives of the loss with respect to each weight, as the device's noise meets them.

    Parameters
    ----------
    data : Dataset
        See :func:`ranking_samples`.

    Raises
    ------
    ModelError
        If torch cannot run the model, or runs it to other results.
    """

    def __init__(
        self,
        session: Session,
        tensors: Sequence[MappedTensor],
        spec: VerifySpec,
        correction: VerifiedSpread,
        data: Dataset,
        progress: Progress,
    ) -> None:
        from nvaudit.retrain.executor.module import build_executor

        self._session, self._seed, self._progress = session, spec.run.seed, progress
        count = data.count if data.together else min(data.count, spec.own.sensitivity_images)
        fixed = original_batch(session.loaded, session.rebatch) if session.rebatch.status == "fixed" else None
        fixed = fixed or data.together or None
        self._size = fixed or BATCH
        # A model with a fixed batch takes full batches only; others take a smaller last one.
        full_only = fixed and not data.together
        self._batches = max(1, count // self._size) if full_only else math.ceil(count / self._size)
        # Estimates are batches × probes; with few batches each is probed more often. A probe costs a backward
        # pass, a batch a forward pass too, so that many small batches are sharper for the same work.
        self._probes = max(1, math.ceil(FEWEST / self._batches))
        feed = Feed(data, spread_evenly(data.count, count))
        with _advised():
            self._executor = build_executor(session.loaded, outputs=(session.workload.output,))
            self._loss = _loss(session, self._executor, feed)
        for key, kind in self._executor.untrainable.items():
            raise OptionError(
                f"--ranking swim: weight {key!r} is stored as {kind}, which has no gradient; use --ranking "
                "magnitude"
            )
        self._feed = Feed(data, feed.rows[: self._batches * self._size])
        point = session.points[0]
        # Read noise is frozen into the weights: a chip is then one set of weights, at which derivatives can
        # be taken.
        self._laws = [TensorLaw(t, point, freeze_read=True, keep_tables=False) for t in tensors]
        self._after = [verified_law(law, correction.residual, correction.terms) for law in self._laws]
        self._round = 0
        self.basis = (
            "second derivative × variance; "
            f"Gauss-Newton diagonal of the {self._loss.description} on noisy chips, "
            f"{count} samples of {data.source}, {self._batches * self._probes} estimates, taken anew after "
            + ", ".join(f"{100 * cut:g} %" for cut in CUTS)
        )

    def estimate(self, verified: Sequence[NDArray[np.bool_]]) -> list[Floats]:
        """Estimate with some weights verified already.

        Parameters
        ----------
        verified : sequence of ndarray of bool, by tensor

        Returns
        -------
        list of ndarray, float64, by tensor
        """
        from nvaudit.retrain.curvature import curvature

        self._round += 1
        output = self._session.workload.output
        with _advised():
            second = curvature(
                self._executor, self._points(verified), self._loss, output,
                self._session.workload.output_axis, probes=self._probes, seed=self._seed,
            )  # fmt: skip
        # Nothing depends on a tensor that the scored output does not need: its derivative is 0.
        tensors = [law.tensor for law in self._laws]
        return [second[t.key] if t.key in second else np.zeros(t.code.shape) for t in tensors]

    def _points(self, verified: Sequence[NDArray[np.bool_]]) -> Points:
        """Batches of samples, each with the weights of a chip.

        What verifying one weight gives is decided among all the others, which are noisy: so the second
        derivative is taken there, not at the weights without noise.
        """
        seed = (self._seed + 1) % 2**63  # other chips than those that are audited
        what = f"ranking weights by sensitivity (round {self._round} of {len(CUTS) + 1})"
        self._progress(what, 0, self._batches)
        for number, batch in enumerate(self._feed.in_order(self._size)):
            # Chips of its own for every batch and round: the mean is over samples and noise at once, and a
            # round does not inherit the luck of the one before.
            trial = (self._round - 1) * self._batches + number
            yield (
                {
                    law.tensor.key: _drawn(law, after, mask, seed, trial)
                    for law, after, mask in zip(self._laws, self._after, verified, strict=True)
                    if law.tensor.key in self._executor.mapped
                },
                batch,
            )
            self._progress(what, number + 1, self._batches)


def _drawn(
    law: TensorLaw, after: TensorLaw, mask: NDArray[np.bool_], seed: int, trial: int
) -> NDArray[np.float32]:
    """One draw of a tensor with some weights verified."""
    drawn = law.draw(seed, trial).weights
    if mask.any():
        # Both draws come from the same streams: verifying reduces a weight's own error, it draws no other
        # one.
        drawn = np.where(mask, after.draw(seed, trial).weights, drawn)
    if (digital := law.tensor.outliers) is not None:
        digital.put_into(drawn, digital.values)
    return drawn


@contextlib.contextmanager
def _advised() -> Iterator[None]:
    """Say what can be done about a model that torch cannot run."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{error}; --ranking magnitude needs no gradients") from error


def ranking_samples(session: Session, spec: VerifySpec) -> Dataset:
    """Load the samples that the ranking looks at: the evaluation data, or others.

    No loss is taken against texts or boxes: without numbers the given model's own outputs are the reference.
    """
    data = _ranking_data(session, spec)
    return replace(data, labels=None, label_kind="none") if data.label_kind in NO_NUMBERS else data


def _ranking_data(session: Session, spec: VerifySpec) -> Dataset:
    if spec.own.sensitivity_data is None:
        return session.dataset
    scratch = Path(session.workload.folder) / "sensitivity"
    scratch.mkdir(exist_ok=True)
    data = load_dataset(
        Path(spec.own.sensitivity_data),
        input_specs(session.loaded, session.rebatch),
        model_path=session.loaded.path,
        limit=None,
        seed=spec.run.seed,
        scratch=scratch,
        rules=replace(
            rules_for(
                session.loaded, session.workload.output, spec.run.metric, spec.run.ignore_labels, spec.run
            ),
            file=None,  # --labels are of --data
        ),
    )
    if session.dataset.together:
        data = replace(data, together=min(spec.run.batch_size or data.count, data.count))
    return data


def _loss(session: Session, executor: Executor, feed: Feed) -> TrainingLoss:
    """Compare the executor with ONNX Runtime, and settle the loss from its first outputs."""
    from nvaudit.retrain.curvature import batch_first
    from nvaudit.retrain.executor.checks import check_parity
    from nvaudit.retrain.loss import settle_loss
    from nvaudit.retrain.train import evaluating

    data, output = feed.dataset, session.workload.output
    wanted = original_batch(session.loaded, session.rebatch) or 16
    if feed.count < wanted and session.rebatch.status == "fixed":
        raise OptionError(
            f"--ranking swim: the model takes {wanted} samples at a time, and there are {feed.count}; give "
            "more, or use --ranking magnitude"
        )
    first = feed.rows[:wanted]
    inputs = feed.take(np.resize(first, wanted)).inputs
    check_parity(executor, session.loaded, {name: as_array(value) for name, value in inputs.items()})
    with evaluating(executor):
        batch = feed.take(first)
        scores = batch.own(batch_first(executor(batch.inputs)[output], session.workload.output_axis))
    outputs = scores.float().cpu().numpy()
    labels = None if data.labels is None else np.asarray(data.labels)[feed.rows]
    reading = read_output(session.loaded, session.rebatch, session.workload.output, outputs.ndim, data)
    return settle_loss(outputs, labels, data.label_kind, session.spec.class_axis, None, reading)
