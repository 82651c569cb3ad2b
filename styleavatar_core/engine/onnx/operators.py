# SPDX-License-Identifier: Apache-2.0
"""The torch operators that the generator uses, as ONNX operators (opset 17)."""

from __future__ import annotations

from typing import Any

import torch

from styleavatar_core.engine.onnx.shape_operators import SHAPE_OPERATORS
from styleavatar_core.engine.onnx.tracing import (
    Operand,
    TracedGraph,
    Translation,
    TranslationTable,
    broadcast,
)
from styleavatar_core.engine.onnx.window_operators import WINDOW_OPERATORS

_aten = torch.ops.aten


def _elementwise(operator: str) -> Translation:
    """Returns the translation of an operator of one value that keeps shape and type."""

    def translate(graph: TracedGraph, x: torch.Tensor) -> torch.Tensor:
        return graph.node(operator, [x], x.shape, x.dtype)

    return translate


def _arithmetic(operator: str, *, is_reversed: bool = False) -> Translation:
    """Returns the translation of an operator of two values that broadcasts."""

    def translate(graph: TracedGraph, a: Operand, b: Operand, alpha: int = 1) -> torch.Tensor:
        assert alpha == 1
        first, second = (b, a) if is_reversed else (a, b)
        typed = a if isinstance(a, torch.Tensor) and a.dim() else b
        dtype = typed.dtype if isinstance(typed, torch.Tensor) else torch.float32
        return graph.node(operator, [first, second], broadcast(a, b), dtype)

    return translate


OPERATORS = TranslationTable(SHAPE_OPERATORS | WINDOW_OPERATORS)
OPERATORS |= {
    _aten.add.Tensor: _arithmetic("Add"),
    _aten.sub.Tensor: _arithmetic("Sub"),
    _aten.mul.Tensor: _arithmetic("Mul"),
    _aten.div.Tensor: _arithmetic("Div"),
    _aten.rsub.Scalar: _arithmetic("Sub", is_reversed=True),
    _aten.floor.default: _elementwise("Floor"),
    _aten.round.default: _elementwise("Round"),
    _aten.tanh.default: _elementwise("Tanh"),
}


@OPERATORS.translates(_aten.alias.default, _aten.detach.default, _aten.contiguous.default)
def _same(graph: TracedGraph, x: torch.Tensor, **_: Any) -> torch.Tensor:
    return x


@OPERATORS.translates(_aten.to.dtype, _aten._to_copy.default)
def _cast(graph: TracedGraph, x: torch.Tensor, dtype: torch.dtype, **_: Any) -> torch.Tensor:
    return x if dtype == x.dtype else graph.node("Cast", [x], x.shape, dtype, to=dtype)


@OPERATORS.translates(_aten.clamp.default)
def _clamp(
    graph: TracedGraph,
    x: torch.Tensor,
    low: float | None = None,
    high: float | None = None,
    **kw: Any,
) -> torch.Tensor:
    high = kw.get("max", high)
    return graph.node("Clip", [x, kw.get("min", low), high], x.shape, x.dtype)


@OPERATORS.translates(_aten.leaky_relu.default)
def _leaky_relu(graph: TracedGraph, x: torch.Tensor, slope: float = 0.01) -> torch.Tensor:
    return graph.node("LeakyRelu", [x], x.shape, x.dtype, alpha=float(slope))
