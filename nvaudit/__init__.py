"""Audit any ONNX model for non-volatile compute-in-memory hardware.

The verbs of the command line as functions: :func:`audit`, :func:`check`, :func:`compare`, :func:`explore`,
:func:`harden`, :func:`landscape`, :func:`remap`, :func:`replay`, :func:`roofline`, :func:`sweep`,
:func:`verify_plan`. They are loaded when first used, so that ``import nvaudit`` is light. :func:`load` reads
a report of any of them.
"""

from typing import TYPE_CHECKING, Any

from nvaudit._version import __version__

if TYPE_CHECKING:
    from nvaudit.jobs.auditing import audit
    from nvaudit.jobs.checking import check
    from nvaudit.jobs.comparing import compare
    from nvaudit.jobs.exploring import explore
    from nvaudit.jobs.hardening import harden
    from nvaudit.jobs.landscaping import landscape
    from nvaudit.jobs.remapping import remap
    from nvaudit.jobs.replaying import replay
    from nvaudit.jobs.rooflining import roofline
    from nvaudit.jobs.sweeping import sweep
    from nvaudit.jobs.verifying import verify_plan
    from nvaudit.report.check.result import CheckReport
    from nvaudit.report.comparison.result import ComparisonReport
    from nvaudit.report.explore.result import ExploreReport
    from nvaudit.report.hardening.result import HardenReport
    from nvaudit.report.kinds import load
    from nvaudit.report.landscape.result import LandscapeReport
    from nvaudit.report.remap.result import RemapReport
    from nvaudit.report.result import AuditReport
    from nvaudit.report.roofline.result import RooflineReport
    from nvaudit.report.sweep.result import SweepReport
    from nvaudit.report.write_verify.result import VerifyReport

__all__ = [
    "AuditReport",
    "CheckReport",
    "ComparisonReport",
    "ExploreReport",
    "HardenReport",
    "LandscapeReport",
    "RemapReport",
    "RooflineReport",
    "SweepReport",
    "VerifyReport",
    "__version__",
    "audit",
    "check",
    "compare",
    "explore",
    "harden",
    "landscape",
    "load",
    "remap",
    "replay",
    "roofline",
    "sweep",
    "verify_plan",
]

_HOME = {
    "audit": "nvaudit.jobs.auditing",
    "check": "nvaudit.jobs.checking",
    "compare": "nvaudit.jobs.comparing",
    "explore": "nvaudit.jobs.exploring",
    "harden": "nvaudit.jobs.hardening",
    "landscape": "nvaudit.jobs.landscaping",
    "load": "nvaudit.report.kinds",
    "remap": "nvaudit.jobs.remapping",
    "replay": "nvaudit.jobs.replaying",
    "roofline": "nvaudit.jobs.rooflining",
    "sweep": "nvaudit.jobs.sweeping",
    "verify_plan": "nvaudit.jobs.verifying",
    "AuditReport": "nvaudit.report.result",
    "CheckReport": "nvaudit.report.check.result",
    "ComparisonReport": "nvaudit.report.comparison.result",
    "ExploreReport": "nvaudit.report.explore.result",
    "HardenReport": "nvaudit.report.hardening.result",
    "LandscapeReport": "nvaudit.report.landscape.result",
    "RemapReport": "nvaudit.report.remap.result",
    "RooflineReport": "nvaudit.report.roofline.result",
    "SweepReport": "nvaudit.report.sweep.result",
    "VerifyReport": "nvaudit.report.write_verify.result",
}


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module 'nvaudit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List what is public, loaded or not."""
    return sorted(set(__all__))
