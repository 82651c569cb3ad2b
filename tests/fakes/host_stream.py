# SPDX-License-Identifier: Apache-2.0
"""A CUDA stream whose device is the host: what it has in common with a real one, without a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch

from styleavatar_core.engine.cuda.stream import CudaStream, Result, Tensors, Work


class HostStream(CudaStream):
    """Runs work at once; what comes back is there when it is waited for, and not before.

    Args:
        device: Of its tensors.
        captures: Whether work can be captured.
    """

    def __init__(self, device: str = "cpu", *, captures: bool = True) -> None:
        self.device = torch.device(device)
        self.captures = captures
        self.capture_count = 0
        self.replay_count = 0

    @property
    def handle(self) -> int:
        return 1

    def on_host(self, like: torch.Tensor) -> torch.Tensor:
        return torch.zeros(like.shape, dtype=like.dtype)

    def follow(self) -> None:
        pass

    def launch(self, work: Callable[[], Result]) -> Result:
        return work()

    def warm_up(self, work: Work) -> None:
        work()

    def bring_back(self, sources: Tensors, results: Tensors) -> Work:
        def wait() -> None:
            for source, result in zip(sources, results, strict=True):
                result.copy_(source)

        return wait

    def capture(self, work: Work) -> Work | None:
        self.capture_count += 1

        def replay() -> None:
            self.replay_count += 1
            work()

        return replay if self.captures else None

    def close(self) -> None:
        pass
