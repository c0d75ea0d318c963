"""The reports of all commands: results, what they say, and how that is shown."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nvaudit.report.jsontext import to_json
    from nvaudit.report.result import AuditReport, from_json

__all__ = ["AuditReport", "from_json", "to_json"]


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives: what declares options needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module 'nvaudit.report' has no attribute {name!r}")
    from nvaudit.report import jsontext, result

    return getattr(jsontext if name == "to_json" else result, name)
