# SPDX-License-Identifier: Apache-2.0
"""Speed of training steps on this machine: ``python -m benchmarks.training --preset lite``.

Steps of the trainer and of a plain eager fp32 version of the same (``training_parts/plain.py``) are
timed in turns, so that what else the machine does slows both.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch

from benchmarks.report import build_report, print_report, write_report
from benchmarks.training_parts.plain import PlainTrainer
from styleavatar_core.engine.memory import keep_freed_memory
from styleavatar_core.networks import get_preset
from styleavatar_core.sample.clip import make_sample_clip
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.dataset.prepare import prepare_dataset
from styleavatar_core.training.parallel import own_device
from styleavatar_core.training.samples.clips import Clip
from styleavatar_core.training.samples.feeder import Feeder
from styleavatar_core.training.schedule import Phase
from styleavatar_core.training.trainer import Trainer

Result = TypeVar("Result")

_WARM_UP_STEPS = 2  # the first compile kernels and grow the heap
# The step that most of a training consists of: all networks learn, the discriminator not yet.
_PHASE = Phase(rate=1e-3, judge_rate=1e-3, adversarial_weight=0.0, is_static_frozen=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="lite", help="network preset")
    parser.add_argument("--steps", type=int, default=20, help="steps to time")
    parser.add_argument("--json", type=Path, help="report file")
    parser.add_argument("--quick", action="store_true", help="cheap values, never quoted")
    read = parser.parse_args()
    preset, steps = ("nano", 2) if read.quick else (read.preset, read.steps)
    with TemporaryDirectory() as temporary:
        clip = make_sample_clip(Path(temporary) / "sample.mp4", 6.0, size_px=256, seed=0)
        figures = time_steps(clip.path, Path(temporary) / "dataset", preset, steps)
    options = {"preset": preset, "steps": steps, "quick": read.quick}
    report = build_report("training", figures, options)
    print_report(report)
    if read.json is not None:
        write_report(report, read.json)


def time_steps(video: Path, folder: Path, preset: str, steps: int) -> dict[str, float]:
    """Times whole steps with their data, and the plain version on the same batches."""
    keep_freed_memory()
    config, settings = get_preset(preset), TrainConfig()
    clips = [Clip(prepare_dataset(video, folder, config))]
    trainer = Trainer(config, settings)
    with closing(Feeder(clips, config, settings, own_device())) as feeder:
        times = [_time_step(trainer, feeder, step) for step in range(_WARM_UP_STEPS + steps)]
    peak_memory_mb = _peak_memory_mb()  # before the plain version takes its own
    wait_s, step_s = (sum(part) for part in zip(*times[_WARM_UP_STEPS:], strict=True))
    plain, ratios = PlainTrainer(config, settings), []
    still = Feeder(clips, config, settings, own_device(), is_ahead=False)
    for step in range(_WARM_UP_STEPS + steps):
        given = still.at_step(step)
        _, fast_s = _timed(partial(trainer.step, given.batch, given.noise, _PHASE, step))
        _, slow_s = _timed(partial(plain.step, given.batch, given.noise, _PHASE, step))
        ratios.append(slow_s / fast_s)
    return {
        "images_per_second": settings.batch_size * steps / (wait_s + step_s),
        "speedup_over_eager_fp32": statistics.median(ratios[_WARM_UP_STEPS:]),
        "data_wait_percent": 100 * wait_s / (wait_s + step_s),
        "peak_memory_mb": peak_memory_mb,
    }


def _time_step(trainer: Trainer, feeder: Feeder, step: int) -> tuple[float, float]:
    """Returns the seconds that a step waits for its data, as a training does, and that it takes."""
    given, wait_s = _timed(partial(feeder.at_step, step))
    _, step_s = _timed(partial(trainer.step, given.batch, given.noise, _PHASE, step))
    return wait_s, step_s


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Returns a result and the seconds that it took, on a GPU until it was done there."""
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - started


def _peak_memory_mb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
