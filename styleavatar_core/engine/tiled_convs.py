# SPDX-License-Identifier: Apache-2.0
"""Frozen convolutions with fewer products, for torch on a CPU.

An image is computed in strips that stay in the caches. Threads take strips, each with its
transform, its matrix products and its transform back, and wait for each other once per layer.
"""

from __future__ import annotations

import itertools
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from styleavatar_core.engine.frozen_layers import FrozenConv
from styleavatar_core.engine.strips import plan_strips, share_strips
from styleavatar_core.engine.tile_forms import CLASSES, DOUBLING, SAME, TILE, TileForm
from styleavatar_core.engine.tile_kernels import blur, gather, scatter
from styleavatar_core.types import FloatArray

# Of a strip's transformed input: as much as the kernels, which each strip reads once, but little
# enough for the caches.
_STRIP_BYTES = (3 * 2**19, 12 * 2**20)
_NO_NOISE = np.empty((0, 0), np.float32)


class _Epilogue(NamedTuple):
    """What follows the products: bias (O,), noise (H, W) or (0, 0), slope of the leaky ReLU."""

    bias: FloatArray
    noise: FloatArray
    slope: np.float32


class TiledConv(nn.Module):
    """A frozen 3x3 convolution in tiles of 4x4 outputs: a quarter of the products.

    Args:
        conv: The frozen convolution; float32, keeps the resolution.
    """

    form: ClassVar[TileForm] = SAME
    scale: ClassVar[int] = 1  # from the input's resolution to the output's

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__()
        self.bias, self.slope = conv.bias, conv.slope
        self.noise_strength = conv.noise_strength
        pair = torch.from_numpy(np.kron(self.form.kernel, self.form.kernel)).float()  # (36, 9)
        taps = self._taps(conv)
        inputs, outputs = taps.shape[:2]
        kernels = pair @ taps.reshape(-1, 9).t()  # (36, I * O)
        self.kernels, self.slot = _by_group(
            self.form, kernels.view(CLASSES, CLASSES, inputs, outputs)
        )

    def forward(
        self,
        x: torch.Tensor,
        style: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Maps (B, I, H, W) to (B, O, H', W'), channels last."""
        images = x.permute(0, 2, 3, 1).contiguous()
        height, width = (self.scale * side for side in x.shape[2:])
        results = x.new_empty(len(x), height, width, len(self.bias))
        slope = np.float32(1.0 if self.slope is None else self.slope)
        for index, (image, result) in enumerate(zip(images, results, strict=True)):
            added = _NO_NOISE
            if noise is not None and self.noise_strength != 0.0:
                sample = noise[min(index, len(noise) - 1), 0] * self.noise_strength
                added = sample.contiguous().numpy()
            self._convolve(image, result, _Epilogue(self.bias.numpy(), added, slope))
        return results.permute(0, 3, 1, 2)

    @staticmethod
    def _taps(conv: FrozenConv) -> torch.Tensor:
        """Returns the convolution's taps, (I, O, 3, 3)."""
        return conv.weight.detach().transpose(0, 1)

    def _convolve(self, image: torch.Tensor, result: torch.Tensor, end: _Epilogue) -> None:
        """Convolves one sample, channels last, into ``result``."""
        (size, _), (inputs, outputs) = self.form.output.index.shape, self.kernels[0].shape[1:]
        rows, columns = (-(-side // size) for side in result.shape[:2])
        threads, points = torch.get_num_threads(), len(self.slot)
        per_row = 4 * points**2 * columns * inputs
        least, most_bytes = _STRIP_BYTES
        kernel_bytes = 4 * (CLASSES**2) * inputs * outputs
        strips = plan_strips(rows, per_row, min(max(least, kernel_bytes), most_bytes))
        most = max(count for _, count in strips)
        tiles = image.new_empty(threads, points**2 * most * columns * inputs)
        products = image.new_empty(threads, points**2 * most * columns * outputs)
        line = (columns - 1) * TILE + self.form.span
        lines = image.new_empty(threads, points, line * inputs).numpy()
        parts = image.new_empty(threads, points, size * outputs).numpy()
        pixels, output = image.numpy(), result.numpy()
        form, slot = self.form, self.slot

        def compute(thread: int, first: int, count: int) -> None:
            shape = (points**2, count * columns)
            a = _front(tiles[thread], (*shape, inputs))
            b = _front(products[thread], (*shape, outputs))
            places = (first, columns)
            there = (form.image.index, form.image.weight, slot)
            back = (form.output.index, form.output.weight, slot)
            gather(pixels, *places, TILE, form.before, *there, lines[thread], a.numpy())
            self._multiply(a, b)
            scatter(b.numpy(), *places, *back, parts[thread], output, *end)

        share_strips(strips, compute)

    def _multiply(self, tiles: torch.Tensor, products: torch.Tensor) -> None:
        """Multiplies (P * P, tiles, I) by the kernels, into (P * P, tiles, O)."""
        start = 0
        pairs = itertools.product(self.form.groups, repeat=2)
        for kernels, (y, x) in zip(self.kernels, pairs, strict=True):
            stop = start + len(kernels) * len(y[0]) * len(x[0])
            a = tiles[start:stop].view(len(kernels), -1, kernels.shape[1])
            b = products[start:stop].view(len(kernels), -1, kernels.shape[2])
            torch.bmm(a, kernels, out=b)
            start = stop


class TiledUpConv(TiledConv):
    """A frozen doubling convolution with four filter taps: 81 products where 144 would be needed.

    Args:
        conv: The frozen convolution; float32, doubles the resolution and filters.
    """

    form = DOUBLING
    scale = 2

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__(conv)
        assert conv.fir_taps is not None
        taps = np.array((*conv.fir_taps, 0.0), np.float32)
        self.fir_taps = 2 * taps / taps.sum()

    @staticmethod
    def _taps(conv: FrozenConv) -> torch.Tensor:
        return conv.weight.detach()

    def _convolve(self, image: torch.Tensor, result: torch.Tensor, end: _Epilogue) -> None:
        """Convolves one sample, channels last, and filters it into ``result``."""
        height, width, channels = result.shape
        wide = result.new_empty(height + 1, width + 1, channels)
        plain = _Epilogue(np.zeros_like(end.bias), _NO_NOISE, np.float32(1))
        super()._convolve(image, wide, plain)
        lines = result.new_empty(torch.get_num_threads(), (width + 3) * channels).numpy()
        source, output = wide.numpy(), result.numpy()

        def compute(thread: int, first: int, count: int) -> None:
            blur(source, first, count, self.fir_taps, lines[thread], output, *end)

        strips = plan_strips(height, 4 * width * channels, _STRIP_BYTES[0])
        share_strips(strips, compute)


def _front(buffer: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Returns the front of a buffer in a shape."""
    return buffer[: shape[0] * shape[1] * shape[2]].view(shape)


def _by_group(
    form: TileForm, kernels: torch.Tensor
) -> tuple[nn.ParameterList, npt.NDArray[np.int64]]:
    """Sorts kernels (6, 6, I, O) by pairs of groups.

    Returns:
        Kernels (classes, I, O) of each pair, and the place (P, P) of each pair of points.
    """
    points = sum(len(entry) for group in form.groups for entry in group)
    slot, number = np.empty((points, points), np.int64), itertools.count()
    result = nn.ParameterList()
    ends = np.cumsum([0, *map(len, form.groups)])
    for (i, y), (j, x) in itertools.product(enumerate(form.groups), repeat=2):
        part = kernels[ends[i] : ends[i + 1], ends[j] : ends[j + 1]].flatten(0, 1)
        result.append(nn.Parameter(part.contiguous(), requires_grad=False))
        for a, b in itertools.product(y, x):
            for pair in itertools.product(a, b):
                slot[pair] = next(number)
    return result, slot
