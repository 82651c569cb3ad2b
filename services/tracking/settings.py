# SPDX-License-Identifier: Apache-2.0
"""Settings of the tracking service."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.settings import GrpcSettings


class TrackingSettings(GrpcSettings):
    """What the tracking service is told by ``STYLEAVATAR_TRACKING_...`` variables."""

    model_config = SettingsConfigDict(env_prefix="STYLEAVATAR_TRACKING_")

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=50051, ge=0, le=65535, description="gRPC port; 0 takes a free one.")
    metrics_port: int = Field(
        default=9101, ge=0, le=65535, description="Port of /metrics; 0 takes a free one."
    )
    rendering_address: str = Field(
        default="127.0.0.1:50052", description="host:port of the rendering service, for Reenact."
    )
    worker_count: int = Field(
        default=16,
        ge=1,
        le=64,
        description="Worker processes at most. Each stream has its own, started with it (about "
        "350 MB); with fewer than streams, those beyond share.",
    )
    stream_limit: int = Field(
        default=16, ge=1, le=4096, description="Open streams; more are refused."
    )
    idle_timeout_s: float = Field(
        default=300.0,
        gt=0,
        description="A stream that sends no frame or reads no answer for so long is ended.",
    )
    frame_timeout_s: float = Field(
        default=20.0, gt=0, description="A worker that takes longer for a frame is replaced."
    )
    drain_timeout_s: float = Field(
        default=5.0, ge=0, description="How long open streams may go on after SIGTERM."
    )
    tracker: str = Field(
        default="services.tracking.worker.runner:open_tracker",
        pattern=r"^[\w.]+:\w+$",
        description="module:name of what makes trackers in a worker; tests put another one here.",
    )
