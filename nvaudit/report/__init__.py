"""Pure statistics of the chips' metric, the audit report, and its renderers."""

from nvaudit.report.gates import GateResult, decide
from nvaudit.report.jsontext import to_json
from nvaudit.report.result import AuditReport, from_json
from nvaudit.report.sections import (
    DataInfo,
    Hashes,
    LossSurface,
    MetricInfo,
    ModelInfo,
    OperatingPointInfo,
    Roughness,
    SweepPoint,
    TensorDecision,
    TrialSummary,
)
from nvaudit.stats.binomial import clopper_pearson, interval_ranks, trials_for_bound
from nvaudit.stats.gate import Verdict, overall_verdict, verdict_of
from nvaudit.stats.kpp import KppResult, YieldResult, kpp, kpp_index, yield_at

__all__ = [
    "AuditReport",
    "DataInfo",
    "GateResult",
    "Hashes",
    "KppResult",
    "LossSurface",
    "MetricInfo",
    "ModelInfo",
    "OperatingPointInfo",
    "Roughness",
    "SweepPoint",
    "TensorDecision",
    "TrialSummary",
    "Verdict",
    "YieldResult",
    "clopper_pearson",
    "decide",
    "from_json",
    "interval_ranks",
    "kpp",
    "kpp_index",
    "overall_verdict",
    "to_json",
    "trials_for_bound",
    "verdict_of",
    "yield_at",
]
