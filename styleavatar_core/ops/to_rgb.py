# SPDX-License-Identifier: Apache-2.0
"""A layer's contribution to the RGB image that grows along a decoder (paper, Sec. 3.3).

As defined: a modulated 1x1 convolution to a Haar pack, its inverse transform, and the sum with the
image so far, doubled. Here the transform is in the convolution's weight, and an image of side 2r is
kept as its *pixels* at r: the four of a block in the channels of one, as ``pixel_unshuffle`` puts
them. Fewer passes, and none over large images.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from styleavatar_core.ops.haar import inverse_haar_transform, pack_matrix
from styleavatar_core.ops.upfirdn2d import upsample_image


@functools.lru_cache(maxsize=32)
def _doubling_kernel(channels: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Returns the (4C, C, 3, 3) convolution to ``pixel_unshuffle`` of the doubled image."""
    with torch.inference_mode(False):
        # Of [1, 3, 3, 1] / 4, what the first and the second pixel of a pair see of three.
        row = torch.tensor([[1.0, 3.0, 0.0], [0.0, 3.0, 1.0]], dtype=torch.float64) / 4
        pixels = torch.einsum("iy,jx->ijyx", row, row).reshape(4, 3, 3)
        kernel = torch.einsum("pyx,cd->cpdyx", pixels, torch.eye(channels, dtype=torch.float64))
        return kernel.reshape(4 * channels, channels, 3, 3).to(device=device, dtype=dtype)


def to_rgb(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    bias: torch.Tensor,
    pixels: torch.Tensor | None,
) -> torch.Tensor:
    """Adds a feature's image to the image so far.

    Args:
        x: (B or 1, I, H, W) float.
        weight: (12, I, 1, 1), already scaled.
        styles: (B, I) modulation coefficients.
        bias: (12,).
        pixels: (B, 12, H / 2, W / 2), or None at the first level.

    Returns:
        (B, 12, H, W): the pixels of an image of 2H times 2W.
    """
    to_pixels = pack_matrix(3, weight.dtype, weight.device).t()
    kernel, offset = (to_pixels @ weight.flatten(1))[..., None, None], to_pixels @ bias
    if len(styles) == 1:
        kernel = kernel * styles[:, :, None, None]
    else:
        x = x * styles[:, :, None, None]
    own = F.conv2d(x, kernel, offset)
    return own if pixels is None else own + double_pixels(pixels)


def double_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """Doubles an image with the taps [1, 3, 3, 1], taking zero beyond the border.

    Args:
        pixels: (B, 4C, H, W) float, the pixels of an image.

    Returns:
        (B, 4C, 2H, 2W), those of the doubled one.
    """
    image = F.pixel_shuffle(pixels, 2)
    kernel = _doubling_kernel(int(image.shape[1]), image.dtype, image.device)
    return F.conv2d(image, kernel, padding=1)


def to_rgb_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    bias: torch.Tensor,
    pixels: torch.Tensor | None,
) -> torch.Tensor:
    """Computes ``to_rgb`` step by step, as it is defined."""
    image = inverse_haar_transform(F.conv2d(x * styles[:, :, None, None], weight, bias))
    if pixels is not None:
        image = image + upsample_image(F.pixel_shuffle(pixels, 2))
    return F.pixel_unshuffle(image, 2)
