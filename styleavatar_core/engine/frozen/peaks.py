# SPDX-License-Identifier: Apache-2.0
"""How large the numbers between the layers of a generator become."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from styleavatar_core.engine.cuda.stream import fast_device
from styleavatar_core.engine.frozen.composition import (
    FrozenNarrowConv,
)
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.frozen.layers import FrozenConv, FrozenFromRGB


class _Peaks(TorchFunctionMode):
    """Notes the largest number that is made while a layer computes, inner steps included."""

    def __init__(self) -> None:
        super().__init__()
        self.layer: str | None = None
        self.found: dict[str, torch.Tensor] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Computes, and looks at what came out."""
        result = func(*args, **(kwargs or {}))
        if self.layer and isinstance(result, torch.Tensor) and result.is_floating_point():
            peak = result.abs().amax()
            self.found[self.layer] = torch.maximum(peak, self.found.get(self.layer, peak))
        return result

    def watch(self, name: str, layer: nn.Module) -> None:
        """Looks at a layer from now on."""

        def begin(*_: object) -> None:
            self.layer = name

        def end(*_: object) -> None:
            self.layer = None

        layer.register_forward_pre_hook(begin)
        layer.register_forward_hook(end)


def seen_peaks(
    generator: FrozenGenerator, frames: Sequence[Sequence[np.ndarray]]
) -> dict[str, float]:
    """Returns the largest number of each layer of a generator, by its name.

    Args:
        generator: Frozen, fp32; not changed.
        frames: What it takes, in its order, of each frame.
    """
    device = fast_device()
    watched = copy.deepcopy(generator).to(device)
    peaks = _Peaks()
    for name, module in watched.generator.named_modules():
        if isinstance(module, FrozenConv | FrozenFromRGB | FrozenNarrowConv):
            peaks.watch(name, module)
    with torch.inference_mode(), peaks:
        for arrays in frames:
            watched(*(torch.from_numpy(array).to(device) for array in arrays))
    return {name: float(peak) for name, peak in peaks.found.items()}
