"""What most tests of an audit want: the chips, without the seconds that the loss landscape takes."""

from typing import Any

import nvaudit
from nvaudit.report.result import AuditReport


def audit(*arguments: Any, roughness: bool = False, **options: Any) -> AuditReport:
    """Audit as :func:`nvaudit.audit` does, but without roughness unless it is asked for."""
    return nvaudit.audit(*arguments, roughness=roughness, **options)
