"""Which loss a landscape shows: settled from the outputs and the labels, and said in plain words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from numpy.typing import NDArray

from nvaudit.errors import OptionError
from nvaudit.perturb.landscape.spec import LossOption
from nvaudit.perturb.metrics import Metric, Reading, reference_of, resolve_metric

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
    caution : str
        What the choice of the loss rests on where nothing proves it; stands in the headline.
    """

    name: LossName
    metric: Metric
    keep: Metric | None
    assumed: tuple[str, ...]
    caution: str = ""


def settle_loss(
    name: LossOption | None,
    output: NDArray[Any],
    labels: NDArray[Any] | None,
    label_kind: str,
    class_axis: int | None = None,
    reading: Reading | None = None,
) -> Loss:
    """Settle the loss from its name and the unmodified model's first outputs.

    Parameters
    ----------
    name : {"cross_entropy", "mse", "binary_cross_entropy"} or None
        None chooses cross-entropy with class labels, binary cross-entropy of every output with several
        labels a sample, mse with reference outputs. Without labels the
        unmodified model is the reference: cross-entropy with its decisions where its outputs are class
        scores, else mse with its outputs.
    output : ndarray, batch first
        Nominal outputs of the first samples.
    label_kind : {"class", "reference", "multilabel", "none"}
    class_axis : int, optional
        Overrides the reading of the outputs' shape.
    reading : Reading, optional
        What the graph proves of the output.

    Raises
    ------
    OptionError
        If the loss does not fit the outputs or the labels.
    DataError
        If labels do not fit the outputs.
    """
    caution = ""
    if name is None:
        name, caution = _default(output, label_kind, class_axis, reading)
    return replace(_of_name(name, output, labels, label_kind, class_axis, reading), caution=caution)


def _of_name(
    name: LossOption,
    output: NDArray[Any],
    labels: NDArray[Any] | None,
    label_kind: str,
    class_axis: int | None,
    reading: Reading | None,
) -> Loss:
    if name == "binary_cross_entropy":
        return _binary(output, labels, label_kind, reading)
    if name == "mse":
        kind = "reference" if label_kind == "reference" and _are_targets(output, labels) else "none"
        metric = resolve_metric("mse", output, labels if kind == "reference" else None, kind)
        return Loss(name, metric, None if kind == "reference" else metric, metric.assumed)
    if label_kind == "reference":
        raise OptionError("--loss cross_entropy needs class labels; the data has reference outputs: use mse")
    if reading is not None and reading.decisions and class_axis is None:
        raise OptionError(
            f"output {reading.output!r} holds decisions (class numbers), so its loss has no slope; choose "
            "the class scores with --output-name"
        )
    if label_kind == "class":
        metric = resolve_metric("cross_entropy", output, labels, "class", class_axis, reading)
        return Loss(name, metric, None, metric.assumed)
    decide = resolve_metric("agreement", output, None, "none", class_axis, reading)
    decisions = reference_of(decide, output)
    metric = resolve_metric("cross_entropy", output, decisions, "class", decide.class_axis)
    return Loss(
        name,
        replace(metric, against="nominal"),
        decide,
        (*metric.assumed, "without labels the unmodified model's own decisions stand for them"),
    )


def _are_targets(output: NDArray[Any], labels: NDArray[Any] | None) -> bool:
    """Whether labels are numbers to compare outputs with: classes are whole, and fewer than the scores."""
    return labels is None or labels.dtype.kind not in "iub" or labels[0].size == output[0].size


def _binary(
    output: NDArray[Any], labels: NDArray[Any] | None, label_kind: str, reading: Reading | None
) -> Loss:
    """Binary cross-entropy of every output, with a label of its own for each."""
    if label_kind != "multilabel":
        raise OptionError("--loss binary_cross_entropy needs labels of 0 or 1 for each output")
    if reading is not None and reading.decisions:
        raise OptionError(
            f"output {reading.output!r} holds decisions, so its loss has no slope; choose the scores with "
            "--output-name"
        )
    read = resolve_metric("multilabel", output, labels, label_kind, None, reading)
    metric = replace(
        read, name="cross_entropy", kind="cross_entropy", higher_is_better=False, unit="nats",
        assumed=(f"binary cross-entropy of each output, read as a {read.scale}", *read.assumed[1:]),
    )  # fmt: skip
    return Loss("cross_entropy", metric, None, metric.assumed)


def _default(
    output: NDArray[Any], label_kind: str, class_axis: int | None, reading: Reading | None
) -> tuple[LossOption, str]:
    """The loss that fits, and what its choice rests on where that is not obvious."""
    if label_kind == "multilabel":
        return "binary_cross_entropy", ""
    if label_kind != "none":
        return "cross_entropy" if label_kind == "class" else "mse", ""
    metric = resolve_metric(None, output, None, "none", class_axis, reading)
    return "cross_entropy" if metric.kind == "agreement" else "mse", metric.caution
