"""Operators in torch, one builder each; importing the package fills the table."""

from nvaudit.retrain.executor.ops import (
    activation,
    control,
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
