# SPDX-License-Identifier: Apache-2.0
"""A CUDA stream whose device is the host: what it has in common with a real one, without a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from styleavatar_core.engine.cuda_stream import CudaStream, Work


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

    def on_host(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(tuple(shape), dtype=dtype)

    def follow(self) -> None:
        pass

    def launch(self, work: Work) -> None:
        work()

    def bring_back(self, copy: Work) -> Work:
        return copy

    def capture(self, work: Work) -> Work | None:
        self.capture_count += 1

        def replay() -> None:
            self.replay_count += 1
            work()

        return replay if self.captures else None

    def close(self) -> None:
        pass
