"""Whether torch is there, found out before anything else is done."""

from __future__ import annotations

from nvaudit.errors import OptionError


def require_torch(method: str, option: str = "--method", otherwise: str = "") -> str:
    """Import torch.

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
    try:
        import torch
    except ImportError as error:
        text = f"{option} {method} needs torch; run: pip install 'nvaudit[harden]'"
        raise OptionError(f"{text}, {otherwise}" if otherwise else text) from error
    return str(torch.__version__)
