# SPDX-License-Identifier: Apache-2.0
"""What the processes of a training on several devices tell each other; alone, all is local.

Each process is a *rank*. Of a global batch, rank r of n takes the samples r, r + n, r + 2n ...
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.autograd.function import FunctionCtx


def rank_count() -> int:
    """Returns how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_rank() -> int:
    """Returns which of them this is, counted from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def own_share() -> slice:
    """Returns which samples of a global batch are this process's."""
    return slice(own_rank(), None, rank_count())


def mean_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """Averages a tensor of any shape over all ranks; gradients pass to every one of them."""
    return x if rank_count() == 1 else _SumOverRanks.apply(x) / rank_count()


def gather_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """Puts the samples of all ranks together, in the order of the global batch.

    It can be differentiated any number of times: each sample gets the gradients of all ranks.

    Args:
        x: (B, ...) float, this rank's samples; B is the same everywhere.

    Returns:
        (B * rank_count, ...).
    """
    if rank_count() == 1:
        return x
    everybody = x.new_zeros(len(x), rank_count(), *x.shape[1:])
    everybody[:, own_rank()] = x
    return _SumOverRanks.apply(everybody).flatten(0, 1)


class _SumOverRanks(torch.autograd.Function):
    """Sum of a tensor over all ranks. It is its own transpose, so its gradient is summed too."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor) -> torch.Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        return _SumOverRanks.apply(gradient)
