# SPDX-License-Identifier: Apache-2.0
"""Windows and neural texture sampling of the composition (paper, Sec. 3.2)."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.networks.equalized import EqualConv2d
from styleavatar_core.networks.feature_generator import FeatureMaps
from styleavatar_core.ops.haar import inverse_haar_transform, pixels_of


def crop_windows(canvas: torch.Tensor, starts: torch.Tensor, size: int) -> torch.Tensor:
    """Cuts one window per sample; what lies outside the canvas is zero.

    Args:
        canvas: (B or 1, C, H, W) float.
        starts: (B or 1, 2) int64, first column and row (x, y) of each window; may be negative.
        size: Side of the windows.

    Returns:
        (B, C, size, size); batch 1 stays 1 when all windows are the same.
    """
    corners: list[tuple[int, int]] = [(int(x), int(y)) for x, y in starts.tolist()]
    margin = max(
        0,
        *(-value for corner in corners for value in corner),
        *(x + size - canvas.shape[-1] for x, _ in corners),
        *(y + size - canvas.shape[-2] for _, y in corners),
    )
    if margin > 0:
        canvas = F.pad(canvas, (margin, margin, margin, margin))
        corners = [(x + margin, y + margin) for x, y in corners]
    if len(set(corners)) == 1:
        x, y = corners[0]
        return canvas[..., y : y + size, x : x + size]
    samples = canvas.expand(len(corners), *canvas.shape[1:])
    return torch.stack(
        [
            sample[:, y : y + size, x : x + size]
            for sample, (x, y) in zip(samples, corners, strict=True)
        ]
    )


def crop_windows_linspace(canvas: torch.Tensor, starts: torch.Tensor, size: int) -> torch.Tensor:
    """Cuts windows as the published code does: nearest sampling on a grid including both ends.

    Its step is size / (size - 1) texels, so that the first or the last row and column (where
    rounding half to even goes up) is the neighbour of the one that ``crop_windows`` gives. What
    lies outside the canvas repeats its border.

    Args:
        canvas: (B or 1, C, H, W) float.
        starts: (B or 1, 2) int64, first column and row of each window.
        size: Side of the windows.

    Returns:
        (B, C, size, size).
    """
    index = linspace_index(starts, size, int(canvas.shape[-1]), canvas.device)
    if len(index) == 1:  # one window for the whole batch
        columns, rows = index[0]
        # Rows of a channels-last canvas are copied several times faster, and it stays one.
        if canvas.is_contiguous(memory_format=torch.channels_last):
            return canvas.permute(0, 2, 3, 1)[:, rows][:, :, columns].permute(0, 3, 1, 2)
        return canvas[:, :, rows][..., columns]
    samples = canvas.expand(len(index), *canvas.shape[1:])
    return torch.stack(
        [
            sample[:, rows][:, :, columns]
            for sample, (columns, rows) in zip(samples, index, strict=True)
        ]
    )


def linspace_index(
    starts: torch.Tensor, size: int, canvas_size: int, device: torch.device
) -> torch.Tensor:
    """Returns which columns and rows :func:`crop_windows_linspace` takes, (N, 2, size) int64."""
    corners = tuple((int(x), int(y)) for x, y in starts.tolist())
    return _linspace_index(corners, size, canvas_size, device)


@functools.lru_cache(maxsize=64)
def _linspace_index(
    corners: tuple[tuple[int, int], ...], size: int, canvas_size: int, device: torch.device
) -> torch.Tensor:
    """Returns which columns and rows of a canvas windows show, (N, 2, size) int64."""
    with torch.inference_mode(False):
        steps = torch.arange(size, dtype=torch.float64, device="cpu") * (size / (size - 1)) - 0.5
        steps[-1] = size - 0.5  # exact, as its rounding is what the note describes
        starts = torch.tensor(corners, device="cpu")[:, :, None]
        index = torch.round(starts + steps).long()
        return index.clamp(0, canvas_size - 1).to(device)


class LinspaceCutter(nn.Module):
    """Cuts the foreground's window as the published code does: :func:`crop_windows_linspace`."""

    def forward(self, canvas: torch.Tensor, starts: torch.Tensor, size: int) -> torch.Tensor:
        """Maps (B, C, H, W) to (B, C, size, size)."""
        return crop_windows_linspace(canvas, starts, size)


class MaskBlender(nn.Module):
    """Puts a foreground in front of a background by the share that is foreground."""

    def forward(self, mask: torch.Tensor, own: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        """Maps (B, 1, H, W), (B, C, H, W) and (B or 1, C, H, W) to (B, C, H, W)."""
        return back + (own - back) * mask


class BackgroundCutter(nn.Module):
    """Cuts windows out of the background's static maps.

    Args:
        canvas_size: Side Fc of the canvas, in texels; maps of another side are resampled to it.
        size: Side Fw of the windows, in texels.
    """

    def __init__(self, canvas_size: int, size: int) -> None:
        super().__init__()
        self.canvas_size = canvas_size
        self.size = size

    def forward(self, maps: FeatureMaps, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns feature (B, C, Fw, Fw) and pack (B, 12, Fw, Fw) of windows.

        Args:
            maps: Static maps; batch 1 or B.
            starts: (B or 1, 2) int64, first column and row (x, y) of each window on the canvas.
        """
        return self._cut(maps.feature, starts), self._cut(maps.rgb_pack, starts)

    def _cut(self, part: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Cuts windows out of one map; only what they show of it is resampled."""
        factor, rest = divmod(self.canvas_size, int(part.shape[-1]))
        if rest != 0:
            side = (self.canvas_size, self.canvas_size)
            part = F.interpolate(part, size=side, mode="bilinear", align_corners=False)
        elif factor > 1:
            # Texels (x, y) from the first to the last that a window's interpolation looks at.
            first = (starts.amin(dim=0) // factor - 1).clamp(min=0)
            x, y = first.tolist()
            right, bottom = ((starts.amax(dim=0) + self.size) // factor + 2).tolist()
            part = F.interpolate(
                part[..., y:bottom, x:right],
                scale_factor=factor,
                mode="bilinear",
                align_corners=False,
            )
            starts = starts - factor * first
        return crop_windows(part, starts, self.size)


class TextureSampler(nn.Module):
    """Looks up a map in UV space: Neural Textures.

    Each pixel has coordinates of its own, so no interpolation ever crosses a UV seam or the border
    of the face; values outside the face must be masked by the caller.

    Args:
        mode: ``nearest`` or ``bilinear``.
    """

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, texture: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
        """Samples a map.

        Args:
            texture: (B or 1, C, F, F) float, map in UV space.
            uv: (B, 2, H, W) float32 in [0, 1]; u right, v down, (0, 0) the top-left corner.

        Returns:
            (B, C, H, W).
        """
        grid = (uv * 2 - 1).permute(0, 2, 3, 1)  # (B, H, W, 2)
        return F.grid_sample(
            texture.expand(len(uv), -1, -1, -1),
            grid.to(texture.dtype),
            mode=self.mode,
            padding_mode="zeros" if self.mode == "nearest" else "border",
            align_corners=False,
        )


class FaceSampler(nn.Module):
    """Looks up the face's static maps for every texel: Neural Textures.

    Args:
        mode: ``nearest`` or ``bilinear``.
        scale: Samples per texel side.
    """

    def __init__(self, mode: str, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.features: nn.Module = TextureSampler(mode)
        self.colours: nn.Module = TextureSampler(mode)

    def forward(
        self, face: FeatureMaps, uv: torch.Tensor, face_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples the maps.

        Args:
            face: Static maps in UV space; batch 1 or B.
            uv: (B, 2, U, U) float32 in [0, 1].
            face_mask: (B, 1, U, U) float32 in [0, 1].

        Returns:
            Feature (B, C * scale**2, U / scale, U / scale) and pixels of the same sides with 12
            channels; zero outside the face.
        """
        if self.scale == 1:
            maps = torch.cat([face.feature, pixels_of(face.rgb_pack)], dim=1)
            sampled = self.features(maps, uv) * face_mask
            return sampled[:, :-12], sampled[:, -12:]
        feature = self.features(face.feature, uv) * face_mask
        # The RGB part is a real texture: sampled at image resolution.
        image = self.colours(inverse_haar_transform(face.rgb_pack), uv) * face_mask
        return F.pixel_unshuffle(feature, self.scale), F.pixel_unshuffle(image, 2)


class FaceJoiner(nn.Module):
    """Joins the face, sampled from the neural texture, to the rest, or starts with it.

    Args:
        composition: ``add`` or ``concat``.
    """

    def __init__(self, composition: str) -> None:
        super().__init__()
        self.composition = composition

    def forward(
        self,
        feature: torch.Tensor | None,
        pixels: torch.Tensor,
        face: torch.Tensor,
        face_pixels: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns feature and pixels of both.

        Args:
            feature: (B, C, U, U), or None where there is no foreground.
            pixels: (B, 12, U, U).
            face: (B, F, U, U), zero outside the face; F = C where it is added.
            face_pixels: (B, 12, U, U), likewise.
        """
        if feature is None:
            return face, pixels + face_pixels
        if self.composition == "concat":
            return torch.cat([feature, face], dim=1), pixels + face_pixels
        return feature + face, pixels + face_pixels


class MaskConv(EqualConv2d):
    """The convolution that predicts the foreground's mask from what may be shown."""

    def forward(self, *shown: torch.Tensor) -> torch.Tensor:
        """Maps one or several (B or 1, C, H, W), joined, to (B, 1, H, W)."""
        count = max(len(part) for part in shown)
        return super().forward(torch.cat([part.expand(count, -1, -1, -1) for part in shown], dim=1))
