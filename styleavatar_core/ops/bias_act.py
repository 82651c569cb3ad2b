# SPDX-License-Identifier: Apache-2.0
"""Leaky ReLU behind a convolution, and the scaling and bias in front of it, in few passes.

A gain after the activation is the same as a gain on what enters it: callers fold it into weights,
bias or scale, which are small, instead of passing over the feature once more.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

LEAKY_SLOPE = 0.2


def activate(x: torch.Tensor) -> torch.Tensor:
    """Applies leaky ReLU with slope 0.2 to a convolution's fresh output, in place.

    Args:
        x: (B, C, ...) float; not used afterwards.

    Returns:
        The same tensor.
    """
    return F.leaky_relu(x, LEAKY_SLOPE, inplace=True)


def scale_bias(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Scales each channel of each sample and adds a bias per channel, in one pass.

    Args:
        x: (B, C, H, W) float.
        scale: (B, C).
        bias: (C,).

    Returns:
        (B, C, H, W).
    """
    return torch.addcmul(bias[None, :, None, None], x, scale[:, :, None, None])


def bias_act_reference(x: torch.Tensor, bias: torch.Tensor, gain: float) -> torch.Tensor:
    """Computes bias, leaky ReLU and gain as StyleGAN2 defines them."""
    return F.leaky_relu(x + bias.reshape(1, -1, *[1] * (x.ndim - 2)), LEAKY_SLOPE) * gain
