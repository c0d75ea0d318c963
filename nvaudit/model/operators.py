"""What operators that multiply by weights, or normalise, do with each of their inputs: one table.

Whoever asks which input of an operator is a weight, what kind of product it makes, or what another input is
called, asks here: :mod:`nvaudit.model.roles` for channels and crossbar matrices, :mod:`nvaudit.model.macs`
for counts of products, :mod:`nvaudit.model.crossbar.kinds` for column sums, :mod:`nvaudit.model.uses` for
words, :mod:`nvaudit.model.parameters` for what is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

Family = Literal[
    "convolution",
    "blocked convolution",
    "deformable convolution",
    "transposed convolution",
    "matrix product",
    "Gemm",
    "einsum",
    "recurrent",
    "projection",
    "experts",
    "packed",
    "normalisation",
]
"""How an operator multiplies. ``projection``: the fused operators of attention, [input, output]; ``packed``:
the operator unpacks its weight itself."""

CONVOLUTIONS: tuple[Family, ...] = ("convolution", "transposed convolution")
MATRIX_PRODUCTS: tuple[Family, ...] = ("matrix product", "Gemm")
BIASED_PRODUCTS: tuple[Family, ...] = (*CONVOLUTIONS, "Gemm")
"""Products that add a bias themselves."""
ACTIVATION_FIRST: tuple[Family, ...] = (*CONVOLUTIONS, "Gemm", "recurrent")
"""Families whose first input is the activation; of a matrix product either operand may be."""

OPTIONAL_GEMM_BIAS = 11
"""Operator set from which on Gemm needs no bias."""


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes
    ----------
    weights : tuple of int
        Inputs that may be the weight; of a pair, either.
    named : mapping of int to str
        What its other inputs are, in words; activations are left out.
    decode : mapping of int to (int or None, int)
        Of an operator that multiplies integers: the inputs that are scale and zero point of a weight.
    mapped : bool
        Its weights can be put on the array: each is one number of the operand.
    """

    family: Family
    weights: tuple[int, ...] = ()
    named: Mapping[int, str] = field(default_factory=dict)
    decode: Mapping[int, tuple[int | None, int]] = field(default_factory=dict)
    mapped: bool = True

    @property
    def bias(self) -> int | None:
        """The input that is its bias; None if it takes none."""
        return next((index for index, words in self.named.items() if words == "bias"), None)


_SCALE, _ZERO = "quantisation scale", "quantisation zero point"
_BIAS = {2: "bias"}
_STATES = {3: "bias", 4: "sequence lengths", 5: "initial state"}
_CELLS = {**_STATES, 6: "initial cell state", 7: "peephole weights"}
_LINEAR = {1: _SCALE, 2: _ZERO, 4: _SCALE, 5: _ZERO}  # x and w of the QLinear operators
_MOE = {3: "bias", 5: "bias", 7: "bias"}


def _norm(*names: str) -> Operator:
    return Operator("normalisation", named=dict(enumerate(names, 1)), mapped=False)


_OWN: dict[str, Operator] = {
    "Conv": Operator("convolution", (1,), _BIAS),
    "DeformConv": Operator("deformable convolution", (1,), {3: "bias"}),
    "ConvInteger": Operator("convolution", (1,), {2: _ZERO, 3: _ZERO}, {1: (None, 3)}),
    "QLinearConv": Operator("convolution", (3,), {**_LINEAR, 6: _SCALE, 7: _ZERO, 8: "bias"}, {3: (4, 5)}),
    "ConvTranspose": Operator("transposed convolution", (1,), _BIAS),
    "MatMul": Operator("matrix product", (0, 1)),
    "MatMulInteger": Operator("matrix product", (0, 1), {2: _ZERO, 3: _ZERO}, {0: (None, 2), 1: (None, 3)}),
    "QLinearMatMul": Operator(
        "matrix product", (0, 3), {**_LINEAR, 6: _SCALE, 7: _ZERO}, {0: (1, 2), 3: (4, 5)}
    ),
    "Gemm": Operator("Gemm", (0, 1), _BIAS),
    "Einsum": Operator("einsum"),  # any of its operands
    "LSTM": Operator("recurrent", (1, 2), _CELLS),
    "GRU": Operator("recurrent", (1, 2), _STATES),
    "RNN": Operator("recurrent", (1, 2), _STATES),
    "BatchNormalization": _norm("scale", "shift", "running mean", "running variance"),
    "InstanceNormalization": _norm("scale", "shift"),
    "LayerNormalization": _norm("scale", "shift"),
    "GroupNormalization": _norm("scale", "shift"),
    "RMSNormalization": _norm("scale"),
    "SimplifiedLayerNormalization": _norm("scale"),  # as ONNX Runtime's exporters write it, without a domain
}
_MICROSOFT: dict[str, Operator] = {
    "FusedConv": Operator("convolution", (1,), _BIAS),
    "NhwcConv": Operator("convolution", (1,), _BIAS, mapped=False),
    "NhwcFusedConv": Operator("convolution", (1,), _BIAS),
    "QLinearConv": _OWN["QLinearConv"],
    "ConvTransposeWithDynamicPads": Operator("transposed convolution", (1,), {3: "bias"}),
    "FusedMatMul": Operator("matrix product", (0, 1)),
    "TransposeMatMul": Operator("matrix product", (0, 1)),
    "FusedMatMulActivation": Operator("matrix product", (0, 1)),
    "GemmFastGelu": Operator("matrix product", (0, 1), _BIAS),
    "FusedGemm": Operator("Gemm", (0, 1), _BIAS),
    "GemmFloat8": Operator("Gemm", (0, 1), mapped=False),
    "DynamicQuantizeMatMul": Operator(
        "matrix product", (0, 1), {2: _SCALE, 3: _ZERO, 4: "bias"}, {1: (2, 3)}
    ),
    "MatMulIntegerToFloat": Operator(
        "matrix product", (0, 1), {2: _SCALE, 3: _SCALE, 4: _ZERO, 5: _ZERO, 6: "bias"}, {1: (3, 5)}
    ),
    "MatMulInteger16": Operator("matrix product", (0, 1), mapped=False),
    "QGemm": Operator("Gemm", (0, 3), {**_LINEAR, 6: "bias", 7: _SCALE, 8: _ZERO}, {3: (4, 5)}),
    "MatMulNBits": Operator("packed", (1,), {2: f"{_SCALE}s", 3: f"{_ZERO}s", 5: "bias"}),
    "MatMulBnb4": Operator("packed", (1,), mapped=False),
    "MatMulFpQ4": Operator("packed", (1,), mapped=False),
    "Attention": Operator("projection", (1,), _BIAS),
    "PackedAttention": Operator("projection", (1,), _BIAS),
    "QAttention": Operator("projection", (1,), mapped=False),
    "LongformerAttention": Operator("projection", (1, 4)),
    "DecoderAttention": Operator("projection", (2, 3)),
    "MoE": Operator("experts", (2, 4, 6), _MOE),
    "QMoE": Operator("experts", (2, 5, 8), mapped=False),
    "DynamicQuantizeLSTM": Operator(
        "recurrent", (1, 2), {**_CELLS, 8: _SCALE, 9: _ZERO, 10: _SCALE, 11: _ZERO}, mapped=False
    ),
    "SimplifiedLayerNormalization": _OWN["SimplifiedLayerNormalization"],
    "SkipLayerNormalization": _norm("skip", "scale", "shift", "bias"),
    "SkipSimplifiedLayerNormalization": _norm("skip", "scale", "bias"),
}
OPERATORS: dict[tuple[str, str], Operator] = {
    **{("", name): operator for name, operator in _OWN.items()},
    **{("com.microsoft", name): operator for name, operator in _MICROSOFT.items()},
    ("com.microsoft.nchwc", "Conv"): Operator("blocked convolution", (1,), _BIAS),
}
"""By domain, ``""`` for ONNX's own, and name."""


def find_operator(op_type: str, domain: str = "") -> Operator | None:
    """Look an operator up; None if it is not in the table. ``ai.onnx`` is the default domain too."""
    return OPERATORS.get(("" if domain == "ai.onnx" else domain, op_type))


def operator_of(node: ir.Node) -> Operator | None:
    """The table's entry of a node."""
    return find_operator(node.op_type, node.domain)


def is_float(node: ir.Node, *families: Family) -> bool:
    """Whether a node is one of ONNX's own operators of some families, on floats."""
    operator = operator_of(node) if node.domain in ("", "ai.onnx") else None
    return operator is not None and not operator.decode and operator.family in families


def is_gemm(op_type: str, domain: str = "") -> bool:
    """Whether an operator is ONNX's own α · A B + β · C of floats, either operand perhaps transposed."""
    operator = find_operator(op_type, domain) if domain in ("", "ai.onnx") else None
    return operator is not None and not operator.decode and operator.family == "Gemm"
