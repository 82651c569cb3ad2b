# SPDX-License-Identifier: Apache-2.0
"""The training of an avatar (paper, Sec. 3.2-3.4): one function from top to bottom."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from styleavatar_core.cores import usable_core_count
from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.engine.memory import give_back_memory, keep_freed_memory
from styleavatar_core.errors import TrainingCanceled
from styleavatar_core.networks import GeneratorConfig
from styleavatar_core.training.avatar_networks import AvatarNetworks
from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.parallel import own_device, require_even_shares, told_by_first_rank
from styleavatar_core.training.perceptual import STRUCTURE_LOSS, VGG19_LOSS
from styleavatar_core.training.record.checkpoint import (
    CHECKPOINT_NAME,
    load_checkpoint,
    read_module,
    read_settings,
    save_checkpoint,
)
from styleavatar_core.training.record.good_checkpoint import GoodCheckpoint
from styleavatar_core.training.record.reporter import TrainingReporter
from styleavatar_core.training.record.resumption import check_settings
from styleavatar_core.training.recovery import find_trouble, observe, recover, require_another_try
from styleavatar_core.training.rehearsal import is_out_of_memory, too_large_batch
from styleavatar_core.training.samples.clips import Clip
from styleavatar_core.training.samples.feeder import Feeder
from styleavatar_core.training.schedule import (
    after_evaluation,
    budget_share,
    checkpoint_pause_s,
    evaluation_is_due,
    phase_at,
    under_budget,
)
from styleavatar_core.training.start import require_same_face_model, start_from_avatar
from styleavatar_core.training.trainer import Trainer
from styleavatar_core.types import Progress

logger = logging.getLogger(__name__)


def train(
    datasets: Sequence[AvatarDataset],
    generator_config: GeneratorConfig,
    config: TrainConfig,
    folder: Path,
    *,
    perceptual_weights: Path | None = None,
    start: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Trains until the budget is used up; goes on from the folder's checkpoint if there is one.

    The budget is cut when the watched frames' quality has stopped rising, see ``schedule``. On
    several ranks (see ``parallel``) all call this with the same arguments.

    Args:
        datasets: The prepared clip; several for a pre-training (Sec. 3.4).
        generator_config: The preset.
        config: How to train.
        folder: Takes checkpoint, log and pictures.
        perceptual_weights: VGG19 weights, if there are any.
        start: Checkpoint or bundle of another avatar to start from.
        on_progress: Told about once a second how far it is.
        should_stop: Asked after each step; a checkpoint is written before stopping.

    Returns:
        The checkpoint.

    Raises:
        InvalidInputError: The ranks cannot share the batch evenly, or ``start`` is of another
            preset or face model.
        ConflictError: The folder's checkpoint is of another video, face model, preset,
            seed or perceptual loss; or the budget is smaller than before, and used up.
        TrainingCanceled: ``should_stop`` said so.
        TrainingError: The training diverged again and again, and the good checkpoint is now the
            last; or memory does not suffice.
    """
    require_even_shares(config.batch_size)
    keep_freed_memory()
    torch.set_num_threads(min(torch.get_num_threads(), usable_core_count()))
    try:
        return _train(
            datasets,
            generator_config,
            config,
            folder,
            perceptual_weights,
            start,
            on_progress,
            should_stop,
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler: what the failed step held is free now, and must not count against a try.
    give_back_memory()
    raise too_large_batch(datasets, generator_config, config, perceptual_weights)


def _train(
    datasets: Sequence[AvatarDataset],
    generator_config: GeneratorConfig,
    config: TrainConfig,
    folder: Path,
    perceptual_weights: Path | None,
    start: Path | None,
    on_progress: Callable[[Progress], None] | None,
    should_stop: Callable[[], bool] | None,
) -> Path:
    """The training itself, read from top to bottom; see :func:`train`."""
    clips = [Clip(dataset) for dataset in datasets]
    trainer = Trainer(generator_config, config, perceptual_weights, len(clips))
    path = folder / CHECKPOINT_NAME
    is_new = bool(told_by_first_rank(not path.exists()))
    if is_new:
        _begin(trainer, clips, generator_config, start)
    reporter = TrainingReporter(datasets, trainer.average.networks, config, folder, on_progress)
    fingerprint = _fingerprint(datasets, generator_config, config)
    loss_name = VGG19_LOSS if perceptual_weights else STRUCTURE_LOSS
    state = (trainer.modules, trainer.optimizers, fingerprint, loss_name)
    facts = (config, datasets[0].info.model_id)
    clock = Clock(started_from=start.name if start else "")
    good = GoodCheckpoint(path, is_new=is_new)
    if is_new:
        save_checkpoint(path, clock, *state, *facts)
    else:
        clock = under_budget(load_checkpoint(path, *state), read_settings(path), config)
        check_settings(path, clock, config, start)
        if budget_share(clock, config) < 1.0:
            clock = replace(clock, resume_count=clock.resume_count + 1)
            logger.info("training resumed", extra={"step": clock.step})
    good.after_save(clock.step)
    reporter.begin(clock)
    saved_s, saving_s = clock.elapsed_s, 0.0

    with closing(Feeder(clips, generator_config, config, own_device())) as feeder:
        started = time.monotonic()
        while budget_share(clock, config) < 1.0:
            phase = phase_at(clock, config)
            given = feeder.at_step(clock.step)
            result = trainer.step(given.batch, given.noise, phase, clock.step)
            clock = replace(clock, health=observe(clock.health, result))
            if trouble := find_trouble(clock.health, result):
                saved = under_budget(
                    load_checkpoint(good.path, *state), read_settings(good.path), config
                )
                clock = recover(saved, clock, trouble)
                trainer.forget_maps()
                save_checkpoint(path, clock, *state, *facts)
                good.after_recovery(clock.step)
                reporter.after_recovery(clock, budget_share(clock, config))
                require_another_try(clock)
                continue
            clock = replace(clock, step=clock.step + 1)
            if evaluation_is_due(clock, config):
                clock = after_evaluation(clock, reporter.evaluate(), config)
            losses = result.losses | result.judge
            reporter.after_step(clock, budget_share(clock, config), phase.rate, losses)
            # Writing a checkpoint, or going back to one, counts with the step after it.
            now = time.monotonic()
            elapsed_s, started = told_by_first_rank(clock.elapsed_s + now - started), now
            clock = replace(clock, elapsed_s=elapsed_s)
            stops = bool(told_by_first_rank(should_stop is not None and should_stop()))
            if stops or clock.elapsed_s - saved_s >= checkpoint_pause_s(config, saving_s):
                save_checkpoint(path, clock, *state, *facts)
                good.after_save(clock.step)
                saved_s = told_by_first_rank(clock.elapsed_s + time.monotonic() - started)
                saving_s = saved_s - clock.elapsed_s
            if stops:
                raise TrainingCanceled
    save_checkpoint(path, clock, *state, *facts)
    reporter.finish(clock)
    good.remove()
    return path


def _begin(
    trainer: Trainer, clips: Sequence[Clip], generator_config: GeneratorConfig, start: Path | None
) -> None:
    """Gives a new training what its clips look like, and what another one has learned."""
    if start is not None:
        require_same_face_model(start, clips[0].dataset.info.model_id)
        start_from_avatar(trainer, start)
    for index, clip in enumerate(clips):
        texture, plate = clip.appearance(generator_config)
        for networks in (trainer.networks, trainer.average.networks):
            networks.start_from(index, texture, plate)


def load_average(path: Path, config: GeneratorConfig) -> tuple[AvatarNetworks, Clock]:
    """Reads the averaged networks of a checkpoint, whatever video it belongs to."""
    networks = AvatarNetworks(config)
    clock = read_module(path, "average", networks)
    return networks.eval().requires_grad_(False), clock


def _fingerprint(
    datasets: Sequence[AvatarDataset], generator_config: GeneratorConfig, config: TrainConfig
) -> str:
    """Returns what must agree for a training to go on: videos, face model, masks, preset, seed."""
    videos = [
        (info.source_sha256, info.frame_count, info.model_id, info.model_digest, info.matting)
        for info in (dataset.info for dataset in datasets)
    ]
    parts = (videos, generator_config.to_dict(), config.seed)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
