# SPDX-License-Identifier: Apache-2.0
"""How much work a frame is, and how fast that can be at most."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.onnx.graph import trace_generator
from styleavatar_core.networks import FeatureMaps, GeneratorConfig, PortraitGenerator

# Published by NVIDIA for the H200: dense fp16 and memory; a real network stays well below both.
H200_TFLOPS = 989.0
H200_TERABYTES_PER_S = 4.8

_MOVES_MEMORY = ("Conv", "ConvTranspose", "Concat", "Resize", "GridSample", "Gather")


class ConvolutionCounter(TorchFunctionMode):
    """Counts two FLOP for each multiply-add of the convolutions computed within it."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Computes, and counts if it is a convolution."""
        result = func(*args, **(kwargs or {}))
        if func is F.conv2d:
            self.flop += 2 * result.numel() * args[1][0].numel()
        elif func is F.conv_transpose2d:
            self.flop += 2 * args[0].numel() * args[1][0].numel()
        return result


def trained_gflop(config: GeneratorConfig, device: str = "meta") -> float:
    """Returns the GFLOP (convolutions) of the trained generator for one frame.

    Args:
        config: The preset.
        device: ``meta`` computes nothing; ``cpu`` is sooner ready for a small preset.
    """
    with torch.device(device):
        generator = PortraitGenerator(config)
        style = torch.zeros(1, config.style.style_dim)
        size, uv_size = config.rendering_size_px, config.uv_size
        maps = []
        for part in (config.face, config.background):
            side = part.size
            channels = part.feature_channels
            maps.append(
                FeatureMaps(torch.zeros(1, channels, side, side), torch.zeros(1, 12, side, side))
            )
        inputs = (
            torch.zeros(1, 3, size, size),
            torch.zeros(1, 2, uv_size, uv_size),
            torch.zeros(1, 1, uv_size, uv_size),
        )
    window = torch.zeros(1, 2, dtype=torch.int64)
    with torch.no_grad(), ConvolutionCounter() as counter:
        generator(style, *inputs, *maps, window)
    return counter.flop / 1e9


class Layer(NamedTuple):
    """One operator that moves memory, in fp16.

    Attributes:
        gflop: Of its convolution, for one frame; 0 if it has none.
        gigabytes: Of what it takes and gives, for one frame.
        weight_gigabytes: Of its weights, once for all frames of a batch.
    """

    gflop: float
    gigabytes: float
    weight_gigabytes: float

    def least_ms(self, batch_size: int) -> float:
        """Milliseconds below which an H200 cannot compute it for a batch."""
        moved = self.gigabytes * batch_size + self.weight_gigabytes
        return max(self.gflop * batch_size / H200_TFLOPS, moved / H200_TERABYTES_PER_S)


class Work(NamedTuple):
    """What a frame takes.

    Attributes:
        gflop: Of its convolutions.
        gigabytes: In fp16, each value written and read once, and the weights read.
        layers: The same, operator by operator.
    """

    gflop: float
    gigabytes: float
    layers: list[Layer]


def frozen_work(generator: FrozenGenerator) -> Work:
    """Returns the work of a frame."""
    graph, ends = trace_generator(generator)
    shapes = {node.output: node.shape for node in graph.nodes}
    shapes |= {graph.name_of(value): tuple(value.shape) for value in ends.values()}
    constants = graph.constants
    layers = []
    for node in graph.nodes:
        # What runtimes fuse into the convolution before it moves no memory.
        if node.operator not in _MOVES_MEMORY:
            continue
        flop = 0.0
        if node.operator == "Conv":
            flop = 2 * math.prod(node.shape) * math.prod(constants[node.inputs[1]].shape[1:])
        elif node.operator == "ConvTranspose":
            weight = constants[node.inputs[1]].shape
            flop = 2 * math.prod(shapes[node.inputs[0]]) * math.prod(weight[1:])
        weights = sum(constants[name].numel() for name in node.inputs if name in constants)
        # Each value is read as often as it is written, on the whole.
        layers.append(Layer(flop / 1e9, 4 * math.prod(node.shape) / 1e9, 2 * weights / 1e9))
    gigabytes = sum(layer.gigabytes for layer in layers)
    all_weights = 2 * sum(constant.numel() for constant in constants.values()) / 1e9
    return Work(sum(layer.gflop for layer in layers), gigabytes + all_weights, layers)


def roofline_ms(gflop: float, gigabytes: float) -> float:
    """Returns the milliseconds per frame below which an H200 cannot go in fp16."""
    return max(gflop / H200_TFLOPS, gigabytes / H200_TERABYTES_PER_S)


def roofline_figures(work: Work) -> dict[str, float]:
    """Returns what an H200 needs at least in fp16: as a whole, and layer after layer."""
    layered_ms = {size: sum(layer.least_ms(size) for layer in work.layers) for size in (1, 8)}
    return {
        "h200_fp16_arithmetic_ms": work.gflop / H200_TFLOPS,
        "h200_fp16_memory_ms": work.gigabytes / H200_TERABYTES_PER_S,
        "h200_fp16_roofline_ms": roofline_ms(work.gflop, work.gigabytes),
        "h200_fp16_layers_ms": layered_ms[1],
        "h200_fp16_b8_frames_per_s": 8e3 / layered_ms[8],
    }


def rule_ms(work: Work, image_size_px: int) -> float:
    """Returns the time that presets for CPUs were sized by: two cores, OpenVINO, fp32."""
    return 3.0 + 42.0 * image_size_px**2 / 1e6 + 4.3 * work.gflop
