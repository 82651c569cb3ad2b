# SPDX-License-Identifier: Apache-2.0
"""The torch operators that the generator uses, as ONNX operators (opset 17)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from styleavatar_core.engine.tracing import Operand, TracedGraph, Translation, broadcast

_aten = torch.ops.aten
OPERATORS: dict[Any, Translation] = {}
_END = 2**31 - 1  # beyond every axis


def _translates(*operators: Any) -> Any:
    """Registers a translation."""

    def register(translation: Translation) -> Translation:
        OPERATORS.update(dict.fromkeys(operators, translation))
        return translation

    return register


def _pair(values: int | Sequence[int]) -> list[int]:
    """Returns two numbers for height and width."""
    numbers = [values] if isinstance(values, int) else list(values)
    return numbers * 2 if len(numbers) == 1 else numbers


@dataclass(frozen=True, slots=True)
class _Window:
    """What a kernel covers: its sides, its steps and the margins around what it moves over."""

    sides: list[int]
    steps: list[int]
    margins: list[int]

    @classmethod
    def of(cls, weight: torch.Tensor, stride: Sequence[int], padding: Sequence[int]) -> _Window:
        """Returns the window of a convolution's weight (O, I, K, L)."""
        return cls(list(weight.shape[2:]), _pair(stride), _pair(padding))

    @property
    def attributes(self) -> dict[str, list[int]]:
        """The attributes that ONNX operators have for it."""
        return {"kernel_shape": self.sides, "strides": self.steps, "pads": self.margins * 2}

    def shrink(self, x: torch.Tensor) -> list[int]:
        """Returns height and width of what a convolution makes of x (B, C, H, W)."""
        return [
            (length + 2 * margin - side) // step + 1 for length, side, step, margin in self._axes(x)
        ]

    def grow(self, x: torch.Tensor) -> list[int]:
        """Returns height and width of what a transposed convolution makes of x (B, C, H, W)."""
        return [
            (length - 1) * step - 2 * margin + side for length, side, step, margin in self._axes(x)
        ]

    def _axes(self, x: torch.Tensor) -> Iterator[tuple[int, int, int, int]]:
        """Gives length, side, step and margin of height, then of width."""
        return zip(x.shape[2:], self.sides, self.steps, self.margins, strict=True)


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


@_translates(_aten.alias.default, _aten.detach.default, _aten.contiguous.default)
def _same(graph: TracedGraph, x: torch.Tensor, **_: Any) -> torch.Tensor:
    return x


@_translates(_aten.to.dtype, _aten._to_copy.default)
def _cast(graph: TracedGraph, x: torch.Tensor, dtype: torch.dtype, **_: Any) -> torch.Tensor:
    return x if dtype == x.dtype else graph.node("Cast", [x], x.shape, dtype, to=dtype)


@_translates(_aten.clamp.default)
def _clamp(
    graph: TracedGraph,
    x: torch.Tensor,
    low: float | None = None,
    high: float | None = None,
    **kw: Any,
) -> torch.Tensor:
    high = kw.get("max", high)
    return graph.node("Clip", [x, kw.get("min", low), high], x.shape, x.dtype)


@_translates(_aten.leaky_relu.default)
def _leaky_relu(graph: TracedGraph, x: torch.Tensor, slope: float = 0.01) -> torch.Tensor:
    return graph.node("LeakyRelu", [x], x.shape, x.dtype, alpha=float(slope))


@_translates(_aten.conv2d.default)
def _conv2d(
    graph: TracedGraph,
    x: Operand,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> torch.Tensor:
    assert isinstance(x, torch.Tensor)
    assert _pair(dilation) == [1, 1]
    window = _Window.of(weight, stride, padding)
    shape = (x.shape[0], weight.shape[0], *window.shrink(x))
    attributes = window.attributes | {"group": groups}
    return graph.node("Conv", [x, weight, bias], shape, x.dtype, **attributes)


@_translates(_aten.conv_transpose2d.input)
def _conv_transpose2d(
    graph: TracedGraph,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
) -> torch.Tensor:
    window = _Window.of(weight, stride, padding)
    shape = (x.shape[0], weight.shape[1], *window.grow(x))
    return graph.node("ConvTranspose", [x, weight, bias], shape, x.dtype, **window.attributes)


@_translates(_aten.avg_pool2d.default)
def _avg_pool2d(
    graph: TracedGraph, x: torch.Tensor, kernel: Sequence[int], stride: Sequence[int] = ()
) -> torch.Tensor:
    sides = _pair(kernel)
    window = _Window(sides, _pair(stride) if stride else sides, [0, 0])
    shape = (*x.shape[:2], *window.shrink(x))
    return graph.node("AveragePool", [x], shape, x.dtype, **window.attributes)


@_translates(_aten.cat.default)
def _cat(graph: TracedGraph, parts: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
    axis = dim % parts[0].dim()
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return graph.node("Concat", parts, shape, parts[0].dtype, axis=axis)


@_translates(_aten.permute.default)
def _permute(graph: TracedGraph, x: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    order = [axis % x.dim() for axis in axes]
    return graph.node("Transpose", [x], [x.shape[axis] for axis in order], x.dtype, perm=order)


@_translates(_aten.reshape.default, _aten.view.default)
def _reshape(graph: TracedGraph, x: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    known = 1
    for length in shape:
        known *= length if length >= 0 else 1
    whole = [length if length >= 0 else x.numel() // known for length in shape]
    return graph.node("Reshape", [x, graph.number(whole, torch.int64)], whole, x.dtype)


@_translates(_aten.unsqueeze.default)
def _unsqueeze(graph: TracedGraph, x: torch.Tensor, dim: int) -> torch.Tensor:
    axis = dim % (x.dim() + 1)
    shape = [*x.shape[:axis], 1, *x.shape[axis:]]
    return graph.node("Unsqueeze", [x, graph.number([axis], torch.int64)], shape, x.dtype)


@_translates(_aten.select.int)
def _select(graph: TracedGraph, x: torch.Tensor, dim: int, index: int) -> torch.Tensor:
    axis = dim % x.dim()
    shape = [*x.shape[:axis], *x.shape[axis + 1 :]]
    where = graph.number([index % x.shape[axis]], torch.int64, is_scalar=True)
    return graph.node("Gather", [x, where], shape, x.dtype, axis=axis)


@_translates(_aten.slice.Tensor)
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


@_translates(_aten.index.Tensor)
def _index(
    graph: TracedGraph, x: torch.Tensor, indices: Sequence[torch.Tensor | None]
) -> torch.Tensor:
    used = [axis for axis, index in enumerate(indices) if index is not None]
    (axis,) = used  # the networks index one axis at a time
    index = indices[axis]
    assert index is not None
    shape = [*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]]
    return graph.node("Gather", [x, index], shape, x.dtype, axis=axis)


@_translates(_aten.embedding.default)
def _embedding(graph: TracedGraph, table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    shape = (*rows.shape, table.shape[1])
    return graph.node("Gather", [table, rows], shape, table.dtype, axis=0)


@_translates(_aten.expand.default)
def _expand(graph: TracedGraph, x: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    offset = len(sizes) - x.dim()
    shape = [size if size >= 0 else x.shape[axis - offset] for axis, size in enumerate(sizes)]
    if shape == list(x.shape):
        return x
    return graph.node("Expand", [x, graph.number(shape, torch.int64)], shape, x.dtype)


@_translates(_aten.pad.default)
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


@_translates(_aten.pixel_shuffle.default)
def _pixel_shuffle(graph: TracedGraph, x: torch.Tensor, factor: int) -> torch.Tensor:
    batch, channels, height, width = x.shape
    shape = (batch, channels // factor**2, height * factor, width * factor)
    return graph.node("DepthToSpace", [x], shape, x.dtype, blocksize=factor, mode="CRD")


@_translates(_aten.pixel_unshuffle.default)
def _pixel_unshuffle(graph: TracedGraph, x: torch.Tensor, factor: int) -> torch.Tensor:
    # SpaceToDepth has the other order of channels.
    batch, channels, height, width = (int(length) for length in x.shape)
    rows, columns = height // factor, width // factor
    blocks = _reshape(graph, x, (batch, channels, rows, factor, columns, factor))
    moved = _permute(graph, blocks, (0, 1, 3, 5, 2, 4))
    return _reshape(graph, moved, (batch, channels * factor**2, rows, columns))


@_translates(_aten.upsample_bilinear2d.vec)
def _upsample_bilinear2d(
    graph: TracedGraph,
    x: torch.Tensor,
    size: Sequence[int] | None,
    align_corners: bool,
    scales: Sequence[float] | None,
) -> torch.Tensor:
    assert not align_corners
    if scales is None:
        assert size is not None
        scales = [size[0] / x.shape[2], size[1] / x.shape[3]]
    shape = [*x.shape[:2], int(x.shape[2] * scales[0]), int(x.shape[3] * scales[1])]
    factors = graph.number([1.0, 1.0, *map(float, scales)], torch.float32)
    return graph.node(
        "Resize",
        [x, None, factors],
        shape,
        x.dtype,
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )


@_translates(_aten.grid_sampler.default)
def _grid_sampler(
    graph: TracedGraph,
    x: Operand,
    grid: torch.Tensor,
    interpolation: int,
    padding: int,
    align_corners: bool,
) -> torch.Tensor:
    assert isinstance(x, torch.Tensor)
    return graph.node(
        "GridSample",
        [x, grid],
        (x.shape[0], x.shape[1], *grid.shape[1:3]),
        x.dtype,
        mode=("bilinear", "nearest")[interpolation],
        padding_mode=("zeros", "border")[padding],
        align_corners=int(align_corners),
    )
