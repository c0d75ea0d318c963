"""Checkpoints of a training: after every epoch, written whole, tied to what the training depends on."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvaudit.errors import KeptError
from nvaudit.files import write_bytes_atomic
from nvaudit.perturb.record import Identity, forgiven

CHECKPOINT_FILE = "training.ckpt"
MEASURED_FILE = "measured.ckpt"
"""What was measured on a trained network."""

_FORMAT = 1


def save_checkpoint(
    folder: Path, identity: Identity, state: Mapping[str, Any], name: str = CHECKPOINT_FILE
) -> None:
    """Write the state of a training.

    Parameters
    ----------
    folder : Path
        It exists.
    identity : Identity
        What the training depends on.
    state : mapping
        Tensors, numbers, texts, lists and mappings of them.
    name : str
        Of the file.

    Raises
    ------
    OptionError, EngineError
        If the file cannot be written; the last checkpoint is still whole.
    """
    import torch

    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "identity": identity.model_dump_json(), "state": dict(state)}, buffer)
    with forgiven(folder):
        write_bytes_atomic(folder / name, buffer.getvalue())


def load_checkpoint(folder: Path, identity: Identity, name: str = CHECKPOINT_FILE) -> dict[str, Any] | None:
    """Read the state of a training that was cut off.

    Parameters
    ----------
    folder : Path
    identity : Identity
        Of the training that wants to go on.
    name : str
        Of the file.

    Returns
    -------
    dict or None
        None if there is no checkpoint.

    Raises
    ------
    OptionError
        If the checkpoint is of another training, or cannot be read.
    """
    import torch

    path = folder / name
    if not path.exists():
        return None
    try:
        # weights_only: a checkpoint holds data, never code.
        found = torch.load(path, map_location="cpu", weights_only=True)
        there = Identity.model_validate_json(found["identity"])
        state: dict[str, Any] = found["state"]
        readable = found["format"] == _FORMAT
    except Exception as error:  # whatever torch makes of a file that is none of its own
        raise KeptError(
            f"--resume {folder}: {name} cannot be read ({type(error).__name__}); name another folder"
        ) from error
    if not readable:
        raise KeptError(f"--resume {folder}: {name} is of another version; name another folder")
    differences = identity.differences(there)
    if differences:
        raise KeptError(
            f"--resume {folder}: it holds another training: {'; '.join(differences)}; name another folder"
        )
    return state
