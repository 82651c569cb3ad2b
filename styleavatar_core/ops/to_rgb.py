# SPDX-License-Identifier: Apache-2.0
"""A layer's contribution to the RGB image that grows along a decoder (paper, Sec. 3.3).

As defined: a modulated 1x1 convolution to a Haar pack, its inverse transform, and the sum with the
image so far, doubled. Here the transform is in the convolution's weight, and both parts meet at the
lower resolution, four pixels in the channels of one: fewer passes, and none over large images.
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
    image: torch.Tensor | None,
) -> torch.Tensor:
    """Adds a feature's image to the image so far.

    Args:
        x: (B or 1, I, H, W) float.
        weight: (12, I, 1, 1), already scaled.
        styles: (B, I) modulation coefficients.
        bias: (12,).
        image: (B, 3, H, W), or None at the first level.

    Returns:
        (B, 3, 2H, 2W).
    """
    to_pixels = pack_matrix(3, weight.dtype, weight.device).t()
    kernel, offset = (to_pixels @ weight.flatten(1))[..., None, None], to_pixels @ bias
    if len(styles) == 1:
        kernel = kernel * styles[:, :, None, None]
    else:
        x = x * styles[:, :, None, None]
    pixels = F.conv2d(x, kernel, offset)
    if image is not None:
        doubling = _doubling_kernel(3, image.dtype, image.device)
        pixels = pixels + F.conv2d(image, doubling, padding=1)
    return F.pixel_shuffle(pixels, 2)


def to_rgb_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    bias: torch.Tensor,
    image: torch.Tensor | None,
) -> torch.Tensor:
    """Computes ``to_rgb`` step by step, as it is defined."""
    own = inverse_haar_transform(F.conv2d(x * styles[:, :, None, None], weight, bias))
    return own if image is None else own + upsample_image(image)
