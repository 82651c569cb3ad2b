# SPDX-License-Identifier: Apache-2.0
"""The training step in plain eager fp32, as its definitions read: what ours is compared with.

The networks, losses and numbers are the same; done as written down instead of with less work are:
modulated kernels (one per sample), resampling (convolution, then FIR), wavelets (slices and sums),
scale, bias and activation (a pass each), the face's look-up and the mask's convolution (torch's
own), memory (NCHW), Adam and average (a tensor at a time).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.networks import GeneratorConfig, Noise
from styleavatar_core.ops import bias_act, haar, modulated_conv2d, to_rgb, upfirdn2d
from styleavatar_core.training import flat_weights
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.cpu import layers
from styleavatar_core.training.samples.batches import Batch
from styleavatar_core.training.schedule import Phase
from styleavatar_core.training.trainer import StepResult, Trainer


class PlainTrainer:
    """Takes the trainer's steps by the plain operations.

    Args:
        generator_config: The preset.
        config: The training.

    Attributes:
        networks: What learns.
    """

    def __init__(self, generator_config: GeneratorConfig, config: TrainConfig) -> None:
        with plain_operations():
            fp32 = dataclasses.replace(config, precision="fp32")
            self._trainer = Trainer(generator_config, fp32)
        self.networks = self._trainer.networks
        for module in self._trainer.modules.values():
            module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for name, optimizer in self._trainer.optimizers.items():
            groups = [
                {key: group[key] for key in ("params", "betas")} for group in optimizer.param_groups
            ]
            self._trainer.optimizers[name] = torch.optim.Adam(groups, fused=False, foreach=False)

    def step(self, batch: Batch, noise: Noise | None, phase: Phase, number: int) -> StepResult:
        """Takes a step."""
        with plain_operations():
            return self._trainer.step(_contiguous(batch), noise, phase, number)


@contextmanager
def plain_operations() -> Iterator[None]:
    """Lets the networks compute everything as it is defined, while the block runs."""
    replaced: list[tuple[Any, str, Callable[..., torch.Tensor]]] = []
    for module in [m for name, m in sys.modules.items() if name.startswith("styleavatar_core.")]:
        for name, value in list(vars(module).items()):
            if callable(value) and module.__name__.startswith(_REPLACED_IN) and value in _PLAIN:
                replaced.append((module, name, value))
                setattr(module, name, _PLAIN[value])
    try:
        yield
    finally:
        for module, name, value in replaced:
            setattr(module, name, value)


_REPLACED_IN = (
    "styleavatar_core.networks.",
    "styleavatar_core.training.",
    "styleavatar_core.ops.to_rgb",  # whose definition is made of others
)


def _contiguous(batch: Batch) -> Batch:
    values = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    tensors: dict[str, Any] = {
        k: v.contiguous() for k, v in values.items() if isinstance(v, torch.Tensor)
    }
    return dataclasses.replace(batch, **tensors)


def _activate(x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(x, bias_act.LEAKY_SLOPE)


def _conv2d_down(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, taps: tuple[float, ...]
) -> torch.Tensor:
    y = modulated_conv2d.conv2d_down(x, weight, None, taps, fold=False)
    return y + bias[None, :, None, None]


def _inverse_haar(pack: torch.Tensor) -> torch.Tensor:
    low, across, down, both = pack.chunk(4, dim=1)
    image = pack.new_empty(pack.shape[0], low.shape[1], 2 * pack.shape[2], 2 * pack.shape[3])
    image[..., 0::2, 0::2] = (low + across + down + both) / 2
    image[..., 0::2, 1::2] = (low + across - down - both) / 2
    image[..., 1::2, 0::2] = (low - across + down - both) / 2
    image[..., 1::2, 1::2] = (low - across - down + both) / 2
    return image


def _upsample_image(image: torch.Tensor) -> torch.Tensor:
    return upfirdn2d.upfirdn2d(image, upfirdn2d.IMAGE_TAPS, up=2, padding=(2, 1))


def _as_defined(network: nn.Module) -> nn.Module:
    return network


def _separate_weights(network: nn.Module) -> list[nn.Parameter]:
    return list(network.parameters())


_PLAIN: dict[Callable[..., Any], Callable[..., Any]] = {
    layers.with_fewer_passes: _as_defined,
    flat_weights.flat_weights: _separate_weights,
    bias_act.activate: _activate,
    modulated_conv2d.conv2d_down: _conv2d_down,
    modulated_conv2d.modulated_conv2d: modulated_conv2d.modulated_conv2d_reference,
    haar.haar_transform: haar.haar_transform_reference,
    haar.inverse_haar_transform: _inverse_haar,
    upfirdn2d.upsample_image: _upsample_image,
    to_rgb.to_rgb: to_rgb.to_rgb_reference,
}
