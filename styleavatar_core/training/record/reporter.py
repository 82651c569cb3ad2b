# SPDX-License-Identifier: Apache-2.0
"""What a training shows of itself: progress events, a log of figures, sample grids."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.data.picture import contact_sheet, encode_jpeg
from styleavatar_core.data.spread import spread_evenly
from styleavatar_core.evaluation.evaluate import mean_psnr, write_sheet
from styleavatar_core.networks import fixed_noise
from styleavatar_core.ops.ranks import own_rank
from styleavatar_core.training.avatar_networks import AvatarNetworks
from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.parallel import told_by_first_rank
from styleavatar_core.training.record.log import LOG_NAME, cut_log
from styleavatar_core.training.record.side_files import SideFiles, append_whole
from styleavatar_core.training.samples.batches import make_batch
from styleavatar_core.training.samples.pictures import image_array
from styleavatar_core.types import ByteArray, Progress

SAMPLES_NAME = "samples.jpg"
_EVENT_INTERVAL_S = 1.0
_QUICK_FRAME_COUNT = 6
_PREVIEW_PX = 256  # of each frame


class NetworkRenderer:
    """Renders dataset frames with trained networks as engines do: window, z_tmp and noise.

    Args:
        dataset: The clip.
        networks: Usually the averaged ones; their static maps are computed once per call of
            :meth:`refresh`.
        clip: Which of the clips that were trained on it is.
    """

    def __init__(self, dataset: AvatarDataset, networks: AvatarNetworks, clip: int = 0) -> None:
        self.dataset = dataset
        self._networks = networks
        self._clip = clip
        noise = fixed_noise(networks.config)
        self._noise = noise and noise.to(networks.face_start.device)
        self.refresh()

    def refresh(self) -> None:
        """Takes in that the weights have changed."""
        with torch.inference_mode():
            self._maps = self._networks.static_maps(self._clip)

    def __call__(self, index: int, style_time: float | None = None) -> tuple[ByteArray, ByteArray]:
        """Renders a frame: (S, S, 3) uint8 picture and (F, F) uint8 mask, 255 = person."""
        times = None if style_time is None else np.array([style_time])
        batch = make_batch(self.dataset, self._networks.config, [index], style_times=times)
        batch = batch.to(self._networks.face_start.device)
        with torch.inference_mode():
            output = self._networks(batch, self._maps, self._noise)
        mask = (output.mask[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        return image_array(output.image)[0], mask


class TrainingReporter:
    """Tells about a training, at intervals of time so that it costs little; the first rank only.

    Where log or pictures cannot be written, as on a full disk, the training goes on without.

    Args:
        datasets: The clips.
        networks: The averaged networks.
        config: The training.
        folder: Takes log and pictures.
        on_progress: Told about events, if somebody listens.
    """

    def __init__(
        self,
        datasets: Sequence[AvatarDataset],
        networks: AvatarNetworks,
        config: TrainConfig,
        folder: Path,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._clips = [NetworkRenderer(clip, networks, i) for i, clip in enumerate(datasets)]
        self._preview_count = 0
        self._config = config
        self._folder = folder
        self._on_progress = on_progress or (lambda _: None)
        self._next_event = self._next_preview = 0.0
        self._psnr_db: float | None = None
        self._files = SideFiles()

    def begin(self, clock: Clock) -> None:
        """Begins the log anew, or goes on with it where the training does."""
        if own_rank() == 0:
            with self._files.going_on_without(LOG_NAME):
                cut_log(self._folder / LOG_NAME, clock.step)

    def after_step(self, clock: Clock, share: float, rate: float, losses: dict[str, float]) -> None:
        """Reports if it is time to."""
        started = time.monotonic()
        if own_rank() != 0 or started < self._next_event:
            return
        self._next_event = started + _EVENT_INTERVAL_S
        preview = None
        if started >= self._next_preview:
            preview = self._draw_preview(_QUICK_FRAME_COUNT // 2)
            self._next_preview = time.monotonic() + self._config.preview_interval_s
        eta_s = clock.elapsed_s * (1.0 - share) / share if share > 0 else None
        figures = {"step": clock.step, "elapsed_s": clock.elapsed_s, "rate": rate, **losses}
        if self._psnr_db is not None:
            figures["psnr_db"] = self._psnr_db
        self._log(figures)
        told = self._progress(clock, share)
        self._on_progress(replace(told, eta_s=eta_s, losses=losses, preview_jpeg=preview))

    def after_recovery(self, clock: Clock, share: float) -> None:
        """Tells at once that the training has gone back, and why."""
        if own_rank() == 0:
            self._on_progress(self._progress(clock, share))

    def _progress(self, clock: Clock, share: float) -> Progress:
        """Returns what every event of a training tells."""
        return Progress(
            stage="training",
            fraction=min(share, 1.0),
            message=_message(clock),
            step=clock.step,
            psnr_db=self._psnr_db,
        )

    def finish(self, clock: Clock) -> None:
        """Reports the end."""
        self.evaluate()
        if own_rank() != 0:
            return
        preview = self._draw_preview(_QUICK_FRAME_COUNT)
        self._on_progress(
            Progress(
                stage="training",
                fraction=1.0,
                message=f"finished at step {clock.step}",
                step=clock.step,
                eta_s=0.0,
                psnr_db=self._psnr_db,
                preview_jpeg=preview,
            )
        )

    def evaluate(self) -> float:
        """Looks at some watched frames; returns their PSNR, dB, which later events tell too."""
        self._psnr_db = told_by_first_rank(self._measure() if own_rank() == 0 else 0.0)
        return self._psnr_db

    def _measure(self) -> float:
        """Returns the mean PSNR over all clips, of equally many frames each."""
        count = math.ceil(_QUICK_FRAME_COUNT / len(self._clips))
        values = []
        for clip in self._clips:
            clip.refresh()
            shown = spread_evenly(clip.dataset.watched_indices, count)
            values.append(mean_psnr(clip.dataset, clip, shown))
        return sum(values) / len(values)

    def _draw_preview(self, frame_count: int) -> bytes:
        """Draws watched frames of one clip, another one each time.

        Returns:
            The JPEG of what was drawn alone: beside the person's frames it lies in the folder.
        """
        clip = self._clips[self._preview_count % len(self._clips)]
        self._preview_count += 1
        clip.refresh()
        shown = spread_evenly(clip.dataset.watched_indices, frame_count)
        drawn = {index: clip(index) for index in shown}
        with self._files.going_on_without(SAMPLES_NAME):
            write_sheet(clip.dataset, drawn.__getitem__, shown, self._folder / SAMPLES_NAME)
        return encode_jpeg(contact_sheet([[image for image, _ in drawn.values()]], _PREVIEW_PX))

    def _log(self, figures: dict[str, float]) -> None:
        rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
        line = json.dumps(rounded) + "\n"
        with self._files.going_on_without(LOG_NAME):
            append_whole(self._folder / LOG_NAME, line.encode())


def _message(clock: Clock) -> str:
    """Returns the line for people; what went wrong stays in it."""
    if not clock.recoveries:
        return f"step {clock.step}"
    return f"step {clock.step}, gone back {len(clock.recoveries)}x ({clock.recoveries[-1]})"
