# SPDX-License-Identifier: Apache-2.0
"""What :mod:`styleavatar_core.training.cpu.layers` differentiate by hand, around compiled loops.

All tensors are fp32 on a CPU. Gradients of gradients are refused (``once_differentiable``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from styleavatar_core.engine.cpu.strips import plan_strips, share_strips
from styleavatar_core.ops.bias_act import LEAKY_SLOPE
from styleavatar_core.training.cpu import layer_kernels
from styleavatar_core.types import FloatArray

# Below, one thread is done before another has begun: torch's own threads, awake for a while after
# each operator, are in its way.
_LEAST_FLOATS = 2**19
_SLOPE = np.float32(LEAKY_SLOPE)


def scale(x: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Scales each channel of each sample: (B, C, H, W) by (B, C)."""
    return cast(torch.Tensor, _Scale.apply(x, scales))


def finish(x: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Scales (B, C, H, W) by (B, C), adds the bias (C,) and applies the leaky ReLU."""
    return cast(torch.Tensor, _Finish.apply(x, scales, bias))


def sum_blocks(x: torch.Tensor) -> torch.Tensor:
    """Sums each 2x2 block of (B, C, H + 1, W + 1), which overlap: (B, C, H, W)."""
    return cast(torch.Tensor, _SumBlocks.apply(x))


def add_to_blocks(x: torch.Tensor) -> torch.Tensor:
    """Adds each pixel of (B, C, H, W) to a 2x2 block of (B, C, H + 1, W + 1)."""
    return cast(torch.Tensor, _AddToBlocks.apply(x))


def add_doubled(pixels: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Adds images, doubled with the taps [1, 3, 3, 1], to the pixels of others, in place.

    Args:
        pixels: (B, 4C, H * W) of images of 2H times 2W, as ``pixel_unshuffle`` orders them.
        images: (B, C, H, W).

    Returns:
        ``pixels``.
    """
    return cast(torch.Tensor, _AddDoubled.apply(pixels, images))


def look_up(texture: torch.Tensor, uv: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Looks up a texture bilinearly, two samples per texel side: neural textures (Sec. 3.2).

    Args:
        texture: (1, C, F, F).
        uv: (B, 2, 2H, 2W) in [0, 1], contiguous; not differentiated.
        mask: (B, 2H, 2W) in [0, 1], contiguous; not differentiated.

    Returns:
        (B, 4C, H, W): samples times mask, those of a texel in its channels.
    """
    return cast(torch.Tensor, _LookUp.apply(texture, uv, mask))


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, scales)
        return x * scales[:, :, None, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, scales = ctx.saved_tensors
        to_x, to_scales = _empty_like(x), _empty_like(scales)
        given = _rows(gradient, scales), _rows(x, scales)
        results = _flat(scales), _rows(to_x, scales), _flat(to_scales)
        _share(layer_kernels.scale_back, given, results, scales.numel(), x.numel())
        return to_x, to_scales


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        biases, result = bias.repeat(len(x)), _empty_like(x)
        ctx.save_for_backward(x, scales, biases)
        ends = _flat(scales), _flat(biases), _SLOPE, _rows(result, scales)
        _share(layer_kernels.finish, (_rows(x, scales),), ends, scales.numel(), x.numel())
        return result

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, scales, biases = ctx.saved_tensors
        to_x, to_scales, to_biases = (_empty_like(part) for part in ctx.saved_tensors)
        given = _rows(gradient, scales), _rows(x, scales)
        ends = _flat(scales), _flat(biases), _SLOPE
        results = _rows(to_x, scales), _flat(to_scales), _flat(to_biases)
        _share(layer_kernels.finish_back, given, ends + results, scales.numel(), x.numel())
        return to_x, to_scales, to_biases.view(len(x), -1).sum(0)


class _SumBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return _filtered(layer_kernels.sum_blocks, x, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _filtered(layer_kernels.add_to_blocks, gradient, 1)


class _AddToBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return _filtered(layer_kernels.add_to_blocks, x, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _filtered(layer_kernels.sum_blocks, gradient, -1)


def _filtered(loop: Callable[..., None], x: torch.Tensor, growth: int) -> torch.Tensor:
    """Runs a loop from planes to planes whose sides are longer by ``growth``."""
    result = x.new_empty(*x.shape[:2], *(side + growth for side in x.shape[2:]))
    source, target = (part.contiguous().flatten(0, 1).numpy() for part in (x.detach(), result))
    _share(loop, (source,), (target,), len(source), x.numel())
    return result


class _AddDoubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pixels: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        ctx.mark_dirty(pixels)
        ctx.shape = images.shape
        source = images.detach().contiguous().flatten(0, 1).numpy()
        target = pixels.detach().view(len(source), 4, *images.shape[2:]).numpy()
        _share(layer_kernels.add_doubled, (source,), (target,), len(source), pixels.numel())
        return pixels

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        to_images = gradient.new_empty(ctx.shape)
        target = to_images.flatten(0, 1).numpy()
        source = gradient.contiguous().view(len(target), 4, *ctx.shape[2:]).numpy()
        _share(layer_kernels.add_doubled_back, (source,), (target,), len(target), gradient.numel())
        return gradient, to_images


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, texture: torch.Tensor, uv: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(uv, mask)
        ctx.shape = texture.shape
        batch, height, width = len(uv), uv.shape[2] // 2, uv.shape[3] // 2
        samples = texture.new_empty(batch, texture.shape[1], 4, height, width)
        given = texture[0].detach().contiguous().numpy(), uv.numpy(), mask.numpy()
        _share(layer_kernels.look_up, given, (samples.numpy(),), batch * height, samples.numel())
        return samples.flatten(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        uv, mask = ctx.saved_tensors
        to_texture = gradient.new_zeros(ctx.shape)
        source = gradient.contiguous().unflatten(1, (-1, 4)).numpy()
        given, target = (source, uv.numpy(), mask.numpy()), to_texture[0].numpy()
        _share(layer_kernels.look_up_back, given, (target,), len(target), gradient.numel())
        return to_texture, None, None


def _share(
    loop: Callable[..., None],
    given: tuple[Any, ...],
    results: tuple[Any, ...],
    rows: int,
    floats: int,
) -> None:
    """Calls ``loop(*given, first row, rows, *results)``, on all threads if it is much."""
    if floats < _LEAST_FLOATS:
        loop(*given, 0, rows, *results)
        return
    strips = plan_strips(rows, 1, rows)
    share_strips(strips, lambda _, first, count: loop(*given, first, count, *results))


def _empty_like(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _rows(x: torch.Tensor, scales: torch.Tensor) -> FloatArray:
    """Returns an array with a row for each of the scales, of ``x`` itself if it is contiguous."""
    return x.detach().contiguous().view(scales.numel(), -1).numpy()


def _flat(x: torch.Tensor) -> FloatArray:
    return x.detach().contiguous().view(-1).numpy()
