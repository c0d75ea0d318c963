"""What a hardening settles before anything is trained: model, device, data and their parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Rows
from nvaudit.data import Dataset, load_dataset
from nvaudit.data.spec import NO_NUMBERS
from nvaudit.device import OperatingPoint
from nvaudit.errors import ModelError, OptionError, ProfileError
from nvaudit.files import writing
from nvaudit.mapping.select import Decision, select
from nvaudit.model import (
    CellReadout,
    CrossbarPlan,
    CrossbarSplit,
    LoadedModel,
    Rebatch,
    Weight,
    analyse_batch,
    build_template,
    constants,
)
from nvaudit.perturb.apart import settle_cut
from nvaudit.perturb.cells import device_factors, device_offset
from nvaudit.perturb.choose_codes import ChosenCodes
from nvaudit.perturb.crossbar import check_noise, check_split
from nvaudit.perturb.metrics import Reading, reference_of, resolve_metric
from nvaudit.perturb.prepare import Placement, map_tensor
from nvaudit.perturb.reading import read_output
from nvaudit.perturb.settle_codes import find_mapping, settle_codes
from nvaudit.perturb.variant import spread_evenly
from nvaudit.report.wording import count_text
from nvaudit.retrain.feed import Feed, split_rows
from nvaudit.retrain.spec import VAT_SIGMAS, HardenSpec
from nvaudit.session import (
    check_converters,
    input_specs,
    load_runnable,
    rules_for,
    settle_device,
    settle_output,
)
from nvaudit.spec import RunSpec

if TYPE_CHECKING:
    from nvaudit.retrain.executor.module import Executor


Samples = tuple[Dataset, Rows]
"""A dataset, and which of its rows are meant."""


@dataclass(frozen=True)
class HardenJob:
    """What a hardening has settled before anything is trained.

    Attributes
    ----------
    weights : tuple of Weight
        On the array.
    output : str
        The scored one.
    vat_points : tuple of OperatingPoint
        What ``stability-vat`` trains at.
    splits : tuple of CrossbarSplit
        How each weight is split over crossbars, where training goes through them.
    codes : ChosenCodes or None
        Codes of the weights, chosen for the given ones; None: slices.
    codes_asked : str
        How codes were asked for: as ``--code`` was given, or the mapping file.
    digital_outliers : float or None
        Share of the weights, the largest, that no device holds: as asked for, or by the mapping file.
    """

    spec: HardenSpec
    loaded: LoadedModel
    rebatch: Rebatch
    point: OperatingPoint
    weights: tuple[Weight, ...]
    output: str
    train: Samples
    val: Samples
    test: Samples
    notes: tuple[str, ...]
    vat_points: tuple[OperatingPoint, ...] = ()
    splits: tuple[CrossbarSplit, ...] = ()
    codes: ChosenCodes | None = None
    codes_asked: str = ""
    digital_outliers: float | None = None

    @property
    def batch_axis(self) -> int:
        """Of the scored output."""
        return self.rebatch.output_axes.get(self.output) or 0

    def reading(self, output: NDArray[Any]) -> Reading:
        """What the graph proves of the scored output, given it batch first."""
        data, _ = self.train
        shape = next(spec.shape for spec in self.loaded.outputs if spec.name == self.output)
        # The output was taken apart into samples and positions, which gave it one axis more than the graph
        # says.
        joined = shape is not None and len(shape) == output.ndim - 1
        return read_output(self.loaded, self.rebatch, self.output, output.ndim, data, joined)


def prepare_job(spec: HardenSpec, scratch: Path) -> HardenJob:
    """Read everything and decide everything; nothing has run yet.

    Raises
    ------
    NvauditError
        If anything about the input is wrong.
    """
    loaded = load_runnable(spec.model, spec.seed)
    rebatch = analyse_batch(loaded.model)
    output, notes = settle_output(loaded, spec.output_name)
    notes += loaded.notes
    _, points = settle_device(spec.audit_spec(loaded.path, "", ()))
    if spec.adc_bits is not None:
        check_noise(points)
    chosen = select(constants(loaded), spec.layers, spec.digital)
    weights = tuple(d.constant.weight for d in chosen if d.mapped and d.constant.weight is not None)
    if not weights:
        raise ModelError(
            f"{loaded.path}: no tensor would be mapped to the array, so there is nothing to harden; "
            "`nvaudit inspect` lists every tensor with its reason"
        )
    codes, asked, audit, code_notes = _codes(spec, loaded, points, chosen)
    notes += code_notes
    vat_points = _vat_points(spec, loaded, notes)
    wanted = input_specs(loaded, rebatch)

    def read(name: str | None, limit: int | None) -> Dataset:
        place = scratch / f"data-{len(list(scratch.iterdir()))}"
        place.mkdir()
        path = None if name is None else Path(name)
        rules = rules_for(loaded, output, spec.metric, spec.ignore_labels, spec)
        if name != spec.data:  # --labels are of --data
            rules = replace(rules, file=None)
        data = load_dataset(
            path, wanted, model_path=loaded.path, limit=limit, seed=spec.seed, scratch=place,
            rules=rules,
        )  # fmt: skip
        if data.label_kind in NO_NUMBERS:
            raise OptionError(
                f"{data.source}: labels are of kind {data.label_kind}, and --method {spec.method} trains on "
                "classes or numbers; use --method remap, which trains nothing"
            )
        cut = settle_cut(loaded, rebatch, data, output, spec.batch_size, spec.provider)
        notes.extend(note for note in cut.notes if note not in notes)
        return cut.dataset

    given = read(spec.data, spec.limit)
    if spec.batch_size is None:
        spec = spec.model_copy(update={"batch_size": given.together or spec.step_samples})
    if given.source == "synthetic":
        raise OptionError(
            f"--data: missing, and there is no {loaded.path.with_suffix('.npz').name} beside the model; "
            "training needs real samples (labels may be missing): give some, or use --method remap"
        )
    train, val, test = _divide(spec, given, read, notes)
    return HardenJob(
        spec, loaded, rebatch, points[0], weights, output, train, val, test, tuple(notes),
        vat_points, _splits(spec, loaded, weights, points[0], codes, scratch), codes, asked,
        audit.digital_outliers,
    )  # fmt: skip


def _divide(
    spec: HardenSpec, given: Dataset, read: Callable[[str | None, int | None], Dataset], notes: list[str]
) -> tuple[Samples, Samples, Samples]:
    """What is trained on, what is held out, and what the audits run on."""
    train: Samples = (given, np.arange(given.count))
    if spec.val_data is None:
        rows, held = split_rows(given.count, spec.split, spec.seed)
        train, val = (given, rows), (given, held)
    else:
        other = read(spec.val_data, None)
        val = (other, np.arange(other.count))
    test = val
    if spec.test_data is not None:
        other = read(spec.test_data, None)
        test = (other, np.arange(other.count))
    if not test[0].together:
        count = len(test[1])
        return train, val, (test[0], test[1][spread_evenly(count, min(count, spec.audit_images))])
    if spec.test_data is None and spec.val_data is None:
        notes.append(
            "samples influence each other, so training and validation run the whole set and take their "
            "losses and scores at their own samples of it; the audits run on, and score, the whole set, "
            "the training samples included (--test-data gives them others); an epoch has "
            f"{count_text(Feed(*train).steps(0), 'step')}, so more --epochs may be needed"
        )
    return train, val, (test[0], np.arange(test[0].count))  # a part of such a set gives other outputs


def _codes(
    spec: HardenSpec, loaded: LoadedModel, points: Sequence[OperatingPoint], decisions: Sequence[Decision]
) -> tuple[ChosenCodes | None, str, RunSpec, list[str]]:
    """Codes of the given model's weights, how they were asked for, the audit with them, and notes.

    Raises
    ------
    OptionError
        As :func:`settle_codes`, or if what is asked contradicts it.
    """
    audit, notes = find_mapping(spec.audit_spec(loaded.path, "", (), given=True), loaded)
    check_converters(audit)
    if audit.digital_outliers is not None and spec.ternary:
        raise OptionError(
            f"--digital-outliers {audit.digital_outliers:g} and --bits ternary: the largest of three values "
            "are no outliers; leave one of the two out"
        )
    asked = audit.mapping or ("" if spec.code in (None, "slices") else str(spec.code))
    if asked and spec.ternary:
        raise OptionError(
            f"--bits ternary and the codes of {asked}: a weight of three values has one device, and nothing "
            "to choose; --code slices leaves codes out"
        )
    return settle_codes(audit, points, decisions), asked, audit, notes


def _vat_points(spec: HardenSpec, loaded: LoadedModel, notes: list[str]) -> tuple[OperatingPoint, ...]:
    """The operating points that stability-vat trains at: the audited one at other spreads.

    Of the default spreads those outside the profile's range are left out, with a note.
    """
    if spec.method != "stability-vat":
        return ()
    audit = spec.audit_spec(loaded.path, "", ())
    points: list[OperatingPoint] = []
    beyond: list[ProfileError] = []
    for sigma in spec.vat_sigmas:
        try:
            points += settle_device(audit.model_copy(update={"sigmas": (sigma,)}))[1]
        except ProfileError as error:
            beyond.append(error)
    if beyond and (spec.vat_sigmas != VAT_SIGMAS or not points):
        raise OptionError(f"--vat-sigmas: {beyond[0]}")
    notes.extend(f"left out of the default --vat-sigmas: {error}" for error in beyond)
    return tuple(points)


def _splits(
    spec: HardenSpec,
    loaded: LoadedModel,
    weights: tuple[Weight, ...],
    point: OperatingPoint,
    codes: ChosenCodes | None,
    scratch: Path,
) -> tuple[CrossbarSplit, ...]:
    """How the audit splits each weight over crossbars, if training is to go through them.

    Raises
    ------
    OptionError
        If it splits none, and the audits would refuse.
    """
    how, profile = spec.converters, point.profile
    if how is None:
        return ()
    placement = Placement(
        profile.weight_bits, profile.cell_bits, profile.encoding, spec.scale == "per_channel", codes=codes
    )
    folder = scratch / "splits"
    folder.mkdir()
    tensors = [map_tensor(weight, profile, placement, folder, i) for i, weight in enumerate(weights)]
    cells = {
        one.key: CellReadout(device_factors(one.array), device_offset(one.array), one.scale)
        for one in tensors
    }
    template = build_template(loaded, list(cells), crossbars=CrossbarPlan(how.rows, cells))
    check_split(template.splits, loaded.path)
    return template.splits if spec.trained_through is not None else ()


def write_samples(job: HardenJob, executor: Executor, path: Path, samples: tuple[Dataset, Rows]) -> Path:
    """Write samples to audit on; without labels the given model's outputs are the reference."""
    data, rows = samples
    # An .npz has no name for bfloat16; in single precision its numbers are the same.
    parts = data.take(rows)
    arrays = {n: a.astype(np.float32) if a.dtype.name == "bfloat16" else a for n, a in parts.items()}
    labels = _labels(job, executor, samples)
    if "y" in arrays:
        raise OptionError(
            "the model has an input named 'y', a name that is kept for labels; rename the input"
        )
    with writing(path):
        np.savez(path, **arrays, y=labels)  # type: ignore[arg-type]
    return path


def _labels(job: HardenJob, executor: Executor, samples: tuple[Dataset, Rows]) -> Any:
    data, rows = samples
    if data.labels is not None:
        return np.asarray(data.labels)[rows]
    from nvaudit.retrain.subject import outputs_of

    outputs = outputs_of(executor, Feed(data, rows), job.output, job.batch_axis)
    asked = "mse" if job.spec.metric == "mse" else None
    metric = resolve_metric(asked, outputs, None, "none", job.spec.class_axis, job.reading(outputs))
    return reference_of(metric, outputs)
