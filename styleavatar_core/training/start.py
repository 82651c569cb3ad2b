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
from torch import nn

from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.avatar.bundle_files import Tensors
from styleavatar_core.avatar.bundle_path import find_bundle
from styleavatar_core.errors import InvalidInputError, NotFoundError
from styleavatar_core.networks import Discriminator, GeneratorConfig, PortraitGenerator
from styleavatar_core.training.avatar_networks import STARTS, AvatarNetworks
from styleavatar_core.training.dataset.match import BUILTIN_IDS
from styleavatar_core.training.record.checkpoint import (
    checkpoint_in,
    read_face_model,
    read_module,
    read_shapes,
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


def require_same_preset(source: Path, config: GeneratorConfig) -> None:
    """Refuses to start from networks of other sizes.

    Args:
        source: See :func:`find_start`.
        config: The preset that is to be trained.

    Raises:
        NotFoundError: There is no source.
        AssetError: It cannot be read.
        InvalidInputError: It belongs to another preset.
    """
    _read_start(source, config)


def _read_start(source: Path, config: GeneratorConfig) -> tuple[Path, Tensors | None]:
    """Returns the checkpoint, or the bundle and its weights, if they are of the preset."""
    place = find_start(source)
    if place.suffix != CHECKPOINT_SUFFIX:
        # Compared with their sha256.
        weights = read_bundle(place, verify=False).generator()
        with torch.device("meta"):
            generator = PortraitGenerator(config)
        if _shapes(generator) != {name: x.shape for name, x in weights.items()}:
            raise _another_preset(source, config)
        return place, weights
    with torch.device("meta"):
        networks, judge = AvatarNetworks(config), Discriminator(config.discriminator)
    is_same = _shapes(networks) == _without_starts(read_shapes(place, "average"))
    if not (is_same and _shapes(judge) == read_shapes(place, "judge")):
        raise _another_preset(source, config)
    return place, None


def _another_preset(source: Path, config: GeneratorConfig) -> InvalidInputError:
    return InvalidInputError(
        f"{source.name} is of another preset than '{config.name}'; start from an avatar of the "
        "same preset"
    )


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    return _without_starts(shapes)


def _without_starts(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if name not in STARTS}


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
    place, weights = _read_start(source, trainer.networks.config)
    if weights is None:
        read_module(place, "average", trainer.networks, besides=STARTS)
        read_module(place, "judge", trainer.judge)
    else:
        state = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
        trainer.networks.generator.load_state_dict(state)
    trainer.average.networks.load_state_dict(trainer.networks.state_dict())
