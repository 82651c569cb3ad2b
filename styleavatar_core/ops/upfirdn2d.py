# SPDX-License-Identifier: Apache-2.0
"""FIR resampling (paper, Sec. 3.3, as StyleGAN2): up-sample, filter, down-sample.

``upfirdn2d`` is the definition and the reference. The two fast paths cover what the networks do
with images: halving and doubling with the taps [1, 3, 3, 1].
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

IMAGE_TAPS = (1.0, 3.0, 3.0, 1.0)


@functools.lru_cache(maxsize=64)
def fir_kernel(
    taps: tuple[float, ...], gain: float, channels: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Returns the separable kernel of the taps, normalised to sum ``gain``, once per channel.

    Args:
        taps: N filter taps.
        gain: Sum of the kernel.
        channels: How many channels a depthwise convolution filters.
        dtype: Of the kernel.
        device: Of the kernel.

    Returns:
        (channels, 1, N, N) kernel.
    """
    # A cached tensor serves training too, even if inference asked for it first.
    with torch.inference_mode(False):
        row = torch.tensor(taps, dtype=torch.float64, device="cpu")
        kernel = torch.outer(row, row)
        kernel = kernel * (gain / kernel.sum())
        kernel = kernel.to(device=device, dtype=dtype)
        return kernel.repeat(channels, 1, 1, 1)


def upfirdn2d(
    x: torch.Tensor,
    taps: tuple[float, ...],
    *,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
) -> torch.Tensor:
    """Inserts zeros, pads, filters with gain ``up**2`` and keeps every ``down``-th sample.

    Args:
        x: (B, C, H, W) float.
        taps: N taps of the separable, symmetric filter.
        up: Factor of the zero insertion.
        down: Stride of the filter.
        padding: Zeros before and after, on both axes, at the up-sampled resolution.

    Returns:
        (B, C, H', W') with H' = (H * up + sum(padding) - N) // down + 1.
    """
    batch, channels, height, width = x.shape
    if up > 1:
        spread = x.new_zeros(batch, channels, height, up, width, up)
        spread[:, :, :, 0, :, 0] = x
        x = spread.reshape(batch, channels, height * up, width * up)
    x = F.pad(x, (*padding, *padding))
    kernel = fir_kernel(taps, float(up * up), int(channels), x.dtype, x.device)
    return F.conv2d(x, kernel, stride=down, groups=int(channels))


def upsample_image(image: torch.Tensor) -> torch.Tensor:
    """Doubles an image with the taps [1, 3, 3, 1], taking zero beyond the border.

    The same as bilinear interpolation of the zero-padded image, which every runtime does well.

    Args:
        image: (B, C, H, W) float.

    Returns:
        (B, C, 2H, 2W).
    """
    padded = F.interpolate(
        F.pad(image, (1, 1, 1, 1)), scale_factor=2.0, mode="bilinear", align_corners=False
    )
    return padded[..., 2:-2, 2:-2]


def downsample_image(image: torch.Tensor) -> torch.Tensor:
    """Halves an image with the taps [1, 3, 3, 1], taking zero beyond the border.

    Args:
        image: (B, C, 2H, 2W) float.

    Returns:
        (B, C, H, W).
    """
    return upfirdn2d(image, IMAGE_TAPS, down=2, padding=(1, 1))
