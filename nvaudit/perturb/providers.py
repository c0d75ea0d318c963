"""Execution providers of ONNX Runtime: which one ran, and why one that was asked for did not.

ONNX Runtime falls back to the processor without an error where a provider's libraries or its device are
missing, when a session is made and again when it is run. Here that is refused. Single operators that a
provider does not have still run on the processor inside its session, which is how providers work.
"""

from __future__ import annotations

import ctypes
import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvaudit.errors import OptionError

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
}

_NEEDS = {
    "cuda": "an NVIDIA GPU, its driver, CUDA and cuDNN (pip install 'onnxruntime-gpu[cuda,cudnn]')",
    "tensorrt": "an NVIDIA GPU, its driver, CUDA and TensorRT (pip install tensorrt)",
}


_NVIDIA = ": pip uninstall onnxruntime, then pip install 'nvaudit[gpu]', which brings onnxruntime-gpu"
_BUILDS = {
    "cuda": _NVIDIA,
    "tensorrt": _NVIDIA,
    "openvino": ": pip uninstall onnxruntime, then pip install onnxruntime-openvino",
    "dml": ": pip uninstall onnxruntime, then pip install onnxruntime-directml",
}


@dataclass(frozen=True)
class Ran:
    """What a session runs on.

    Attributes
    ----------
    requested : str
        As the option has it.
    providers : tuple of str
        Of the session, the first one that has an operator runs it.
    device : str
        What the installed ONNX Runtime is built for, e.g. ``"CPU"`` or ``"GPU"``.
    version : str
        Of ONNX Runtime.
    """

    requested: str
    providers: tuple[str, ...]
    device: str
    version: str


def wanted_providers(ort: Any, provider: str) -> list[str]:
    """The providers to ask a session for.

    Raises
    ------
    OptionError
        If this ONNX Runtime has none of that name.
    """
    name, offered = PROVIDERS[provider], ort.get_available_providers()
    if name not in offered:
        raise OptionError(
            f"--provider {provider}: this ONNX Runtime offers only {_listed(offered)}; use --provider cpu, "
            f"or install the build of ONNX Runtime that has it{_BUILDS.get(provider, '')}"
        )
    return [name] if provider == "cpu" else [name, PROVIDERS["cpu"]]


def session_on(ort: Any, graph: str | bytes, options: Any, provider: str) -> Any:
    """Make a session that runs on a provider and on no other in its stead.

    Parameters
    ----------
    ort : module
        ONNX Runtime.
    graph : str or bytes
        A file, or a message.

    Raises
    ------
    OptionError
        If the provider is not there or ONNX Runtime fell back to another one.
    """
    wanted = wanted_providers(ort, provider)
    if provider == "cpu":
        return ort.InferenceSession(graph, options, providers=wanted)
    printed = io.StringIO()
    with redirect_stdout(printed):  # where it falls back, ONNX Runtime prints the reason among our results
        session = ort.InferenceSession(graph, options, providers=wanted)
    if wanted[0] not in session.get_providers():
        raise OptionError(
            f"--provider {provider}: ONNX Runtime {ort.__version__} has {wanted[0]}, could not start it, and "
            f"would run on {_listed(session.get_providers())} instead: "
            f"{_reason(ort, provider, printed.getvalue())}; "
            f"it needs {_NEEDS.get(provider, 'its device and libraries')}; or use --provider cpu"
        )
    session.disable_fallback()
    return session


def ran_on(ort: Any, session: Any, provider: str) -> Ran:
    """What a session runs on."""
    return Ran(provider, tuple(session.get_providers()), str(ort.get_device()), str(ort.__version__))


def _reason(ort: Any, provider: str, printed: str) -> str:
    """What is missing, as ONNX Runtime or the loader of its library says it."""
    library = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{provider}.so"
    if library.is_file():
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            if "undefined symbol" not in str(error):  # it wants to be loaded by ONNX Runtime itself
                return f"its library does not load: {str(error).rstrip('.')}"
    lines = (line.removeprefix("EP Error ").strip() for line in printed.splitlines())
    told = next((line for line in lines if line and not line.startswith("*")), "")
    return f"ONNX Runtime says: {told[:300]}" if told else "no such device or no driver was found"


def _listed(names: Any) -> str:
    return ", ".join(names)
