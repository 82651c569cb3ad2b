# SPDX-License-Identifier: Apache-2.0
"""To a device and back through pinned memory, of which every batch on its way has its own.

While one batch comes back on a stream apart, the next is given and computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from styleavatar_core.engine.cuda_stream import CudaStream, Tensors, Work, contiguous_like


@dataclass
class Underway:
    """A batch on its way.

    Attributes:
        given: What goes to the device, in pinned memory.
        staged: What comes back, on the device: the next batch may be computed meanwhile.
        results: The same in pinned memory.
        wait: Waits until the results are there.
    """

    given: Tensors
    staged: Tensors = ()
    results: Tensors = ()
    wait: Work = lambda: None


class Transfers:
    """Computes on a device what is given on the host, and gives it back there. Not thread-safe.

    Args:
        compute: From tensors on the device to tensors on the device, which the next call may
            overwrite; only launches what computes them.
        stream: Where it is launched.
    """

    def __init__(self, compute: Callable[..., Tensors], stream: CudaStream) -> None:
        self._compute, self._stream = compute, stream
        self._free: dict[int, list[Underway]] = {}  # by batch size

    def give(self, arrays: Sequence[np.ndarray]) -> Underway:
        """Sends a batch on its way and returns at once.

        Args:
            arrays: What is computed with, batch first.

        Returns:
            What :meth:`take` takes.
        """
        hosts = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
        free = self._free.setdefault(len(hosts[0]), [])
        batch = free.pop() if free else self._made_for(hosts)
        _copy(hosts, batch.given)
        self._stream.launch(lambda: self._start(batch))
        batch.wait = self._stream.bring_back(lambda: _copy(batch.staged, batch.results))
        return batch

    def take(self, batch: Underway) -> tuple[np.ndarray, ...]:
        """Waits for a batch and returns what was computed; the arrays are the caller's."""
        batch.wait()
        arrays = tuple(result.numpy().copy() for result in batch.results)
        self._free[len(batch.given[0])].append(batch)
        return arrays

    @torch.inference_mode()
    def _start(self, batch: Underway) -> None:
        """Launches what computes a batch, and keeps its results from the next one."""
        device = self._stream.device
        outputs = self._compute(*(part.to(device, non_blocking=True) for part in batch.given))
        if not batch.results:
            batch.staged = tuple(contiguous_like(output) for output in outputs)
            batch.results = tuple(self._stream.on_host(o.shape, o.dtype) for o in outputs)
        _copy(outputs, batch.staged)

    def _made_for(self, hosts: Tensors) -> Underway:
        """Makes room for a batch like this one."""
        return Underway(tuple(self._stream.on_host(host.shape, host.dtype) for host in hosts))


@torch.inference_mode()
def _copy(sources: Tensors, targets: Tensors) -> None:
    """Launches copies."""
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source, non_blocking=True)
