"""Whether torch is there, found out before anything else is done."""

from __future__ import annotations

import os

from nvaudit.errors import OptionError

PATIENT = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""How OpenMP's threads wait for one another: asleep. By default they spin, and where another process has a
core, each of them spins through that process's time slices: a step of a small network then takes twenty times
as long. Read when torch is loaded."""


def require_torch(method: str, option: str = "--method", otherwise: str = "") -> str:
    """Import torch, with threads that wait asleep unless the environment says otherwise.

    Parameters
    ----------
    method : str
        That needs it, for the message.
    option : str
        By which it was chosen.
    otherwise : str
        What else can be done.

    Returns
    -------
    str
        Its version.

    Raises
    ------
    OptionError
        If it is not installed.
    """
    for name, value in PATIENT.items():
        os.environ.setdefault(name, value)
    try:
        import torch
    except ImportError as error:
        text = f"{option} {method} needs torch; run: pip install 'nvaudit[harden]'"
        raise OptionError(f"{text}, {otherwise}" if otherwise else text) from error
    return str(torch.__version__)


def require_device(provider: str) -> None:
    """Find out whether torch has the device that training is asked to run on.

    Parameters
    ----------
    provider : str
        ``"cuda"`` trains on the GPU, any other on the processor.

    Raises
    ------
    OptionError
        If there is none; the message says why.
    """
    if provider != "cuda":
        return
    import torch

    if torch.cuda.is_available():
        return
    reason = "it is built without CUDA"
    if torch.version.cuda is not None:
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            reason = "it finds no device"
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200]
    raise OptionError(
        f"--provider cuda: torch {torch.__version__} cannot train on a GPU: {reason}; install torch for CUDA "
        "and the driver of the GPU, or use --provider cpu"
    )
