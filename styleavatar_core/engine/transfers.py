# SPDX-License-Identifier: Apache-2.0
"""To a device and back through pinned memory, of which every batch on its way has its own.

While one batch comes back on a stream apart, the next is given and computed. Where there is no
device but the CPU, all of this is copying.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Tensors = tuple[torch.Tensor, ...]


@dataclass
class Underway:
    """A batch on its way.

    Attributes:
        given: What goes to the device, in pinned memory.
        done: Happens when the results are there.
        staged: What comes back, on the device: the next batch may be computed meanwhile.
        results: The same in pinned memory.
    """

    given: Tensors
    done: Any
    staged: Tensors = ()
    results: Tensors = ()


class Transfers:
    """Computes on a device what is given on the host, and gives it back there. Not thread-safe.

    Args:
        compute: From tensors on the device to tensors on the device, which the next call may
            overwrite; only launches what computes them.
        device: The device.
    """

    def __init__(self, compute: Callable[..., Tensors], device: str) -> None:
        self._compute, self._device = compute, torch.device(device)
        self._is_pinned = self._device.type == "cuda"
        self._streams = torch.get_device_module(self._device)
        self._way_back = self._streams.Stream()
        self._free: dict[int, list[Underway]] = {}  # by batch size

    def give(self, arrays: Sequence[np.ndarray]) -> Underway:
        """Sends a batch on its way and returns at once.

        Args:
            arrays: What is computed with, batch first.

        Returns:
            What :meth:`take` takes.
        """
        free = self._free.setdefault(len(arrays[0]), [])
        batch = free.pop() if free else self._made_for(arrays)
        for given, array in zip(batch.given, arrays, strict=True):
            given.copy_(torch.from_numpy(array))
        outputs = self._compute(*(part.to(self._device, non_blocking=True) for part in batch.given))
        if not batch.results:
            batch.staged = tuple(
                torch.empty(o.shape, dtype=o.dtype, device=o.device) for o in outputs
            )
            batch.results = tuple(self._on_host(output) for output in outputs)
        for staged, output in zip(batch.staged, outputs, strict=True):
            staged.copy_(output, non_blocking=True)
        self._way_back.wait_stream(self._streams.current_stream())
        with self._streams.stream(self._way_back):
            for result, staged in zip(batch.results, batch.staged, strict=True):
                result.copy_(staged, non_blocking=True)
            batch.done.record()
        return batch

    def take(self, batch: Underway) -> tuple[np.ndarray, ...]:
        """Waits for a batch and returns what was computed; the arrays are the caller's."""
        batch.done.synchronize()
        arrays = tuple(result.numpy().copy() for result in batch.results)
        self._free[len(batch.given[0])].append(batch)
        return arrays

    def _made_for(self, arrays: Sequence[np.ndarray]) -> Underway:
        """Makes room for a batch like this one."""
        given = tuple(self._on_host(torch.from_numpy(array)) for array in arrays)
        return Underway(given, self._streams.Event())

    def _on_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns memory on the host for a tensor's values, pinned if there is a device."""
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._is_pinned)
