# SPDX-License-Identifier: Apache-2.0
"""Settings of the rendering service."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.settings import GrpcSettings


class RenderingSettings(GrpcSettings):
    """What the rendering service is told by ``STYLEAVATAR_RENDERING_...`` variables."""

    model_config = SettingsConfigDict(env_prefix="STYLEAVATAR_RENDERING_")

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=50052, ge=0, le=65535, description="gRPC port; 0 takes a free one.")
    metrics_port: int = Field(
        default=9102, ge=0, le=65535, description="Port of /metrics; 0 takes a free one."
    )
    worker_count: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Workers on each device; unset: one on a GPU, on the CPU one for each core, up"
        " to 8.",
    )
    devices: str = Field(
        default="",
        description="GPUs (indices or UUIDs) or cpu, with commas between; unset: all GPUs, or the"
        " CPU where there is none.",
    )
    stand_by: bool = Field(
        default=True, description="One more worker a device waits, warm, for one that dies."
    )
    backend: Literal["auto", "torch", "onnxruntime", "openvino", "tensorrt"] = Field(
        default="auto",
        description="Engine; auto takes the fastest that is installed, by a short calibration.",
    )
    precision: Literal["fp32", "fp16", "bf16", "int8"] | None = Field(
        default=None,
        description="What engines compute in, a safer one for avatars whose pictures do not pass"
        " the quality gate; unset: fp16 on a GPU, fp32 on a CPU.",
    )
    threads_per_worker: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Threads that an engine may use on the CPU; unset: the cores, shared among all"
        " workers.",
    )
    engine_bytes_per_worker: int | None = Field(
        default=None,
        ge=1,
        description="Memory that a worker's avatars may take; unset: 2 GB on a CPU, 70 % of a GPU's"
        " for all its workers.",
    )
    stream_limit: int = Field(
        default=16, ge=1, le=4096, description="Open streams; more are refused."
    )
    frames_per_second: int = Field(
        default=30, ge=1, le=120, description="Rate of a stream that does not say its own."
    )
    utilization_limit: float = Field(
        default=0.75,
        gt=0,
        description="Share of a worker's measured time that streams may take; one always may.",
    )
    warm_avatars: int = Field(
        default=1, ge=0, le=256, description="Newest avatars that are loaded and measured at start."
    )
    worker_memory_limit_mb: int = Field(
        default=0, ge=0, description="A worker that takes more memory is replaced; 0: no limit."
    )
    idle_timeout_s: float = Field(
        default=300.0,
        gt=0,
        description="A stream that sends no frame or reads no answer for so long is ended.",
    )
    render_timeout_s: float = Field(
        default=2.0,
        gt=0,
        description="A worker at a picture for longer, and longer than 20 take, is replaced.",
    )
    load_timeout_s: float = Field(
        default=1800.0,
        gt=0,
        description="Time to load an avatar, its engine built; one silent for 30 s is replaced.",
    )
    drain_timeout_s: float = Field(
        default=5.0, ge=0, description="How long open streams may go on after SIGTERM."
    )
    renderer: str = Field(
        default="styleavatar_core.engine.avatar_renderer:AvatarRenderer",
        pattern=r"^[\w.]+:\w+$",
        description="module:name of what opens bundles in a worker; tests put another one here.",
    )
