# SPDX-License-Identifier: Apache-2.0
"""What ``dataset.json`` says of a prepared dataset; where it is, the dataset is complete."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from styleavatar_core.face3d.library import find_face_model
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.types import CropBox, FaceIdentity

DATASET_NAME = "dataset.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What ``dataset.json`` says.

    Attributes:
        source_name: File name of the video.
        source_sha256: Its digest.
        source_width: Upright width, pixels.
        source_height: Upright height, pixels.
        fps: Frames per second of the video.
        frame_count: Frames in the dataset.
        train_count: The first so many are for training, the watched ones among them.
        missing_face_count: Frames left out because no face was found.
        image_size_px: Side of the window's picture.
        rendering_size_px: Side of the window's renderings.
        canvas_factor: Canvas over window.
        window: center_x, center_y, half_size of the window in source frame coordinates.
        model_id: Face model.
        identity: Identity coefficients.
        texture: Texture coefficients.
        matting: Which matting made the masks.
        landmarks: Which detector made the landmarks.
        frame_cap: Most frames that were asked for.
        format: Version of this layout.
        model_digest: ``FaceModel.digest`` of it; empty in older datasets.
    """

    source_name: str
    source_sha256: str
    source_width: int
    source_height: int
    fps: float
    frame_count: int
    train_count: int
    missing_face_count: int
    image_size_px: int
    rendering_size_px: int
    canvas_factor: float
    window: tuple[float, float, float]
    model_id: str
    identity: list[float]
    texture: list[float]
    matting: str
    landmarks: str
    frame_cap: int
    format: int = _FORMAT
    model_digest: str = ""

    @property
    def canvas_size_px(self) -> int:
        """Side of the canvas picture."""
        return round(self.image_size_px * self.canvas_factor)

    @property
    def rendering_canvas_px(self) -> int:
        """Side of the renderings of the whole canvas."""
        return round(self.rendering_size_px * self.canvas_factor)

    @property
    def crop(self) -> CropBox:
        """The portrait window."""
        return CropBox(*self.window)

    @property
    def face_identity(self) -> FaceIdentity:
        """The person's shape and texture."""
        return FaceIdentity(
            self.model_id,
            np.asarray(self.identity, np.float32),
            np.asarray(self.texture, np.float32),
        )

    def face_model(self) -> FaceModel:
        """Returns the face model of the coefficients.

        Raises:
            AssetError: It is not here, or another file of the same id is.
        """
        return find_face_model(self.model_id, self.model_digest)


def read_info(folder: Path) -> DatasetInfo | None:
    """Returns what ``dataset.json`` says, or None where no complete dataset of this version is."""
    try:
        info = _reader().validate_json((folder / DATASET_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return info if info.format == _FORMAT else None


@cache
def _reader() -> TypeAdapter[DatasetInfo]:
    return TypeAdapter(DatasetInfo)
