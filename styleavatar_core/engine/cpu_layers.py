# SPDX-License-Identifier: Apache-2.0
"""Frozen layers that do the same with less work, for torch on a CPU.

Wide 3x3 convolutions need a quarter of the multiplications in Winograd's form F(4x4, 3x3); doubling
convolutions are four ordinary ones. Runtimes for CPUs have neither. On GPUs plain convolutions win.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.engine.freeze import FrozenGenerator
from styleavatar_core.engine.frozen_layers import FrozenConv, FrozenLayer
from styleavatar_core.engine.onnx_graph import trace_generator

_OUT = 4  # side of a tile of the output
_IN = 6  # side of the part of the input that it depends on
# Points of the interpolation beside 0 and infinity. With reciprocal pairs close to 1 the rounding
# error is that of a direct convolution (1.0e-6 to 0.9e-6); with the usual 1 and 2 it is 2.6 times.
_POINTS = (2 / 3, -2 / 3, 3 / 2, -3 / 2)
_STRIP_BYTES = 8 * 2**20  # of transformed input: enough for the products, little enough for caches
# Below, and at resolutions below ``least_size``, it costs more than it saves.
_LEAST_CHANNELS = 128


@dataclass(frozen=True, slots=True)
class _Transforms:
    """Matrices of F(4, 3) in one dimension; two dimensions apply each along both axes.

    Attributes:
        image: (6, 6) float64.
        kernel: (6, 3) float64.
        output: (4, 6) float64.
    """

    image: torch.Tensor
    kernel: torch.Tensor
    output: torch.Tensor


@functools.cache
def _transforms() -> _Transforms:
    """Returns the matrices: Toom-Cook's polynomial product, transposed."""

    def evaluation(count: int) -> torch.Tensor:
        """Evaluates a polynomial of ``count`` coefficients at each point, infinity last."""
        points = torch.tensor((0.0, *_POINTS), dtype=torch.float64)
        powers = points[:, None] ** torch.arange(count, dtype=torch.float64)
        infinity = torch.zeros(1, count, dtype=torch.float64)
        infinity[0, -1] = 1.0
        return torch.cat([powers, infinity])

    image = torch.linalg.inv(evaluation(_IN)).t()
    scale = image.abs().amax(dim=1, keepdim=True)  # moved to the kernel, where it costs nothing
    return _Transforms(image / scale, evaluation(3) * scale, evaluation(_OUT).t().contiguous())


class WinogradConv(FrozenLayer):
    """A frozen 3x3 convolution as 36 matrix products per tile of 4x4 outputs.

    Args:
        conv: The frozen convolution; float32, keeps the resolution.
    """

    least_size: ClassVar[int] = 32
    image: torch.Tensor
    output: torch.Tensor

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__(conv.slope, conv.noise_strength)
        self.bias = conv.bias
        matrices = _transforms()
        pair = torch.kron(matrices.kernel, matrices.kernel)  # (36, 9)
        weight = conv.weight.detach().double()
        flat = weight.transpose(2, 3).flatten(2).permute(2, 1, 0).flatten(1)  # (9, I*O)
        kernels = (pair @ flat).view(_IN**2, weight.shape[1], weight.shape[0])
        self.kernels = nn.Parameter(kernels.float().contiguous(), requires_grad=False)
        self.register_buffer("image", matrices.image.float())
        self.register_buffer("output", matrices.output.float())

    def _convolve(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        rows, columns = -(-height // _OUT), -(-width // _OUT)  # of tiles
        extra = (1, _OUT * columns + 1 - width, 1, _OUT * rows + 1 - height)
        padded = F.pad(x, extra).permute(0, 2, 3, 1).contiguous()
        y = x.new_empty(len(x), _OUT * rows, _OUT * columns, self.kernels.shape[2])
        strip = max(1, _STRIP_BYTES // (_IN**2 * columns * x.shape[1] * x.element_size()))
        for sample, result in zip(padded, y, strict=True):
            for start in range(0, rows, strip):
                count = min(strip, rows - start)
                part = result[_OUT * start : _OUT * (start + count)]
                self._convolve_strip(sample[_OUT * start :], part, count, columns)
                part += self.bias
        return y.permute(0, 3, 1, 2)[..., :height, :width]

    def _convolve_strip(
        self, image: torch.Tensor, result: torch.Tensor, rows: int, columns: int
    ) -> None:
        """Convolves tile rows of an image (H, W, I), padded, into (4 rows, 4 columns, O)."""
        width, channels = image.shape[1:]
        line = width * channels
        tall = image.as_strided((_IN, rows, line), (line, _OUT * line, 1), image.storage_offset())
        tall = self.image @ tall.reshape(_IN, -1)  # transformed along y: (6, rows * line)
        shape = (_IN, _IN, rows, columns, channels)  # x and y within a tile, tiles, channels
        steps = (channels, rows * line, line, _OUT * channels, 1)
        tiles = self.image @ tall.as_strided(shape, steps).reshape(_IN, -1)
        products = torch.bmm(tiles.view(_IN**2, rows * columns, channels), self.kernels)
        wide = (self.output @ products.view(_IN, -1)).view(_OUT, _IN, -1)
        pixels = torch.matmul(self.output, wide).view(_OUT, _OUT, rows, columns, -1)
        result.view(rows, _OUT, columns, _OUT, -1).copy_(pixels.permute(2, 1, 3, 0, 4))


class PhasedUpConv(FrozenLayer):
    """A frozen doubling convolution as four convolutions, one per parity of row and column.

    Args:
        conv: The frozen convolution; doubles the resolution and filters.
    """

    least_size: ClassVar[int] = 128
    _TAPS = ([2, 0], [1])  # of the kernel, that reach even and odd rows or columns

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__(conv.slope, conv.noise_strength)
        self.bias = conv.bias
        self.fir = conv.fir
        weight = conv.weight.detach().transpose(0, 1)  # (O, I, 3, 3)
        self.phases = nn.ParameterList(
            nn.Parameter(weight[:, :, rows][..., columns].clone(), requires_grad=False)
            for rows in self._TAPS
            for columns in self._TAPS
        )

    def _convolve(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        size = (len(x), 2 * height + 1, 2 * width + 1, len(self.bias))
        wide = x.new_empty(size).permute(0, 3, 1, 2)
        for index, weight in enumerate(self.phases):
            row, column = divmod(index, 2)
            phase = F.conv2d(x, weight, padding=(1 - row, 1 - column))
            wide[:, :, row::2, column::2] = phase
        return F.conv2d(wide, self.fir, self.bias, padding=1, groups=len(self.bias))


def with_less_work(generator: FrozenGenerator) -> FrozenGenerator:
    """Replaces the layers that can do with less work, in place.

    Args:
        generator: A frozen generator in float32.

    Returns:
        ``generator``.
    """
    found = {
        name: (layer, _replacement(layer))
        for name, layer in generator.named_modules()
        if isinstance(layer, FrozenConv)
    }
    layers = {f"{name}.weight": (layer, kind) for name, (layer, kind) in found.items() if kind}
    if not layers:
        return generator
    graph, _ = trace_generator(generator)  # tells every layer's resolution
    for node in graph.nodes:
        weight = node.inputs[1] if len(node.inputs) > 1 else ""
        if weight in layers:
            layer, kind = layers[weight]
            if min(node.shape[2:]) >= kind.least_size:
                generator.set_submodule(weight.removesuffix(".weight"), kind(layer))
    return generator


def _replacement(conv: FrozenConv) -> type[WinogradConv] | type[PhasedUpConv] | None:
    """Returns what does the same with less work, if the resolution is high enough."""
    if conv.mode == "up" and conv.fir_taps is not None and len(conv.fir_taps) == 4:
        return PhasedUpConv
    outputs, inputs, *sides = conv.weight.shape
    is_wide = min(outputs, inputs) >= _LEAST_CHANNELS
    return WinogradConv if conv.mode == "same" and sides == [3, 3] and is_wide else None
