"""Where ONNX Runtime is imported."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from nvaudit.errors import EngineError


@cache
def runtime() -> Any:
    """Import ONNX Runtime, or say in one line how to get it.

    Newer versions send usage data to their maker unless told not to before they start; an audit of
    somebody's model tells nobody. ``ORT_DISABLE_TELEMETRY=0`` in the environment leaves it on.

    Raises
    ------
    EngineError
        If it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            "ONNX Runtime is not installed; run: pip install 'nvaudit[cpu]' (or 'nvaudit[gpu]')"
        ) from error
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime
