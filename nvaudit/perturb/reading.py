"""From what a graph proves of an output to how its numbers are read, with the samples on the first axis."""

from __future__ import annotations

from nvaudit.data import Dataset
from nvaudit.model import LoadedModel, Rebatch, output_facts
from nvaudit.perturb.metrics import Reading
from nvaudit.perturb.prepare import original_batch


def read_output(
    loaded: LoadedModel,
    rebatch: Rebatch,
    output: str,
    rank: int,
    dataset: Dataset | None = None,
    joined: bool = False,
) -> Reading:
    """What the graph proves of the scored output, its axes counted with the batch first.

    Parameters
    ----------
    rank : int
        Dimensions of the output, batch first.
    dataset : Dataset, optional
        Whose labels are compared with it.
    joined : bool
        The model joins samples and positions on one axis, which were taken apart.
    """
    batch = rebatch.output_axes.get(output, 0)
    alone = batch is None and original_batch(loaded, rebatch) == 1
    own = rank - 1 if joined or alone else rank
    facts = output_facts(loaded, output, own)

    def first(axis: int | None) -> int | None:
        if axis is None:
            return None
        if own < rank:
            return axis % own + 1
        axis %= rank
        return axis + 1 if batch and axis < batch else axis

    return Reading(
        output, facts.decisions, first(facts.ranked_axis), first(facts.class_axis), facts.scores,
        facts.ranked, () if dataset is None else dataset.ignored,
        None if dataset is None else dataset.sorted_names, first(facts.one_hot_axis),
        places=None if dataset is None else dataset.places,
    )  # fmt: skip
