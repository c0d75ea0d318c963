"""Where a gate fails: find out, in a part of the run's time, what another code of the weights would give."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nvaudit.device import OperatingPoint
from nvaudit.errors import ModelError, OptionError
from nvaudit.mapping.conductance import layout
from nvaudit.mapping.tiling import device_columns
from nvaudit.perturb.choose_codes import ChosenCodes
from nvaudit.perturb.engine import Engine
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.open_chips import OpenChips
from nvaudit.perturb.schedule import Progress
from nvaudit.perturb.settle_codes import settle_codes
from nvaudit.report.cases import deciding_point
from nvaudit.report.codes import CodeErrors
from nvaudit.report.remedy import Remedy, RemedyChips
from nvaudit.report.result import AuditReport
from nvaudit.session import Session, prepare
from nvaudit.spec import RunSpec
from nvaudit.stats.gate import overall_verdict

SHARE, LEAST_S, MOST_S = 0.2, 3.0, 30.0
"""What it may take: a share of the run so far, within limits."""

FEW, CHIPS = 4, 16
"""Chips, at least and at most: the same number on every machine that has the time."""

SAMPLES = 64
"""Samples of each, at least."""

SEARCH_S = 1.0
"""What the search for a code takes, about."""

_WEIGHTS_A_SECOND = 2e7
"""Weights that are read and counted in a second, about."""


def find_remedy(
    session: Session,
    metric: Metric,
    chip_s: float,
    report: AuditReport,
    begin: float,
    progress: Progress,
) -> Remedy | None:
    """Measure some of a failing audit's chips with the code that ``auto`` chooses, in the time there is.

    Parameters
    ----------
    chip_s : float
        Seconds of a chip on every sample.
    report : AuditReport
        Without a remedy.
    begin : float
        When the run began, by :func:`time.perf_counter`.

    Returns
    -------
    Remedy or None
        None where no gate of the chips fails, and where weights have a code already.
    """
    failing = deciding_point(report)
    if failing is None or session.codes is not None or overall_verdict(failing.gate) != "fail":
        return None
    start = time.perf_counter()
    budget = float(np.clip(SHARE * (start - begin), LEAST_S, MOST_S))
    point = next(one for one in session.points if one.sigma == failing.sigma)
    progress("what another code would give", 0, 1)
    spec = _coded(session, point)
    arrays = [(tensor.code.open().size, tensor.array) for tensor in session.workload.tensors]
    weights = sum(size for size, _ in arrays)
    devices = sum(size * device_columns(array) for size, array in arrays) / weights
    prepare_s = session.timing.get("prepare", 0.0)
    images, chips = _fitting(session, budget - SEARCH_S - prepare_s, chip_s)
    codes, measured, why = None, None, None
    try:
        if chips:
            codes, measured = _measured(session, spec.model_copy(update={"limit": images}), metric, chips,
                                        start + budget, failing.gate[0].threshold)  # fmt: skip
        elif SEARCH_S + weights / _WEIGHTS_A_SECOND < budget:
            codes = settle_codes(spec, (point,), session.decisions)
            why = f"that takes longer than {budget:.2g} s, a part of this run's time"
        else:
            why = f"a search takes longer than {budget:.2g} s, a part of this run's time"
    except (ModelError, OptionError) as error:  # no code of so many devices, or outputs that overflow
        codes, why = None, str(error)
    one = None if codes is None else codes.used[0]
    return Remedy(
        sigma=point.sigma,
        code=None if one is None else one.code.text,
        encoding=None if one is None else one.code.encoding,
        devices_per_weight=devices if one is None else one.code.devices,
        errors=None if one is None else CodeErrors(**asdict(one.error)),
        slices=None if codes is None or codes.slices is None else CodeErrors(**asdict(codes.slices.error)),
        chips=measured,
        why_not=why,
    )


def _coded(session: Session, point: OperatingPoint) -> RunSpec:
    """The audit's specification at one point, with the code that is searched for."""
    array = layout(session.profile, bits=session.profile.weight_bits)
    changed = {
        "bits": None,
        "top_slice": None,
        "offset_zero": None,
        "skip_zero_groups": False,
        "code": "auto",
        "devices_per_weight": float(device_columns(array)),
        "sigmas": (point.sigma,),
        "min_kpp": None,
    }
    return session.spec.model_copy(update=changed)


def _fitting(session: Session, room_s: float, chip_s: float) -> tuple[int, int]:
    """Samples and chips that fit into the time; no chip where fewer than a few do."""
    count = session.dataset.count
    if chip_s <= 0 or (room_s < FEW * chip_s and session.dataset.together):
        return count, 0
    images = min(count, int(count * room_s / (FEW * chip_s)))
    if images < min(count, SAMPLES):
        return count, 0
    return images, max(FEW, min(CHIPS, int(room_s / (chip_s * images / count))))


def _measured(
    session: Session, spec: RunSpec, metric: Metric, chips: int, end: float, threshold: float
) -> tuple[ChosenCodes | None, RemedyChips]:
    """Run the first chips with another code until the time is over; a few at least."""
    folder = Path(session.workload.folder) / "coded"
    folder.mkdir()
    coded = prepare(spec, folder, rebatching=session.rebatch.status == "rebatched")
    keep = coded.reference_file(metric)
    if keep is not None:
        Engine(coded.workload).nominal(metric, keep, coded.workload.ideal)
    lanes = max(1, min(session.spec.workers, FEW))
    opened = OpenChips(coded.workload, metric, keep, lanes)
    values: list[float] = []
    while len(values) < chips and (len(values) < FEW or time.perf_counter() < end):
        values += opened.run(range(len(values), min(chips, len(values) + lanes))).tolist()
    better = metric.higher_is_better
    return coded.codes, RemedyChips(
        values=tuple(values),
        samples=coded.dataset.count,
        mean=float(np.mean(values)),
        worst=min(values) if better else max(values),
        missed=sum(value < threshold if better else value > threshold for value in values),
    )
