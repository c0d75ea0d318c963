"""Try what may help, keep what does: candidates in a fixed order, each measured on the same chips."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nvaudit.errors import ModelError
from nvaudit.mapping.code_search import CodeError
from nvaudit.model.rescale.centre import Centres, find_centres, with_centres
from nvaudit.model.rescale.plan import Insert
from nvaudit.model.rescale.walk import SeenSizes
from nvaudit.perturb.choose_codes import ChosenCodes
from nvaudit.perturb.engine import QUANTISED
from nvaudit.perturb.schedule import Progress
from nvaudit.remapping.bench import FIRST_CHIPS, Bench, BenchConditions, Changed, ChipScores, Numbers
from nvaudit.remapping.centre import CHIPS, chip_moments, clean_moments
from nvaudit.remapping.input_moments import InputMoments, input_moments
from nvaudit.remapping.limits import Limits, by_balance, by_deviations, relative_spread
from nvaudit.remapping.program import Rescaling, RescalingBasis, rescale
from nvaudit.remapping.round_weights import (
    CAUTIONS,
    LATE,
    RoundedWeights,
    noise_power,
    round_weights,
    rounding_seconds,
)
from nvaudit.remapping.solve import SHARP, SOFT

_INSERTED = {"columns": "factors behind weights", "both": "factors behind and before weights"}

BEHIND = "is behind on the first chips"
CALCULATED = "chosen by calculation, not measured: no time for chips"
CODE_BEHIND = "is behind by more than chance, against the calculation"
COSTS = "costs too much of the nominal metric"
_ROUNDED = "codes for noise"

_SEARCH_S = 5.0
"""What the search for codes takes, about."""

_WATCHING = 4
"""Passes that it takes as long as to measure what layers take, about."""

SURELY = 2.0
"""Standard errors by which chips have to be behind before they decide against a calculation."""

_AMPLE = 10
"""Where there is time for so many candidates on all chips, none is given up lightly on the first ones."""

_PATIENCE_S = 10.0
"""Rounding is begun where so much time is left, even if it needs more: the rest stays as it is."""


@dataclass(frozen=True)
class RemapCandidate:
    """A structure with limits for its weights, and what it measures.

    Attributes
    ----------
    bench : Bench
        The structure.
    rescaling : Rescaling
        How it came about.
    limits : mapping of str to float or ndarray
        Where weights are cut off; empty for nowhere.
    corrected : tuple of str
        Weights whose results have other means, or pass through another batch normalisation.
    rounding : RoundedWeights or None
        Other codes of weights.
    """

    name: str
    bench: Bench
    rescaling: Rescaling
    limits: Limits
    measured: ChipScores
    seconds: float
    corrected: tuple[str, ...] = ()
    rounding: RoundedWeights | None = None

    @property
    def changes_function(self) -> bool:
        """Whether it computes something else than the original, by more than rounding."""
        return bool(self.limits) or bool(self.corrected) or self.rounding is not None

    def arrays(self) -> dict[str, Numbers]:
        """The weights that are cut off or have other codes, in their primary layout."""
        return changed_weights(self.bench, self.limits, self.rounding)


def changed_weights(bench: Bench, limits: Limits, rounding: RoundedWeights | None) -> dict[str, Numbers]:
    """The weights of a structure that are cut off or have other codes, in their primary layout."""
    return {**bench.cut(limits), **({} if rounding is None else rounding.numbers)}


@dataclass
class RemapSearch:
    """Candidates tried so far, in order, with the reasons of those that were not kept.

    Attributes
    ----------
    allowance : callable
        How much of the nominal metric may be lost, given what the original measures.
    deadline : float
        Moment of :func:`time.perf_counter` after which nothing new is begun.
    untried : list of str
        What there was no time for.
    cut_short : set of str
        Candidates for which there was time on some chips only.
    impossible : list of str
        What the model has no place for, each with the reason.
    centres : Centres or None
        Where means can be corrected, once that is known.
    finalists : tuple of RemapCandidate
        Those that were measured on further chips, best first.
    calculated : RemapCandidate or None
        The one whose code there was no time to measure; it is the result.
    pass_s : float
        What a chip took last.
    required : RemapCandidate or None
        The one with the code that hardware has, or that is not behind what it replaces: those before it, on
        other codes, are there to compare with.
    """

    basis: RescalingBasis
    original: Bench
    folder: Path
    allowance: Callable[[ChipScores], float]
    tell: Progress
    deadline: float = float("inf")
    tried: list[RemapCandidate] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    untried: list[str] = field(default_factory=list)
    cut_short: set[str] = field(default_factory=set)
    impossible: list[str] = field(default_factory=list)
    centres: Centres | None = None
    required: RemapCandidate | None = None
    calculated: RemapCandidate | None = None
    finalists: tuple[RemapCandidate, ...] = ()
    pass_s: float = 0.0
    _inputs: tuple[dict[str, InputMoments], dict[str, str]] | None = None
    _rounding_s: float = 0.0
    _on_code: RemapCandidate | None = None
    _settled: int = 0

    @property
    def conditions(self) -> BenchConditions:
        """What all candidates are measured under."""
        return self.original.conditions

    @property
    def allowed(self) -> float:
        """How much of the nominal metric may be lost."""
        return self.allowance((self._on_code or self.tried[0]).measured)

    def structures(self, inserts: tuple[Insert, ...], equalise: bool) -> None:
        """Measure the model as it is, then rescaled in every way that is allowed."""
        self._structure("original", "none", 0.0)
        if equalise:
            self._structure("equalised", "none", SHARP)
        for insert in inserts:
            self._structure(_INSERTED[insert], insert, SHARP)

    def clippings(self, spread: Mapping[str, float], equalise: bool) -> None:
        """Clip the weights of the best structure, and of one that leaves room for it; rounded ones too."""
        if not any(spread.values()):
            return
        every = self.conditions.chips
        tried = self.tried if self.required is None else self.tried[self.tried.index(self.required) :]
        good = [c for c in tried if len(c.measured.chips) == every and c.name not in self.refused]
        # Clipping starts from a rescaled structure where there is one, even if the original measures better:
        # what clips well as it is clips better rescaled.
        rescaled = good[1:] if self.required is None else good
        start = max(rescaled or good, key=order_of)
        if self.best().name in self.cut_short:
            start = self.best()
        # By calculation rounding errs less than what it was put on, as a code does: chips have to be surely
        # behind before their luck keeps it from being clipped.
        rounded = [one for one in good if one.rounding is not None and one is not start]
        self._clip(start, spread, equalise)
        if rounded and not rounded[-1].measured.behind(start.measured, SURELY):
            self._clip(rounded[-1], spread, equalise)

    def _clip(self, start: RemapCandidate, spread: Mapping[str, float], equalise: bool) -> None:
        if self.late(f"{start.name}, clipped"):  # limits of large weights take long to find
            return
        self._family(start, by_balance(start.bench, start.rescaling.power, spread))
        structure = start.name.partition(", ")[0]
        insert = next((key for key, name in _INSERTED.items() if name == structure), "none")
        same = start.corrected or start.rounding is not None
        if start is not self.tried[0] and not same and (equalise or insert != "none"):
            # Less sharp scales are worse by themselves and sometimes better once large weights are cut off.
            soft = self._structure(f"{start.name}, for clipping", insert, SOFT)  # type: ignore[arg-type]
            if soft is not None:
                self._family(soft, by_balance(soft.bench, soft.rescaling.power, spread))
        self._family(start, by_deviations(start.bench))

    def best(self) -> RemapCandidate:
        """The candidate with the best worst chips among those that cost no more than is allowed."""
        best = self.required or self.tried[0]
        since = self.tried.index(best) + 1
        settled = next((one for one in self.finalists if one.name not in self.refused), None)
        if settled is not None:  # only what was tried afterwards may still be better
            best, since = settled, self._settled
        for candidate in self.tried[since:]:
            if candidate.name in self.cut_short:
                # Measured on some of the chips only: it has to be better on these, and the rival worse than
                # it by more than their standard error, before it may stand for all of them.
                count = len(candidate.measured.chips)
                rival = best.measured.on(count)
                better = candidate.measured.beats(rival) and rival.behind(candidate.measured)
            else:
                better = candidate.measured.beats(best.measured.on(len(candidate.measured.chips)))
            if better and candidate.name not in self.refused:
                best = candidate
        return best

    def settle(self, finalists: Sequence[RemapCandidate]) -> None:
        """Take the order, best first, of candidates that were measured on further chips."""
        self.finalists, self._settled = tuple(finalists), len(self.tried)

    def exchange(self, old: RemapCandidate, new: RemapCandidate) -> None:
        """Put a candidate that was measured further in its place."""
        self.tried[self.tried.index(old)] = new
        self.required = new if self.required is old else self.required
        self._on_code = new if self._on_code is old else self._on_code

    def loss(self, measured: ChipScores) -> float:
        """How much of the nominal metric a candidate loses."""
        return measured.sign * (self.tried[0].measured.nominal - measured.nominal)

    @property
    def _one_sample(self) -> float:
        """What one sample counts: few of them cannot tell less, and more decide in the end."""
        count = self.conditions.dataset.count
        # A little more than 1/n: a loss of exactly one sample must not fail by the rounding of a difference.
        return 1.000001 / count if self.conditions.metric.unit == "fraction" else 0.0

    def late(self, name: str, passes: int = FIRST_CHIPS + 2, more_s: float = 0.0) -> bool:
        """Whether there is no time for one more candidate; then it counts as not tried."""
        if self._time_for(passes, more_s):
            return False
        self.untried.append(name)
        return True

    def _time_for(self, passes: int, more_s: float) -> bool:
        return time.perf_counter() + passes * self.pass_s + more_s <= self.deadline

    def room_for_code(self) -> bool:
        """Whether there is time to search for a code and to measure it."""
        return time.perf_counter() + (self.conditions.chips + 2) * self.pass_s + _SEARCH_S <= self.deadline

    def corrections(self, seen: Mapping[str, SeenSizes]) -> None:
        """Correct, in the best candidate, the means that noise and clipping shift."""
        best = self.best()
        if best.bench.workload.template.batch is not None:
            self.impossible.append("correcting means: the batch size of the model cannot be changed")
            return
        centres = find_centres(best.bench.loaded.model, best.bench.values, seen)
        kinds = [("normalisations re-estimated", True)] if centres.norms else []
        if not centres.norms:
            self.impossible.append("re-estimating batch normalisations: there are none")
        if centres.spots:
            kinds.append(("means corrected", False))
        else:
            self.impossible.append("correcting means: no bias or normalisation takes them up")
        self.centres = centres
        for what, norms in kinds:
            name = f"{best.name}, {what}"
            if not self.late(name, 2 * FIRST_CHIPS + 2):
                self.tell(name, len(self.tried), len(self.tried) + 1)
                try:
                    self._corrected(name, best, centres, norms)
                except ModelError as error:  # a mean that cannot be taken in this element type
                    self.impossible.append(f"{name}: {error}")

    def _corrected(self, name: str, base: RemapCandidate, centres: Centres, norms: bool) -> None:
        changed = base.arrays()
        clean = clean_moments(base.bench, centres, norms=norms)
        left = self.deadline - time.perf_counter()  # means may take a quarter of it
        in_time = (
            CHIPS if 4 * CHIPS * self.pass_s <= left else max(FIRST_CHIPS, int(left / (4 * self.pass_s)))
        )
        noisy = chip_moments(base.bench, changed, centres, clean, in_time, norms=norms)
        spots = {spot.value: spot.key for spot in centres.spots}
        shifts = {value: noisy[value].shift(clean[value]) for value in spots if value in noisy}
        shifts = {value: shift for value, shift in shifts.items() if shift.any()}
        statistics = {value: noisy[value].pooled for value in centres.norms if value in noisy}
        numbers = [*shifts.values(), *(n for pair in statistics.values() for n in pair)]
        if not numbers or not all(np.isfinite(array).all() for array in numbers):
            self.impossible.append(f"{name}: nothing shifts beyond chance")
            return
        loaded = with_centres(base.bench.loaded, centres, shifts, statistics)
        rescaling = replace(base.rescaling, loaded=loaded)
        touched = tuple(spot.key for spot in centres.spots if spot.value in shifts or norms)
        bench = self.bench(rescaling, base.bench.codes)
        self.candidate(name, bench, rescaling, base.limits, touched or ("",), base.rounding)

    def codes(
        self,
        choose: Callable[[Bench, Mapping[str, float] | None], ChosenCodes],
        *,
        required: bool,
        images: int = 0,
    ) -> None:
        """Give the weights of the best candidate other codes.

        Parameters
        ----------
        choose : callable
            Gives the codes of a structure's weights, by the noise power of their results where it is known.
        required : bool
            Whether hardware has this code, or has no devices for what was there: nothing else can be kept.
        images : int
            Samples on which it is measured what layers take, where codes differ by layers; 0: they do not.
        """
        best = self.best()
        base = best if self.required is not None else self._least_noise(best)
        bare = base.name if base.bench.codes is self.original.codes else base.name.rpartition(", ")[0]
        by_layers = bool(images)
        what = f"{bare}, codes by layers" if by_layers else f"{bare}, code"
        passes = self.conditions.chips + 2 + (_WATCHING if by_layers else 0)
        if not required and not self._time_for(passes, _SEARCH_S if by_layers else 0.0):
            if self.required is None:
                self._calculate(choose, base, bare)
            else:
                self.untried.append(what)
            return
        self.tell(f"{bare}, code", len(self.tried), len(self.tried) + 1)
        importance = None
        if by_layers:
            importance = noise_power(base.bench, self._input_moments(base.bench, images)[0])
        chosen = choose(base.bench, importance)
        bench = self.bench(base.rescaling, chosen)
        name = f"{bare}, {_code_name(bench)}"
        if any(candidate.name == name for candidate in self.tried):
            self.impossible.append(f"{what}: all layers get the code that was tried")
            return
        candidate = self.candidate(name, bench, base.rescaling, base.limits, base.corrected, required=True)
        # By calculation a code errs less than what it replaces; where chips cannot tell them apart (all of
        # them at the best accuracy, say), their order is luck and must not decide against it.
        if required or not candidate.measured.behind(best.measured, SURELY):
            self.required = candidate
        else:
            self.refused[name] = CODE_BEHIND
        self._on_code = self.best() if self.best().bench.codes is not self.original.codes else None

    def _calculate(
        self,
        choose: Callable[[Bench, Mapping[str, float] | None], ChosenCodes],
        base: RemapCandidate,
        bare: str,
    ) -> None:
        """Take the code that errs least by calculation, where there is no time to run chips on it."""
        begin = time.perf_counter()
        self.tell(f"{bare}, code by calculation", len(self.tried), len(self.tried) + 1)
        chosen = choose(base.bench, None)
        bench = base.bench.with_codes(chosen)
        unmeasured = replace(base.measured, quantised=float("nan"), chips=np.empty(0))
        candidate = RemapCandidate(
            f"{bare}, {_code_name(bench)}", bench, base.rescaling, base.limits, unmeasured,
            time.perf_counter() - begin, base.corrected, base.rounding,
        )  # fmt: skip
        self.tried.append(candidate)
        before, after = errors_by_calculation(base.bench, chosen)
        if not after < before:
            self.refused[candidate.name] = "errs no less by calculation"
            return
        self.required = self.calculated = self._on_code = candidate
        # Each of these would have to be measured.
        self.untried += [f"{candidate.name}, {what}" for what in (_ROUNDED, "clipped", "means corrected")]

    def _least_noise(self, best: RemapCandidate) -> RemapCandidate:
        """The structure that errs least by calculation, unless its chips are surely behind the best one's.

        On slices all of them may be at chance where noise is strong, and all be perfect where it is weak.
        """
        for candidate in reversed(self.tried):  # each has more freedom than the one before
            measured, reason = candidate.measured, self.refused.get(candidate.name, BEHIND)
            if reason == BEHIND and len(measured.chips) and not measured.behind(best.measured, SURELY):
                return candidate
        return best

    def _input_moments(self, bench: Bench, images: int) -> tuple[dict[str, InputMoments], dict[str, str]]:
        """What the weights of a structure are multiplied by; measured once, as rescaling comes before."""
        if self._inputs is None:
            self._inputs = input_moments(
                bench.loaded,
                list(bench.values),
                self.conditions.dataset,
                images,
                self.conditions.seed,
                self.conditions.provider,
            )
        return self._inputs

    def roundings(self, images: int) -> None:
        """Choose the codes of the best candidate's weights anew, for the noise that they make.

        Where that costs too much of the nominal metric, once more with more caution. What is cut off
        afterwards is rounded so, too.

        Parameters
        ----------
        images : int
            Samples, at most, on which it is measured what layers take.
        """
        base, begin = self.best(), time.perf_counter()
        if not any(spread > 0 for spread in relative_spread(base.bench).values()):
            return
        for caution in CAUTIONS:
            name = f"{base.name}, {_ROUNDED}" + ("" if caution == 1 else f", errors × {caution:g}")
            needed_s = sum(map(rounding_seconds, base.bench.weights.values()))
            if self.late(name, more_s=min(needed_s, _PATIENCE_S)):
                return
            self.tell(name, len(self.tried), len(self.tried) + 1)
            self._input_moments(base.bench, images)
            rounding = self._rounded(base.bench, base.limits, caution)
            self._rounding_s = time.perf_counter() - begin
            if not rounding.numbers:
                self.impossible.append(f"rounding: {next(iter(rounding.refused.values()), 'no weight')}")
                return
            begin = time.perf_counter()
            self.candidate(name, base.bench, base.rescaling, base.limits, base.corrected, rounding)
            if self.refused.get(name) != COSTS:
                return

    def more_cautious(self, candidate: RemapCandidate) -> None:
        """Round a candidate that turned out to cost too much with more caution, if there is time for it."""
        rounding = candidate.rounding
        left = [caution for caution in CAUTIONS if rounding is not None and caution > rounding.caution]
        if not left:
            return
        plain = re.sub(r", errors × [\d.]+", "", candidate.name)
        name = f"{plain}, errors × {left[0]:g}"
        if self.late(name, more_s=self._rounding_s):
            return
        rounded = self._rounded(candidate.bench, candidate.limits, left[0])
        self.candidate(
            name, candidate.bench, candidate.rescaling, candidate.limits, candidate.corrected, rounded
        )

    def _rounded(self, bench: Bench, limits: Limits, caution: float) -> RoundedWeights:
        assert self._inputs is not None
        return round_weights(bench, bench.cut(limits), *self._inputs, caution, self.deadline)

    def candidate(
        self,
        name: str,
        bench: Bench,
        rescaling: Rescaling,
        limits: Limits,
        corrected: tuple[str, ...] = (),
        rounding: RoundedWeights | None = None,
        *,
        required: bool = False,
    ) -> RemapCandidate:
        """Measure a candidate and remember it; one that is required on all chips, whatever they show."""
        begin = time.perf_counter()
        measured, reason = self._measure(bench, changed_weights(bench, limits, rounding), required)
        seconds = time.perf_counter() - begin
        candidate = RemapCandidate(name, bench, rescaling, limits, measured, seconds, corrected, rounding)
        self.tried.append(candidate)
        if reason == LATE:
            self.cut_short.add(name)
        elif reason:
            self.refused[name] = reason
        return candidate

    def bench(self, rescaling: Rescaling, codes: ChosenCodes | None) -> Bench:
        """Set a structure up, in a folder of its own: not every structure becomes a candidate."""
        number = len(list(self.folder.glob("structure-*")))
        return Bench(rescaling.loaded, self.conditions, self.folder / f"structure-{number}", codes)

    def _structure(self, name: str, insert: Insert, exponent: float) -> RemapCandidate | None:
        if self.tried and self.late(name):
            return None
        self.tell(name, len(self.tried), len(self.tried) + 1)
        rescaling = rescale(self.basis, insert, exponent)
        if self.tried and not rescaling.moved:
            return None  # there is nothing to rescale: it is the original
        codes = self.original.codes if self._on_code is None else self._on_code.bench.codes
        if codes is not None and codes.nearest:  # rescaled weights lie off the values of their code
            codes = replace(codes, nearest=frozenset())
        bench = self.bench(rescaling, codes) if self.tried else self.original
        return self.candidate(name, bench, rescaling, {})

    def _measure(self, bench: Bench, changed: Changed, required: bool) -> tuple[ChipScores, str]:
        """Measure a candidate as far as it is worth it; and why it cannot be kept, or nothing."""
        # Cheapest first: the nominal metric (one pass), then a few chips, which rule out what is behind by
        # more than chance, and the other chips only for what is left.
        higher = self.conditions.metric.higher_is_better
        nominal = bench.nominal(changed)
        measured = ChipScores(nominal, float("nan"), np.empty(0), higher)
        first = not self.tried or required
        if not first and not (
            np.isfinite(nominal) and self.loss(measured) <= self.allowed + self._one_sample
        ):
            return measured, COSTS
        total = self.conditions.chips
        few = total if first else min(FIRST_CHIPS, total)
        try:
            chips = bench.chips(changed)
            measured = replace(measured, chips=chips.run(range(few)))
            self.pass_s = chips.chip_s
            # A few chips that are behind by one standard error are so by chance in a fifth of all cases: good
            # enough only where time is short.
            ample = self._time_for(_AMPLE * (total + 2), 0.0)
            if not first and measured.behind(self.best().measured, SURELY if ample else 1.0):
                return measured, BEHIND
            if not first and time.perf_counter() + (total - few + 1) * self.pass_s > self.deadline:
                return measured, LATE
            values = chips.run([QUANTISED, *range(few, total)])
        except ModelError as error:  # its outputs overflow
            if first:
                raise
            return measured, str(error)
        return ChipScores(nominal, float(values[0]), np.concatenate([measured.chips, values[1:]]), higher), ""

    def _family(self, structure: RemapCandidate, levels: Iterator[tuple[str, Limits]]) -> None:
        """Try levels until one costs too much, or does worse than the one before: the next cut off more."""
        before = structure
        for what, limits in levels:
            name = f"{structure.name}, {what}"
            if not limits:
                continue
            rounding = structure.rounding
            if self.late(name, more_s=0.0 if rounding is None else self._rounding_s):
                return
            self.tell(name, len(self.tried), len(self.tried) + 1)
            if rounding is not None:
                rounding = self._rounded(structure.bench, limits, rounding.caution)
            candidate = self.candidate(name, structure.bench, structure.rescaling, limits, rounding=rounding)
            # What costs too much, or overflows, ends the family: the next level cuts off more. What is only
            # behind the best so far is compared with the level before it.
            if self.refused.get(name, BEHIND) != BEHIND:
                return
            if candidate.measured.behind(before.measured) or before.measured.beats(candidate.measured):
                return
            before = candidate


def errors_by_calculation(bench: Bench, chosen: ChosenCodes) -> tuple[float, float]:
    """Expected error of all weights, root mean square over max|W|, as they are mapped and on other codes."""
    sizes = np.array([bench.values[key].size for key in chosen.of], np.float64)

    def together(errors: Mapping[str, CodeError]) -> float:
        each = np.array([errors[key].total for key in chosen.of])
        return float(np.sqrt(sizes @ np.square(each) / sizes.sum()))

    if bench.codes is not None:
        return together(bench.codes.errors), together(chosen.errors)
    assert chosen.slices is not None
    return chosen.slices.error.total, together(chosen.errors)


def _code_name(bench: Bench) -> str:
    """A code in words, or how many devices several take on average."""
    assert bench.codes is not None
    codes = set(bench.codes.of.values())
    if len(codes) == 1:
        (code,) = codes
        return f"code {'±' if code.encoding == 'sign_per_device' else ''}{code.text}"
    sizes = {key: values.size for key, values in bench.values.items()}
    devices = sum(sizes[key] * code.devices for key, code in bench.codes.of.items())
    return f"codes on {devices / sum(sizes.values()):.2f} devices"


def order_of(candidate: RemapCandidate) -> tuple[float, float]:
    """What candidates are ranked by: their worst quarter, then their mean."""
    measured = candidate.measured
    return measured.sign * measured.worst, measured.sign * measured.mean
