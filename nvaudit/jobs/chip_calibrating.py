"""One chip that is there, corrected digitally by what its layers make of some unlabelled samples."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvaudit.errors import DataError, ModelError, OptionError
from nvaudit.files import holding_inputs
from nvaudit.jobs.calibrating import correction_of, refuse_coupled
from nvaudit.jobs.measured import load_chips, reading_notes, with_manifest
from nvaudit.jobs.replaying import write_chip
from nvaudit.mapping.chip_files import find_chips
from nvaudit.model import build_template
from nvaudit.model.probe import expose
from nvaudit.model.rescale.centre import Centres, find_centres
from nvaudit.model.rescale.chip_correction import OpenGains, open_gains, without_results
from nvaudit.perturb.engine import QUANTISED, Engine
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.perturb.session import feed_samples, open_session, run_session
from nvaudit.perturb.workload import Workload, save_array
from nvaudit.remapping.activations import activation_sizes
from nvaudit.report.deployment.calibration import CalibratedLayer, CalibrateReport
from nvaudit.report.wording import value_text
from nvaudit.session import Session, prepare, prepare_again, settle_metric
from nvaudit.spec import RunSpec

Method = Literal["least_squares", "moments"]
Doubles = NDArray[np.float64]

_FLOOR = 1e-9
"""A channel that varies less, relative to its layer, keeps its gain."""


def calibrate_chip(
    model: str | Path,
    chip: Path,
    out: Path,
    *,
    data: str | None = None,
    test_data: str | None = None,
    samples: int = 100,
    method: Method = "least_squares",
    name: str | None = None,
    progress: Progress = quiet,
    **options: Any,
) -> CalibrateReport:
    """Correct one chip, write it as a model, and score it before and after.

    Parameters
    ----------
    chip : Path
        The folder of chips that were read back, with their manifest.
    out : Path
        The ONNX file of the corrected chip.
    data : str, optional
        Unlabelled samples to correct by; without it some of the test data, which are then not scored.
    test_data : str, optional
        What the chip is scored on, ``MODEL.npz`` beside the model without it.
    **options
        Further fields of :class:`nvaudit.spec.RunSpec`.

    Raises
    ------
    NvauditError
        If anything about the input is wrong.
    """
    begin = time.perf_counter()
    chip_name, number = _chosen(chip, name)
    spec = with_manifest(RunSpec.validated({"model": model, "chip": chip, "data": test_data, **options}))
    spec = RunSpec.validated(
        {**spec.model_dump(), "calibrate_chips": samples, "calibrate_data": data, "roughness": False}
    )
    with scratch_folder() as folder, holding_inputs():
        job = _opened(spec, folder, number, progress)
        session, metric = job.session, job.metric
        before, ideal, quantised = job.scores(job.work)
        corrected, layers, left = job.by_moments() if method == "moments" else job.by_least_squares()
        progress("scoring the corrected chip", 0, 1)
        after = job.score(corrected)
        write_chip(corrected, Engine(corrected), out, 0, number)
        header = session.header()
    unit, used = metric.unit, session.calibration
    assert used is not None
    return CalibrateReport(
        **header | {"timing": {"total": time.perf_counter() - begin}},
        headline=f"{out}: {chip_name} of {chip}, {metric.name} {value_text(before, unit)} → "
        f"{value_text(after, unit)} (ideal {value_text(ideal, unit)})",
        metric=metric.name,
        run=spec.model_dump(mode="json"),
        notes=tuple(session.notes),
        chip=chip_name,
        source=str(chip),
        out=str(out),
        method=method,
        samples=used.count,
        unit=unit,
        scored=session.dataset.count,
        ideal=ideal,
        quantised=quantised,
        before=before,
        after=after,
        layers=layers,
        left=left,
    )


def _opened(spec: RunSpec, folder: Path, number: int, progress: Progress) -> _Job:
    """Settle the run, with the devices of its chips as they were read back."""
    progress("reading model, data and chip", 0, 1)
    session = prepare(spec, folder)
    probe = Engine(session.workload).probe()
    if session.rebatching_failed(probe):
        session = prepare_again(session, probe)
    metric = settle_metric(session, probe)
    refuse_coupled(session, "calibrate")
    chips = load_chips(session, progress)
    session.notes.extend(reading_notes(chips[number].source.name, chips[number].counts))
    work = replace(session.workload, chips=tuple(one.devices for one in chips))
    return _Job(session, work, metric, number, progress)


def _chosen(chip: Path, name: str | None) -> tuple[str, int]:
    """The chip that is meant, and its place."""
    names = [one.name for one in find_chips(chip)]
    if name is None and len(names) > 1:
        raise OptionError(
            f"--chip {chip}: has {len(names)} chips; say which with --name: {', '.join(names[:8])}"
        )
    if name is not None and name not in names:
        raise OptionError(f"--name {name}: {chip} has {', '.join(names[:8])}")
    number = 0 if name is None else names.index(name)
    return names[number], number


_AT_ONCE = 16
"""Samples whose inner values are in memory at a time."""


@dataclass(frozen=True)
class _LayerError:
    """Errors of what a layer makes, rms over the spread of the ideal values, and numbers for each sample."""

    before: float
    after: float
    size: int


@dataclass
class _Job:
    """Correct chip ``number`` of a workload."""

    session: Session
    work: Workload
    metric: Metric
    number: int
    progress: Progress

    @property
    def keep(self) -> str | None:
        """File of the nominal outputs that the metric compares with."""
        return self.session.reference_file(self.metric)

    def score(self, work: Workload) -> float:
        """The chip's metric on the test data."""
        return Engine(work).chip(self.metric, self.keep, 0, self.number).value

    def scores(self, work: Workload) -> tuple[float, float, float]:
        """Of the chip as it is, the unmodified and the quantised model."""
        engine = Engine(work)
        ideal = engine.nominal(self.metric, self.keep, work.ideal).value
        return (
            engine.chip(self.metric, self.keep, 0, self.number).value,
            ideal,
            engine.chip(self.metric, self.keep, 0, QUANTISED).value,
        )

    def by_moments(self) -> tuple[Workload, tuple[CalibratedLayer, ...], dict[str, str]]:
        """Mean and spread of each channel as in the ideal model; normalisations take them up themselves."""
        session = replace(self.session, workload=self.work)
        work, prepared, left = correction_of(session)
        corrections = Engine(work).corrections(0, self.number)
        corrected = self._with(replace(work, correction=None), corrections)
        errors = self._errors(corrected, prepared.values)
        first = [corrections[place] for place in prepared.places[::2]]  # means of a norm, gains of a layer
        layers = [
            CalibratedLayer(name=name, into="normalisation", channels=len(means), gain=None,
                            before=errors[name].before, after=errors[name].after, operations=0)
            for name, means in zip(prepared.norms, first, strict=False)
        ]  # fmt: skip
        for spot, gains in zip(prepared.spots, first[len(prepared.norms) :], strict=True):
            error = errors[spot.value]
            layers.append(
                CalibratedLayer(
                    name=spot.key, into="gain and offset", channels=spot.channels, gain=float(gains.mean()),
                    before=error.before, after=error.after, operations=2 * error.size,
                )
            )  # fmt: skip
        return corrected, tuple(layers), left

    def _errors(self, corrected: Workload, values: Mapping[str, str]) -> dict[str, _LayerError]:
        """How far values of the chip, as it is and corrected, are from those of the ideal model."""
        samples = self.session.calibration
        assert samples is not None
        spans = [slice(at, min(at + _AT_ONCE, samples.count)) for at in range(0, samples.count, _AT_ONCE)]
        batches = [
            feed_samples(samples.inputs, samples.batch_axes, span, span.stop - span.start, None)
            for span in spans
        ]
        ideal = self._ideals(list(values), batches)
        before = self._inner("before", self.work, list(values), batches)
        after = self._inner("after", corrected, list(values.values()), batches)
        sums = {value: np.zeros(5) for value in values}
        for wanted, as_it_is, now in zip(ideal, before, after, strict=True):
            for value, *parts in zip(values, wanted, as_it_is, now, strict=True):
                a, b, c = (part.astype(np.float64) for part in parts)
                apart = (np.square(b - a).sum(), np.square(c - a).sum())
                sums[value] += (a.size, a.sum(), np.square(a).sum(), *apart)
        errors = {}
        for value, added in sums.items():
            n = float(added[0])
            mean, square, *off = (float(one) / n for one in added[1:])
            spread = math.sqrt(max(square - mean**2, 0.0)) or 1.0
            rms = [math.sqrt(one) / spread for one in off]
            errors[value] = _LayerError(rms[0], rms[1], int(n) // samples.count)
        return errors

    def _inner(
        self, label: str, work: Workload, names: Sequence[str], batches: Sequence[Mapping[str, NDArray[Any]]]
    ) -> Iterator[list[NDArray[Any]]]:
        """Inner values of the chip, batch by batch."""
        proto, outputs = expose(Path(work.template.path).read_bytes(), names)
        path = Path(work.folder) / f"inner-{label}.onnx"
        path.write_bytes(proto)
        opened = replace(work, template=replace(work.template, path=str(path)))
        yield from Engine(opened).values([outputs[name] for name in names], batches, 0, self.number)

    def by_least_squares(self) -> tuple[Workload, tuple[CalibratedLayer, ...], dict[str, str]]:
        """Gain and offset of every channel, each layer on what corrected ones give."""
        session, work = self.session, self.work
        samples = session.calibration
        assert samples is not None
        keys = [tensor.key for tensor in work.tensors]
        seen = activation_sizes(session.loaded, samples, session.rebatch, work.provider)
        centres = find_centres(session.loaded.model, keys, seen)
        gains = open_gains(Path(work.template.path).read_bytes(), centres)
        if not gains.spots:
            raise ModelError(
                f"{session.loaded.path}: calibrate: the model has no layer that can be corrected"
            )
        feeds = feed_samples(samples.inputs, samples.batch_axes, slice(None), samples.count, None)
        path = Path(work.folder) / "gains.onnx"
        path.write_bytes(gains.template)
        open_work = replace(work, template=replace(work.template, path=str(path)))
        corrections: dict[str, NDArray[Any]] = {}
        for (gain, offset), spot in zip(gains.places, gains.spots, strict=True):
            corrections[gain] = np.ones(spot.channels, spot.dtype.numpy())
            corrections[offset] = np.zeros(spot.channels, spot.dtype.numpy())
        layers = []
        for at, spot in enumerate(gains.spots):
            self.progress("correcting layers", at, len(gains.spots))
            wanted = next(self._ideals([spot.value], [feeds]))[0]
            engine = Engine(self._with(open_work, corrections, f"{at}"))
            made = next(engine.values([gains.results[at]], [feeds], 0, self.number))[0]
            layer, *correction = _least_squares(spot.key, wanted, made, spot.axis)
            for place, values in zip(gains.places[at], correction, strict=True):
                corrections[place] = values.astype(corrections[place].dtype)
            layers.append(layer)
        path.write_bytes(without_results(gains.template, gains.results))
        return self._with(open_work, corrections), tuple(layers), self._left(centres, gains)

    def _left(self, centres: Centres, gains: OpenGains) -> dict[str, str]:
        done = {spot.key for spot in gains.spots}
        there = {spot.key: "what it makes is not in the graph that runs on chips" for spot in centres.spots}
        return {**centres.refused, **{key: why for key, why in there.items() if key not in done}}

    def _ideals(
        self, values: Sequence[str], batches: Sequence[Mapping[str, NDArray[Any]]]
    ) -> Iterator[list[NDArray[Any]]]:
        """What layers of the unmodified model make, batch by batch."""
        free = self.session.rebatch.status == "rebatched"
        template = build_template(self.session.loaded, [], batch="free" if free else "keep")
        proto, outputs = expose(template.proto, values)
        opened = open_session(proto, template.digital, self.work.provider)
        for feeds in batches:
            made = run_session(opened, [outputs[value] for value in values], dict(feeds))
            yield [np.asarray(one) for one in made]

    def _with(self, work: Workload, corrections: Mapping[str, NDArray[Any]], label: str = "") -> Workload:
        """The workload with its corrections as digital initializers."""
        folder = Path(work.folder)
        files = {
            name: save_array(folder, f"correction{label}-{number}", np.asarray(array))
            for number, (name, array) in enumerate(corrections.items())
        }
        template = replace(work.template, digital={**work.template.digital, **files})
        return replace(work, template=template)


def _least_squares(
    key: str, wanted: NDArray[Any], made: NDArray[Any], axis: int
) -> tuple[CalibratedLayer, Doubles, Doubles]:
    """Gain and offset of each channel that bring a layer nearest to the ideal one.

    ``min Σ (a y + b − y*)²`` over samples and positions: a = Cov(y, y*) / Var y, b = mean y* − a mean y.
    """
    if wanted.shape != made.shape:
        raise DataError(f"{key}: makes {list(made.shape)} on the chip and {list(wanted.shape)} in the model")
    y, ideal = (np.moveaxis(one, axis, 0).reshape(one.shape[axis], -1).astype(np.float64)
                for one in (made, wanted))  # fmt: skip
    mean, ideal_mean = y.mean(axis=1), ideal.mean(axis=1)
    variance = y.var(axis=1)
    covariance = ((y - mean[:, None]) * (ideal - ideal_mean[:, None])).mean(axis=1)
    varies = variance > _FLOOR * max(float(variance.mean()), 1e-30)
    gain = np.where(varies, covariance / np.where(varies, variance, 1.0), 1.0)
    offset = ideal_mean - gain * mean
    scale = float(ideal.std()) or 1.0
    errors = [float(np.sqrt(np.square(one - ideal).mean())) / scale
              for one in (y, gain[:, None] * y + offset[:, None])]  # fmt: skip
    layer = CalibratedLayer(
        name=key, into="gain and offset", channels=len(gain), gain=float(gain.mean()), before=errors[0],
        after=errors[1], operations=2 * made[0].size,
    )  # fmt: skip
    return layer, gain, offset
