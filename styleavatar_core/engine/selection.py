# SPDX-License-Identifier: Apache-2.0
"""Which engine runs an avatar on this machine: by measurement, unless the caller says."""

from __future__ import annotations

import logging

import torch

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine.backends import (
    BACKENDS,
    OpeningAvatar,
    available_backends,
    backend_version,
    get_backend,
)
from styleavatar_core.engine.base import RenderEngine
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.calibration import (
    CalibrationMemory,
    calibration_key,
    measure_frame_s,
)

logger = logging.getLogger(__name__)


def open_engine(
    bundle: AvatarBundle,
    backend: str = "auto",
    *,
    thread_count: int = 2,
    cache: EngineCache | None = None,
) -> RenderEngine:
    """Opens the engine of a bundle.

    Args:
        bundle: The avatar.
        backend: ``torch``, ``onnxruntime``, ``openvino``, or ``auto``: the fastest of those
            installed, measured once per machine and preset. With a CUDA device ``auto`` is torch.
        thread_count: Threads of a CPU runtime.
        cache: Where derived engines are kept; the user's cache folder if None.

    Returns:
        An engine, not warmed up.

    Raises:
        InvalidInputError: There is no such backend.
        EngineUnavailableError: It is not installed.
        AssetError: The bundle is damaged.
    """
    avatar = OpeningAvatar(bundle, cache or EngineCache(), thread_count)
    if backend == "auto" and torch.cuda.is_available():
        backend = "torch"
    if backend != "auto":
        return get_backend(backend).open(avatar)
    return _open_fastest(avatar)


def _open_fastest(avatar: OpeningAvatar) -> RenderEngine:
    """Opens the backend that was found fastest here, or finds out which it is."""
    names = available_backends()
    versions = {name: backend_version(name) for name in names}
    key = calibration_key(avatar.bundle.manifest.preset, versions, avatar.thread_count)
    memory = CalibrationMemory(avatar.cache.folder / "calibration.json")
    times_s = memory.times_s(key)
    if times_s is None or not set(times_s) <= set(names):
        return _calibrate(avatar, names, key, memory)
    return BACKENDS[min(times_s, key=lambda name: times_s[name])].open(avatar)


def _calibrate(
    avatar: OpeningAvatar, names: list[str], key: str, memory: CalibrationMemory
) -> RenderEngine:
    """Opens every backend, keeps the fastest and remembers which it was."""
    # Torch lays the frozen weights out anew, so it comes last.
    engines = {name: BACKENDS[name].open(avatar) for name in reversed(names)}
    times_s = {name: measure_frame_s(engine) for name, engine in engines.items()}
    memory.remember(key, times_s)
    fastest = min(times_s, key=lambda name: times_s[name])
    for name, engine in engines.items():
        if name != fastest:
            engine.close()
    logger.info(
        "rendering backend chosen", extra={"backend": fastest, "seconds_per_frame": times_s}
    )
    return engines[fastest]
