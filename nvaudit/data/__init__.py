"""Evaluation data: arrays ready to be fed to a model, from any of the sources."""

from nvaudit.data.dataset import batch, load_dataset
from nvaudit.data.spec import Dataset, InputSpec, LabelKind

__all__ = ["Dataset", "InputSpec", "LabelKind", "batch", "load_dataset"]
