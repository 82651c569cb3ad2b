# SPDX-License-Identifier: Apache-2.0
"""What our frozen 3x3 convolutions have in common: filters, noise, and what is around the products.

A doubling convolution is filtered after its products, a halving one before them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from styleavatar_core.engine.cpu.blur_kernels import blur
from styleavatar_core.engine.cpu.strips import plan_strips, share_strips, strip_threads
from styleavatar_core.engine.frozen.layers import FrozenConv
from styleavatar_core.types import FloatArray

_BLUR_BYTES = 2**20
NO_NOISE = np.empty((0, 0), np.float32)
_SCALES = {"same": 1.0, "up": 2.0, "down": 0.5}  # from the input's resolution to the output's


class Epilogue(NamedTuple):
    """What follows the products: bias (O,), noise (H, W) or (0, 0), slope of the leaky ReLU."""

    bias: FloatArray
    noise: FloatArray
    slope: np.float32


class FilteredConv(nn.Module):
    """A frozen 3x3 convolution whose products a subclass computes.

    Args:
        conv: The frozen convolution; float32. If it doubles or halves the resolution, it filters
            with ``IMAGE_TAPS``.
    """

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__()
        self.mode, self.bias, self.slope = conv.mode, conv.bias, conv.slope
        self.noise_strength = conv.noise_strength
        if conv.fir_taps is not None:
            taps, gain = np.array(conv.fir_taps, np.float32), 2.0 if self.mode == "up" else 1.0
            self.fir_taps: FloatArray = gain * taps / taps.sum()  # along one axis

    def forward(
        self,
        x: torch.Tensor,
        style: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Maps (B, I, H, W) to (B, O, H', W'), channels last."""
        images = x.permute(0, 2, 3, 1).contiguous()
        height, width = (int(_SCALES[self.mode] * side) for side in x.shape[2:])
        results = x.new_empty(len(x), height, width, len(self.bias))
        for index, (image, result) in enumerate(zip(images, results, strict=True)):
            self._convolve(image, result, self.epilogue(noise, index))
        return results.permute(0, 3, 1, 2)

    def epilogue(self, noise: torch.Tensor | None, index: int) -> Epilogue:
        """Returns what follows the products and the filter of one sample.

        Args:
            noise: (B or 1, 1, H', W') of the batch, if there is any.
            index: Of the sample.
        """
        added = NO_NOISE
        if noise is not None and self.noise_strength != 0.0:
            sample = noise[min(index, len(noise) - 1), 0] * self.noise_strength
            added = sample.contiguous().numpy()
        slope = np.float32(1.0 if self.slope is None else self.slope)
        return Epilogue(self.bias.numpy(), added, slope)

    @abstractmethod
    def _multiply(self, image: torch.Tensor, result: torch.Tensor, end: Epilogue) -> None:
        """Computes the products of one sample, channels last, and what follows them.

        Args:
            image: (H, W, I); one more row and column than two per pixel for a halving convolution.
            result: Written; one more row and column than two per pixel for a doubling one.
            end: What follows the products.
        """

    def _convolve(self, image: torch.Tensor, result: torch.Tensor, end: Epilogue) -> None:
        """Convolves one sample, channels last, into ``result``; filters beside it."""
        if self.mode == "same":
            self._multiply(image, result, end)
            return
        height, width, channels = (result if self.mode == "up" else image).shape
        wide = result.new_empty(height + 1, width + 1, channels)
        plain = Epilogue(np.zeros(channels, np.float32), NO_NOISE, np.float32(1))
        if self.mode == "up":
            self._multiply(image, wide, plain)
            _blur(wide, result, self.fir_taps, end)
        else:
            _blur(image, wide, self.fir_taps, plain)
            self._multiply(wide, result, end)


def taps_of(conv: FrozenConv) -> torch.Tensor:
    """Returns a convolution's taps, (O, I, 3, 3)."""
    weight = conv.weight.detach()
    return weight.transpose(0, 1) if conv.mode == "up" else weight


def _blur(image: torch.Tensor, result: torch.Tensor, taps: FloatArray, end: Epilogue) -> None:
    """Filters one sample, channels last, into ``result``."""
    height, width, channels = result.shape
    lines = result.new_empty(strip_threads(), (width + 3) * channels).numpy()
    source, output = image.numpy(), result.numpy()

    def compute(thread: int, first: int, count: int) -> None:
        blur(source, first, count, taps, lines[thread], output, *end)

    share_strips(plan_strips(height, 4 * width * channels, _BLUR_BYTES), compute)
