# SPDX-License-Identifier: Apache-2.0
"""Convolutions of StyleGAN2 (paper, Sec. 3.3): resampling with a FIR, and style modulation.

Modulation scales the activations instead of the weights, which is the same function without one
kernel per sample: no grouped convolution, one weight for the whole batch. Only a single style, as
the feature generators have, scales the kernel, which is smaller than what it passes over.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from styleavatar_core.ops.bias_act import scale_bias
from styleavatar_core.ops.upfirdn2d import fir_kernel, upfirdn2d

# Filters up to this length are folded into the kernel; longer ones are cheaper as a depthwise pass.
_FOLDED_TAPS = 2


@functools.lru_cache(maxsize=64)
def _fold_matrix(
    size: int, taps: tuple[float, ...], gain: float, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Returns the (K*K, M*M) matrix that convolves a K x K kernel with a FIR, M = K + N - 1."""
    with torch.inference_mode(False), torch.no_grad():
        deltas = torch.eye(size**2, dtype=torch.float64, device="cpu").reshape(-1, 1, size, size)
        kernel = fir_kernel(taps, gain, 1, torch.float64, torch.device("cpu")).flip(2, 3)
        full = F.conv2d(deltas, kernel, padding=len(taps) - 1)
        return full.flatten(1).to(device=device, dtype=dtype)


def _convolve_full(weight: torch.Tensor, taps: tuple[float, ...], gain: float) -> torch.Tensor:
    """Returns each (K, K) slice of a weight convolved with a FIR: (..., K + N - 1, K + N - 1)."""
    size = int(weight.shape[-1])
    matrix = _fold_matrix(size, taps, gain, weight.dtype, weight.device)
    full_size = size + len(taps) - 1
    return (weight.flatten(2) @ matrix).unflatten(2, (full_size, full_size))


def fold_down(weight: torch.Tensor, taps: tuple[float, ...]) -> torch.Tensor:
    """Returns filter and weight as one kernel of a stride-2 convolution, padding N/2.

    Args:
        weight: (O, I, 3, 3).
        taps: N FIR taps, N even.

    Returns:
        (O, I, N + 2, N + 2).
    """
    return _convolve_full(weight, taps, 1.0)


def fold_up(weight: torch.Tensor, taps: tuple[float, ...]) -> torch.Tensor:
    """Returns weight and filter as one kernel of a stride-2 transposed convolution, padding N/2.

    Args:
        weight: (O, I, 3, 3).
        taps: N FIR taps, N even.

    Returns:
        (I, O, N + 2, N + 2).
    """
    return _convolve_full(weight.transpose(0, 1), taps, 4.0)


def conv2d_down(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    taps: tuple[float, ...],
    *,
    fold: bool | None = None,
) -> torch.Tensor:
    """Filters, then convolves with stride 2.

    Args:
        x: (B, I, 2H, 2W) float.
        weight: (O, I, 3, 3).
        bias: (O,) or None.
        taps: FIR taps; an even number of them.
        fold: Whether to fold the filter into the weight; by its length if None.

    Returns:
        (B, O, H, W).
    """
    half = len(taps) // 2
    if fold if fold is not None else len(taps) <= _FOLDED_TAPS:
        return F.conv2d(x, fold_down(weight, taps), bias, stride=2, padding=half)
    return F.conv2d(upfirdn2d(x, taps, padding=(half, half)), weight, bias, stride=2)


def conv2d_up(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    taps: tuple[float, ...],
    *,
    fold: bool | None = None,
) -> torch.Tensor:
    """Convolves transposed with stride 2, then filters with gain 4.

    Args:
        x: (B, I, H, W) float.
        weight: (O, I, 3, 3).
        bias: (O,) or None.
        taps: FIR taps; an even number of them.
        fold: Whether to fold the filter into the weight; by its length if None.

    Returns:
        (B, O, 2H, 2W).
    """
    half = len(taps) // 2
    if fold if fold is not None else len(taps) <= _FOLDED_TAPS:
        return F.conv_transpose2d(x, fold_up(weight, taps), bias, stride=2, padding=half)
    wide = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (B, O, 2H+1, 2W+1)
    y = upfirdn2d(wide, taps, padding=(half - 1, half - 1)) * 4.0
    return y if bias is None else y + bias[:, None, None]


def style_demodulation(weight: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
    """Returns the factors that give modulated kernels unit norm.

    Args:
        weight: (O, I, K, K), already scaled.
        styles: (B, I) modulation coefficients.

    Returns:
        (B, O).
    """
    return demodulation(styles.square() @ weight.square().sum(dim=(2, 3)).t())


def demodulation(energy: torch.Tensor) -> torch.Tensor:
    """Returns the factors that give kernels whose squares add up to ``energy`` unit norm."""
    return torch.rsqrt(energy + 1e-8)  # 1e-8 as in StyleGAN2


def modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    bias: torch.Tensor,
    *,
    gain: float = 1.0,
    demodulate: bool = True,
    up_taps: tuple[float, ...] | None = None,
) -> torch.Tensor:
    """Convolves with kernels modulated (and demodulated) per sample, adds the bias.

    Args:
        x: (B or 1, I, H, W) float.
        weight: (O, I, K, K), already scaled.
        styles: (B, I) modulation coefficients.
        bias: (O,).
        gain: Factor of the result.
        demodulate: Whether kernels are scaled to unit norm.
        up_taps: FIR taps of a doubling convolution; None keeps the resolution.

    Returns:
        (B, O, H, W), or (B, O, 2H, 2W) with ``up_taps``.
    """
    factors = style_demodulation(weight, styles) * gain if demodulate else None
    if len(styles) == 1:
        rows = gain if factors is None else factors.t()[..., None, None]
        kernel = weight * (rows * styles[:, :, None, None])
        return _convolve(x, kernel, bias * gain, up_taps)
    x = x * styles[:, :, None, None]
    if factors is None:
        return _convolve(x, weight * gain, bias * gain, up_taps)
    return scale_bias(_convolve(x, weight, None, up_taps), factors, bias * gain)


def _convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    up_taps: tuple[float, ...] | None,
) -> torch.Tensor:
    if up_taps is None:
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    return conv2d_up(x, weight, bias, up_taps)


def modulated_conv2d_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    bias: torch.Tensor,
    *,
    gain: float = 1.0,
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
            results.append(conv2d_up(sample[None], kernel, None, up_taps, fold=False))
    return (torch.cat(results) + bias[:, None, None]) * gain
