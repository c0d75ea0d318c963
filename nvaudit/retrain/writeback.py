"""Trained values back into the model that they came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nvaudit.model.load import LoadedModel
from nvaudit.model.update import update_values
from nvaudit.retrain.executor.ops.registry import Array


def write_back(loaded: LoadedModel, values: Mapping[str, Array], path: str | Path) -> tuple[str, ...]:
    """Write trained values into the original model.

    Parameters
    ----------
    loaded : LoadedModel
        The model that the executor was built from; its files are not changed.
    values : mapping of str to ndarray
        What ``Executor.values`` gives: floats by key, in the stored layout. Tensors that are left out stay
        as they are.
    path : str or Path
        The ONNX file to write.

    Returns
    -------
    tuple of str
        Keys of the tensors whose stored numbers changed.

    Raises
    ------
    ModelError
        If a value does not fit the model; see ``nvaudit.model.update``.
    OptionError, EngineError
        If the file cannot be written.
    """
    return update_values(loaded, values, path)
