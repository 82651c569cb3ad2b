# SPDX-License-Identifier: Apache-2.0
"""Whether a prepared dataset is what is asked for; one that is trained on is never replaced."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

from styleavatar_core.data.dataset_info import DatasetInfo
from styleavatar_core.data.matting import RVM, SELFIE
from styleavatar_core.errors import ConflictError
from styleavatar_core.face3d.builtin import BUILTIN_MODEL_ID, EARLIER_MODEL_ID
from styleavatar_core.face3d.library import find_face_model
from styleavatar_core.face3d.model import FaceModel

BUILTIN_IDS = (BUILTIN_MODEL_ID, EARLIER_MODEL_ID)
_SHOWN = 64  # characters of a value
# What a dataset is made from and how, in words.
_NAMES = {
    "source_sha256": "sha256 of the source",
    "image_size_px": "pixels of a picture",
    "rendering_size_px": "pixels of a rendering",
    "frame_cap": "most frames",
    "model_id": "face model",
    "model_digest": "sha256 of the face model",
    "matting": "matting",
}


def choose_model(name: str, known: DatasetInfo | None, checkpoint: Path | None) -> FaceModel:
    """Returns the face model to prepare a video with.

    Where none is named, a training goes on with the built-in one that it was begun with, which need
    not be this version's.

    Args:
        name: Id of the model; empty for the built-in one.
        known: Of the dataset that is there, if one is.
        checkpoint: Of the training on it; None where it cannot have one.

    Raises:
        AssetError: There is no such face model.
    """
    if not name and _is_trained_on(known, checkpoint) and known.model_id in BUILTIN_IDS:
        name = known.model_id
    return find_face_model(name)


def choose_matting(weights: Path | None, known: DatasetInfo | None, checkpoint: Path | None) -> str:
    """Returns the name of the matting to prepare a video with.

    Where no weights are given, a training goes on with the masks that it was begun with.

    Args:
        weights: Of Robust Video Matting, if they are given.
        known: Of the dataset that is there, if one is.
        checkpoint: Of the training on it; None where it cannot have one.
    """
    if weights is not None:
        return RVM
    return known.matting if _is_trained_on(known, checkpoint) else SELFIE


def _is_trained_on(known: DatasetInfo | None, checkpoint: Path | None) -> TypeGuard[DatasetInfo]:
    return known is not None and checkpoint is not None and checkpoint.exists()


def made_with(info: DatasetInfo) -> dict[str, object]:
    """Returns what decides whether another dataset may stand for this one."""
    return {name: getattr(info, name) for name in _NAMES}


def differences(info: DatasetInfo, wanted: Mapping[str, object]) -> list[str]:
    """Says how a dataset differs from what is asked for.

    Args:
        info: Of the dataset.
        wanted: Some fields of the other's.
    """
    return [
        f"{_NAMES[name]}: {str(has)[:_SHOWN]}, now {str(value)[:_SHOWN]}"
        for name, value in wanted.items()
        if (has := getattr(info, name)) != value
    ]


def require_no_training(checkpoint: Path | None, info: DatasetInfo, different: list[str]) -> None:
    """Refuses to replace the dataset that a training is on.

    Args:
        checkpoint: Of the training; None where it cannot have one.
        info: Of the dataset.
        different: What is not as asked for.

    Raises:
        ConflictError: There is a training.
    """
    if checkpoint is None or not checkpoint.exists():
        return
    raise ConflictError(
        f"{checkpoint.parent} holds a training on {info.source_name}, prepared otherwise than what "
        f"is given ({'; '.join(different)}): go on with what it was begun with, use another "
        f"folder, or remove {checkpoint.parent} to begin anew"
    )
