# SPDX-License-Identifier: Apache-2.0
"""A training on several devices: one process for each, started by ``torchrun``.

All ranks take the same steps on their shares of the same batches and hold the same weights. The
first rank alone measures time, evaluates, reports and writes; what it decides is told to the
others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from styleavatar_core.errors import InvalidInputError, TrainingError
from styleavatar_core.ops.ranks import own_rank, rank_count

# The others wait while the first rank prepares a clip; a rank that dies is seen by torchrun.
_PATIENCE = timedelta(hours=12)


@contextmanager
def joined_ranks() -> Iterator[bool]:
    """Joins the processes that ``torchrun`` has started, for as long as the block runs.

    Yields:
        Whether this is the first rank, the one that shows what it does.

    Raises:
        InvalidInputError: There are fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield True
        return
    has_cuda = torch.cuda.is_available()
    if has_cuda:
        torch.cuda.set_device(own_device())
    dist.init_process_group("cpu:gloo,cuda:nccl" if has_cuda else "gloo", timeout=_PATIENCE)
    try:
        yield own_rank() == 0
    finally:
        dist.destroy_process_group()


def own_device() -> torch.device:
    """Returns the device of this process: its own GPU, or the CPU where there is none.

    Raises:
        InvalidInputError: There are fewer GPUs than processes.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= count:
        raise InvalidInputError(
            f"there is no GPU for process {place + 1} of this machine, which shows {count}; use "
            f"--nproc-per-node {count}"
        )
    return torch.device("cuda", place)


def require_even_shares(batch_size: int) -> None:
    """Refuses a batch that the ranks cannot share evenly.

    Raises:
        InvalidInputError: The batch cannot be shared evenly.
    """
    count = rank_count()
    if batch_size % count:
        raise InvalidInputError(
            f"{batch_size} pictures per step cannot be shared evenly by {count} processes; use "
            f"--batch-size {count * max(batch_size // count, 1)}"
        )


def in_parallel(module: nn.Module, *, has_unused: bool) -> nn.Module:
    """Lets a module average its gradients over all ranks; alone it stays as it is.

    Args:
        module: On this process's device.
        has_unused: Whether some of its parameters get no gradients in some steps. torch then warns
            once if at first all of them do.
    """
    if rank_count() == 1:
        return module
    return DistributedDataParallel(module, find_unused_parameters=has_unused)


def told_by_first_rank(value: float) -> float:
    """Returns the first rank's number, or truth value, on all ranks."""
    if rank_count() == 1:
        return value
    told = torch.tensor(value, dtype=torch.float64)
    dist.broadcast(told, src=0)
    return float(told)


@contextmanager
def first_rank_first() -> Iterator[None]:
    """Lets the first rank through the block before the others."""
    is_first = own_rank() == 0
    if not is_first:
        wait_for_all()
    yield
    if is_first:
        wait_for_all()


def wait_for_all() -> None:
    """Returns once all ranks have come here.

    Raises:
        TrainingError: One of them has ended.
    """
    if rank_count() == 1:
        return
    try:
        dist.all_reduce(torch.zeros(1))
    except RuntimeError as error:
        raise TrainingError(
            f"process {own_rank()} of this training cannot go on, as another one has ended; that "
            "one's message says why"
        ) from error
