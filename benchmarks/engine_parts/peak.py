# SPDX-License-Identifier: Apache-2.0
"""How fast the device that renders can be at most: a large product and a large convolution."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from styleavatar_core.engine.cuda.graph import compute_exactly

_RUNS = 12


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What is computed.

    Attributes:
        product: Side of the matrices.
        batch: Samples of the convolution.
        side: Side of its images.
        channels: In and out.
    """

    product: int
    batch: int
    side: int
    channels: int


_QUICK = _Sizes(512, 1, 32, 64)
_SIZES = {"cpu": _Sizes(2048, 1, 128, 256), "cuda": _Sizes(8192, 8, 256, 256)}


def peak_gflops(device: str, precision: str = "fp32", *, is_quick: bool = False) -> float:
    """Measures the highest FLOP rate of a device.

    Args:
        device: ``cpu`` or ``cuda``.
        precision: ``fp32`` or ``fp16``; fp32 is not rounded to TF32 on a GPU, as in the engines.
        is_quick: Whether small sizes are enough, for tests.
    """
    compute_exactly()
    sizes = _QUICK if is_quick else _SIZES[device]
    kind = torch.float16 if precision == "fp16" else torch.float32
    side, channels = sizes.side, sizes.channels
    with torch.device(device):
        a = torch.randn(sizes.product, sizes.product, dtype=kind)
        x = torch.randn(sizes.batch, channels, side, side, dtype=kind)
        weight = torch.randn(channels, channels, 3, 3, dtype=kind)
    x, weight = (part.to(memory_format=torch.channels_last) for part in (x, weight))
    with torch.inference_mode():
        product_s = _best_s(lambda: a @ a, device)
        convolution_s = _best_s(lambda: F.conv2d(x, weight, padding=1), device)
    return max(
        2 * sizes.product**3 / product_s / 1e9,
        2 * 9 * channels**2 * sizes.batch * side**2 / convolution_s / 1e9,
    )


def _best_s(compute: Callable[[], torch.Tensor], device: str) -> float:
    """Returns the shortest of some runs, in seconds."""
    finish = torch.get_device_module(device).synchronize
    best = math.inf
    for _ in range(_RUNS):
        start = time.perf_counter()
        compute()
        finish()
        best = min(best, time.perf_counter() - start)
    return best
