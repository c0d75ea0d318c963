"""Operators in torch, one builder each; importing the package fills the table."""

from nvaudit.retrain.executor.ops import (
    activation,
    control,
    cut,
    elementwise,
    index,
    linear,
    norm,
    pool,
    quantize,
    recurrent,
    reduce,
    resize,
    shape,
)

__all__ = [
    "activation",
    "control",
    "cut",
    "elementwise",
    "index",
    "linear",
    "norm",
    "pool",
    "quantize",
    "recurrent",
    "reduce",
    "resize",
    "shape",
]
