# SPDX-License-Identifier: Apache-2.0
"""Speed of training steps on this machine: ``python -m benchmarks.training --preset lite``."""

from __future__ import annotations

import resource
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer

from benchmarks.report import build_report, print_report, write_report
from styleavatar_core.data.sample_clip import make_sample_clip
from styleavatar_core.engine.memory import keep_freed_memory
from styleavatar_core.networks import get_preset
from styleavatar_core.training.avatar_networks import AvatarNetworks
from styleavatar_core.training.batches import BatchSampler
from styleavatar_core.training.clips import Clip
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.losses import reconstruction_losses
from styleavatar_core.training.prepare import prepare_dataset


def main(
    preset: Annotated[str, typer.Option(help="Network preset.")] = "lite",
    steps: Annotated[int, typer.Option(help="Steps to time.")] = 20,
    json_path: Annotated[Path | None, typer.Option("--json", help="Report file.")] = None,
    quick: Annotated[bool, typer.Option(help="Cheap values, never quoted.")] = False,
) -> None:
    preset, steps = ("nano", 2) if quick else (preset, steps)
    with TemporaryDirectory() as temporary:
        clip = make_sample_clip(Path(temporary) / "sample.mp4", 6.0, size_px=256, seed=0)
        figures = time_steps(clip.path, Path(temporary) / "dataset", preset, steps)
    report = build_report("training", figures, {"preset": preset, "steps": steps, "quick": quick})
    print_report(report)
    if json_path is not None:
        write_report(report, json_path)


def time_steps(video: Path, folder: Path, preset: str, steps: int) -> dict[str, float]:
    """Times whole steps of the generator (without the discriminator) and their data."""
    keep_freed_memory()
    config, train = get_preset(preset), TrainConfig()
    sampler = BatchSampler([Clip(prepare_dataset(video, folder, config))], config, train)
    networks = AvatarNetworks(config).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(networks.parameters(), lr=1e-3, fused=True)
    whole: list[float] = []
    waiting: list[float] = []
    for step in range(steps + 2):
        start = time.perf_counter()
        batch = sampler.at_step(step)
        ready = time.perf_counter()
        loss = reconstruction_losses(networks(batch), batch, train.loss_weights).total()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        whole.append(time.perf_counter() - start)
        waiting.append(ready - start)
    typical = statistics.median(whole[2:])  # the first two compile kernels and grow the heap
    return {
        "images_per_second": train.batch_size / typical,
        "data_wait_percent": 100 * statistics.median(waiting[2:]) / typical,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    typer.run(main)
