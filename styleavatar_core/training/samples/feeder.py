# SPDX-License-Identifier: Apache-2.0
"""What a step takes, samples and noise, prepared before it asks for them where that helps.

Both are functions of seed and step alone, so it makes no difference when they are prepared.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from styleavatar_core.networks import GeneratorConfig, Noise, fixed_noise, sample_noise
from styleavatar_core.ops.ranks import own_share
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.samples.batches import Batch, BatchSampler
from styleavatar_core.training.samples.clips import Clip


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What one step takes.

    Attributes:
        batch: This rank's samples.
        noise: Theirs, for presets that inject noise.
    """

    batch: Batch
    noise: Noise | None


class Feeder:
    """Gives each step what it takes.

    Args:
        clips: What is trained on.
        generator_config: The preset.
        config: The training.
        device: Where steps are computed. For a GPU a thread prepares the next step meanwhile, in
            memory that the GPU copies from by itself. On a CPU the step has all cores: nothing
            would be gained.
        is_ahead: Whether the next step is prepared meanwhile, whatever the device; by the device
            if None.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        generator_config: GeneratorConfig,
        config: TrainConfig,
        device: torch.device,
        *,
        is_ahead: bool | None = None,
    ) -> None:
        self._sampler = BatchSampler(clips, generator_config, config)
        self._generator_config, self._config = generator_config, config
        self._still = fixed_noise(generator_config)
        self._is_pinned = device.type == "cuda"
        is_ahead = self._is_pinned if is_ahead is None else is_ahead
        self._thread = ThreadPoolExecutor(1, "feeder") if is_ahead else None
        self._ahead: dict[int, Future[StepInputs]] = {}

    def at_step(self, step: int) -> StepInputs:
        """Returns what a step takes; any step may be asked for."""
        if self._thread is None:
            return self._prepare(step)
        waiting = self._ahead.pop(step, None) or self._thread.submit(self._prepare, step)
        for other in self._ahead.values():  # after a step back
            other.cancel()
        self._ahead = {step + 1: self._thread.submit(self._prepare, step + 1)}
        return waiting.result()

    def close(self) -> None:
        """Ends the thread; nothing may be asked for afterwards."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def _prepare(self, step: int) -> StepInputs:
        batch, noise = self._sampler.at_step(step), self._noise(step)
        if not self._is_pinned:
            return StepInputs(batch, noise)
        return StepInputs(batch.pinned(), noise and noise.pinned())

    def _noise(self, step: int) -> Noise | None:
        """Draws noise that moves with the person; the background's is always that of inference."""
        size = self._config.batch_size
        source = torch.Generator().manual_seed(self._config.seed * 1_000_003 + step)
        noise = sample_noise(self._generator_config, size, generator=source)
        if noise is None or self._still is None:
            return None
        still = self._still.background.expand(size, -1, -1, -1)
        return Noise(noise.foreground, noise.face, still).of(own_share())
