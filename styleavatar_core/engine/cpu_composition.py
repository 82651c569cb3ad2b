# SPDX-License-Identifier: Apache-2.0
"""Parts of the composition as torch on a CPU does them fastest: channels last throughout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from numba import njit
from torch import nn

from styleavatar_core.engine.strips import plan_strips, share_strips
from styleavatar_core.networks.feature_generator import FeatureMaps
from styleavatar_core.ops.haar import pixels_of

_LEAST_FLOATS = 2**20  # of an image; below, torch is fast enough
_STRIP_BYTES = 2**20


class NearestFace(nn.Module):
    """Looks up a person's face, one sample per texel: a row of a table, the last one for none.

    Args:
        maps: The face's static maps, batch 1.
    """

    table: torch.Tensor

    def __init__(self, maps: FeatureMaps) -> None:
        super().__init__()
        self.side = maps.feature.shape[-1]
        both = torch.cat([maps.feature, pixels_of(maps.rgb_pack)], dim=1)[0]
        rows = both.permute(1, 2, 0).flatten(0, 1)
        self.register_buffer("table", F.pad(rows, (0, 0, 0, 1)).contiguous())

    def forward(
        self, face: FeatureMaps, uv: torch.Tensor, face_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns feature (B, C, U, U) and pixels (B, 12, U, U), zero outside the face.

        Args:
            face: Not looked at: the maps are in the table.
            uv: (B, 2, U, U) float32 in [0, 1].
            face_mask: (B, 1, U, U), 0 or 1.
        """
        place = (uv * self.side - 0.5).round()
        is_seen = (face_mask[:, 0] != 0) & ((place >= 0) & (place < self.side)).all(dim=1)
        row = torch.where(is_seen, place[:, 1] * self.side + place[:, 0], len(self.table) - 1)
        samples = F.embedding(row.long(), self.table).permute(0, 3, 1, 2)
        return samples[:, :-12], samples[:, -12:]


class PixelsToImage(nn.Module):
    """Puts the four pixels in the channels of one beside each other: ``pixel_shuffle`` by two."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps (B, 4C, H, W) to (B, C, 2H, 2W)."""
        if pixels.numel() < _LEAST_FLOATS:
            return F.pixel_shuffle(pixels, 2)
        count, channels, height, width = pixels.shape
        source = pixels.permute(0, 2, 3, 1).contiguous().view(count * height, width, channels)
        image = pixels.new_empty(count, 2 * height, 2 * width, channels // 4)
        rows, target = source.numpy(), image.view(count * height, 2, -1).numpy()

        def compute(thread: int, first: int, rows_count: int) -> None:
            _spread(rows, first, rows_count, target)

        share_strips(plan_strips(len(rows), 4 * width * channels, _STRIP_BYTES), compute)
        return image.permute(0, 3, 1, 2)


@njit(cache=True, nogil=True)
def _spread(source, first, count, target):  # noqa: ANN001, ANN202
    """Writes rows (N, W, 4C) of blocks as pairs of rows (N, 2, 2W * C) of pixels."""
    _, width, channels = source.shape
    colours = channels // 4
    for row in range(first, first + count):
        for y in range(2):
            for x in range(width):
                for side in range(2):
                    to = (2 * x + side) * colours
                    for colour in range(colours):
                        target[row, y, to + colour] = source[row, x, 4 * colour + 2 * y + side]
