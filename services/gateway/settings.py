# SPDX-License-Identifier: Apache-2.0
"""Settings of the gateway, read from the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.settings import CallerSettings, RedisSettings


class GatewaySettings(RedisSettings, CallerSettings):
    """Variables ``STYLEAVATAR_GATEWAY_*`` and those that all services share."""

    model_config = SettingsConfigDict(env_prefix="STYLEAVATAR_GATEWAY_")

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="HTTP port; 0 takes a free one.")
    upload_limit_mb: int = Field(
        default=2048, ge=1, description="Largest video that is accepted, in megabytes."
    )
    upload_count_limit: int = Field(
        default=8, ge=1, description="Uploads at once; more are refused, to try again later."
    )
    upload_idle_timeout_s: float = Field(
        default=60.0, gt=0, description="An upload of which nothing comes for so long is ended."
    )
    download_count_limit: int = Field(
        default=8,
        ge=1,
        description="Avatars fetched as zip files at once; more are refused, to try again later.",
    )
    minutes_limit: float = Field(
        default=1440.0, gt=0, description="Longest training time that may be asked for, in minutes."
    )
    tracking_address: str = Field(
        default="127.0.0.1:50051", description="gRPC address of tracking, for its health."
    )
    rendering_address: str = Field(
        default="127.0.0.1:50052", description="gRPC address of rendering, for its health."
    )
    drain_timeout_s: int = Field(
        default=5, ge=0, description="How long open requests may go on after SIGTERM, in seconds."
    )
    unfinished_jobs_days: int = Field(
        default=30,
        ge=0,
        description="A job that failed or was canceled is removed with its files so many days after"
        " its end; 0: never.",
    )
