# SPDX-License-Identifier: Apache-2.0
"""A frozen generator on a CUDA device as one captured graph: a frame is one launch, not hundreds.

Inputs and outputs have fixed places on the device and in pinned memory, for each batch size. That
nothing between them touches the host is tested without a GPU; this file has not run on one yet.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

logger = logging.getLogger(__name__)

_WARM_UP_COUNT = 3  # libraries choose their kernels and make their work spaces then


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the inputs and outputs of one batch size are.

    Attributes:
        given: Inputs in pinned memory.
        inputs: The same on the device.
        outputs: Image and mask on the device.
        results: The same in pinned memory.
        graph: What computes them; None where it could not be captured.
    """

    given: tuple[torch.Tensor, ...]
    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    results: tuple[torch.Tensor, ...]
    graph: torch.cuda.CUDAGraph | None


class CapturedGenerator:
    """Renders with captured graphs. Not thread-safe.

    Args:
        generator: The frozen generator, or what makes its inputs, on a CUDA device.
        device: That device.
    """

    def __init__(self, generator: nn.Module, device: str) -> None:
        self._generator, self._device = generator, torch.device(device)
        self._frames: dict[int, _Frame] = {}

    def render(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Renders a batch.

        Args:
            arrays: What the generator takes, in its order; batch first.

        Returns:
            Image and mask, as the generator gives them.
        """
        hosts = [torch.from_numpy(array) for array in arrays]
        frame = self._frame(hosts)
        for source, given, target in zip(hosts, frame.given, frame.inputs, strict=True):
            given.copy_(source)
            target.copy_(given, non_blocking=True)
        for output, result in zip(self._start(frame), frame.results, strict=True):
            result.copy_(output, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return tuple(result.numpy().copy() for result in frame.results)

    def launch(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Starts rendering what is on the device already; the next call overwrites the outputs."""
        frame = self._frame(inputs)
        for source, target in zip(inputs, frame.inputs, strict=True):
            target.copy_(source, non_blocking=True)
        return self._start(frame)

    def _frame(self, samples: Sequence[torch.Tensor]) -> _Frame:
        """Returns the places for a batch of this size, captured when the first one comes."""
        count = len(samples[0])
        if count not in self._frames:
            self._frames[count] = self._capture(samples)
        return self._frames[count]

    def _start(self, frame: _Frame) -> tuple[torch.Tensor, ...]:
        """Renders what lies in a frame's inputs, without waiting for it."""
        if frame.graph is None:
            outputs: tuple[torch.Tensor, ...] = self._generator(*frame.inputs)
            return outputs
        frame.graph.replay()
        return frame.outputs

    def _capture(self, samples: Sequence[torch.Tensor]) -> _Frame:
        """Renders a few times, then captures what is launched."""
        given = tuple(torch.empty(s.shape, dtype=s.dtype, pin_memory=True) for s in samples)
        inputs = tuple(
            torch.empty(s.shape, dtype=s.dtype, device=self._device).copy_(s) for s in samples
        )
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_COUNT):
                outputs = self._generator(*inputs)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        captured = torch.cuda.CUDAGraph()
        graph: torch.cuda.CUDAGraph | None = captured
        try:
            with torch.cuda.graph(captured):
                outputs = self._generator(*inputs)
        except RuntimeError as error:
            logger.warning(
                "frames cannot be captured and are launched kernel by kernel, which is slower",
                extra={"why": str(error)},
            )
            graph, outputs = None, self._generator(*inputs)
        results = tuple(torch.empty_like(o, device="cpu").pin_memory() for o in outputs)
        return _Frame(given, inputs, outputs, results, graph)
