# SPDX-License-Identifier: Apache-2.0
"""What a training shows of itself: progress events, a log of figures, sample grids."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.evaluation.evaluate import mean_psnr, write_sheet
from styleavatar_core.training.avatar_networks import AvatarNetworks
from styleavatar_core.training.batches import image_array, make_batch
from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.losses import LossTable
from styleavatar_core.types import ByteArray, Progress

LOG_NAME = "training.jsonl"
SAMPLES_NAME = "samples.jpg"
_EVENT_INTERVAL_S = 1.0
_QUICK_FRAME_COUNT = 6


class NetworkRenderer:
    """Renders dataset frames with trained networks, centred window, the z_tmp of inference.

    Args:
        dataset: The clip.
        networks: Usually the averaged ones; their static maps are computed once per call of
            :meth:`refresh`.
    """

    def __init__(self, dataset: AvatarDataset, networks: AvatarNetworks) -> None:
        self._dataset = dataset
        self._networks = networks
        self.refresh()

    def refresh(self) -> None:
        """Takes in that the weights have changed."""
        with torch.inference_mode():
            self._maps = self._networks.static_maps()

    def __call__(self, index: int, style_time: float | None = None) -> tuple[ByteArray, ByteArray]:
        """Renders a frame: (S, S, 3) uint8 picture and (F, F) uint8 mask, 255 = person."""
        times = None if style_time is None else np.array([style_time])
        batch = make_batch(self._dataset, self._networks.config, [index], style_times=times)
        with torch.inference_mode():
            output = self._networks(batch, self._maps)
        mask = (output.mask[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        return image_array(output.image)[0], mask


class TrainingReporter:
    """Tells about a training, at intervals of time so that it costs little.

    Args:
        dataset: The clip.
        networks: The averaged networks.
        config: The training.
        folder: Takes log and pictures.
        on_progress: Told about events, if somebody listens.
    """

    def __init__(
        self,
        dataset: AvatarDataset,
        networks: AvatarNetworks,
        config: TrainConfig,
        folder: Path,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._dataset = dataset
        self._render = NetworkRenderer(dataset, networks)
        self._config = config
        self._folder = folder
        self._on_progress = on_progress or (lambda _: None)
        self._next_event = self._next_preview = 0.0
        held_out = np.asarray(dataset.held_out_indices)
        places = np.linspace(0, len(held_out) - 1, _QUICK_FRAME_COUNT).round().astype(int)
        self._shown = [int(index) for index in held_out[places]]
        self._psnr_db: float | None = None

    def after_step(self, clock: Clock, share: float, rate: float, losses: LossTable) -> None:
        """Reports if it is time to."""
        started = time.monotonic()
        if started < self._next_event:
            return
        self._next_event = started + _EVENT_INTERVAL_S
        preview = None
        if started >= self._next_preview:
            self._render.refresh()
            preview = write_sheet(
                self._dataset, self._render, self._shown[:3], self._folder / SAMPLES_NAME
            )
            self._next_preview = time.monotonic() + self._config.preview_interval_s
        values = losses.values()
        eta_s = clock.elapsed_s * (1.0 - share) / share if share > 0 else None
        figures = {"step": clock.step, "elapsed_s": clock.elapsed_s, "rate": rate, **values}
        if self._psnr_db is not None:
            figures["psnr_db"] = self._psnr_db
        self._log(figures)
        self._on_progress(
            Progress(
                stage="training",
                fraction=min(share, 1.0),
                message=f"step {clock.step}",
                step=clock.step,
                eta_s=eta_s,
                losses=values,
                psnr_db=self._psnr_db,
                preview_jpeg=preview,
            )
        )

    def finish(self, clock: Clock) -> None:
        """Reports the end."""
        self.evaluate()
        path = self._folder / SAMPLES_NAME
        preview = write_sheet(self._dataset, self._render, self._shown, path)
        self._on_progress(
            Progress(
                stage="training",
                fraction=1.0,
                message=f"{clock.step} steps done",
                step=clock.step,
                eta_s=0.0,
                psnr_db=self._psnr_db,
                preview_jpeg=preview,
            )
        )

    def evaluate(self) -> float:
        """Looks at some held-out frames; returns their PSNR, dB, which later events tell too."""
        self._render.refresh()
        self._psnr_db = mean_psnr(self._dataset, self._render, self._shown)
        return self._psnr_db

    def _log(self, figures: dict[str, float]) -> None:
        rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
        with (self._folder / LOG_NAME).open("a") as file:
            file.write(json.dumps(rounded) + "\n")
