# SPDX-License-Identifier: Apache-2.0
"""Tries out how many pictures at a time fit into memory, after a training ran out of it.

Each try is a process of its own under the same limits, so that one that the system kills has its
answer too. The training that failed has given back what it held before.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.engine.memory import keep_freed_memory
from styleavatar_core.errors import TrainingError
from styleavatar_core.networks import GeneratorConfig
from styleavatar_core.ops.ranks import rank_count
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.parallel import own_device
from styleavatar_core.training.samples.clips import Clip
from styleavatar_core.training.samples.feeder import Feeder
from styleavatar_core.training.schedule import Phase
from styleavatar_core.training.trainer import Trainer

logger = logging.getLogger(__name__)

_FITS, _TOO_LARGE = 0, 75
# torch, the C++ library, oneDNN, cuBLAS and cuDNN have no error type of their own for this, only
# words; oneDNN's are those of its primitives, which fail for no other reason once a step has run,
# as cuDNN finds no algorithm then for want of its workspace.
_OUT_OF_MEMORY = (
    "allocate memory",
    "out of memory",
    "bad_alloc",
    "could not create a ",
    "STATUS_ALLOC_FAILED",
    "Unable to find a valid cuDNN algorithm",
    "was unable to find an engine",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether an error means that memory did not suffice."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def too_large_batch(
    datasets: Sequence[AvatarDataset],
    generator_config: GeneratorConfig,
    config: TrainConfig,
    perceptual_weights: Path | None,
) -> TrainingError:
    """Returns the error that names the batch size that would fit; takes some seconds per try.

    Of several ranks each tries its own share.
    """
    request: dict[str, object] = {
        "datasets": [str(dataset.folder) for dataset in datasets],
        "generator": generator_config.to_dict(),
        "config": config.to_dict(),
        "perceptual_weights": str(perceptual_weights) if perceptual_weights else None,
    }
    size = _largest_fitting(request, config.batch_size // rank_count()) * rank_count()
    advice = (
        f"{size} at a time fit (tried just now): go on with --batch-size {size}, or take a smaller "
        "preset"
        if size
        else "not even one at a time fits: take a smaller preset or a machine with more memory"
    )
    return TrainingError(
        f"memory does not suffice to train preset '{generator_config.name}' with "
        f"{config.batch_size} pictures at a time; {advice}",
        reason="OUT_OF_MEMORY",
    )


def _largest_fitting(request: dict[str, object], too_large: int) -> int:
    """Returns the size that fits, to within half of it; 0 if not even one sample does."""
    fits = 0
    while too_large - fits > 1 + fits // 2:
        size = (fits + too_large) // 2
        command = [sys.executable, "-m", "styleavatar_core.training.rehearsal"]
        text = json.dumps(request | {"batch_size": size})
        result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        logger.info("batch size tried", extra={"size": size, "exit_code": result.returncode})
        if result.returncode == _FITS:
            fits = size
        elif result.returncode == _TOO_LARGE or result.returncode < 0:  # a signal: killed, aborted
            too_large = size
        else:
            raise TrainingError(f"a batch of {size} could not be tried: {result.stderr[-500:]}")
    return fits


def rehearse(
    datasets: Sequence[AvatarDataset],
    generator_config: GeneratorConfig,
    config: TrainConfig,
    perceptual_weights: Path | None,
) -> None:
    """Does two of the most demanding steps of a training, on weights of its own.

    It takes the second to see the optimizers' moments and a step's activations side by side.
    """
    keep_freed_memory()  # as a training does
    trainer = Trainer(generator_config, config, perceptual_weights, len(datasets))
    clips = [Clip(dataset) for dataset in datasets]
    given = Feeder(clips, generator_config, config, own_device(), is_ahead=False).at_step(0)
    weight = config.loss_weights.adversarial if config.adversarial_start < 1.0 else 0.0
    phase = Phase(rate=0.0, judge_rate=0.0, adversarial_weight=weight, is_static_frozen=False)
    for _ in range(2):
        trainer.step(given.batch, given.noise, phase, number=0)


def main() -> int:
    """Rehearses what standard input asks for; returns the exit code that answers it."""
    request = json.load(sys.stdin)
    weights = request["perceptual_weights"]
    config = replace(TrainConfig.from_dict(request["config"]), batch_size=request["batch_size"])
    try:
        rehearse(
            [AvatarDataset(Path(folder)) for folder in request["datasets"]],
            GeneratorConfig.from_dict(request["generator"]),
            config,
            Path(weights) if weights else None,
        )
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        return _TOO_LARGE
    return _FITS


if __name__ == "__main__":
    sys.exit(main())
