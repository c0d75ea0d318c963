"""Evaluation data: arrays ready to be fed to a model, from any of the sources."""

from nvaudit.data.dataset import batch, load_dataset
from nvaudit.data.labels import LabelRules, label_rules
from nvaudit.data.spec import Dataset, InputSpec, LabelKind

__all__ = ["Dataset", "InputSpec", "LabelKind", "LabelRules", "batch", "label_rules", "load_dataset"]
