# SPDX-License-Identifier: Apache-2.0
"""Parts of the composition as torch on a CPU does them fastest: channels last throughout."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from numba import njit
from torch import nn

from styleavatar_core.engine.cpu.strips import plan_strips, share_strips
from styleavatar_core.networks.composition import linspace_index
from styleavatar_core.networks.feature_generator import FeatureMaps
from styleavatar_core.ops.haar import pixels_of

_STRIP_BYTES = 2**20


class FaceRows(nn.Module):
    """Tells which texel of a person's face each texel of the window shows.

    Args:
        side: Of the face's static maps, in texels.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(
        self, face: FeatureMaps, uv: torch.Tensor, face_mask: torch.Tensor
    ) -> tuple[torch.Tensor]:
        """Returns rows (B, U, U) int64 of the table of :class:`FaceAdder`, -1 for none.

        Args:
            face: Not looked at: the maps are in the table.
            uv: (B, 2, U, U) float32 in [0, 1].
            face_mask: (B, 1, U, U), 0 or 1.
        """
        place = (uv * self.side - 0.5).round()
        is_seen = (face_mask[:, 0] != 0) & ((place >= 0) & (place < self.side)).all(dim=1)
        return (torch.where(is_seen, place[:, 1] * self.side + place[:, 0], -1).long(),)


class FaceAdder(nn.Module):
    """Adds a person's face where it shows: a row of a table for each texel.

    Args:
        maps: The face's static maps, batch 1.
    """

    table: torch.Tensor

    def __init__(self, maps: FeatureMaps) -> None:
        super().__init__()
        parts = [part[0].flatten(1).t() for part in (maps.feature, pixels_of(maps.rgb_pack))]
        self.register_buffer("table", torch.cat(parts, dim=1))

    def forward(
        self, feature: torch.Tensor, pixels: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds the face to feature (B, C, U, U) and pixels (B, 12, U, U), in place.

        Args:
            feature: Channels last, as is ``pixels``.
            pixels: See ``feature``.
            rows: (B, U, U) of the table, -1 where the face does not show.
        """
        lasts = [part.permute(0, 2, 3, 1) for part in (feature, pixels)]
        parts = [part.view(-1, part.shape[-1]).numpy() for part in lasts]
        places, table = rows.flatten().numpy(), self.table.numpy()
        add_some = functools.partial(_add_rows, places, table, *parts)
        _share_rows(len(places), table[0].nbytes, add_some)
        return feature, pixels


class SharedCutter(nn.Module):
    """Cuts one window out of canvases, as the published code does."""

    def forward(self, canvas: torch.Tensor, starts: torch.Tensor, size: int) -> torch.Tensor:
        """Maps (B, C, H, W) to (B, C, size, size); ``starts`` is (1, 2)."""
        images = canvas.permute(0, 2, 3, 1).contiguous()
        columns, rows = linspace_index(starts, size, images.shape[2], canvas.device)[0].numpy()
        results = images.new_empty(len(images), size, size, images.shape[3])
        for image, result in zip(images.numpy(), results.numpy(), strict=True):
            place = (image, rows, columns, result)
            _share_rows(size, result[0].nbytes, functools.partial(_cut, *place))
        return results.permute(0, 3, 1, 2)


class SharedBlender(nn.Module):
    """Puts a foreground in front of a background."""

    def forward(self, mask: torch.Tensor, own: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        """Maps (B, 1, H, W), (B, C, H, W) and (B or 1, C, H, W) to (B, C, H, W)."""
        masks, fronts, behind = (
            part.permute(0, 2, 3, 1).contiguous() for part in (mask, own, back)
        )
        results = torch.empty_like(fronts)
        backs = behind.expand_as(fronts)
        for share, front, ground, result in zip(masks, fronts, backs, results, strict=True):
            place = (share[..., 0].numpy(), front.numpy(), ground.numpy(), result.numpy())
            _share_rows(len(result), result[0].nbytes, functools.partial(_blend, *place))
        return results.permute(0, 3, 1, 2)


def _share_rows(count: int, bytes_per_row: int, compute: Callable[[int, int], None]) -> None:
    """Calls ``compute(first row, rows)`` for strips, on all threads."""
    strips = plan_strips(count, bytes_per_row, _STRIP_BYTES)
    share_strips(strips, lambda thread, first, rows: compute(first, rows))


@njit(cache=True, nogil=True)
def _add_rows(rows, table, feature, pixels, first, count):  # noqa: ANN001, ANN202
    """Adds rows of a table to some of (N, C) and (N, 12)."""
    channels = feature.shape[1]
    for index in range(first, first + count):
        if rows[index] >= 0:
            row = table[rows[index]]
            for k in range(channels):
                feature[index, k] += row[k]
            for k in range(pixels.shape[1]):
                pixels[index, k] += row[channels + k]


@njit(cache=True, nogil=True)
def _cut(image, rows, columns, result, first, count):  # noqa: ANN001, ANN202
    """Copies texels of (H, W, C) at rows and columns to some rows of (R, C', C)."""
    for y in range(first, first + count):
        for x in range(len(columns)):
            for k in range(image.shape[2]):
                result[y, x, k] = image[rows[y], columns[x], k]


@njit(cache=True, nogil=True)
def _blend(mask, own, back, result, first, count):  # noqa: ANN001, ANN202
    """Blends some rows of (H, W, C) by a mask (H, W)."""
    for y in range(first, first + count):
        for x in range(own.shape[1]):
            share = mask[y, x]
            for k in range(own.shape[2]):
                result[y, x, k] = back[y, x, k] + (own[y, x, k] - back[y, x, k]) * share
