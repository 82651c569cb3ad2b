# SPDX-License-Identifier: Apache-2.0
"""To a device and back through pinned memory, of which every batch on its way has its own.

While one batch comes back on a stream apart, the next is given and computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from styleavatar_core.engine.cuda.stream import CudaStream, Tensors, Work


@dataclass(frozen=True, slots=True)
class Underway:
    """A batch on its way.

    Attributes:
        wait: Waits until the results are there.
        staged: What comes back, on the device: the next batch may be computed meanwhile.
        results: The same in pinned memory.
    """

    wait: Work
    staged: Tensors
    results: Tensors


class Transfers:
    """Computes on a device what is given on the host, and gives it back there. Not thread-safe.

    Pinned memory is torch's: it keeps what is freed for the next batches, and hands nothing out
    that is still being copied.

    Args:
        compute: From tensors on the device to tensors on the device, which the next call may
            overwrite; only launches what computes them.
        stream: Where it is launched.
    """

    def __init__(self, compute: Callable[..., Tensors], stream: CudaStream) -> None:
        self._compute, self._stream = compute, stream

    def give(self, arrays: Sequence[np.ndarray]) -> Underway:
        """Sends a batch on its way and returns at once.

        Args:
            arrays: What is computed with, batch first.

        Returns:
            What :meth:`take` takes.
        """
        hosts = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        given = [self._stream.on_host(host).copy_(host) for host in hosts]
        staged = self._stream.launch(lambda: self._start(given))
        results = tuple(self._stream.on_host(part) for part in staged)
        return Underway(self._stream.bring_back(staged, results), staged, results)

    @torch.inference_mode()
    def _start(self, given: Sequence[torch.Tensor]) -> Tensors:
        """Launches what computes a batch, and keeps its results from the next one."""
        device = self._stream.device
        outputs = self._compute(*(part.to(device, non_blocking=True) for part in given))
        return tuple(output.clone(memory_format=torch.contiguous_format) for output in outputs)

    def take(self, batch: Underway) -> tuple[np.ndarray, ...]:
        """Waits for a batch and returns what was computed: pinned memory, the caller's to keep."""
        batch.wait()
        return tuple(result.numpy() for result in batch.results)
