# SPDX-License-Identifier: Apache-2.0
"""Torch operators that look at neighbouring pixels, as ONNX operators: convolution, sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from styleavatar_core.engine.onnx.tracing import Operand, TracedGraph, TranslationTable

_aten = torch.ops.aten
WINDOW_OPERATORS = TranslationTable()


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


@WINDOW_OPERATORS.translates(_aten.conv2d.default)
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


@WINDOW_OPERATORS.translates(_aten.conv_transpose2d.input)
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


@WINDOW_OPERATORS.translates(_aten.avg_pool2d.default)
def _avg_pool2d(
    graph: TracedGraph, x: torch.Tensor, kernel: Sequence[int], stride: Sequence[int] = ()
) -> torch.Tensor:
    sides = _pair(kernel)
    window = _Window(sides, _pair(stride) if stride else sides, [0, 0])
    shape = (*x.shape[:2], *window.shrink(x))
    return graph.node("AveragePool", [x], shape, x.dtype, **window.attributes)


@WINDOW_OPERATORS.translates(_aten.upsample_bilinear2d.vec)
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


@WINDOW_OPERATORS.translates(_aten.grid_sampler.default)
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
