# SPDX-License-Identifier: Apache-2.0
"""Which frozen layers torch computes with less work on a CPU. On GPUs plain convolutions win."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.engine.cpu.block_code import BLOCK_COLUMNS, BLOCK_ROWS, NARROW_COLUMNS
from styleavatar_core.engine.cpu.composition import (
    FaceAdder,
    FaceRows,
    SharedBlender,
    SharedCutter,
)
from styleavatar_core.engine.cpu.direct_convs import DirectConv
from styleavatar_core.engine.cpu.direct_levels import DirectLevel
from styleavatar_core.engine.cpu.filtered_convs import FilteredConv
from styleavatar_core.engine.cpu.matrix_code import SIDE, has_matrix_unit
from styleavatar_core.engine.cpu.pixels import (
    PixelsToImage,
    SharedBytes,
    SharedHalving,
    SharedMaskBytes,
    SharedToRGB,
)
from styleavatar_core.engine.cpu.product_kernels import multiply_pixels
from styleavatar_core.engine.cpu.strips import plan_strips, share_strips, strip_threads
from styleavatar_core.engine.cpu.tile_forms import form_for
from styleavatar_core.engine.cpu.tiled_convs import TiledConv
from styleavatar_core.engine.cpu.vector_code import LANES
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.frozen.layers import FrozenConv, FrozenPointwise, FrozenToRGB
from styleavatar_core.engine.onnx.graph import trace_generator
from styleavatar_core.networks.config import GeneratorConfig
from styleavatar_core.networks.feature_generator import FeatureMaps
from styleavatar_core.networks.style_unet import DecoderBlock, Halving
from styleavatar_core.ops.upfirdn2d import IMAGE_TAPS

# Below, transforms and the kernels' memory cost more than products are saved.
_LEAST_CHANNELS = 32
_LEAST_FLOP = 0.25e9  # of the layer as it is
_LEAST_DIRECT_FLOP = 0.2e9  # where a matrix unit does it: below, threads wait for each other longer
_MOST = 0.5  # of the work in tiles: what is left is shared among the same threads then
_MOST_KERNEL_BYTES = 2**21  # of a level in windows: each window reads all of them
_LEAST_FLOATS = 2**20  # below, torch's threads have multiplied before ours start
_LEAST_ALONE = 2**18  # the same where torch computes on one thread
_STRIP_BYTES = 2**22  # of pixels that a thread multiplies at a time

_known: dict[tuple[GeneratorConfig, bool, tuple[int, int]], Mapping[str, tuple[int, ...]]] = {}


class MatrixConv(nn.Module):
    """A frozen 1x1 convolution as one product: torch's own moves the channels first, twice.

    Args:
        conv: The frozen convolution.

    Attributes:
        kernels: Its weights in panels of ``NARROW_COLUMNS`` outputs.
        bias: Of as many outputs as the panels have.
    """

    bias: torch.Tensor

    def __init__(self, conv: FrozenPointwise) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().flatten(1), requires_grad=False)
        outputs, inputs = self.weight.shape
        padded = F.pad(self.weight, (0, 0, 0, -outputs % NARROW_COLUMNS))
        panels = padded.view(-1, NARROW_COLUMNS, inputs).transpose(1, 2).contiguous()
        self.kernels = nn.Parameter(panels, requires_grad=False)
        bias = self.weight.new_zeros(outputs) if conv.bias is None else conv.bias.detach()
        self.register_buffer("bias", F.pad(bias, (0, -outputs % NARROW_COLUMNS)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, I, H, W) to (B, O, H, W); channels stay where they are, last or first."""
        bias = self.bias[: len(self.weight)]
        if not x.is_contiguous(memory_format=torch.channels_last):
            return (self.weight @ x.flatten(2) + bias[:, None]).unflatten(2, x.shape[2:])
        pixels = x.permute(0, 2, 3, 1).flatten(0, 2)
        is_alone = torch.get_num_threads() < strip_threads()
        least = _LEAST_ALONE if is_alone else _LEAST_FLOATS
        if len(pixels) < BLOCK_ROWS or x.numel() < least:
            return F.linear(x.permute(0, 2, 3, 1), self.weight, bias).permute(0, 3, 1, 2)
        result = x.new_empty(len(pixels), len(bias))
        arrays = (self.kernels.numpy(), self.bias.numpy(), result.numpy())
        image = pixels.numpy()

        def compute(thread: int, first: int, count: int) -> None:
            multiply_pixels(image, first, count, *arrays)

        strips = plan_strips(len(pixels), 4 * x.shape[1], _STRIP_BYTES, BLOCK_ROWS)
        share_strips(strips, compute)
        return result.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


class SharedConv(nn.Module):
    """A frozen convolution of which each thread computes some channels by torch.

    Args:
        conv: The frozen convolution.
    """

    def __init__(self, conv: FrozenConv) -> None:
        super().__init__()
        self.conv = conv

    def forward(
        self,
        x: torch.Tensor,
        style: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Maps (B, I, H, W) to (B, O, H', W')."""
        outputs = len(self.conv.bias)
        parts: dict[int, torch.Tensor] = {}

        def compute(thread: int, first: int, count: int) -> None:
            parts[first] = self.conv(x, noise=noise, channels=slice(first, first + count))

        share_strips(plan_strips(outputs, 1, outputs, LANES), compute)
        return torch.cat([parts[first] for first in sorted(parts)], dim=1)


def with_less_work(generator: FrozenGenerator) -> FrozenGenerator:
    """Replaces the layers that can do with less work, in place.

    Args:
        generator: A frozen generator in float32.

    Returns:
        ``generator``.
    """
    if any(isinstance(layer, MatrixConv) for layer in generator.modules()):
        return generator  # it has been through this
    tiled_share = _tile_large(generator)
    generator.generator.to_image = PixelsToImage()  # type: ignore[assignment]
    for name, layer in list(generator.named_modules()):
        if isinstance(layer, FrozenPointwise):
            generator.set_submodule(name, MatrixConv(layer))
    if tiled_share > _MOST:
        _share_rest(generator)
        _cut_windows(generator)
    return generator


def works_in_strips(generator: FrozenGenerator) -> bool:
    """Whether threads of ours do most of a generator's work: torch is to compute alone then."""
    return isinstance(generator.image_bytes, SharedBytes)


def missing_bytes(generator: FrozenGenerator) -> int:
    """Returns the memory that a generator's layers do not take before their first picture."""
    tiled = (layer for layer in generator.modules() if isinstance(layer, TiledConv))
    return sum(layer.kernels.missing_bytes for layer in tiled)


def _share_rest(generator: FrozenGenerator) -> None:
    """Lets our threads share what torch would compute alone, in place."""
    parts = generator.generator
    parts.to_image, generator.image_bytes = nn.Identity(), SharedBytes()  # type: ignore[assignment]
    generator.mask_bytes = SharedMaskBytes(generator.mask_bytes.factor)
    parts.blender = SharedBlender()  # type: ignore[assignment]
    parts.linspace_cutter = SharedCutter()  # type: ignore[assignment]
    if _adds_nearest_face(generator):
        maps = FeatureMaps(generator.face_feature, generator.face_rgb_pack)
        parts.face_sampler = FaceRows(maps.feature.shape[-1])  # type: ignore[assignment]
        parts.face_joiner = FaceAdder(maps)
        generator.forget_face()
    for name, layer in list(generator.named_modules()):
        if isinstance(layer, FrozenConv):
            generator.set_submodule(name, SharedConv(layer))
        elif isinstance(layer, FrozenToRGB):
            generator.set_submodule(name, SharedToRGB(layer))
        elif isinstance(layer, Halving):
            generator.set_submodule(name, SharedHalving())


def _adds_nearest_face(generator: FrozenGenerator) -> bool:
    """Whether a face, one sample per texel, is added over the blended foreground."""
    config = generator.config
    return (
        generator.samples_face
        and config.has_neural_texture
        and config.has_composition
        and (config.uv_sampling, config.face_composition) == ("nearest", "add")
    )


def _cut_windows(generator: FrozenGenerator) -> None:
    """Lets our threads compute decoders' levels of few channels window by window, in place."""
    synthesis = generator.generator.synthesis
    last = synthesis.decoder[-1]
    is_read = str(synthesis.config.output_size) in synthesis.joins
    for name, block in list(generator.named_modules()):
        if not isinstance(block, DecoderBlock):
            continue
        up, conv, pixels = (
            generator.get_submodule(f"{name}.{part}") for part in ("up", "conv", "to_rgb.pixels")
        )
        if not (isinstance(up, DirectConv) and isinstance(conv, DirectConv)):
            continue
        is_joined = conv.kernels.shape[1] > len(up.kernels)  # by a skip, within the level
        is_small = up.kernels.nbytes + conv.kernels.nbytes <= _MOST_KERNEL_BYTES
        if is_small and not is_joined and isinstance(pixels, MatrixConv):
            to_rgb = (pixels.kernels.detach().numpy(), pixels.bias.numpy())
            has_feature = block is not last or is_read
            level = DirectLevel(up, conv, to_rgb, has_feature=has_feature)
            generator.set_submodule(name, level)


def _tile_large(generator: FrozenGenerator) -> float:
    """Replaces the convolutions that are large enough, in place; returns their share of all."""
    found = {
        f"{name}.weight": layer
        for name, layer in generator.named_modules()
        if isinstance(layer, FrozenConv)
    }
    if not any(_is_direct(layer) or _is_tileable(layer) for layer in found.values()):
        return 0.0
    whole = tiled = 0.0
    for weight, sides in _resolutions(generator).items():
        layer = found.get(weight)
        if layer is None:
            continue
        flop = 2 * layer.weight.numel() * math.prod(sides) / (4 if layer.mode == "up" else 1)
        whole += flop
        less: FilteredConv | None = None
        if _is_direct(layer):
            less = DirectConv(layer) if flop >= _LEAST_DIRECT_FLOP else None
        elif _is_tileable(layer) and flop >= _LEAST_FLOP:
            less = TiledConv(layer, form_for(layer.mode, sides))
        if less is not None:
            tiled += flop
            generator.set_submodule(weight.removesuffix(".weight"), less)
    return tiled / whole


def _resolutions(generator: FrozenGenerator) -> Mapping[str, tuple[int, ...]]:
    """Returns height and width of what each layer gives, by its weight's name.

    Generators of one kind are traced once.
    """
    kind = (generator.config, generator.samples_face, generator.frozen_at)
    if kind not in _known:
        graph, _ = trace_generator(generator)
        nodes = (node for node in graph.nodes if len(node.inputs) > 1)
        _known[kind] = {node.inputs[1]: node.shape[2:] for node in nodes}
    return _known[kind]


def _is_direct(conv: FrozenConv) -> bool:
    """Whether a matrix unit does the same with less work, if the resolution is high enough."""
    outputs, inputs = _channels(conv)
    return has_matrix_unit() and _is_filtered(conv) and inputs % SIDE == outputs % SIDE == 0


def _is_tileable(conv: FrozenConv) -> bool:
    """Whether tiles do."""
    outputs, inputs = _channels(conv)
    fits = inputs % LANES == outputs % BLOCK_COLUMNS == 0
    return _is_filtered(conv) and fits and min(outputs, inputs) >= _LEAST_CHANNELS


def _is_filtered(conv: FrozenConv) -> bool:
    """Whether it is a convolution as ``FilteredConv`` has it."""
    is_known = conv.mode == "same" or conv.fir_taps == IMAGE_TAPS
    return is_known and conv.weight.shape[2:] == (3, 3)


def _channels(conv: FrozenConv) -> tuple[int, int]:
    """Returns a convolution's outputs and inputs."""
    first, second = conv.weight.shape[:2]
    return (second, first) if conv.mode == "up" else (first, second)
