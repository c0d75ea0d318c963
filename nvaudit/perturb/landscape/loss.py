"""Which loss a landscape shows: settled from the outputs and the labels, and said in plain words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from numpy.typing import NDArray

from nvaudit.errors import OptionError
from nvaudit.perturb.metrics import Metric, reference_of, resolve_metric

LossName = Literal["cross_entropy", "mse"]


@dataclass(frozen=True)
class Loss:
    """A loss, and what it is compared with.

    Attributes
    ----------
    name : {"cross_entropy", "mse"}
    metric : Metric
        Scores outputs; lower is better.
    keep : Metric or None
        What is kept of the unmodified model's outputs, to stand for the labels; None: the data has them.
    assumed : tuple of str
        What was read into the outputs, in plain words.
    """

    name: LossName
    metric: Metric
    keep: Metric | None
    assumed: tuple[str, ...]


def settle_loss(
    name: LossName | None,
    output: NDArray[Any],
    labels: NDArray[Any] | None,
    label_kind: str,
    class_axis: int | None = None,
) -> Loss:
    """Settle the loss from its name and the unmodified model's first outputs.

    Parameters
    ----------
    name : {"cross_entropy", "mse"} or None
        None chooses cross-entropy with class labels, mse with reference outputs. Without labels the
        unmodified model is the reference: cross-entropy with its decisions where its outputs are class
        scores, else mse with its outputs.
    output : ndarray, batch first
        Nominal outputs of the first samples.
    labels : ndarray or None, sample first
    label_kind : {"class", "reference", "none"}
    class_axis : int, optional
        Overrides the reading of the outputs' shape.

    Returns
    -------
    Loss

    Raises
    ------
    OptionError
        If the loss does not fit the outputs or the labels.
    DataError
        If labels do not fit the outputs.
    """
    if name is None:
        name = _default(output, label_kind, class_axis)
    if name == "mse":
        kind = "reference" if label_kind == "reference" else "none"
        metric = resolve_metric("mse", output, labels if kind == "reference" else None, kind)
        return Loss(name, metric, None if kind == "reference" else metric, metric.assumed)
    if label_kind == "reference":
        raise OptionError("--loss cross_entropy needs class labels; the data has reference outputs: use mse")
    if label_kind == "class":
        metric = resolve_metric("cross_entropy", output, labels, "class", class_axis)
        return Loss(name, metric, None, metric.assumed)
    decide = resolve_metric("agreement", output, None, "none", class_axis)
    decisions = reference_of(decide, output)
    metric = resolve_metric("cross_entropy", output, decisions, "class", decide.class_axis)
    return Loss(
        name,
        replace(metric, against="nominal"),
        decide,
        (*metric.assumed, "without labels the unmodified model's own decisions stand for them"),
    )


def _default(output: NDArray[Any], label_kind: str, class_axis: int | None) -> LossName:
    if label_kind != "none":
        return "cross_entropy" if label_kind == "class" else "mse"
    metric = resolve_metric(None, output, None, "none", class_axis)
    return "cross_entropy" if metric.kind == "agreement" else "mse"
