"""What training minimises: cross-entropy with labels, squared error to targets, or the given model's outputs.

How outputs are read (axis of the classes, logits or probabilities) is settled once, as for the audit's
metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from nvaudit.errors import OptionError
from nvaudit.perturb.metrics import Reading, resolve_metric

if TYPE_CHECKING:
    from torch import Tensor

_FLOOR = 1e-7
"""Least probability in a logarithm: a softmax in single precision rounds smaller ones to zero."""


@dataclass(frozen=True)
class TrainingLoss:
    """The loss of a batch.

    Attributes
    ----------
    kind : {"classes", "binary", "values"}
        Class scores; one score column; real numbers.
    axis : int
        Of the classes.
    distill : float
        Weight of the distance to the given model's outputs, 0 … 1; the rest is the labels'.
    description : str
        For the report, in plain words.
    ignore : tuple of int
        Labels that stand for "not labelled": nothing is learned at the positions that have them.
    """

    kind: Literal["classes", "binary", "values"]
    axis: int
    scale: Literal["logit", "probability"]
    distill: float
    description: str
    ignore: tuple[int, ...] = ()

    def __call__(self, output: Tensor, label: Tensor | None, teacher: Tensor | None) -> Tensor:
        """Mean loss of a batch.

        Parameters
        ----------
        output : Tensor, batch first
        label : Tensor or None
            Classes or targets; None if ``distill`` is 1.
        teacher : Tensor or None
            The given model's outputs; None if ``distill`` is 0.
        """
        # (1 − d) · loss(labels) + d · distance(teacher): both are means over the same positions, so that d is
        # a share, whatever the number of classes.
        parts = []
        if label is not None and self.distill < 1:
            parts.append((1 - self.distill) * self._against_labels(output, label))
        if teacher is not None and self.distill > 0:
            parts.append(self.distill * self._against_teacher(output, teacher))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def _against_labels(self, output: Tensor, label: Tensor) -> Tensor:
        from torch.nn import functional as F

        if self.ignore:
            output, label = self._labelled(output, label)
            if not label.numel():
                return output.sum() * 0  # a batch without labels teaches nothing
        if self.kind == "values":
            return F.mse_loss(output.float(), label.reshape(output.shape).float())
        if self.kind == "binary":
            wanted = label.reshape(output.shape).to(output.dtype)
            if self.scale == "logit":
                return F.binary_cross_entropy_with_logits(output, wanted)
            return F.binary_cross_entropy(output.clamp(_FLOOR, 1 - _FLOOR), wanted)
        logs = self.log_prob(output)
        return F.nll_loss(logs.reshape(-1, logs.shape[-1]), label.reshape(-1))

    def _labelled(self, output: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Positions that are labelled, one after another; their scores with the classes on axis ``axis``."""
        flat = label.reshape(-1)
        kept = flat != self.ignore[0]
        for value in self.ignore[1:]:
            kept = kept & (flat != value)
        if self.kind != "classes":
            return output.reshape(-1)[kept], flat[kept]
        last = output.movedim(self.axis, -1)
        # One position a row, and as many dimensions as before, so that the class axis keeps its number.
        rows = last.reshape(-1, last.shape[-1])[kept]
        shape = [len(rows)] + [1] * (output.ndim - 1)
        shape[self.axis] = last.shape[-1]
        return rows.reshape(shape), flat[kept]

    def _against_teacher(self, output: Tensor, teacher: Tensor) -> Tensor:
        from torch.nn import functional as F

        if self.kind == "values":
            return F.mse_loss(output.float(), teacher.float())
        if self.kind == "binary":
            # Cross-entropy to soft labels is KL plus the teacher's own entropy: that is constant, so the
            # gradient is KL's, but the loss is not 0 where both agree.
            soft = teacher.sigmoid() if self.scale == "logit" else teacher
            return self._against_labels(output, soft.clamp(0, 1))
        # KL(teacher ‖ network) = Σ p ln p − Σ p ln q: its gradient by the network is that of the
        # cross-entropy to the teacher's probabilities, and it is 0 where both agree. Per position, not per
        # class.
        logs, wanted = self.log_prob(output), self.log_prob(teacher)
        return F.kl_div(
            logs.reshape(-1, logs.shape[-1]),
            wanted.reshape(-1, logs.shape[-1]),
            reduction="batchmean",
            log_target=True,
        )

    def log_prob(self, output: Tensor) -> Tensor:
        """Logarithms of the class probabilities, classes last."""
        # Of logits log_softmax, not the logarithm of a softmax: small probabilities would be 0 and their
        # logarithm −∞. Of probabilities the floor does that; below it the gradient is 0 instead of 1/p
        # without bound.
        last = output.movedim(self.axis, -1).float()
        return last.clamp_min(_FLOOR).log() if self.scale == "probability" else last.log_softmax(-1)


def settle_loss(
    output: NDArray[Any],
    labels: NDArray[Any] | None,
    label_kind: str,
    class_axis: int | None,
    distill: float | None,
    reading: Reading | None = None,
) -> TrainingLoss:
    """Settle the loss from the unmodified model's first outputs.

    Parameters
    ----------
    output : ndarray, batch first
    distill : float or None
        None: 0 with labels, else 1.
    reading : Reading, optional
        What the graph proves of the output.

    Raises
    ------
    OptionError
        If labels are needed and there are none.
    DataError
        If labels do not fit the outputs.
    """
    if distill is None:
        distill = 1.0 if label_kind == "none" else 0.0
    if label_kind == "none" and distill < 1:
        raise OptionError(
            f"--distill {distill:g}: the data have no labels, so the given model's outputs are all there is "
            "to learn from; use 1, or leave it out"
        )
    what = _target_words(distill)
    if reading is not None and reading.decisions and class_axis is None:
        raise OptionError(
            f"output {reading.output!r} holds decisions (class numbers), and no gradient passes a decision; "
            "choose the class scores with --output-name"
        )
    metric = resolve_metric(None, output, labels, label_kind, class_axis, reading)
    if metric.kind == "multilabel":
        description = f"binary cross-entropy of each output {what}".strip()
        return TrainingLoss("binary", 0, metric.scale, distill, description, metric.ignore)
    if metric.kind == "mse":
        description = "squared error" if distill == 0 else f"squared error {what}"
        return TrainingLoss("values", 0, "logit", distill, description)
    read = None
    if label_kind == "class":
        read = resolve_metric("cross_entropy", output, labels, label_kind, class_axis, reading)
    axis = read.class_axis if read is not None else metric.class_axis
    if axis is None:
        scale = read.scale if read is not None else metric.scale
        return TrainingLoss(
            "binary", 0, scale, distill, f"binary cross-entropy {what}".strip(), metric.ignore
        )
    scale = read.scale if read is not None else _scale(output, axis)
    return TrainingLoss("classes", axis, scale, distill, f"cross-entropy {what}".strip(), metric.ignore)


def _target_words(distill: float) -> str:
    if distill == 0:
        return ""
    if distill == 1:
        return "to the given model's outputs"
    return f"with labels, {distill:g} of it to the given model's outputs"


def _scale(output: NDArray[Any], axis: int) -> Literal["logit", "probability"]:
    total = output.astype("float64").sum(axis=axis)
    return "probability" if bool((output >= 0).all() and (abs(total - 1) < 1e-3).all()) else "logit"
