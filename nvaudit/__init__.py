"""Audit any ONNX model for non-volatile compute-in-memory hardware.

The verbs of the command line as functions: :func:`audit`, :func:`landscape`, :func:`replay`. They are
loaded when first used, so that ``import nvaudit`` is light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nvaudit.auditing import audit
    from nvaudit.landscaping import landscape
    from nvaudit.replaying import replay
    from nvaudit.report.landscape import LandscapeReport
    from nvaudit.report.result import AuditReport

__version__ = "0.1.0"
__all__ = ["AuditReport", "LandscapeReport", "__version__", "audit", "landscape", "replay"]

_HOME = {
    "audit": "nvaudit.auditing",
    "landscape": "nvaudit.landscaping",
    "replay": "nvaudit.replaying",
    "AuditReport": "nvaudit.report.result",
    "LandscapeReport": "nvaudit.report.landscape",
}


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module 'nvaudit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
