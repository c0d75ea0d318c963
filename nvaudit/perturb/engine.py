"""What runs inside a worker: chips over the whole evaluation set."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import load_array
from nvaudit.errors import ModelError, OptionError
from nvaudit.files import writing
from nvaudit.mapping.quantize import dequantize
from nvaudit.model.runtime import runtime
from nvaudit.model.template import SLOT_FILE, Slot
from nvaudit.perturb.badness import badness, counts_errors, soft_errors
from nvaudit.perturb.bound import BoundSession, bound_sessions
from nvaudit.perturb.cells import Cells, place_cells, target_cells
from nvaudit.perturb.chip import CACHE_BYTES, DrawnWeights, TensorLaw
from nvaudit.perturb.corpus import over_all
from nvaudit.perturb.difficulty import Difficulty, load_difficulty, nominal_margin
from nvaudit.perturb.metrics import Metric, check_row, not_numbers, over_set, reference_of, score
from nvaudit.perturb.outcome import Outcome, Probe
from nvaudit.perturb.probe import InnerProbe
from nvaudit.perturb.providers import ran_on
from nvaudit.perturb.race import CertainRace, Race, RaceTask, SampleOrder
from nvaudit.perturb.read_back import cells_on, weights_of
from nvaudit.perturb.scores import gather_outputs, in_pieces, total_score, try_function
from nvaudit.perturb.session import FILE_BYTES, TemplateSessions, feed_samples, open_session, run_session
from nvaudit.perturb.variant import WHOLE, Variant, limit_terms, spread_evenly
from nvaudit.perturb.verify import Verifier
from nvaudit.perturb.workload import GraphFile, Workload
from nvaudit.rng import ChipAddress, read_address, trial_number

QUANTISED = -1
"""The trial number of the noiseless chip: codes only."""

PROBE_SAMPLES = 512
"""How many nominal outputs the reading of the outputs' shape and scale rests on."""


class Engine:
    """Runs the calls of one workload; keeps open what the next call can use again."""

    def __init__(self, workload: Workload) -> None:
        self._w = workload
        self._inputs = {name: file.open() for name, file in workload.inputs.items()}
        self._axes = {name: file.axis for name, file in workload.inputs.items()}
        self._labels = workload.labels.open() if workload.labels is not None else None
        self._tensors = [tensor.open() for tensor in workload.tensors]
        self._laws: tuple[tuple[int, frozenset[str] | None], list[TensorLaw]] = ((-1, None), [])
        self._difficulty: tuple[int, Difficulty] = (-1, Difficulty(np.empty(0), np.empty(0)))
        self._verifier = Verifier()
        self._rows = 1
        self._undefined = 0
        self._settled: tuple[Metric | None, Metric | None] = (None, None)
        self._bound = bound_sessions(workload)
        with writing(workload.folder):
            self._scratch = Path(tempfile.mkdtemp(dir=workload.folder, prefix="worker-"))
        self._sessions = TemplateSessions(workload.slots, self._scratch, self._first_outputs)

    def call(self, method: str, args: tuple[Any, ...]) -> Any:
        """Run one of the methods below by its name."""
        calls: dict[str, Callable[..., Any]] = {
            "probe": self.probe,
            "try_function": try_function,
            "nominal": self.nominal,
            "margins": self.margins,
            "chip": self.chip,
            "chip_scores": self.chip_scores,
            "variant_scores": self.variant_scores,
            "race": self.race,
            "badness": self.badness,
        }
        return calls[method](*args)

    def probe(self) -> Probe:
        """Run the unmodified model on the first samples, re-batched and as it came."""
        w = self._w
        count = min(w.count, max(w.batch, PROBE_SAMPLES))
        session = self._open(w.ideal)
        output = np.concatenate([out for _, _, out in self._outputs(session, w.ideal, count)])
        rows, ran = self._rows, ran_on(runtime(), session, w.provider)
        if rows > 1:
            self._check_rows(session, output)
        if w.ideal.path == w.original.path:
            return Probe(output, None, ran, rows)
        few = min(count, 8)
        plain = np.concatenate([out for _, _, out in self._outputs(self._open(w.original), w.original, few)])
        # Relative to the largest output, not to each: an output near 0 moves by rounding of the others'
        # size.
        moved = np.abs(output[:few].astype(np.float64) - plain)
        error = float(moved.max(initial=0) / max(np.abs(plain).max(initial=0), 1e-30))
        return Probe(output, error, ran, rows)

    def _check_rows(self, session: Any, output: NDArray[Any]) -> None:
        """Prove that the rows of a joined output belong to the samples in order: run some samples anew.

        In another order and another cut, each sample must give the rows that it gave before.
        """
        # Reversed and in another cut: rows that belonged to positions of other samples, or that mixed
        # samples, would come out in other places or with other numbers.
        count = min(len(output), 8)
        chosen = np.arange(count)[::-1].astype(np.intp)
        again = [out for _, _, out in self._outputs(session, self._w.ideal, count, chosen)]
        wanted = output[chosen].astype(np.float64)
        span = max(float(np.abs(wanted).max(initial=0)), 1e-30)
        if float(np.abs(np.concatenate(again) - wanted).max(initial=0)) > 1e-3 * span:
            raise ModelError(
                f"output '{self._w.output}' has {self._rows} rows for each sample, and they do not belong to "
                f"the samples in order{self._instead()}"
            )

    def nominal(self, metric: Metric, keep: str | None, ideal: GraphFile) -> Outcome:
        """Score the unmodified model; with ``keep`` store its outputs there as the reference."""
        begin = time.perf_counter()
        session = self._open(ideal)
        if keep is None:
            value = self._score(session, ideal, metric, None)
        else:
            value = self._keep(session, ideal, metric, keep)
        return Outcome(value, self._w.count, time.perf_counter() - begin, undefined=self._undefined)

    def mean_score(
        self, metric: Metric, keep: str | None, slots: Iterable[tuple[Slot, NDArray[Any]]]
    ) -> float:
        """Score the template with its slots filled by the caller; NaN or infinite if its outputs overflow."""
        proto = Path(self._w.template.path).read_bytes()
        return self._value(self._filled(proto, slots), self._w.template, metric, keep)

    def score_graph(self, metric: Metric, keep: str | None, graph: GraphFile) -> float:
        """Score any graph on the workload's data, against the reference kept by :meth:`nominal`."""
        return self._score(self._open(graph), graph, metric, keep)

    def _keep(self, session: Any, ideal: GraphFile, metric: Metric, keep: str) -> float:
        """Store the nominal outputs, or what the metric needs of them, and score them against themselves."""
        total, self._undefined = 0.0, 0
        # Written, not mapped: on a full disk a write fails in good order, a map kills the process.
        with writing(keep), Path(keep).open("wb") as file:
            for start, _, output in self._outputs(session, ideal, self._w.count):
                check_row(metric, output)
                self._undefined += not_numbers(output)
                part = np.ascontiguousarray(reference_of(metric, output))
                if start == 0:
                    header = np.lib.format.header_data_from_array_1_0(part)
                    header["shape"] = (self._w.count, *part.shape[1:])
                    np.lib.format.write_array_header_2_0(file, header)
                part.tofile(file)
                total += total_score([score(metric, output, part)])
        return self._finite(metric, total / self._w.count)

    def chip(
        self,
        metric: Metric,
        keep: str | None,
        point: int,
        trial: ChipAddress,
        variant: Variant = WHOLE,
        begun: Outcome | None = None,
    ) -> Outcome:
        """Score chip ``trial`` at one operating point; ``QUANTISED`` is the chip without noise.

        With ``begun``, a race for certain of the same chip, only on the samples that it had not seen.
        """
        if begun is not None:
            return self.chip_scores(metric, keep, point, trial, begun)[0]
        begin = time.perf_counter()
        session = self._chip_session(point, trial, variant)
        value = self._score(session, self._w.template, metric, keep)
        return Outcome(value, self._w.count, time.perf_counter() - begin, undefined=self._undefined)

    def chip_scores(
        self, metric: Metric, keep: str | None, point: int, trial: ChipAddress, begun: Outcome | None = None
    ) -> tuple[Outcome, NDArray[np.float32]]:
        """Score chip ``trial`` as :meth:`chip` does, and give the score of every sample."""
        begin = time.perf_counter()
        if begun is not None and begun.scores is not None:
            known = begun.scores.copy()
            session = self._chip_session(point, trial)
            value, images, undefined = self._finish(session, self._over_set(metric), keep, known)
            rest = Outcome(value, images, time.perf_counter() - begin, undefined=begun.undefined + undefined)
            return rest, known.astype(np.float32)
        parts = list(self._scores(self._chip_session(point, trial), self._w.template, metric, keep))
        value = self._finite(metric, total_score(parts) / self._w.count)
        outcome = Outcome(value, self._w.count, time.perf_counter() - begin, undefined=self._undefined)
        return outcome, np.concatenate(parts).astype(np.float32)

    def badness(
        self, metric: Metric, keep: str | None, point: int, chip: ChipAddress, scale: float
    ) -> Outcome:
        """Give the badness of a chip (:mod:`nvaudit.perturb.badness`) instead of its metric."""
        begin = time.perf_counter()
        session, graph, samples = self._chip_session(point, chip), self._w.template, self._w.count
        if not counts_errors(metric):  # nothing ties: its metric says it all
            value = badness(metric, self._score(session, graph, metric, keep), samples)
            return Outcome(value, samples, time.perf_counter() - begin)
        reference, right, soft = self._reference(keep), 0.0, 0.0
        for start, stop, output in gather_outputs(self._outputs(session, graph, samples)):
            check_row(metric, output)
            target = _part(reference, slice(start, stop))
            right += float(score(metric, output, target).sum())
            soft += float(soft_errors(metric, output, target, scale).sum())
        value = badness(metric, right / samples, samples, soft)
        return Outcome(value, samples, time.perf_counter() - begin)

    def variant_scores(
        self,
        metric: Metric,
        keep: str | None,
        point: int,
        trial: ChipAddress | None,
        variant: Variant,
        images: int,
    ) -> NDArray[np.float64]:
        """Score a variant of chip ``trial`` (None: the unmodified model) on samples spread over the set.

        Of a metric over a whole set, its value over these samples alone.
        """
        graph = self._w.ideal if trial is None else self._w.template
        session = self._open(graph) if trial is None else self._chip_session(point, trial, variant)
        reference, chosen = self._reference(keep), spread_evenly(self._w.count, images)
        outputs = gather_outputs(self._outputs(session, graph, images, chosen))
        if metric.corpus:
            parts = ((out, _part(reference, chosen[a:b])) for a, b, out in outputs)
            return np.array([self._finite(metric, over_all(metric, parts))])
        metric = over_set(metric, _part(reference, chosen))
        scores = np.concatenate([score(metric, out, _part(reference, chosen[a:b])) for a, b, out in outputs])
        self._finite(metric, total_score([scores]) / images)
        return scores

    def margins(self, metric: Metric, keep: str | None) -> NDArray[np.float64]:
        """Margin of the unmodified model on every sample; see :mod:`nvaudit.perturb.difficulty`."""
        graph, reference = self._w.ideal, self._reference(keep)
        outputs = gather_outputs(self._outputs(self._open(graph), graph, self._w.count))
        return np.concatenate(
            [nominal_margin(metric, output, _part(reference, slice(a, b))) for a, b, output in outputs]
        )

    def race(
        self, metric: Metric, keep: str | None, point: int, trial: int, task: RaceTask, finish: bool = True
    ) -> Outcome:
        """Run chip ``trial`` on some of the samples until it is sure where its metric lies.

        With ``finish`` one that stays open is run on the others too, but not in a race for certain.
        """
        begin = time.perf_counter()
        difficulty = self._difficulty_of(task)
        race: Race | CertainRace
        if task.kind == "certain":
            race = CertainRace(difficulty, task.bands[0].low)
        else:
            order = SampleOrder(difficulty, task.most, self._w.seed, task.kind, point, trial)
            race = Race(difficulty, order, task.bands)
        session, graph, reference = self._chip_session(point, trial), self._w.template, self._reference(keep)
        # Batches only bundle samples: evidence is taken sample by sample, so with another size a race stops
        # a little later or sooner, and no bound changes.
        step = max(self._w.batch, graph.batch or 0)
        metric = self._over_set(metric)
        gap, seen, undefined, known = None, 0, 0, np.full(self._w.count, np.nan)
        while gap is None and seen < len(race.order):
            chosen = race.order[seen : seen + race.step(step)]
            parts = [output for _, _, output in self._outputs(session, graph, len(chosen), chosen)]
            outputs = np.concatenate(parts)
            check_row(metric, outputs)
            undefined += not_numbers(outputs)
            scores = score(metric, outputs, _part(reference, chosen))
            # A race is about errors from 0 to 1; only metrics that are fractions race, for which the error
            # is 1 − score.
            gap, seen, known[chosen] = race.see(1 - scores), seen + len(chosen), scores
            if gap is None and race.hopeless(len(race.order)):
                break
        seconds, rest = time.perf_counter() - begin, None
        if task.kind == "certain":
            return Outcome(race.estimate, seen, seconds, gap, undefined, scores=known)
        if gap is None and finish:
            value, images, missing = self._finish(session, metric, keep, known)
            rest = Outcome(value, images, time.perf_counter() - begin, undefined=undefined + missing)
        return Outcome(race.estimate, seen, seconds, gap, undefined, rest)

    def _finish(
        self, session: Any, metric: Metric, keep: str | None, known: NDArray[np.float64]
    ) -> tuple[float, int, int]:
        """Score a chip on the samples that are NaN in ``known``, and fill them in.

        Returns
        -------
        float, int, int
            The metric over the set, the samples that were run, and those whose outputs are no numbers.
        """
        graph, reference = self._w.template, self._reference(keep)
        others, missing, width = np.flatnonzero(np.isnan(known)), 0, 1
        for start, stop, outputs in gather_outputs(self._outputs(session, graph, len(others), others)):
            check_row(metric, outputs)
            missing += not_numbers(outputs)
            chosen, width = others[start:stop], outputs[:1].nbytes
            known[chosen] = score(metric, outputs, _part(reference, chosen))
        # Added up as those of a chip that did not race: the sum of fractions depends on their order.
        pieces = in_pieces(known, width, graph.batch or self._w.batch)
        return self._finite(metric, total_score(pieces) / self._w.count), len(others), missing

    def _difficulty_of(self, task: RaceTask) -> Difficulty:
        if self._difficulty[0] != task.identity:
            self._difficulty = (task.identity, load_difficulty(Path(task.difficulty)))
        return self._difficulty[1]

    def _score(self, session: Any, graph: GraphFile, metric: Metric, keep: str | None) -> float:
        return self._finite(metric, self._value(session, graph, metric, keep))

    def _value(self, session: Any, graph: GraphFile, metric: Metric, keep: str | None) -> float:
        """The metric over the set."""
        if metric.corpus:
            return over_all(metric, self._pieces(session, graph, metric, keep))
        return total_score(self._scores(session, graph, metric, keep)) / self._w.count

    def _scores(
        self, session: Any, graph: GraphFile, metric: Metric, keep: str | None
    ) -> Iterator[NDArray[np.float64]]:
        """Score of every sample, in pieces."""
        settled = self._over_set(metric)
        for output, target in self._pieces(session, graph, metric, keep):
            yield score(settled, output, target)

    def _pieces(
        self, session: Any, graph: GraphFile, metric: Metric, keep: str | None
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any] | None]]:
        """Outputs and what they are compared with, in pieces; counts samples whose outputs are no numbers."""
        reference, self._undefined = self._reference(keep), 0
        for start, stop, output in gather_outputs(self._outputs(session, graph, self._w.count)):
            check_row(metric, output)
            if self._w.boxes is None:  # else counted in what boxes are read from: they are filled up with NaN
                self._undefined += not_numbers(output)
            yield output, _part(reference, slice(start, stop))

    def _over_set(self, metric: Metric) -> Metric:
        """The metric scaled for this workload's samples."""
        if not metric.by_length:
            return metric
        if self._settled[0] != metric:
            self._settled = (metric, over_set(metric, self._labels))
        return self._settled[1] or metric

    def _reference(self, keep: str | None) -> NDArray[Any] | None:
        return load_array(keep, mmap_mode="r") if keep is not None else self._labels

    def _finite(self, metric: Metric, value: float) -> float:
        """The metric over a set, which must be a number."""
        if not np.isfinite(value):
            raise ModelError(
                f"the metric {metric.name} is {value} on some chip: its outputs overflow, or the metric does "
                "not give a number for them; use a bounded metric such as top1"
            )
        return value

    def _outputs(
        self, session: Any, graph: GraphFile, count: int, chosen: NDArray[np.intp] | None = None
    ) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Run batches of the set, or of the chosen samples; yields where each lies and its outputs.

        The outputs have the batch axis first.
        """
        size, first = graph.batch or self._w.batch, None
        for start in range(0, count, size):
            stop = min(start + size, count)
            part = slice(start, stop) if chosen is None else chosen[start:stop]
            make = partial(feed_samples, self._inputs, self._axes, part, stop - start, graph.batch)
            every = chosen is None and isinstance(session, BoundSession)
            feeds = session.kept((start, stop), make) if every else make()
            outputs = run_session(session, [self._w.output, *self._w.beside], feeds)
            if self._w.boxes is not None:
                each = [self._by_sample(one, stop - start, graph.batch) for one in outputs]
                self._undefined += max(not_numbers(one[: stop - start]) for one in each)
                yield start, stop, self._w.boxes.read(each, f"output '{self._w.output}'")[: stop - start]
                continue
            (output,) = outputs
            output = self._by_sample(output, stop - start, graph.batch)
            first = output.shape[1:] if first is None else first
            if output.shape[1:] != first:
                raise ModelError(
                    f"output '{self._w.output}' has another shape for each sample ({list(first)}, then "
                    f"{list(output.shape[1:])}) and cannot be scored{self._instead()}"
                )
            # A graph with a fixed batch is fed whole batches: what fills up the last one does not count.
            yield start, stop, output[: stop - start]

    def _by_sample(self, output: Any, size: int, fixed: int | None) -> NDArray[Any]:
        """An output with the samples on its first axis.

        Raises
        ------
        ModelError
            If it is no numeric tensor, or does not have rows for each sample.
        """
        name = f"output '{self._w.output}'"
        if self._w.columns:  # ZipMap: a dictionary of scores for each sample
            output = np.array([[row[key] for key in self._w.columns] for row in output], np.float32)
        if not isinstance(output, np.ndarray) or output.dtype.kind in "OSU":
            what = "text" if isinstance(output, np.ndarray) else "a sequence or a dictionary"
            raise ModelError(f"{name} is {what} and cannot be scored{self._instead()}")
        axis = 0 if self._w.columns else self._w.output_axis
        if axis is None and fixed == 1:
            output = output[None]  # one sample per run, and the output knows of no batch
        elif axis and output.ndim > axis:
            output = np.moveaxis(output, axis, 0)
        # As many rows as samples asked for, or as the graph's fixed batch, which the last batch does not
        # fill.
        if output.ndim and len(output) in (size, fixed):
            return np.asarray(output)
        # Rows of samples and of positions in one axis, [N·T, C]: in order, as `_check_rows` proves.
        fed = fixed or size
        rows = len(output) // fed if output.ndim and not axis else 0
        if rows < 2 or rows * fed != len(output):
            raise ModelError(
                f"{name} has shape {list(output.shape)} for {fed} samples, so it has no rows for each and "
                f"cannot be scored{self._instead()}"
            )
        self._rows = rows
        return np.asarray(output.reshape(fed, rows, *output.shape[1:]))

    def _instead(self) -> str:
        """What could be scored."""
        others = [name for name in self._w.alternatives if name != self._w.output]
        if not others:
            return "; the model has no other output that can be"
        return f"; choose another with --output-name: {', '.join(others)}"

    def _open(self, graph: GraphFile) -> Any:
        fills = {name: file.open() for name, file in graph.digital.items()}
        return open_session(Path(graph.path), fills, self._w.provider)

    def _chip_session(self, point: int, trial: ChipAddress, variant: Variant = WHOLE) -> Any:
        corrections = self._corrections(point, trial, variant)
        proto = self._of_chip(Path(self._w.template.path).read_bytes(), trial)
        return self._filled(proto, self.fill(point, trial, variant), corrections)

    def _of_chip(self, proto: bytes, trial: ChipAddress) -> bytes:
        """A graph whose read noise is that of a chip."""
        if not self._w.read_noise or trial == QUANTISED:
            return proto
        from nvaudit.model import reseed_read_noise

        return reseed_read_noise(proto, self._w.seed, read_address(trial))

    def _corrections(self, point: int, trial: ChipAddress, variant: Variant) -> dict[str, NDArray[Any]]:
        """What a chip is corrected by: found on the same devices, drawn again, on the calibration samples."""
        how = self._w.correction
        if how is None:
            return {}
        proto = self._of_chip(Path(how.finder).read_bytes(), trial)
        # Streams are addressed by chip: filling a second graph draws the same devices, not another chip's.
        session = self._filled(proto, self.fill(point, trial, variant))
        feeds = {name: np.asarray(file.open(), order="C") for name, file in how.inputs.items()}
        places = list(how.places)
        return dict(zip(places, run_session(session, places, feeds), strict=True))

    def _filled(
        self,
        proto: bytes,
        slots: Iterable[tuple[Slot, NDArray[Any]]],
        more: Mapping[str, NDArray[Any]] | None = None,
    ) -> Any:
        """Open the template with its slots filled, and other initializers that are left open.

        A session that is kept open is that of the last chip, with other weights: of one chip at a time.
        """
        w = self._w
        if self._bound is not None:
            return self._bound.filled(proto, slots, more or {})
        digital = {name: file.open() for name, file in w.template.digital.items()} | dict(more or {})
        sizes = [np.dtype(s.dtype if s.dtype != "bfloat16" else "uint16").itemsize for s in w.slots]
        total = sum(size * int(np.prod(s.shape)) for size, s in zip(sizes, w.slots, strict=True))
        # Small weights are handed to ONNX Runtime one by one. Large ones would be there twice, drawn and
        # copied: they are written into one file tensor by tensor, as they are drawn, and mapped.
        if total < FILE_BYTES:
            fills = dict(digital)
            for slot, array in slots:
                fills[slot.name] = array
            if w.provider != "cpu" or digital or w.read_noise or w.correction is not None:
                return open_session(proto, fills, w.provider)
            return self._sessions.open(proto, fills)
        folder = self._scratch
        with writing(folder / "template.onnx"):
            (folder / "template.onnx").write_bytes(proto)
        with writing(folder / SLOT_FILE), (folder / SLOT_FILE).open("wb") as file:
            for slot, array in slots:
                file.seek(slot.offset)
                array.tofile(file)
        return open_session(folder / "template.onnx", digital, w.provider)

    def _first_outputs(self, session: Any) -> list[bytes]:
        """What a session of the template gives for the first batch, bit for bit."""
        size = self._w.template.batch or self._w.batch
        outputs = self._outputs(session, self._w.template, min(size, self._w.count))
        return [output.tobytes() for _, _, output in outputs]

    def values(
        self, outputs: Sequence[str], batches: Iterable[Mapping[str, NDArray[Any]]], point: int, trial: int
    ) -> Iterator[list[NDArray[Any]]]:
        """Outputs of the template of a chip, on batches that are given."""
        session = self._chip_session(point, trial)
        for feeds in batches:
            yield [np.asarray(one) for one in run_session(session, list(outputs), dict(feeds))]

    def corrections(self, point: int, trial: ChipAddress) -> dict[str, NDArray[Any]]:
        """What a chip is corrected by: the initializers of the template that ``correction`` leaves open."""
        return self._corrections(point, trial, WHOLE)

    def fill(
        self, point: int, trial: ChipAddress, variant: Variant = WHOLE
    ) -> Iterator[tuple[Slot, NDArray[Any]]]:
        """Draw tensor after tensor and hand out the slots that hold it."""
        for index, law in enumerate(self._tensor_laws(point, variant.terms)):
            slots = [slot for slot in self._w.slots if slot.weight_key == law.tensor.key]
            split = [slot for slot in slots if slot.cells]
            if split:
                # A tensor that is kept quiet draws nothing; the others' streams are addressed by their own
                # keys, so they are the same as on the whole chip.
                still = trial == QUANTISED or not variant.has(index)
                cells = target_cells(law.tensor) if still else self._cells(law, index, trial, variant)
                yield from ((slot, place_cells(cells, slot)) for slot in split)
                continue
            if trial == QUANTISED or not variant.has(index):
                tensor = law.tensor
                draw = DrawnWeights(dequantize(tensor.code, tensor.scale), None)
            else:
                draw = self._draw(law, index, trial, variant)
            if (digital := law.tensor.outliers) is not None:
                digital.put_into(draw.weights, digital.values)
                if draw.read_variance is not None:
                    digital.put_into(draw.read_variance, 0.0)
            yield from ((slot, place(draw, slot)) for slot in slots)

    def _cells(self, law: TensorLaw, index: int, trial: ChipAddress, variant: Variant) -> Cells:
        """The devices of one tensor of a chip: drawn, or as they were read back."""
        trial = variant.chip_of(index, trial)
        if self._w.chips:
            return cells_on(law, self._w.chips[trial_number(trial)][index])
        return self._verifier.cells(law, index, variant.verified, self._w.seed, trial)

    def _draw(self, law: TensorLaw, index: int, trial: ChipAddress, variant: Variant) -> DrawnWeights:
        """The weights of one tensor of a chip."""
        trial = variant.chip_of(index, trial)
        if self._w.chips:
            return weights_of(law, self._w.chips[trial_number(trial)][index], self._w.seed, trial)
        return self._verifier.draw(law, index, variant.verified, self._w.seed, trial)

    def inner(
        self,
        outputs: Mapping[str, str],
        point: int = 0,
        trial: ChipAddress = QUANTISED,
        variant: Variant = WHOLE,
    ) -> InnerProbe:
        """Open a chip with inner values in sight; see :func:`nvaudit.perturb.probe.exposing`."""
        session = self._chip_session(point, trial, variant)
        return InnerProbe(session, outputs, self._inputs, self._axes, self._w.template.batch)

    def _tensor_laws(self, point: int, terms: frozenset[str] | None = None) -> list[TensorLaw]:
        if self._laws[0] != (point, terms):
            # Two tables in single precision: 8 bytes for each weight.
            small = 8 * sum(tensor.code.size for tensor in self._tensors) <= CACHE_BYTES
            laws = [
                TensorLaw(tensor, self._w.points[point], self._w.every_device, file.freeze_read, small)
                for tensor, file in zip(self._tensors, self._w.tensors, strict=True)
            ]
            self._laws = ((point, terms), [limit_terms(law, terms) for law in laws])
        return self._laws[1]


def _part(reference: NDArray[Any] | None, which: slice | NDArray[np.intp]) -> NDArray[Any] | None:
    return None if reference is None else np.asarray(reference[which])


def place(draw: DrawnWeights, slot: Slot) -> NDArray[Any]:
    """Bring drawn weights into a slot's layout and element type."""
    if slot.cells:
        raise OptionError(f"{slot.name}: lies on crossbars with converters; leave --adc-bits out here")
    array = draw.weights
    if slot.variance:
        array = draw.read_variance if draw.read_variance is not None else np.zeros_like(draw.weights)
    return slot.fill(array)
