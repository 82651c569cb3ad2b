# SPDX-License-Identifier: Apache-2.0
"""The last levels of a decoder, for processors with a matrix unit, for torch on a CPU.

Where an image is large and has few channels, its convolutions wait for memory. A thread takes a
window of it from one level's image to the next one's, and what is between stays in its cache.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import nn

from styleavatar_core.engine.cpu.direct_convs import DirectConv, Pieces, room_for_pieces
from styleavatar_core.engine.cpu.filtered_convs import Epilogue
from styleavatar_core.engine.cpu.level_kernels import HALO, WIDE_HALO, compute_windows
from styleavatar_core.engine.cpu.matrix_code import PIECES, SIDE
from styleavatar_core.engine.cpu.pixels import add_doubled_image
from styleavatar_core.engine.cpu.strips import plan_strips, share_strips
from styleavatar_core.types import FloatArray

_ROWS, _COLUMNS = 16, 128  # of a window; even
_PART_ROWS = 128  # of windows below each other: each sees some of what the one before has doubled
_PIXELS = 12


class _Room(NamedTuple):
    """What a window takes between its convolutions, which stays in the cache."""

    given: Pieces
    seen: Pieces
    wide: FloatArray
    line: FloatArray
    grains: FloatArray
    result: FloatArray
    drawn: FloatArray
    sums: FloatArray


class DirectLevel(nn.Module):
    """A level of a frozen decoder without early skips: doubles, convolves and draws.

    Args:
        up: The doubling convolution.
        conv: The other one.
        to_rgb: Kernels and bias of the product that gives pixels, as ``multiply_pixels`` has them.
        has_feature: Whether somebody reads the feature map, not the pixels alone.
    """

    def __init__(
        self,
        up: DirectConv,
        conv: DirectConv,
        to_rgb: tuple[FloatArray, FloatArray],
        *,
        has_feature: bool,
    ) -> None:
        super().__init__()
        self.up, self.conv, self.to_rgb, self.has_feature = up, conv, to_rgb, has_feature

    def forward(
        self,
        x: torch.Tensor,
        style: torch.Tensor,
        pixels: torch.Tensor | None,
        *,
        skip: None = None,
        noise: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps x (B, I, r, r') and pixels (B, 12, r, r') to (B, O, 2r, 2r') and (B, 12, 2r, 2r').

        What nobody reads is (B, 0, 0, O).
        """
        images = x.permute(0, 2, 3, 1).contiguous()
        sides = [2 * side for side in x.shape[2:]]
        drawn = x.new_empty(len(x), *sides, _PIXELS)
        shape = sides if self.has_feature else (0, 0)
        features = x.new_empty(len(x), *shape, len(self.conv.bias))
        for index, (image, own, feature) in enumerate(zip(images, drawn, features, strict=True)):
            ends = [conv.epilogue(noise, index) for conv in (self.up, self.conv)]
            self._compute(image, ends, own, feature)
        if pixels is not None:
            for source, own in zip(pixels.permute(0, 2, 3, 1).contiguous(), drawn, strict=True):
                add_doubled_image(source, own)
        return features.permute(0, 3, 1, 2), drawn.permute(0, 3, 1, 2)

    def _compute(
        self, image: torch.Tensor, ends: list[Epilogue], own: torch.Tensor, feature: torch.Tensor
    ) -> None:
        """Computes one sample, channels last, into ``own`` and ``feature``."""
        height, width = own.shape[:2]
        rows_of_parts = plan_strips(height, 1, _PART_ROWS, 2)
        parts = list(itertools.product(rows_of_parts, plan_strips(width, 1, _COLUMNS, 2)))
        source, results = image.numpy(), (own.numpy(), feature.numpy())

        def compute(thread: int, first: int, count: int) -> None:
            for (top, rows), (left, columns) in parts[first : first + count]:
                room, part = self._make_room(image.shape[2], columns), (top, left, rows, columns)
                pitches = ((columns + WIDE_HALO) // 2 + 1, columns + HALO)
                steps = (
                    conv.tap_steps(pitch, 1, pieces)
                    for conv, pitch, pieces in zip(
                        (self.up, self.conv), pitches, (room.given, room.seen), strict=True
                    )
                )
                up = (self.up.kernels, next(steps), self.up.phases, self.up.fir_taps, *ends[0])
                conv = (self.conv.kernels, next(steps), self.conv.phases, *ends[1])
                compute_windows(source, part, up, conv, self.to_rgb, room, *results)

        share_strips(plan_strips(len(parts), 1, 1), compute)

    def _make_room(self, inputs: int, columns: int) -> _Room:
        """Returns room for windows of so many columns, from lines of the cache on."""
        middle, outputs = len(self.up.bias), len(self.conv.bias)
        rows, wide = _ROWS + WIDE_HALO, columns + WIDE_HALO
        # As far as the last block of pixels sees.
        given = (rows // 2 + 1) * (wide // 2 + 1) + SIDE + 2
        seen = (_ROWS + HALO) * (columns + HALO) + SIDE + 2
        shapes = (
            (rows, wide, middle),
            ((wide + 1) * middle,),
            (_ROWS, columns),
            (_ROWS, columns, outputs),
            (_ROWS * columns, _PIXELS),
            (SIDE * SIDE,),
        )
        return _Room(
            room_for_pieces(1, inputs // SIDE, given, PIECES),
            room_for_pieces(1, middle // SIDE, seen, PIECES),
            *(torch.empty(shape).numpy() for shape in shapes),
        )
