# SPDX-License-Identifier: Apache-2.0
"""Bias and leaky ReLU with a gain."""

from __future__ import annotations

import torch
import torch.nn.functional as F

LEAKY_SLOPE = 0.2


def bias_act(x: torch.Tensor, bias: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
    """Adds a bias per channel and applies leaky ReLU with slope 0.2, times ``gain``.

    Args:
        x: (B, C, ...) float.
        bias: (C,).
        gain: Factor after the activation: sqrt(2) as in StyleGAN2, 1 in published generators.

    Returns:
        The same shape as ``x``.
    """
    y = F.leaky_relu(x + bias.reshape(1, -1, *[1] * (x.ndim - 2)), LEAKY_SLOPE)
    return y if gain == 1.0 else y * gain
