# SPDX-License-Identifier: Apache-2.0
"""Settings of the trainer, read from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.settings import RedisSettings


class TrainingSettings(RedisSettings):
    """Variables ``STYLEAVATAR_TRAINING_*`` and those that all services share."""

    model_config = SettingsConfigDict(env_prefix="STYLEAVATAR_TRAINING_")

    host: str = Field(default="127.0.0.1", description="Address that the metrics listen on.")
    metrics_port: int = Field(default=9103, ge=0, le=65535, description="Port of /metrics.")
    lease_s: int = Field(
        default=20,
        ge=5,
        le=600,
        description="Seconds without a sign of life after which another trainer takes a job over.",
    )
    stop_limit_s: int = Field(
        default=60,
        ge=1,
        description="Seconds that a job that was canceled or deleted may take to stop before its"
        " process is killed.",
    )
    fruitless_limit: int = Field(
        default=5,
        ge=1,
        description="Interruptions in a row without any progress after which a job fails.",
    )
    face_model: str = Field(
        default="",
        description="Id of the face model that new avatars are made with; empty: the built-in one.",
    )
    vgg19_weights: Path | None = Field(
        default=None,
        description="VGG19 weights for the perceptual loss of new avatars, .pth or safetensors; a"
        " loss without weights when unset.",
    )
    matting_weights: Path | None = Field(
        default=None,
        description="Robust Video Matting (TorchScript) for new avatars; MediaPipe's when unset.",
    )
    maker: str = Field(
        default="services.training.tasks:make_avatar",
        pattern=r"^[\w.]+:\w+$",
        description="module:name of what makes an avatar from a video; tests put another one here.",
    )
