# SPDX-License-Identifier: Apache-2.0
"""A module on a CUDA device as captured graphs: a frame is one launch, not hundreds.

There is a graph for each power of two of samples, and a batch in between is made as large as the
next one, so that nothing is captured while somebody waits for a picture. That nothing between
inputs and outputs touches the host is tested without a GPU; this file has not run on one yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from styleavatar_core.engine.cuda.stream import CudaStream, DeviceFrame, Tensors

_WARM_UP_COUNT = 2  # libraries choose their kernels and make their work spaces then

Sample = tuple[Sequence[int], torch.dtype]  # shape, without the batch, and type


class CapturedModule:
    """Computes a module with captured graphs. Not thread-safe.

    Args:
        module: From tensors to a tuple of tensors, where the stream is: the frozen generator, or
            what makes its inputs.
        inputs: What it takes.
        stream: The engine's.
        compiled: What computes the same with fewer launches; None if nothing does.
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Iterable[Sample],
        stream: CudaStream,
        compiled: Callable[..., Tensors] | None = None,
    ) -> None:
        self._module, self._inputs, self._stream = module, list(inputs), stream
        self._compute: Callable[..., Tensors] = compiled or module
        self._frames: dict[int, DeviceFrame] = {}
        self._kept: list[torch.Tensor] = []
        stream.follow()

    @torch.inference_mode()
    def prepare(self, batch_limit: int) -> None:
        """Captures what batches of up to so many samples need.

        The largest first: what smaller ones need fits into what it has left in the pool. Where the
        batch limit was measured just before, they are there already.
        """
        for size in reversed(batch_sizes(batch_limit)):
            self._frame(size)

    def launch(self, inputs: Sequence[torch.Tensor]) -> Tensors:
        """Starts computing what is on the device already; called where the stream launches.

        Args:
            inputs: What the module takes, batch first; ``padded_count`` of samples.

        Returns:
            What it gives, on the device; the next call overwrites it.
        """
        return self._frame(len(inputs[0])).launch(inputs)

    def _frame(self, size: int) -> DeviceFrame:
        """Returns the places and the graph of a batch size; made when they are first asked for."""
        if size not in self._frames:
            self._stream.warm_up(lambda: self._make(size))
            try:
                self._frames[size].capture()
            except BaseException:
                del self._frames[size]  # it is tried again when there may be memory for it
                raise
        return self._frames[size]

    def _make(self, size: int) -> None:
        """Makes the places of a batch size, computes some times, and keeps what that reads."""
        device = self._stream.device
        inputs = tuple(
            torch.zeros((size, *shape), dtype=dtype, device=device) for shape, dtype in self._inputs
        )
        for _ in range(_WARM_UP_COUNT):
            results = self._compute(*inputs)
        if not self._kept:
            # A graph reads addresses: constants that are made once and kept by a cache of bounded
            # size must not be freed under it.
            with ReadTensors() as read:
                self._module(*inputs)
            self._kept = read.tensors()
        outputs = tuple(torch.empty_like(result) for result in results)

        def compute() -> None:
            for place, result in zip(outputs, self._compute(*inputs), strict=True):
                place.copy_(result, non_blocking=True)

        self._frames[size] = DeviceFrame(self._stream, inputs, outputs, compute)

    def close(self) -> None:
        """Frees graphs and places."""
        self._frames.clear()
        self._kept.clear()


class ReadTensors(TorchDispatchMode):
    """Notes the tensors that operators read and that none of them has made."""

    def __init__(self) -> None:
        super().__init__()
        self._read: dict[int, torch.Tensor] = {}
        self._made: dict[int, torch.Tensor] = {}  # kept, so that no other takes its place in memory

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Computes an operator, and notes what it read."""
        result = func(*args, **(kwargs or {}))
        for values, noted in ((args, self._read), (result, self._made)):
            for value in tree_leaves(values):
                if isinstance(value, torch.Tensor):
                    place = value.untyped_storage().data_ptr()
                    if place not in self._read and place not in self._made:
                        noted[place] = value
        return result

    def tensors(self) -> list[torch.Tensor]:
        """Returns those that were read."""
        return list(self._read.values())


def padded_count(count: int) -> int:
    """Returns the next power of two: graphs are captured for those only."""
    return 1 << (count - 1).bit_length()


def batch_sizes(batch_limit: int) -> list[int]:
    """Returns the sizes that batches of up to so many samples are made as large as."""
    return [1 << exponent for exponent in range(padded_count(batch_limit).bit_length())]


def compute_exactly() -> None:
    """Makes fp32 on a CUDA device fp32; else its inputs are rounded to the ten bits of TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
