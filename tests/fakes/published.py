# SPDX-License-Identifier: Apache-2.0
"""Published networks filled by rule: each tensor is random, seeded by its published name."""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from styleavatar_core.networks import (
    FeatureGenerator,
    GeneratorConfig,
    PortraitGenerator,
    get_preset,
)
from styleavatar_core.networks.weights import convert_published

_CONV = ("weight", "bias")
_TO_RGB = ("bias", "conv.weight", "conv.modulation.weight", "conv.modulation.bias")
_STYLED = (*_TO_RGB, "noise.weight")


def fill(
    name: str, shape: tuple[int, ...], scale: float = 1.0, offset: float = 0.0
) -> torch.Tensor:
    """Returns scale * normal + offset, seeded by the name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    normal = rng.standard_normal(shape).astype(np.float32)
    return torch.from_numpy(np.float32(scale) * normal + np.float32(offset))


def published_names(network: str) -> Iterator[str]:
    """Lists the parameters of a published network in the paper's configuration."""
    if network == "d":
        yield from _discriminator_names()
        return
    yield from (f"mapping.{i}.{part}" for i in (0, 2, 4, 6) for part in _CONV)
    if network == "f_g":
        yield from ("input.input", *(f"batchnorm.{part}" for part in _CONV))
        yield from (f"batchnorm.running_{part}" for part in ("mean", "var"))
        yield "batchnorm.num_batches_tracked"
        yield from (f"convs.{i}.{part}" for i in range(10) for part in _STYLED)
        yield from (f"to_rgbs.{i}.{part}" for i in range(5) for part in _TO_RGB)
        return
    for unet, joins, styled, rgbs in ((0, 2, 6, 3), (1, 3, 12, 6)):
        for part in _CONV:
            yield from (f"from_rgbs_{unet}.{i}.conv.0.{part}" for i in range(3))
            yield from (f"cond_convs_{unet}.{i}.conv1.0.{part}" for i in range(3))
            yield from (f"cond_convs_{unet}.{i}.conv2.1.{part}" for i in range(3))
            yield from (f"comb_convs_{unet}.{i}.0.{part}" for i in range(joins))
        yield from (f"convs_{unet}.{i}.{part}" for i in range(styled) for part in _STYLED)
        yield from (f"to_rgbs_{unet}.{i}.{part}" for i in range(rgbs) for part in _TO_RGB)
    yield from (f"tex_up.{i}.{part}" for i in (0, 1) for part in _STYLED)
    yield from (f"tex_up.2.{part}" for part in _TO_RGB)
    yield from (f"get_mask.0.{part}" for part in _CONV)
    yield from (f"cond_addition.conv{i}.{part}" for i in ("1.0", "2.1") for part in _CONV)


def _discriminator_names() -> Iterator[str]:
    yield from (f"from_rgbs.{i}.conv.{part}" for i in range(8) for part in ("0.weight", "1.bias"))
    for i in range(7):
        yield from (f"convs.{i}.conv1.{part}" for part in ("0.weight", "1.bias"))
        yield from (f"convs.{i}.conv2.{part}" for part in ("1.weight", "2.bias"))
    yield from (f"final_conv.{part}" for part in ("0.weight", "1.bias"))
    yield from (f"final_linear.{i}.{part}" for i in (0, 1) for part in _CONV)


def _scale_and_offset(name: str) -> tuple[float, float]:
    if name.startswith("mapping") and name.endswith("weight"):
        return 0.15, 0.0
    if name.endswith("modulation.bias") or name == "batchnorm.weight":
        return 0.1, 1.0
    if name.endswith(("bias", "noise.weight")):
        return 0.1, 0.0
    return 1.0, 0.0


def load_filled(module: nn.Module, network: str) -> None:
    """Fills one of our networks as the published one of that name would be filled."""
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    state: dict[str, torch.Tensor] = {}
    for name in published_names(network):
        (ours,) = convert_published(network, {name: torch.zeros(())})
        if "running" in name or "tracked" in name:
            state[ours] = module.state_dict()[ours]
            continue
        # A leading axis of 1, which some published tensors have, does not change the filling.
        filled = fill(f"{network}.{name}", tuple(shapes[ours]), *_scale_and_offset(name))
        state |= convert_published(network, {name: filled})
    module.load_state_dict(state)


def narrow_paper() -> GeneratorConfig:
    """The published topology at all its resolutions, with a sixteenth of the channels."""
    config = get_preset("paper")
    static = replace(config.face, base_channels=16, channels=(16, 16, 16, 16, 16))
    return replace(
        config,
        face=static,
        background=static,
        foreground=replace(
            config.foreground,
            encoder_channels=(4, 16, 16, 16),
            decoder_channels=((16, 16), (16, 16), (8, 8), (8, 16)),
        ),
        synthesis=replace(
            config.synthesis,
            input_channels=16,
            encoder_channels=(16, 8, 32, 32, 32),
            decoder_channels=((32, 32),) * 3 + ((16, 16), (8, 8), (4, 4)),
        ),
    )


def published_parameters(module: nn.Module, network: str, seed: int) -> dict[str, torch.Tensor]:
    """Random parameters by published name and in published shape, constant buffers included."""
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    parameters: dict[str, torch.Tensor] = {}
    for name in published_names(network):
        (ours,) = convert_published(network, {name: torch.zeros(())})
        shape = tuple(shapes[ours])
        if name.endswith("conv.weight") and len(shape) == 4:
            shape = (1, *shape)  # modulated weights have a batch axis there
        elif name.endswith("bias") and ours.rsplit(".", 2)[-2] in ("up", "conv", "to_rgb"):
            shape = (1, *shape, 1, 1) if "decoder" in ours else shape
        scale, offset = _scale_and_offset(name)
        parameters[name] = scale * torch.randn(shape, generator=generator) + offset
    parameters["to_rgbs_0.0.iwt.ll"] = torch.full((2, 2), 0.5)
    parameters["convs_0.0.conv.blur.kernel"] = torch.full((4, 4), 1 / 16)
    return parameters


def write_published_checkpoint(
    path: Path, config: GeneratorConfig, seed: int = 0, **changes: Any
) -> dict[str, Any]:
    """Writes a checkpoint as the published training does, and returns what is in it.

    A part given as None is left out.
    """
    with torch.device("meta"):
        portrait, static = PortraitGenerator(config), FeatureGenerator(config.face)
    size, batch, channels = config.face.size, 4, config.face.feature_channels
    noise = torch.Generator().manual_seed(seed + 9)
    maps = {
        f"{kind}_{owner}": torch.randn(1, count, size, size, generator=noise).repeat(batch, 1, 1, 1)
        for owner in ("face", "back")
        for kind, count in (("feature", channels), ("skip", 12))
    }
    parts = {
        "g_ema": published_parameters(portrait, "g_ema", seed),
        "i_g": published_parameters(portrait, "i_g", seed + 1),
        "f_g": published_parameters(static, "f_g", seed + 2),
        "i_g_optim": {"state": {0: {"step": 3}}, "param_groups": [{"betas": (0.0, 0.99)}]},
        "args": argparse.Namespace(size=1024, batch=batch, path="data", lr=2e-3),
        **maps,
        **changes,
    }
    present = {name: part for name, part in parts.items() if part is not None}
    torch.save(present, path)
    return present
