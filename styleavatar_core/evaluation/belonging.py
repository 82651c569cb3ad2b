# SPDX-License-Identifier: Apache-2.0
"""Whether a dataset is the one that an avatar learned from: else its frames are no truth for it."""

from __future__ import annotations

from collections.abc import Mapping

from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.data.dataset_info import DatasetInfo
from styleavatar_core.errors import ConflictError


def teacher_of(manifest: AvatarManifest, info: DatasetInfo) -> Mapping[str, str] | None:
    """Returns what is known of the larger avatar that drew the dataset, if one did."""
    teacher = manifest.training.get("distilled_from")
    return teacher if teacher and teacher["digest"] == info.source_sha256 else None


def require_own_dataset(manifest: AvatarManifest, info: DatasetInfo, places: str) -> None:
    """Refuses a dataset that the avatar did not learn from.

    Args:
        manifest: Of the avatar.
        info: Of the dataset.
        places: Where both are, for a person.

    Raises:
        ConflictError: It is of another video, or prepared otherwise.
    """
    if teacher_of(manifest, info) is None and manifest.source.sha256 != info.source_sha256:
        raise ConflictError(f"{places}: it was not trained on the video or the pictures there")
    sides = {
        "pictures of {} pixels": (manifest.image_size_px, info.image_size_px),
        "the face model '{}'": (manifest.model_id, info.model_id),
        "the portrait window {}": (manifest.window, info.window),
    }
    for what, (own, other) in sides.items():
        if own != other:
            raise ConflictError(
                f"{places}: the avatar has {what.format(own)}, the dataset {what.format(other)}, so"
                " that it was prepared again after the avatar was made; run `styleavatar train` or"
                " `distill` there again, or evaluate the folder that the avatar was made in"
            )
