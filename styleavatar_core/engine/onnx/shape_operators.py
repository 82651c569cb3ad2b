# SPDX-License-Identifier: Apache-2.0
"""Torch operators that move numbers without calculating, as ONNX operators."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from styleavatar_core.engine.onnx.tracing import TracedGraph, TranslationTable

_aten = torch.ops.aten
SHAPE_OPERATORS = TranslationTable()
_END = 2**31 - 1  # beyond every axis


@SHAPE_OPERATORS.translates(_aten.cat.default)
def _cat(graph: TracedGraph, parts: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
    axis = dim % parts[0].dim()
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return graph.node("Concat", parts, shape, parts[0].dtype, axis=axis)


@SHAPE_OPERATORS.translates(_aten.permute.default)
def _permute(graph: TracedGraph, x: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    order = [axis % x.dim() for axis in axes]
    return graph.node("Transpose", [x], [x.shape[axis] for axis in order], x.dtype, perm=order)


@SHAPE_OPERATORS.translates(_aten.reshape.default, _aten.view.default)
def _reshape(graph: TracedGraph, x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    known = 1
    for length in shape:
        known *= length if length >= 0 else 1
    whole = [length if length >= 0 else x.numel() // known for length in shape]
    return graph.node("Reshape", [x, graph.number(whole, torch.int64)], whole, x.dtype)


@SHAPE_OPERATORS.translates(_aten.unsqueeze.default)
def _unsqueeze(graph: TracedGraph, x: torch.Tensor, dim: int) -> torch.Tensor:
    axis = dim % (x.dim() + 1)
    shape = [*x.shape[:axis], 1, *x.shape[axis:]]
    return graph.node("Unsqueeze", [x, graph.number([axis], torch.int64)], shape, x.dtype)


@SHAPE_OPERATORS.translates(_aten.select.int)
def _select(graph: TracedGraph, x: torch.Tensor, dim: int, index: int) -> torch.Tensor:
    axis = dim % x.dim()
    shape = [*x.shape[:axis], *x.shape[axis + 1 :]]
    where = graph.number([index % x.shape[axis]], torch.int64, is_scalar=True)
    return graph.node("Gather", [x, where], shape, x.dtype, axis=axis)


@SHAPE_OPERATORS.translates(_aten.slice.Tensor)
def _slice(
    graph: TracedGraph,
    x: torch.Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> torch.Tensor:
    axis = dim % x.dim()
    first, last, _ = slice(start, end).indices(x.shape[axis])
    if (first, last, step) == (0, x.shape[axis], 1):
        return x
    shape = list(x.shape)
    shape[axis] = len(range(first, last, step))
    bounds = [graph.number([value], torch.int64) for value in (first, min(last, _END), axis, step)]
    return graph.node("Slice", [x, *bounds], shape, x.dtype)


@SHAPE_OPERATORS.translates(_aten.index.Tensor)
def _index(
    graph: TracedGraph, x: torch.Tensor, indices: Sequence[torch.Tensor | None]
) -> torch.Tensor:
    used = [axis for axis, index in enumerate(indices) if index is not None]
    (axis,) = used  # the networks index one axis at a time
    index = indices[axis]
    assert index is not None
    shape = [*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]]
    return graph.node("Gather", [x, index], shape, x.dtype, axis=axis)


@SHAPE_OPERATORS.translates(_aten.embedding.default)
def _embedding(graph: TracedGraph, table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    shape = (*rows.shape, table.shape[1])
    return graph.node("Gather", [table, rows], shape, table.dtype, axis=0)


@SHAPE_OPERATORS.translates(_aten.expand.default)
def _expand(graph: TracedGraph, x: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    offset = len(sizes) - x.dim()
    shape = [size if size >= 0 else x.shape[axis - offset] for axis, size in enumerate(sizes)]
    if shape == list(x.shape):
        return x
    return graph.node("Expand", [x, graph.number(shape, torch.int64)], shape, x.dtype)


@SHAPE_OPERATORS.translates(_aten.pad.default)
def _pad(
    graph: TracedGraph,
    x: torch.Tensor,
    pads: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> torch.Tensor:
    assert mode == "constant"
    before, after = [0] * x.dim(), [0] * x.dim()
    for number in range(len(pads) // 2):  # from the last axis on
        before[-1 - number], after[-1 - number] = pads[2 * number], pads[2 * number + 1]
    shape = [sum(lengths) for lengths in zip(before, x.shape, after, strict=True)]
    amounts = graph.number(before + after, torch.int64)
    return graph.node("Pad", [x, amounts, float(value or 0.0)], shape, x.dtype, mode="constant")


@SHAPE_OPERATORS.translates(_aten.pixel_shuffle.default)
def _pixel_shuffle(graph: TracedGraph, x: torch.Tensor, factor: int) -> torch.Tensor:
    batch, channels, height, width = x.shape
    shape = (batch, channels // factor**2, height * factor, width * factor)
    return graph.node("DepthToSpace", [x], shape, x.dtype, blocksize=factor, mode="CRD")


@SHAPE_OPERATORS.translates(_aten.pixel_unshuffle.default)
def _pixel_unshuffle(graph: TracedGraph, x: torch.Tensor, factor: int) -> torch.Tensor:
    # SpaceToDepth has the other order of channels.
    batch, channels, height, width = (int(length) for length in x.shape)
    rows, columns = height // factor, width // factor
    blocks = _reshape(graph, x, (batch, channels, rows, factor, columns, factor))
    moved = _permute(graph, blocks, (0, 1, 3, 5, 2, 4))
    return _reshape(graph, moved, (batch, channels * factor**2, rows, columns))
