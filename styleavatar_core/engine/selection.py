# SPDX-License-Identifier: Apache-2.0
"""Which engine runs an avatar on this machine: by measurement, unless the caller says."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine.backends import (
    BACKENDS,
    OpeningAvatar,
    automatic_backends,
    backend_version,
    get_backend,
)
from styleavatar_core.engine.base import EngineLabel, RenderEngine
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.calibration import (
    CalibrationMemory,
    calibration_key,
    measure_frame_s,
)
from styleavatar_core.engine.gate import open_gated
from styleavatar_core.engine.typical_inputs import typical_inputs

logger = logging.getLogger(__name__)

_GATE_FRAMES = 8


def open_engine(
    bundle: AvatarBundle,
    backend: str = "auto",
    *,
    precision: str | None = None,
    thread_count: int = 2,
    cache: EngineCache | None = None,
) -> RenderEngine:
    """Opens the engine of a bundle.

    Args:
        bundle: The avatar.
        backend: ``torch``, ``onnxruntime``, ``openvino``, ``tensorrt``, or ``auto``: the fastest
            of the first three that is installed, measured once per machine and preset. With a CUDA
            device ``auto`` is torch.
        precision: ``fp32``, or ``fp16`` if its pictures pass the quality gate; None is fp16 with
            a CUDA device and fp32 without.
        thread_count: Threads of a CPU runtime.
        cache: Where derived engines are kept; the user's cache folder if None.

    Returns:
        An engine, not warmed up.

    Raises:
        InvalidInputError: There is no such backend or precision.
        EngineUnavailableError: The backend is not installed.
        AssetError: The bundle is damaged.
    """
    has_cuda = torch.cuda.is_available()
    avatar = OpeningAvatar(bundle, cache or EngineCache(), thread_count)
    memory = CalibrationMemory(avatar.cache.folder / "calibration.json")
    wanted = precision or ("fp16" if has_cuda else "fp32")
    name = backend
    if backend == "auto":
        name = "torch" if has_cuda else _recall_fastest(avatar, memory) or "auto"
    if name == "auto":
        engine = _calibrate(avatar, memory)
        if wanted == "fp32":
            return engine
        name = engine.info.backend
        engine.close()
    chosen = get_backend(name)
    return open_gated(
        wanted,
        lambda at, note: chosen.open(replace(avatar, label=EngineLabel(at, note))),
        lambda engine: typical_inputs(bundle.manifest, engine.info, _GATE_FRAMES),
        memory=memory,
        memory_key=lambda at: "gate/" + replace(avatar, label=EngineLabel(at)).key(name).file_name,
    )


def _key(avatar: OpeningAvatar) -> str:
    """Returns under which key the render times of an avatar's preset are remembered."""
    versions = {name: backend_version(name) for name in automatic_backends()}
    return calibration_key(avatar.bundle.manifest.preset, versions, avatar.thread_count)


def _recall_fastest(avatar: OpeningAvatar, memory: CalibrationMemory) -> str | None:
    """Returns the backend that was found fastest here, or None if nothing was measured."""
    times_s = memory.recall(_key(avatar))
    if times_s is None or not set(times_s) <= set(BACKENDS):
        return None
    return min(times_s, key=lambda name: times_s[name])


def _calibrate(avatar: OpeningAvatar, memory: CalibrationMemory) -> RenderEngine:
    """Opens every backend, keeps the fastest and remembers which it was."""
    # Torch lays the frozen weights out anew, so it comes last.
    names = reversed(automatic_backends())
    engines = {name: BACKENDS[name].open(avatar) for name in names}
    times_s = {name: measure_frame_s(engine) for name, engine in engines.items()}
    memory.remember(_key(avatar), times_s)
    fastest = min(times_s, key=lambda name: times_s[name])
    for name, engine in engines.items():
        if name != fastest:
            engine.close()
    logger.info(
        "rendering backend chosen", extra={"backend": fastest, "seconds_per_frame": times_s}
    )
    return engines[fastest]
