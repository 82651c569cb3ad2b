# SPDX-License-Identifier: Apache-2.0
"""How much work a frame is, and how fast this machine can be at most."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from styleavatar_core.engine.freeze import FrozenGenerator
from styleavatar_core.engine.onnx_graph import trace_generator
from styleavatar_core.networks import FeatureMaps, GeneratorConfig, PortraitGenerator

# Published by NVIDIA for the H200: dense fp16 and memory; a real network stays well below both.
H200_TFLOPS = 989.0
H200_TERABYTES_PER_S = 4.8


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


def frozen_work(generator: FrozenGenerator) -> tuple[float, float]:
    """Returns GFLOP (convolutions) and gigabytes (fp16, each value written and read once)."""
    graph, ends = trace_generator(generator)
    shapes = {node.output: node.shape for node in graph.nodes}
    shapes |= {graph.name_of(value): tuple(value.shape) for value in ends.values()}
    flop = 0.0
    for node in graph.nodes:
        if node.operator == "Conv":
            flop += 2 * math.prod(node.shape) * math.prod(graph.constants[node.inputs[1]].shape[1:])
        elif node.operator == "ConvTranspose":
            weight = graph.constants[node.inputs[1]].shape
            flop += 2 * math.prod(shapes[node.inputs[0]]) * math.prod(weight[1:])
    # What runtimes fuse into the convolution before it moves no memory.
    moved = sum(
        math.prod(node.shape)
        for node in graph.nodes
        if node.operator in ("Conv", "ConvTranspose", "Concat", "Resize", "GridSample", "Gather")
    )
    weights = sum(constant.numel() for constant in graph.constants.values())
    return flop / 1e9, 2 * (2 * moved + weights) / 1e9


def roofline_ms(gflop: float, gigabytes: float) -> float:
    """Returns the milliseconds per frame below which an H200 cannot go in fp16."""
    return max(gflop / H200_TFLOPS, gigabytes / H200_TERABYTES_PER_S)


def peak_gflops(*, is_quick: bool) -> float:
    """Measures the highest FLOP rate of this machine: a large product and a large convolution."""
    size, side, channels = (512, 32, 64) if is_quick else (2048, 128, 256)
    a = torch.randn(size, size)
    x = torch.randn(1, channels, side, side).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        product_s = _best_s(lambda: a @ a)
        convolution_s = _best_s(lambda: F.conv2d(x, weight, padding=1))
    return max(
        2 * size**3 / product_s / 1e9,
        2 * 9 * channels**2 * side**2 / convolution_s / 1e9,
    )


def _best_s(compute: Callable[[], torch.Tensor]) -> float:
    """Returns the shortest of ten runs, in seconds."""
    best = math.inf
    for _ in range(12):
        start = time.perf_counter()
        compute()
        best = min(best, time.perf_counter() - start)
    return best
