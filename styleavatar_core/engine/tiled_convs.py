# SPDX-License-Identifier: Apache-2.0
"""Frozen convolutions with fewer products, for torch on a CPU.

An image is computed in strips of tiles that stay in the caches. Threads take strips, each with its
transform, its matrix products and its transform back, and wait for each other once per layer.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from styleavatar_core.engine.frozen_layers import FrozenConv
from styleavatar_core.engine.strips import plan_strips, share_strips, strip_threads
from styleavatar_core.engine.tile_forms import (
    DOUBLING,
    FORMS,
    HALVING,
    SAME,
    SAME_LARGE,
    TileForm,
)
from styleavatar_core.engine.tile_kernels import GAP, blur, gather, multiply, scatter
from styleavatar_core.engine.vector_code import BLOCK_COLUMNS, BLOCK_ROWS
from styleavatar_core.types import FloatArray

# Of a strip, transformed: as much as the kernels, which each strip reads once, but little enough
# for the caches.
_STRIP_BYTES = (2**20, 24 * 2**20)
_BLUR_BYTES = 2**20
_NO_NOISE = np.empty((0, 0), np.float32)


class _Epilogue(NamedTuple):
    """What follows the products: bias (O,), noise (H, W) or (0, 0), slope of the leaky ReLU."""

    bias: FloatArray
    noise: FloatArray
    slope: np.float32


class TiledConv(nn.Module):
    """A frozen 3x3 convolution in tiles of 4x4 outputs: a quarter of the products.

    Args:
        conv: The frozen convolution; float32, keeps the resolution; inputs a
            multiple of 8, outputs of 16.
    """

    form: ClassVar[TileForm] = SAME
    scale: ClassVar[float] = 1  # from the input's resolution to the output's

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__()
        self.bias, self.slope = conv.bias, conv.slope
        self.noise_strength = conv.noise_strength
        self.kernels = nn.Parameter(_packed(self.form, self._taps(conv)), requires_grad=False)
        self.order, self.begins = self.form.points_of_classes()

    def forward(
        self,
        x: torch.Tensor,
        style: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Maps (B, I, H, W) to (B, O, H', W'), channels last."""
        images = self._filtered(x).permute(0, 2, 3, 1).contiguous()
        height, width = (int(self.scale * side) for side in x.shape[2:])
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

    def _filtered(self, x: torch.Tensor) -> torch.Tensor:
        """Returns what is cut into tiles."""
        return x

    def _convolve(self, image: torch.Tensor, result: torch.Tensor, end: _Epilogue) -> None:
        """Convolves one sample, channels last, into ``result``."""
        form, kind = self.form, FORMS.index(self.form)
        inputs, outputs = image.shape[2], result.shape[2]
        rows, columns = (-(-side // form.pixels) for side in result.shape[:2])
        planes, sides = form.points**2, (form.step, form.before, form.image.shape[1])
        least, most_bytes = _STRIP_BYTES
        strips = plan_strips(
            rows * columns,
            4 * planes * (inputs + outputs),
            min(max(least, 4 * self.kernels.numel()), most_bytes),
            BLOCK_ROWS,
        )
        most = max(_padded(count) for _, count in strips)
        threads = strip_threads()
        transformed = image.new_empty(threads, planes * (most * inputs + GAP)).numpy()
        multiplied = image.new_empty(threads, planes * (most * outputs + GAP)).numpy()
        pixels, output, kernels = image.numpy(), result.numpy(), self.kernels.numpy()

        def compute(thread: int, first: int, count: int) -> None:
            padded = _padded(count)
            tiles = transformed[thread][: planes * (padded * inputs + GAP)]
            products = multiplied[thread][: planes * (padded * outputs + GAP)]
            place = (first, count, columns)
            gather(kind, pixels, *place, *sides, form.points, tiles)
            multiply(tiles, kernels, products, padded, self.order, self.begins)
            scatter(kind, products, *place, form.pixels, form.points, output, *end)

        share_strips(strips, compute)


class LargeTiledConv(TiledConv):
    """The same in tiles of 6x6 outputs: a fifth of the products, of larger kernels."""

    form = SAME_LARGE


class TiledUpConv(TiledConv):
    """A frozen doubling convolution with four filter taps: 169 products where 324 would be needed.

    Args:
        conv: The frozen convolution; float32, doubles the resolution and filters.
    """

    form = DOUBLING
    scale = 2

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__(conv)
        self.fir_taps = _fir_taps(conv, 2.0)

    @staticmethod
    def _taps(conv: FrozenConv) -> torch.Tensor:
        return conv.weight.detach()

    def _convolve(self, image: torch.Tensor, result: torch.Tensor, end: _Epilogue) -> None:
        """Convolves one sample, channels last, and filters it into ``result``."""
        height, width, channels = result.shape
        wide = result.new_empty(height + 1, width + 1, channels)
        plain = _Epilogue(np.zeros_like(end.bias), _NO_NOISE, np.float32(1))
        super()._convolve(image, wide, plain)
        _blur(wide, result, self.fir_taps, end)


class TiledDownConv(TiledConv):
    """A frozen halving convolution with filter taps: 81 products where 144 would be needed.

    Args:
        conv: The frozen convolution; float32, filters and halves the resolution.
    """

    form = HALVING
    scale = 0.5

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__(conv)
        self.fir_taps = _fir_taps(conv, 1.0)

    def _filtered(self, x: torch.Tensor) -> torch.Tensor:
        images = x.permute(0, 2, 3, 1).contiguous()
        count, height, width, channels = images.shape
        results = x.new_empty(count, height + 1, width + 1, channels)
        plain = _Epilogue(np.zeros(channels, np.float32), _NO_NOISE, np.float32(1))
        for image, result in zip(images, results, strict=True):
            _blur(image, result, self.fir_taps, plain)
        return results.permute(0, 3, 1, 2)


def _fir_taps(conv: FrozenConv, gain: float) -> FloatArray:
    """Returns a convolution's filter along one axis; its taps add up to ``gain``."""
    taps = np.array(conv.fir_taps, np.float32)
    return gain * taps / taps.sum()


def _blur(image: torch.Tensor, result: torch.Tensor, taps: FloatArray, end: _Epilogue) -> None:
    """Filters one sample, channels last, into ``result``."""
    height, width, channels = result.shape
    lines = result.new_empty(strip_threads(), (width + 3) * channels).numpy()
    source, output = image.numpy(), result.numpy()

    def compute(thread: int, first: int, count: int) -> None:
        blur(source, first, count, taps, lines[thread], output, *end)

    share_strips(plan_strips(height, 4 * width * channels, _BLUR_BYTES), compute)


def _padded(count: int) -> int:
    """Returns how many tiles are multiplied for so many."""
    return -(-count // BLOCK_ROWS) * BLOCK_ROWS


def _packed(form: TileForm, taps: torch.Tensor) -> torch.Tensor:
    """Returns taps (I, O, 3, 3) as kernels (classes * O / 16, I, 16)."""
    inputs = len(taps)
    pair = torch.from_numpy(np.kron(form.kernel, form.kernel)).float()  # (classes, 9)
    sorted_taps = taps.permute(2, 3, 1, 0).reshape(9, -1, BLOCK_COLUMNS, inputs)
    panels = sorted_taps.transpose(2, 3).flatten(1)  # (9, O * I), as the kernels are
    return (pair @ panels).view(-1, inputs, BLOCK_COLUMNS)
