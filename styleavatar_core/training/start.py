# SPDX-License-Identifier: Apache-2.0
"""Starts an avatar from what another training has learned (paper, Sec. 3.4).

Everything is taken over from a checkpoint: networks, feature generators, discriminator; all but
what the other clips look like. Of a pre-training the new avatar takes the z_id that stands for
nobody in particular. A bundle has no feature generators, as rendering needs none; its static maps
are learned anew.
"""

from __future__ import annotations

from pathlib import Path

import torch

from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.avatar.bundle_path import find_bundle
from styleavatar_core.errors import InvalidInputError, NotFoundError
from styleavatar_core.training.avatar_networks import STARTS
from styleavatar_core.training.dataset.match import BUILTIN_IDS
from styleavatar_core.training.record.checkpoint import (
    checkpoint_in,
    read_face_model,
    read_module,
)
from styleavatar_core.training.trainer import Trainer

CHECKPOINT_SUFFIX = ".safetensors"


def find_start(source: Path) -> Path:
    """Returns the checkpoint or bundle that a path means.

    Args:
        source: A checkpoint (``checkpoint.safetensors``), the work folder of a training or
            pre-training, or a bundle (directory, zip file or OUT of ``train``).

    Raises:
        NotFoundError: There is none.
    """
    checkpoint = checkpoint_in(source)
    if checkpoint.exists():
        return checkpoint
    if source.suffix == CHECKPOINT_SUFFIX and source.is_file():
        return source
    try:
        return find_bundle(source)
    except NotFoundError as error:
        raise NotFoundError(
            f"there is nothing to start from at {source}: neither a training, nor a pre-training, "
            "nor a checkpoint, nor an avatar; correct --from, or leave it out"
        ) from error


def require_same_face_model(source: Path, model_id: str) -> None:
    """Refuses to start from what was trained with another face model.

    The built-in ones differ in the mouth's inside only; older checkpoints do not say theirs.

    Args:
        source: See :func:`find_start`.
        model_id: Of the clip to be trained on.

    Raises:
        NotFoundError: There is no source.
        InvalidInputError: It is of another face model.
    """
    place = find_start(source)
    is_checkpoint = place.suffix == CHECKPOINT_SUFFIX
    manifest = None if is_checkpoint else read_bundle(place, verify=False).manifest
    theirs = manifest.model_id if manifest else read_face_model(place)
    if theirs in ("", model_id) or {theirs, model_id} <= set(BUILTIN_IDS):
        return
    raise InvalidInputError(
        f"{source.name} was trained with the face model '{theirs}', not with '{model_id}', whose "
        f"texture coordinates mean other places of a face; use --face-model {theirs}, or start "
        "from another"
    )


def start_from_avatar(trainer: Trainer, source: Path) -> None:
    """Takes over the weights of another avatar.

    Args:
        trainer: Has taken no step yet.
        source: See :func:`find_start`.

    Raises:
        NotFoundError: There is no source.
        AssetError: It cannot be read.
        InvalidInputError: It belongs to another preset.
    """
    source = find_start(source)
    try:
        if source.suffix == CHECKPOINT_SUFFIX:
            read_module(source, "average", trainer.networks, besides=STARTS)
            read_module(source, "judge", trainer.judge)
        else:
            weights = read_bundle(source).generator()
            state = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
            trainer.networks.generator.load_state_dict(state)
    except RuntimeError as error:
        raise InvalidInputError(
            f"{source.name} is of another preset than '{trainer.networks.config.name}'; start from "
            "an avatar of the same preset"
        ) from error
    trainer.average.networks.load_state_dict(trainer.networks.state_dict())
