"""Whether torch is there, found out before anything else is done."""

from __future__ import annotations

from nvaudit.errors import OptionError


def require_torch(method: str) -> str:
    """Import torch.

    Parameters
    ----------
    method : str
        That needs it, for the message.

    Returns
    -------
    str
        Its version.

    Raises
    ------
    OptionError
        If it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise OptionError(f"--method {method} needs torch; run: pip install 'nvaudit[harden]'") from error
    return str(torch.__version__)
