# SPDX-License-Identifier: Apache-2.0
"""``avatar.json``: what an avatar bundle says about itself. Imports neither torch nor OpenCV."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from styleavatar_core.avatar.trained_range import Reach
from styleavatar_core.face3d.library import find_face_model
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.provenance.consent import ConsentRecord
from styleavatar_core.types import CropBox, FaceIdentity

SCHEMA_VERSION = 2
_PICTURED = 0.25  # clips show so much beyond each side of the window (paper, Sec. 3.1)


class BundleFile(BaseModel):
    """One file of the bundle besides the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class AvatarSource(BaseModel):
    """The video that an avatar was made from; the video itself is not in the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file_name: str
    sha256: str
    width: int
    height: int
    fps: float
    train_frame_count: int
    held_out_frame_count: int


class AvatarMethods(BaseModel):
    """Which models of others took part, so that nobody has to guess."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    landmarks: str
    matting: str
    perceptual_loss: str


class AvatarManifest(BaseModel):
    """Everything rendering needs besides the weights, and everything a reader may ask.

    Attributes:
        schema_version: Version of this schema.
        preset: Name of the network preset.
        generator: ``GeneratorConfig.to_dict()``.
        style_time: Argument of ``position_code`` for the z_tmp that inference uses (Sec. 3.4).
        model_id: Face model of identity and expression coefficients.
        model_digest: ``FaceModel.digest`` of it; empty in bundles of version 1.
        identity: (I,) identity coefficients.
        texture: (T,) texture coefficients.
        window: Portrait window in the source's frame coordinates: center_x, center_y, half_size.
        statistics: Training statistics of the face parameters in window coordinates, as
            ``ParameterStatistics.to_dict()`` gives them.
        metrics: Figures on the held-out frames, named as in reports (``psnr_db`` ...).
        consent: Who agreed to this avatar.
        source: The video.
        methods: Models of others that took part.
        training: Steps, minutes, seed and settings of the training.
        created_time: When the bundle was written.
        files: The other files, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    preset: str
    generator: dict[str, Any]
    style_time: float
    model_id: str
    model_digest: str = ""
    identity: list[float]
    texture: list[float]
    window: tuple[float, float, float]
    statistics: dict[str, Any]
    metrics: dict[str, float] = Field(default_factory=dict)
    consent: ConsentRecord
    source: AvatarSource
    methods: AvatarMethods
    training: dict[str, Any] = Field(default_factory=dict)
    created_time: datetime = Field(default_factory=lambda: datetime.now(UTC))
    files: dict[str, BundleFile] = Field(default_factory=dict)

    @property
    def crop(self) -> CropBox:
        """The portrait window in the source's frame coordinates."""
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
        """Returns the face model that the avatar is driven with.

        Raises:
            AssetError: It is not here, or another file of the same id is.
        """
        return find_face_model(self.model_id, self.model_digest)

    @property
    def is_imported(self) -> bool:
        """Whether it was imported from a checkpoint of the published code."""
        return "imported" in self.training

    @property
    def window_reach(self) -> float:
        """How far training moved the person's window, as a share of its side; 0: not at all."""
        settings = self.training.get("settings", {})
        # What an older version did not write down it did not do.
        if settings.get("centered_share", 1.0) == 1.0 and settings.get("apart_share", 0.0) == 0.0:
            return 0.0
        texels = int(self.generator["feature_size"])
        margin = min((int(self.generator["canvas_size"]) - texels) // 2, int(_PICTURED * texels))
        return margin / texels

    @property
    def reach(self) -> Reach:
        """How far beyond its clip training let the person go."""
        settings = self.training.get("settings", {})
        share = settings.get("apart_share", 0.0) * settings.get("tilt_share", 0.0)
        return Reach(self.window_reach, settings["tilt_deg"] if share > 0.0 else 0.0)

    @property
    def image_size_px(self) -> int:
        """Side of the square picture that the avatar renders."""
        return int(self.generator["image_size_px"])
