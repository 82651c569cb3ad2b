# SPDX-License-Identifier: Apache-2.0
"""Haar wavelets: an image at 2r is a *pack* of four times the channels at r (paper, Sec. 3.3).

The transform is orthonormal, so its inverse is its transpose. Band order along the channels is LL,
LH, HL, HH, each holding all channels of the image in their order.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

# Signs of each band on the 2x2 block (top-left, top-right, bottom-left, bottom-right); each x 1/2.
_BAND_SIGNS = (
    (1.0, 1.0, 1.0, 1.0),
    (1.0, 1.0, -1.0, -1.0),
    (1.0, -1.0, 1.0, -1.0),
    (1.0, -1.0, -1.0, 1.0),
)


@functools.lru_cache(maxsize=32)
def pack_matrix(channels: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Returns the (4C, 4C) matrix from ``pixel_unshuffle`` order to band order, orthogonal."""
    # A cached tensor serves training too, even if inference asked for it first.
    with torch.inference_mode(False):
        signs = torch.tensor(_BAND_SIGNS, dtype=torch.float64) / 2
        matrix = torch.einsum("bp,cd->bcdp", signs, torch.eye(channels, dtype=torch.float64))
        return matrix.reshape(4 * channels, 4 * channels).to(device=device, dtype=dtype)


def haar_transform(image: torch.Tensor) -> torch.Tensor:
    """Packs an image into its four Haar bands.

    Args:
        image: (B, C, 2H, 2W) float.

    Returns:
        (B, 4C, H, W), bands LL, LH, HL, HH.
    """
    channels = int(image.shape[1])
    # One 2x2 convolution of stride 2: cheaper than slicing on every device that we measured.
    matrix = pack_matrix(channels, image.dtype, image.device)
    return F.conv2d(image, matrix.reshape(4 * channels, channels, 2, 2), stride=2)


def inverse_haar_transform(pack: torch.Tensor) -> torch.Tensor:
    """Restores the image from its four Haar bands.

    Args:
        pack: (B, 4C, H, W) float, bands LL, LH, HL, HH.

    Returns:
        (B, C, 2H, 2W).
    """
    return F.pixel_shuffle(pixels_of(pack), 2)


def pixels_of(pack: torch.Tensor) -> torch.Tensor:
    """Restores the image from its bands, the four pixels of a block still in the channels of one.

    Args:
        pack: (B, 4C, H, W) float, bands LL, LH, HL, HH.

    Returns:
        (B, 4C, H, W) in the order of ``pixel_unshuffle``.
    """
    matrix = pack_matrix(int(pack.shape[1]) // 4, pack.dtype, pack.device)
    return F.conv2d(pack, matrix.t()[..., None, None])


def bands_of(pixels: torch.Tensor) -> torch.Tensor:
    """Packs an image of which the four pixels of a block are in the channels of one.

    Args:
        pixels: (B, 4C, H, W) float, in the order of ``pixel_unshuffle``.

    Returns:
        (B, 4C, H, W), bands LL, LH, HL, HH.
    """
    matrix = pack_matrix(int(pixels.shape[1]) // 4, pixels.dtype, pixels.device)
    return F.conv2d(pixels, matrix[..., None, None])


def haar_transform_reference(image: torch.Tensor) -> torch.Tensor:
    """Computes ``haar_transform`` by slices and sums, as the definition reads."""
    blocks = (
        image[..., 0::2, 0::2],
        image[..., 0::2, 1::2],
        image[..., 1::2, 0::2],
        image[..., 1::2, 1::2],
    )
    bands = [
        torch.stack([sign * block for sign, block in zip(signs, blocks, strict=True)]).sum(0) / 2
        for signs in _BAND_SIGNS
    ]
    return torch.cat(bands, dim=1)
