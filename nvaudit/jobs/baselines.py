"""The report that an audit is held against: found, read, and checked to be of the same chips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from nvaudit.errors import OptionError
from nvaudit.perturb.metrics import Metric
from nvaudit.report.cases import points_of
from nvaudit.report.check.result import CheckReport
from nvaudit.report.comparison.conditions import differences, point_conditions
from nvaudit.report.kinds import read_any, report_text
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import BaselineInfo, TrialSummary
from nvaudit.session import Session
from nvaudit.stats.drop import FormerChips

_WANTED = "a report.json of `nvaudit audit` or `nvaudit check`"

_CONVERTERS = ("adc_bits", "dac_bits", "adc_range")


@dataclass(frozen=True)
class Baseline:
    """What the chips of a run are paired with.

    Attributes
    ----------
    info : BaselineInfo
        Where they come from, for the report.
    values : mapping of float to FormerChips
        Every chip, by sigma.
    """

    info: BaselineInfo
    values: Mapping[float, FormerChips]

    @property
    def chips(self) -> int:
        """How many there are at each sigma, at least."""
        return min(len(chips.low) for chips in self.values.values())


def settle_baseline(session: Session, metric: Metric) -> Baseline | None:
    """Read the report of ``--baseline``; None without one.

    Raises
    ------
    OptionError
        If it is of other conditions, naming each difference, or does not have every chip.
    DataError
        If the file is no report.
    """
    path = session.spec.baseline_report
    if path is None:
        return None
    _, report = read_any(report_text(path, _WANTED), path, _WANTED)
    audit = _chosen(report, path, session, metric)
    values = {}
    for point in session.points:
        there = next(one for one in points_of(audit) if one.sigma == point.sigma)
        values[point.sigma] = _before(there.trials, session.spec.confidence, path)
    info = BaselineInfo(
        path=path,
        model=audit.model.path,
        model_sha256=audit.hashes.model,
        nvaudit_version=audit.nvaudit_version,
    )
    return Baseline(info, values)


def _before(trials: TrialSummary, confidence: float, path: str) -> FormerChips:
    """The chips of a report; those that its races stopped by what is sure of them."""
    if None not in trials.values:
        return FormerChips.exact(np.asarray(trials.values, dtype=np.float64))
    race = trials.race
    # Limits may be wrong with a chance that the verdict's own error must leave room for.
    if race is None or not race.at_least or not race.at_most or 2 * race.error > 1 - confidence:
        why = "the run was ended early, its confidence was lower, or an older version wrote it"
        raise OptionError(
            f"--baseline {path}: {trials.values.count(None):,} of its {trials.count:,} chips were stopped "
            f"early and have no limits to compare with ({why}); make it once more, or with --exhaustive"
        )
    low = np.array([-np.inf if value is None else value for value in trials.values])
    high = np.array([np.inf if value is None else value for value in trials.values])
    stopped = [value is None for value in trials.values]
    low[stopped] = [-np.inf if limit is None else limit for limit in race.at_least]
    high[stopped] = [np.inf if limit is None else limit for limit in race.at_most]
    return FormerChips(low, high, race.wrong_at_least, race.wrong_at_most, race.error)


def _chosen(report: object, path: str, session: Session, metric: Metric) -> AuditReport:
    """The audit of the report that is of the same conditions; of a matrix that of the same model first."""
    if isinstance(report, AuditReport):
        audits = [report]
    elif isinstance(report, CheckReport):
        audits = list(report.reports)
    else:
        raise OptionError(f"--baseline {path}: give {_WANTED}")
    name = _file(str(session.loaded.path))
    # Where nothing of the same name is there, a model that was renamed may be meant.
    named = [audit for audit in audits if _file(audit.model.path) == name] or audits
    differing = {index: list(_differences(audit, session, metric)) for index, audit in enumerate(named)}
    same = [index for index, differences in differing.items() if not differences]
    if len(same) == 1:
        return named[same[0]]
    if same:
        raise OptionError(f"--baseline {path}: {len(same)} of its audits are of these conditions; give one")
    nearest = min(differing.values(), key=len)
    raise OptionError(
        f"--baseline {path}: it is of other conditions: {'; '.join(nearest)}; audit both under the same"
    )


def _file(path: str) -> str:
    return PurePath(path.replace("\\", "/")).name


def _differences(audit: AuditReport, session: Session, metric: Metric) -> Iterator[str]:
    """Each condition that is not the same, with both values."""
    spec, point = session.spec, session.points[0]
    where = audit.operating_point
    mine = {
        **point_conditions(
            session.profile.model_dump(mode="json"),
            point.sigma,
            point.sigma_unit,
            point.time_s,
            [term.name for term in point.terms],
        ),
        "data": session.dataset.digest[:12],
        "samples": session.dataset.count,
        "metric": metric.name,
        "seed": spec.seed,
        **{name.replace("_", " "): getattr(spec, name) for name in _CONVERTERS},
    }
    theirs = {
        **point_conditions(audit.device, where.sigma, where.sigma_unit, where.time_s, where.terms),
        "data": audit.hashes.data[:12],
        "samples": audit.data.count,
        "metric": audit.metric,
        "seed": audit.run.get("seed"),
        **{name.replace("_", " "): audit.run.get(name) for name in _CONVERTERS},
    }
    if spec.adc_bits is not None:
        mine["crossbar"], theirs["crossbar"] = list(spec.crossbar), audit.run.get("crossbar")
    sigmas = [one.sigma for one in points_of(audit)]
    mine.pop("sigma")
    theirs.pop("sigma")
    missing = [f"{one.sigma:g}" for one in session.points if one.sigma not in sigmas]
    if missing:
        yield f"sigma: {', '.join(f'{sigma:g}' for sigma in sigmas)} there, {', '.join(missing)} here"
    for key, texts in differences(theirs, mine).items():
        yield f"{key} differs" if texts is None else f"{key}: {texts[0]} there, {texts[1]} here"
