# SPDX-License-Identifier: Apache-2.0
"""Pictures as arrays and as tensors."""

from __future__ import annotations

import numpy as np
import torch


def image_tensor(images: np.ndarray) -> torch.Tensor:
    """Turns (B, H, W, 3) uint8 into (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1.0


def image_array(images: torch.Tensor) -> np.ndarray:
    """Turns (B, 3, H, W) float32 about [-1, 1] into (B, H, W, 3) uint8."""
    levels = ((images.detach().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())
