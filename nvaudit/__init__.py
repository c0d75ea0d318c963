"""Audit any ONNX model for non-volatile compute-in-memory hardware.

The verbs of the command line as functions: :func:`audit`, :func:`compare`, :func:`harden`,
:func:`landscape`, :func:`remap`, :func:`replay`, :func:`roofline`, :func:`verify_plan`. They are loaded when
first used, so that ``import nvaudit`` is light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nvaudit.auditing import audit
    from nvaudit.comparing import compare
    from nvaudit.hardening import harden
    from nvaudit.landscaping import landscape
    from nvaudit.remapping import remap
    from nvaudit.replaying import replay
    from nvaudit.report.comparison_result import ComparisonReport
    from nvaudit.report.hardening import HardenReport
    from nvaudit.report.landscape import LandscapeReport
    from nvaudit.report.remap import RemapReport
    from nvaudit.report.result import AuditReport
    from nvaudit.report.roofline import RooflineReport
    from nvaudit.report.verify import VerifyReport
    from nvaudit.rooflining import roofline
    from nvaudit.verifying import verify_plan

__version__ = "0.1.0"
__all__ = [
    "AuditReport",
    "ComparisonReport",
    "HardenReport",
    "LandscapeReport",
    "RemapReport",
    "RooflineReport",
    "VerifyReport",
    "__version__",
    "audit",
    "compare",
    "harden",
    "landscape",
    "remap",
    "replay",
    "roofline",
    "verify_plan",
]

_HOME = {
    "audit": "nvaudit.auditing",
    "compare": "nvaudit.comparing",
    "harden": "nvaudit.hardening",
    "landscape": "nvaudit.landscaping",
    "remap": "nvaudit.remapping",
    "replay": "nvaudit.replaying",
    "roofline": "nvaudit.rooflining",
    "verify_plan": "nvaudit.verifying",
    "AuditReport": "nvaudit.report.result",
    "ComparisonReport": "nvaudit.report.comparison_result",
    "HardenReport": "nvaudit.report.hardening",
    "LandscapeReport": "nvaudit.report.landscape",
    "RemapReport": "nvaudit.report.remap",
    "RooflineReport": "nvaudit.report.roofline",
    "VerifyReport": "nvaudit.report.verify",
}


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module 'nvaudit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
