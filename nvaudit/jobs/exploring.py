"""The use case: a design space, cost first, and the front of KPP against cost for a part of the chips."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nvaudit.cost.estimate import cost_of
from nvaudit.cost.workload import ModelWorkload, measure_workload
from nvaudit.coverage import Coverage, count_coverage
from nvaudit.declare import fields_of
from nvaudit.device import DeviceProfile, load_profile
from nvaudit.errors import OptionError, ProfileError
from nvaudit.exploration.audited import PointChips
from nvaudit.exploration.reporting import Exploration, PointNumbers, explore_report
from nvaudit.exploration.search import (
    ImpossiblePointError,
    SearchedPoint,
    SearchEnded,
    Wanted,
    gate_of,
    recommend,
    search_front,
    tied_with,
)
from nvaudit.exploration.space import Settings, Space, likeness, read_baseline, settle_space
from nvaudit.exploration.spec import OF_ONE_AUDIT, ExploreOptions, Objective, SpaceOptions
from nvaudit.files import holding_inputs
from nvaudit.jobs.costing import INPUT_BITS, design_point, settle_technology
from nvaudit.jobs.measuring import RACE_CHIPS, RACE_SAMPLES, race_obstacle
from nvaudit.jobs.remapped_points import RemappedPoints
from nvaudit.keywords import takes_options
from nvaudit.perturb.engine import Engine
from nvaudit.perturb.lock import lock_folder
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.montecarlo import ChipRunner
from nvaudit.perturb.outcome import Outcome, Probe
from nvaudit.perturb.pools import ManyWorkloads, WorkloadPool, check_pool, open_pool
from nvaudit.perturb.racing import Scouting, scout
from nvaudit.perturb.record import open_record
from nvaudit.perturb.schedule import Progress, labelled, quiet
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.perturb.settle_codes import settle_codes
from nvaudit.perturb.stop import Stop, TimeLimit
from nvaudit.perturb.workers import Pool
from nvaudit.report.explore.result import COSTS, ExploreReport, LeftOut, PointCost, PointStatus
from nvaudit.report.rerun import audit_command, remap_command, remapped_name
from nvaudit.session import (
    Session,
    check_converters,
    prepare,
    prepare_again,
    settle_device,
    settle_metric,
)
from nvaudit.spec import RunSpec, flag, make_spec
from nvaudit.stats.front import elimination_rule
from nvaudit.stats.ranks import RACE_ERROR
from nvaudit.technology import Technology
from nvaudit.technology_options import check_technology

_IDEAL = {name: fields_of(RunSpec)[name].default for name in ("adc_bits", "dac_bits", "adc_range")}
_SCOUTED = 8
"""Chips of the dearest point that tell hard samples from easy ones, at most."""


@takes_options(RunSpec, ExploreOptions, SpaceOptions)
def explore(
    model: str | Path,
    device: str | Path = "rram",
    data: str | Path | None = None,
    *,
    progress: Progress = quiet,
    resume: str | Path | None = None,
    **options: Any,
) -> ExploreReport:
    """Find the front of KPP against cost over a design space.

    Parameters
    ----------
    model, device, data, progress
        As of :func:`nvaudit.audit`.
    resume : str or Path, optional
        A folder with a folder for each point, which keep finished chips.
    **options
        The fields of :class:`nvaudit.exploration.spec.SpaceOptions`, each a sequence of values, those of
        :class:`nvaudit.exploration.spec.ExploreOptions`, and those of :class:`nvaudit.spec.RunSpec` that all
        points have in common.

    Raises
    ------
    NvauditError
        If anything about the input is wrong, or no point of the space can be.
    """
    axes = {name: options.pop(name) for name in SpaceOptions.model_fields if name in options}
    own = {name: options.pop(name) for name in ExploreOptions.model_fields if name in options}
    plan = plan_exploration(model, device, data, axes=axes, own=own, options=options)
    return run_exploration(plan, progress, None if resume is None else Path(resume))


class Pricer(Protocol):
    """Counts what a point costs; ``name`` is that of the technology."""

    @property
    def name(self) -> str: ...  # noqa: D102

    def prepare(self, session: Session, specs: Sequence[RunSpec]) -> None:
        """Look at a model once, before the cost of its points is asked for."""

    def cost(self, spec: RunSpec, profile: DeviceProfile) -> PointCost:
        """Give the cost of a point; raises OptionError where the technology cannot have it."""


@dataclass
class TechnologyPricer:
    """Costs of points in a technology, with inputs as chips are simulated: one voltage each."""

    technology: Technology
    _models: dict[str, tuple[Session, ModelWorkload]] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        """Name of the technology's profile."""
        return self.technology.name

    def prepare(self, session: Session, specs: Sequence[RunSpec]) -> None:
        """Look at the model and at the inputs of its layers, once for all points."""
        bits = sorted({spec.dac_bits or INPUT_BITS for spec in specs})
        workload = measure_workload(
            session.loaded, session.rebatch, session.decisions, session.dataset, input_bits=bits,
            provider=session.spec.provider,
        )  # fmt: skip
        self._models[session.spec.model] = session, workload

    def cost(self, spec: RunSpec, profile: DeviceProfile) -> PointCost:
        """Work out the cost of a point."""
        session, workload = self._models[spec.model]
        codes = settle_codes(spec, settle_device(spec)[1], session.decisions)
        point = replace(design_point(spec, profile, codes), input_mode="parallel")
        cost = cost_of(workload, self.technology, point)
        return PointCost(
            energy_j=cost.energy_j,
            latency_s=cost.latency_s,
            area_m2=cost.area_m2,
            edp_js=cost.edp_js,
            crossbars=cost.crossbars,
            utilisation=cost.utilisation,
            energy_by_component={name: part.energy_j for name, part in cost.components.items()},
        )


@dataclass(frozen=True)
class ExplorePlan:
    """What is explored.

    Attributes
    ----------
    base : RunSpec
        What all points have in common.
    specs : dict of int to RunSpec
        Of the combinations that the device can have, by their number, with the model as given.
    left_out : tuple of (str, int)
        Why other combinations cannot be, with their numbers.
    baseline : mapping or None
        Settings of the point that is compared with.
    """

    base: RunSpec
    own: ExploreOptions
    space: Space
    settings: tuple[Settings, ...]
    specs: dict[int, RunSpec]
    left_out: tuple[tuple[str, int], ...]
    baseline: Settings | None
    pricer: Pricer


def plan_exploration(
    model: str | Path,
    device: str | Path,
    data: str | Path | None,
    *,
    axes: Mapping[str, object],
    own: Mapping[str, object],
    options: Mapping[str, Any],
    pricer: Pricer | None = None,
) -> ExplorePlan:
    """Settle what is run; nothing but the profile and the file of the space is read.

    Parameters
    ----------
    axes : mapping
        Fields of :class:`nvaudit.exploration.spec.SpaceOptions`; None where an axis is not given.
    own : mapping
        Fields of :class:`nvaudit.exploration.spec.ExploreOptions`.
    options : mapping
        Fields of :class:`nvaudit.spec.RunSpec` that all points have in common.
    pricer : Pricer, optional
        Without one costs are those of the technology that the options name.

    Raises
    ------
    NvauditError
        If an option is wrong, or no combination can be.
    """
    for name in OF_ONE_AUDIT:
        if name in options:
            raise OptionError(f"{flag(name)}: an exploration does not take it; audit one point with it")
    asked = ExploreOptions.validated(own)
    base = make_spec(model=model, device=device, data=data, **{**options, "roughness": False})
    _check_point(base)
    pricer = TechnologyPricer(settle_technology(base)) if pricer is None else pricer
    profile = load_profile(base.device)
    space = settle_space(axes, None if asked.space is None else Path(asked.space), profile)
    settings = tuple(space.combinations())
    specs, left_out = {}, []
    for number, chosen in enumerate(settings):
        try:
            specs[number] = _spec_of(base, chosen)
        except (OptionError, ProfileError) as error:
            left_out.append((str(error), number))
    if not specs:
        raise ProfileError(f"no point of the design space can be: {left_out[0][0]}")
    baseline = None if asked.baseline is None else read_baseline(asked.baseline, space)
    if baseline is not None:
        _spec_of(base, baseline)
    return ExplorePlan(base, asked, space, settings, specs, tuple(left_out), baseline, pricer)


def _spec_of(base: RunSpec, settings: Settings) -> RunSpec:
    """The audit of a point that the device can have, with the model as given."""
    options = {name: value for name, value in settings.items() if name in RunSpec.model_fields}
    spec = make_spec(
        **{**base.model_dump(), "max_minutes": None, **options}
    )  # the time is that of all points
    check_converters(spec)
    if spec.technology is not None:
        check_technology(spec, spec.adc_bits, audited=True)
    settle_device(spec)
    return spec


def _check_point(spec: RunSpec) -> None:
    for name in ("sigmas", "percentiles"):
        values = getattr(spec, name)
        if len(values) > 1:
            raise OptionError(f"{flag(name)}: got {len(values)} values; an exploration has one")


@holding_inputs()
def run_exploration(
    plan: ExplorePlan, progress: Progress = quiet, resume: Path | None = None
) -> ExploreReport:
    """Run a plan: cost every point, leave out what cannot be on the front, and audit the others.

    Parameters
    ----------
    progress : callable
        Called with (what, done, total).
    resume : Path, optional
        A folder with a folder for each point, which keep finished chips.

    Raises
    ------
    NvauditError
        If anything about the input is wrong, or the folder is of another run or in use.
    """
    check_pool(plan.base.dask)
    with scratch_folder() as folder, ExitStack() as stack:
        if resume is not None:
            stack.enter_context(lock_folder(resume))
        run = _Exploration(plan, folder, progress, resume, TimeLimit.of_run(plan.base.max_minutes))
        share = run.limit.share()
        run.stop.end_in(None if share is None else 60 * share)
        run.settle()
        run.price()
        pool = open_pool(plan.base.workers, plan.base.dask, ManyWorkloads(), str(folder), run.events.append)
        run.pool = stack.enter_context(pool)
        run.audit()
        return run.report()


@dataclass
class _Exploration:
    """An exploration while it runs."""

    plan: ExplorePlan
    folder: Path
    progress: Progress
    resume: Path | None
    limit: TimeLimit
    stop: Stop = field(default_factory=Stop)
    events: list[str] = field(default_factory=list)
    pool: Pool | None = None
    session: Session = field(init=False)
    metric: Metric = field(init=False)
    coverage: Coverage = field(init=False)
    remapped: RemappedPoints = field(init=False)
    nominal: float = math.nan
    keep: str | None = None
    margin: NDArray[np.float64] | None = None
    not_bounded: str = ""
    scouting: Scouting | None = None
    scouted: int = 0
    rebatching: bool = True
    specs: dict[int, RunSpec] = field(default_factory=dict)
    costs: dict[int, PointCost] = field(default_factory=dict)
    left_out: list[tuple[str, int]] = field(default_factory=list)
    statuses: dict[int, tuple[PointStatus, int | None]] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    results: list[SearchedPoint] = field(default_factory=list)
    base_spec: RunSpec | None = None
    baseline: tuple[Settings, str, PointCost, SearchedPoint] | None = None

    def settle(self) -> None:
        """Read model and data, and run the unmodified model: the same for all points."""
        self.progress("reading model and data", 0, 1)
        place = self.folder / "base"
        place.mkdir()
        first = next(iter(self.plan.specs.values()))
        session = prepare(first.model_copy(update=_IDEAL), place)
        engine = Engine(session.workload)
        self.progress("running the unmodified model", 0, 1)
        probe: Probe = engine.probe()
        if session.rebatching_failed(probe):
            session, self.rebatching = prepare_again(session, probe), False
            engine = Engine(session.workload)
            probe = engine.probe()
        session.ran = probe.ran
        self.session, self.metric = session, settle_metric(session, probe)
        self.keep = session.reference_file(self.metric)
        outcome: Outcome = engine.nominal(self.metric, self.keep, session.workload.ideal)
        self.nominal = outcome.value
        reason = race_obstacle(session, self.metric)
        if reason is None:
            self.margin = engine.margins(self.metric, self.keep)
        self.not_bounded = reason or ""
        self.coverage = count_coverage(session.loaded, session.rebatch, session.decisions, session.dataset)
        self.remapped = RemappedPoints(
            self.folder if self.resume is None else self.resume, self.plan.own.calibration_data, self.progress
        )

    def _audited_spec(self, spec: RunSpec, settings: Settings) -> RunSpec:
        """The audit of a point with the model that it asks for."""
        return self.remapped.point(spec) if settings.get("remap") == "yes" else spec

    def price(self) -> None:
        """Count the costs, and settle which points are audited, in ascending order of cost."""
        plan, own = self.plan, self.plan.own
        self.left_out = list(plan.left_out)
        for number, spec in plan.specs.items():
            try:
                self.specs[number] = self._audited_spec(spec, plan.settings[number])
            except (OptionError, ProfileError) as error:
                self.left_out.append((f"--remap: {error}", number))
        if plan.baseline is not None:
            self.base_spec = self._audited_spec(_spec_of(plan.base, plan.baseline), plan.baseline)
        self.progress("counting costs", 0, len(self.specs))
        self._prepare_costs()
        for done, (number, spec) in enumerate(self.specs.items(), 1):
            try:
                self.costs[number] = plan.pricer.cost(spec, settle_device(spec)[0])
            except (OptionError, ProfileError) as error:
                self.left_out.append((str(error), number))
            self.progress("counting costs", done, len(self.specs))
        if not self.costs:
            raise OptionError(f"no point of the design space has a cost: {self.left_out[-1][0]}")
        objective = COSTS[own.against][0]
        # Of equal cost the one that is smaller in the other costs first, then the first of the space.
        ranked = sorted(
            self.costs,
            key=lambda n: (
                getattr(self.costs[n], objective),
                *(getattr(self.costs[n], name) for name, _, _ in COSTS.values()),
                n,
            ),
        )
        cheapest: dict[str, int] = {}
        for number in ranked:
            same = cheapest.setdefault(_chip_key(self.specs[number]), number)
            if any(getattr(self.costs[number], COSTS[c][0]) > limit for c, limit in budgets_of(own).items()):
                self.statuses[number] = ("over_budget", None)
            elif same != number:
                # The same chips have the same KPP, so what costs more is dominated without an audit.
                self.statuses[number] = ("same_chips", same)
            else:
                self.order.append(number)

    def _prepare_costs(self) -> None:
        """Let the pricer look at each model that points have."""
        models: dict[str, list[RunSpec]] = {}
        for spec in (*self.specs.values(), *([] if self.base_spec is None else [self.base_spec])):
            models.setdefault(spec.model, []).append(spec)
        for place, (model, specs) in enumerate(models.items()):
            session = self.session
            if model != self.plan.base.model:
                folder = self.folder / f"model-{place}"
                folder.mkdir()
                session = prepare(specs[0].model_copy(update=_IDEAL), folder, rebatching=self.rebatching)
            self.plan.pricer.prepare(session, specs)

    def audit(self) -> None:
        """Search for the front, and audit the baseline."""
        spec, sign = self.plan.base, 1.0 if self.metric.higher_is_better else -1.0
        percentile, exhaustive = spec.percentiles[0], spec.exhaustive
        if len(self.order) > 1 and self.margin is not None:
            with suppress(SearchEnded):
                self._scout(self.order[-1])
        rule = None if exhaustive else elimination_rule(percentile, spec.trials)
        wanted = Wanted(
            -math.inf if spec.min_kpp is None else sign * spec.min_kpp,
            percentile,
            spec.trials,
            rule,
            RACE_ERROR * (1 - spec.confidence),
        )
        objective = COSTS[self.plan.own.against][0]
        costs = [
            getattr(self.costs[n], objective) if n in self.costs else math.inf
            for n in range(len(self.plan.settings))
        ]
        settings, axes = self.plan.settings, self.plan.space.varied
        self.results = search_front(
            self.order, costs, wanted, self._opened,
            lambda one, other: likeness(settings[one], settings[other], axes), due=self.stop.due,
        )  # fmt: skip
        if self.plan.baseline is not None and self.base_spec is not None and not self.stop.due():
            self._audit_baseline(self.plan.baseline, self.base_spec, wanted)

    def _scout(self, number: int) -> None:
        """Run a few chips on every sample, for what they say of the samples."""
        with self._opened(number, "looking for hard samples") as chips:
            assert self.margin is not None
            few = min(_SCOUTED, max(2, self.plan.base.trials // _SCOUTED))
            self.scouting = scout(chips.runner, 0, range(few), self.margin, chips.folder)
            if self.scouting is None:
                raise SearchEnded
            self.scouted = chips.images

    @property
    def raced(self) -> bool:
        """Whether chips of the front are raced."""
        enough = self.session.dataset.count >= RACE_SAMPLES and self.plan.base.trials >= RACE_CHIPS
        return self.margin is not None and enough

    def _audit_baseline(self, settings: Settings, spec: RunSpec, wanted: Wanted) -> None:
        """Measure the point that is compared with, unless it was measured already."""
        cost = self.plan.pricer.cost(spec, settle_device(spec)[0])
        key = _chip_key(spec)
        known = next(
            (f for f in self.results if f.known is not None and _chip_key(self.specs[f.point]) == key),
            None,
        )
        if known is None:
            (known,) = search_front(
                [-1],
                [0.0],
                replace(wanted, floor=-math.inf, rule=None),
                lambda _: self._opened_spec(spec, "baseline"),
            )
            if known.place == "not_reached":
                return
        command = _command(_spec_of(self.plan.base, settings), spec, settings)
        self.baseline = (settings, command, cost, known)

    @contextmanager
    def _opened(self, number: int, what: str = "") -> Iterator[PointChips]:
        place = self.order.index(number) + 1
        label = f"point {place} of {len(self.order)}{f', {what}' if what else ''}"
        with self._opened_spec(self.specs[number], label) as chips:
            yield chips

    @contextmanager
    def _opened_spec(self, spec: RunSpec, label: str) -> Iterator[PointChips]:
        """Prepare a point for auditing; its files go afterwards."""
        assert self.pool is not None
        name = hashlib.sha256(_chip_key(spec).encode()).hexdigest()[:12]
        folder = self.folder / f"point-{name}"
        folder.mkdir()
        progress = labelled(self.progress, label)
        progress("preparing", 0, spec.trials)
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                session = prepare(spec, folder, rebatching=self.rebatching)
            except (OptionError, ProfileError) as error:
                raise ImpossiblePointError(str(error)) from error
            record = None
            if self.resume is not None:
                kept = self.resume / f"point-{name}"
                kept.mkdir(parents=True, exist_ok=True)
                record = stack.enter_context(open_record(kept, session.identity(self.metric)))
            pool = WorkloadPool(self.pool, session.workload)
            runner = ChipRunner(pool, self.metric, self.keep, 1, spec.trials, progress, record, self.stop)
            learnt = self.folder / f"learnt-{name}"
            learnt.mkdir(exist_ok=True)
            chips = PointChips(
                runner, self.margin, self.raced, self.scouting, spec.percentiles[0], spec.confidence, learnt
            )
            yield chips
            # Points are measured that may be on the front, so their chips err as those err that are still to
            # be thrown out: by the same ADCs and cells, and not those of the dearest point.
            self.scouting = chips.own or self.scouting

    def report(self) -> ExploreReport:
        """Put everything together."""
        spec = self.plan.base
        floor = None if spec.min_kpp is None else (1 if self.metric.higher_is_better else -1) * spec.min_kpp
        front = [result for result in self.results if result.place == "front"]
        k, confidence = spec.percentiles[0], spec.confidence
        ties = {result.point: tied_with(result, front, k, confidence) for result in front}
        gates = {} if floor is None or spec.min_kpp is None else {
            result.point: gate_of(result, floor, spec.min_kpp, k, confidence) for result in front
        }  # fmt: skip
        invalid = [(result.reason, result.point) for result in self.results if result.place == "invalid"]
        numbers = PointNumbers(
            self.plan.space,
            self.plan.settings,
            {n: _command(self.plan.specs[n], self.specs[n], self.plan.settings[n]) for n in self.costs},
            self.costs,
            self.statuses,
            self.results,
            ties,
            gates,
        )
        exhaustive = len(self.order) * spec.trials * self.session.dataset.count
        return explore_report(
            numbers,
            Exploration(
                spec=spec, own=self.plan.own, metric=self.metric, budgets=budgets_of(self.plan.own),
                nominal=self.nominal, technology=self.plan.pricer.name, left_out=_grouped(
                    [*self.left_out, *invalid], self.plan.space, self.plan.settings),
                choice=recommend(front, ties, gates), baseline=self.baseline,
                scouted=self.scouted, exhaustive=exhaustive,
                raced=self.raced, not_bounded=self.not_bounded,
                error=RACE_ERROR * (1 - confidence) if self.raced else 0.0, minutes=self.limit.spent,
            ),
            self._header(),
        )  # fmt: skip

    def _header(self) -> dict[str, Any]:
        """What every report says, of the unmodified model and the device as given."""
        header = self.session.header() | {
            "device": load_profile(self.plan.base.device).model_dump(mode="json")
        }
        return header | {
            "events": (*self.session.events, *self.events),
            "notes": tuple(self.session.notes),
            "timing": {"total": 60 * self.limit.spent},
            "data": self.session.dataset.facts(),
            "mapped": self.coverage.share,
            "run": self.plan.base.model_dump(mode="json"),
        }


def _command(given: RunSpec, audited: RunSpec, settings: Settings) -> str:
    """The command line that audits a point; a remapped model has to be made first."""
    run = audited.model_copy(update={"roughness": True}).model_dump(mode="json")
    if settings.get("remap") != "yes":
        return audit_command(run)
    return " && ".join((
        remap_command(given.model_dump(mode="json")),
        audit_command({**run, "model": remapped_name(given.model)}),
    ))  # fmt: skip


def budgets_of(own: ExploreOptions) -> dict[Objective, float]:
    """The limits on costs, by the name of the cost."""
    limits = {cost: getattr(own, f"max_{cost}") for cost in COSTS}
    return {cost: limit for cost, limit in limits.items() if limit is not None}


def _chip_key(spec: RunSpec) -> str:
    """The same for points with the same simulated chips."""
    return json.dumps({"model": spec.model, **spec.chip_options()}, sort_keys=True, default=str)


def _grouped(
    left_out: Sequence[tuple[str, int]], space: Space, settings: Sequence[Settings]
) -> tuple[LeftOut, ...]:
    """Count combinations that cannot be, by the reason."""
    groups: dict[str, list[int]] = {}
    for reason, number in left_out:
        groups.setdefault(reason, []).append(number)
    return tuple(
        LeftOut(reason=reason, count=len(numbers), example=space.label(settings[numbers[0]]))
        for reason, numbers in groups.items()
    )
