# SPDX-License-Identifier: Apache-2.0
"""What is measured of an engine, and what it holds in memory."""

from __future__ import annotations

import ctypes
import gc
from dataclasses import dataclass

import psutil
import torch

Figures = dict[str, float | None]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured.

    Attributes:
        preset: Name of the preset.
        backend: Name of the runtime, or of a baseline.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        batch_size: Samples per call.
        frames: Timed calls, at most.
        seconds: Time for them; some are made in any case.
        thread_count: Threads of a runtime.
        stream_count: Avatars of the preset that render side by side; 1 leaves that out.
    """

    preset: str
    backend: str
    precision: str
    batch_size: int
    frames: int
    seconds: float
    thread_count: int
    stream_count: int = 1

    @property
    def name(self) -> str:
        """Prefix of its figures."""
        return f"{self.preset}.{self.backend}.{self.precision}.b{self.batch_size}"


@dataclass(frozen=True, slots=True)
class Held:
    """Memory that is held, MB.

    Attributes:
        host: By this process.
        device: On the GPU, by all who use it; None where there is no GPU.
    """

    host: float
    device: float | None

    @classmethod
    def now(cls) -> Held:
        """What is held now, without what has been freed."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        host = psutil.Process().memory_info().rss / 2**20
        if DEVICE != "cuda":
            return cls(host, None)
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        return cls(host, (total - free) / 2**20)

    def growth_since(self, before: Held, name: str, count: int = 1) -> Figures:
        """Returns by how much each of ``count`` engines made it grow, as figures."""
        figures: Figures = {f"{name}_mb": max(0.0, self.host - before.host) / count}
        if self.device is not None and before.device is not None:
            figures[f"device_{name}_mb"] = max(0.0, self.device - before.device) / count
        return figures
