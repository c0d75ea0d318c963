"""Checkpoints of a training: after every epoch, written whole, tied to what the training depends on."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvaudit.errors import KeptError
from nvaudit.files import write_bytes_atomic
from nvaudit.perturb.record import Identity, forgiven

CHECKPOINT_FILE = "training.ckpt"
MEASURED_FILE = "measured.ckpt"
"""What was measured on a trained network."""

_FORMAT = 1


@dataclass(frozen=True)
class CheckpointFolder:
    """Where the checkpoints of a training are kept.

    Attributes
    ----------
    folder : Path
        It exists.
    identity : Identity
        What the training depends on: a checkpoint of any other training is refused.
    """

    folder: Path
    identity: Identity

    def inner(self, name: str, mark: str, without: tuple[str, ...] = ()) -> CheckpointFolder:
        """Make a folder within this one for one of several trainings.

        Parameters
        ----------
        mark : str
            Key under which the name enters the identity, which sets it apart from the others.
        without : tuple of str
            Options that this training does not depend on, though the whole run does.
        """
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        options = {key: value for key, value in self.identity.options.items() if key not in without}
        own = Identity(
            inputs=self.identity.inputs, options={**options, mark: name}, versions=self.identity.versions
        )
        return CheckpointFolder(folder, own)

    def save(self, state: Mapping[str, Any], name: str = CHECKPOINT_FILE) -> None:
        """Write tensors, numbers, texts, and lists and mappings of them, to a file of this name.

        Raises
        ------
        OptionError, EngineError
            If the file cannot be written; the last checkpoint is still whole.
        """
        import torch

        buffer = io.BytesIO()
        packed = {"format": _FORMAT, "identity": self.identity.model_dump_json(), "state": dict(state)}
        torch.save(packed, buffer)
        with forgiven(self.folder):
            write_bytes_atomic(self.folder / name, buffer.getvalue())

    def load(self, name: str = CHECKPOINT_FILE) -> dict[str, Any] | None:
        """Read what was saved under a name; None if nothing was.

        Raises
        ------
        OptionError
            If the file is of another training, or cannot be read.
        """
        import torch

        path = self.folder / name
        if not path.exists():
            return None
        try:
            # weights_only: a checkpoint holds data, never code.
            packed = torch.load(path, map_location="cpu", weights_only=True)
            saved = Identity.model_validate_json(packed["identity"])
            state: dict[str, Any] = packed["state"]
            readable = packed["format"] == _FORMAT
        except Exception as error:  # whatever torch makes of a file that is none of its own
            raise KeptError(
                f"--resume {self.folder}: {name} cannot be read ({type(error).__name__}); name another folder"
            ) from error
        if not readable:
            raise KeptError(f"--resume {self.folder}: {name} is of another version; name another folder")
        differences = self.identity.differences(saved)
        if differences:
            raise KeptError(
                f"--resume {self.folder}: it holds another training: {'; '.join(differences)}; name another "
                "folder"
            )
        return state
