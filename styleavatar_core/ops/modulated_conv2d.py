# SPDX-License-Identifier: Apache-2.0
"""Convolutions of StyleGAN2 (paper, Sec. 3.3): resampling with a FIR, and style modulation.

Modulation scales the activations instead of the weights, which is the same function without one
kernel per sample: no grouped convolution, one weight for the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from styleavatar_core.ops.upfirdn2d import fir_kernel, upfirdn2d

# Filters up to this length are folded into the kernel; longer ones are cheaper as a depthwise pass.
_FOLDED_TAPS = 2


def _convolve_full(weight: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Returns each (K, K) slice of a weight convolved with a FIR: (..., K + N - 1, K + N - 1)."""
    slices = weight.reshape(-1, 1, *weight.shape[-2:])
    margin = kernel.shape[0] - 1
    full = F.conv2d(slices, kernel.flip(0, 1)[None, None], padding=margin)
    return full.reshape(*weight.shape[:-2], *full.shape[-2:])


def conv2d_down(
    x: torch.Tensor, weight: torch.Tensor, taps: tuple[float, ...], *, fold: bool | None = None
) -> torch.Tensor:
    """Filters, then convolves with stride 2.

    Args:
        x: (B, I, 2H, 2W) float.
        weight: (O, I, 3, 3).
        taps: FIR taps; two (box) or four.
        fold: Whether to fold the filter into the weight; by its length if None.

    Returns:
        (B, O, H, W).
    """
    count = len(taps)
    before, after = (count + 1) // 2, count // 2
    if fold if fold is not None else count <= _FOLDED_TAPS:
        kernel = fir_kernel(taps, 1.0, weight)
        folded = _convolve_full(weight, kernel)
        if before == after:
            return F.conv2d(x, folded, stride=2, padding=before)
        return F.conv2d(F.pad(x, (before, after, before, after)), folded, stride=2)
    return F.conv2d(upfirdn2d(x, taps, padding=(before, after)), weight, stride=2)


def conv2d_up(
    x: torch.Tensor, weight: torch.Tensor, taps: tuple[float, ...], *, fold: bool | None = None
) -> torch.Tensor:
    """Convolves transposed with stride 2, then filters with gain 4.

    Args:
        x: (B, I, H, W) float.
        weight: (O, I, 3, 3).
        taps: FIR taps; an even number of them.
        fold: Whether to fold the filter into the weight; by its length if None.

    Returns:
        (B, O, 2H, 2W).
    """
    count = len(taps)
    transposed = weight.transpose(0, 1)  # (I, O, 3, 3)
    if fold if fold is not None else count <= _FOLDED_TAPS:
        folded = _convolve_full(transposed, fir_kernel(taps, 4.0, weight))
        return F.conv_transpose2d(x, folded, stride=2, padding=count // 2)
    wide = F.conv_transpose2d(x, transposed, stride=2)  # (B, O, 2H+1, 2W+1)
    return upfirdn2d(wide, taps, padding=(count // 2 - 1, count // 2 - 1)) * 4.0


def style_demodulation(weight: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
    """Returns the factors that give modulated kernels unit norm.

    Args:
        weight: (O, I, K, K), already scaled.
        styles: (B, I) modulation coefficients.

    Returns:
        (B, O).
    """
    energy = styles.square() @ weight.square().sum(dim=(2, 3)).t()
    return torch.rsqrt(energy + 1e-8)  # 1e-8 as in StyleGAN2


def modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    *,
    demodulate: bool = True,
    up_taps: tuple[float, ...] | None = None,
) -> torch.Tensor:
    """Convolves with kernels modulated (and demodulated) per sample.

    Args:
        x: (B or 1, I, H, W) float.
        weight: (O, I, K, K), already scaled.
        styles: (B, I) modulation coefficients.
        demodulate: Whether kernels are scaled to unit norm.
        up_taps: FIR taps of a doubling convolution; None keeps the resolution.

    Returns:
        (B, O, H, W), or (B, O, 2H, 2W) with ``up_taps``.
    """
    x = x * styles[:, :, None, None]
    if up_taps is None:
        y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    else:
        y = conv2d_up(x, weight, up_taps)
    if demodulate:
        y = y * style_demodulation(weight, styles)[:, :, None, None]
    return y


def modulated_conv2d_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    *,
    demodulate: bool = True,
    up_taps: tuple[float, ...] | None = None,
) -> torch.Tensor:
    """Computes ``modulated_conv2d`` with one modulated kernel per sample, as it is defined."""
    results = []
    for sample, style in zip(x.expand(len(styles), *x.shape[1:]), styles, strict=True):
        kernel = weight * style[None, :, None, None]
        if demodulate:
            kernel = kernel * torch.rsqrt(kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
        if up_taps is None:
            results.append(F.conv2d(sample[None], kernel, padding=weight.shape[-1] // 2))
        else:
            results.append(conv2d_up(sample[None], kernel, up_taps, fold=False))
    return torch.cat(results)
