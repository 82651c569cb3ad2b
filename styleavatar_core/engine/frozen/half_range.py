# SPDX-License-Identifier: Apache-2.0
"""Weights scaled so that no number between the layers leaves the range of fp16.

Convolutions are linear, and leaky ReLU keeps positive factors: a layer whose numbers are large
gives 2**-power of them, and those who take it multiply by 2**power in their weights. Powers of two
lose nothing, so that the generator stays the same in fp32. How large numbers become is seen on the
avatar's own frames; a layer is left alone, to the bit, unless they come near the range's end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from styleavatar_core.engine.frozen.composition import (
    FrozenBackground,
    FrozenNarrowConv,
    FrozenSampler,
    MiddleBlock,
)
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.frozen.layers import FrozenConv, FrozenFromRGB, FrozenPointwise
from styleavatar_core.networks.style_unet import StyleUNet

# The largest number of fp16 is 65504; other frames than those seen may go sixteen times further.
LARGEST_SEEN = 4096.0
_LARGEST_WEIGHT = 32768.0

_Layer = FrozenConv | FrozenFromRGB | FrozenPointwise


@dataclass(frozen=True, slots=True)
class _Part:
    """Channels that hold 2**-power of their numbers."""

    count: int
    power: int


@torch.no_grad()
def fit_half_range(generator: FrozenGenerator, peaks: Mapping[str, float]) -> None:
    """Scales the weights of a generator, in place.

    Args:
        generator: Frozen, fp32.
        peaks: Its largest numbers, from :func:`~styleavatar_core.engine.frozen.peaks.seen_peaks`.
    """
    config, parts = generator.config, generator.generator
    named = dict(parts.named_modules())
    fitting = _Fitting({named[name]: peak for name, peak in peaks.items()})
    face = _face_map(generator) if config.has_neural_texture else None
    is_added = config.has_composition and config.face_composition == "add"
    fused: list[_Part] = []
    if isinstance(parts.foreground, StyleUNet):
        behind = parts.background_cutter
        assert isinstance(behind, FrozenBackground)
        together = [behind.feature] if face is None or not is_added else [behind.feature, face]
        own = fitting.network(parts.foreground, [], max(map(_peak, together)))
        fitting.narrow(parts.mask_conv, own)
        for constant in together:
            constant.mul_(2.0**-own.power)
        fused.append(own)
    if face is not None and not is_added:
        # What comes sampled from the host comes as it is.
        power = _power(_peak(face)) if generator.samples_face else 0
        face.mul_(2.0**-power)
        samples = config.uv_supersampling**2
        fused.append(_Part(config.face.feature_channels * samples, power))
    fitting.network(parts.synthesis, fused)


class _Fitting:
    """Scales layer after layer, in the order of the networks' forward pass.

    Args:
        peaks: Largest number of each layer.
    """

    def __init__(self, peaks: Mapping[nn.Module, float]) -> None:
        self._peaks = peaks

    def network(self, network: StyleUNet, feature: list[_Part], least: float = 0.0) -> _Part:
        """Scales a StyleUNet.

        Args:
            network: Its layers frozen.
            feature: What it takes beside the image.
            least: What its output must hold besides, as something else is mixed with it.

        Returns:
            The feature that it gives.
        """
        config = network.config
        skips: dict[int, _Part] = {}
        size = config.top_size
        if str(size) in network.from_rgbs:
            feature = [self._layer(network.from_rgbs[str(size)], [])]
        for index, block in enumerate(network.encoder):
            level = self._layer(block.conv, feature)
            beside: list[Any] = [
                layer for key, layer in network.from_rgbs.items() if key == str(size // 2)
            ]
            below = self._layer(block.down, [level], *(self._peaks[layer] for layer in beside))
            for layer in beside:  # the image's features are added to what comes from above
                _give(layer, below.power)
            if config.has_early_skips or index == 0:
                skips[size] = level
            size //= 2
            if not config.has_early_skips:
                skips[size] = below
            feature = [below]
        return self._decode(network, self._layer(network.bottom, feature), skips, least)

    def _decode(
        self, network: StyleUNet, x: _Part, skips: Mapping[int, _Part], least: float
    ) -> _Part:
        """Scales the decoder; pictures stay as they are."""
        size = network.config.bottom_size
        for index, block in enumerate(network.decoder):
            size *= 2
            level: Any = block.block if isinstance(block, MiddleBlock) else block
            bound = least if index == len(network.decoder) - 1 else 0.0
            is_skipped = network.config.has_early_skips and size in network.config.skip_sizes
            joined = [skips[size]] if is_skipped else []
            x = self._layer(level.conv, [self._layer(level.up, [x]), *joined], bound)
            _take(level.to_rgb.pixels, [x])
            if str(size) in network.joins:
                x = self._layer(network.joins[str(size)], [x, skips[size]], bound)
        return x

    def narrow(self, conv: nn.Module, part: _Part) -> None:
        """Scales the convolution to the mask: what its taps have in common is undone by them."""
        assert isinstance(conv, FrozenNarrowConv)
        _take(conv.parts, [part])
        power = _weight_power(conv.parts, _power(self._peaks[conv]))
        _give(conv.parts, power)
        conv.taps.mul_(2.0**power)

    def _layer(self, layer: Any, parts: Sequence[_Part], *least: float) -> _Part:
        """Scales what a layer takes and gives; returns what it gives."""
        assert isinstance(layer, FrozenConv | FrozenFromRGB)
        _take(layer, parts)
        power = _weight_power(layer, _power(max((self._peaks[layer], *least))))
        _give(layer, power)
        return _Part(len(layer.bias), power)


def _take(layer: _Layer, parts: Sequence[_Part]) -> None:
    """Multiplies the weights by what is missing in the channels that a layer takes."""
    if any(part.power for part in parts):
        factors = torch.cat([torch.full((part.count,), 2.0**part.power) for part in parts])
        is_up = isinstance(layer, FrozenConv) and layer.mode == "up"
        layer.weight.mul_(factors[:, None, None, None] if is_up else factors[:, None, None])


def _give(layer: _Layer, power: int) -> None:
    """Makes a layer give 2**-power of its numbers."""
    for weight in layer.parameters():
        weight.mul_(2.0**-power)
    if isinstance(layer, FrozenConv):
        layer.noise_strength *= 2.0**-power


def _power(peak: float) -> int:
    """Returns by which power of two numbers are too large; 0 if they are not, or not finite."""
    return _excess(peak, LARGEST_SEEN)


def _weight_power(layer: _Layer, power: int) -> int:
    """Returns at least ``power``, and as much as a layer's own weights need."""
    return max(power, *(_excess(_peak(weight), _LARGEST_WEIGHT) for weight in layer.parameters()))


def _excess(peak: float, largest: float) -> int:
    return max(0, math.ceil(math.log2(peak / largest))) if 0 < peak < math.inf else 0


def _peak(values: torch.Tensor) -> float:
    return float(values.abs().amax())


def _face_map(generator: FrozenGenerator) -> torch.Tensor:
    """Returns the constant that holds the face's features."""
    sampler = generator.generator.face_sampler
    features = getattr(sampler, "features", None)
    return features.table if isinstance(features, FrozenSampler) else generator.face_feature
