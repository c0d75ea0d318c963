"""The only package that knows ONNX: load, find weights, open places for them, re-batch."""

from nvaudit.model.batch.rebatch import Rebatch, activation_bytes, analyse_batch
from nvaudit.model.batchnorm import recalibrate_batch_norm
from nvaudit.model.classes import ClassList, class_list
from nvaudit.model.crossbar.plan import CellReadout, Converter, Converters, CrossbarPlan, CrossbarSplit
from nvaudit.model.load import LoadedModel, TensorSpec, load_model, model_files
from nvaudit.model.outputs import (
    OutputFacts,
    cannot_be_scored,
    output_facts,
    scoreable_outputs,
    scores_beside_label,
    zipped_classes,
)
from nvaudit.model.readnoise import reseed_read_noise
from nvaudit.model.template import Slot, Template, build_template
from nvaudit.model.uses import Constant, constants
from nvaudit.model.weights import Weight
from nvaudit.model.write import filled_model

__all__ = [
    "CellReadout",
    "ClassList",
    "Constant",
    "Converter",
    "Converters",
    "CrossbarPlan",
    "CrossbarSplit",
    "LoadedModel",
    "OutputFacts",
    "Rebatch",
    "Slot",
    "Template",
    "TensorSpec",
    "Weight",
    "activation_bytes",
    "analyse_batch",
    "build_template",
    "cannot_be_scored",
    "class_list",
    "constants",
    "filled_model",
    "load_model",
    "model_files",
    "output_facts",
    "recalibrate_batch_norm",
    "reseed_read_noise",
    "scoreable_outputs",
    "scores_beside_label",
    "zipped_classes",
]
