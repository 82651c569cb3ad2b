# SPDX-License-Identifier: Apache-2.0
"""Which engine runs an avatar on this machine: by measurement, unless the caller says."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.cores import usable_core_count
from styleavatar_core.engine.backends import (
    BACKENDS,
    automatic_backends,
    backend_version,
    engine_key,
    get_backend,
)
from styleavatar_core.engine.base import RenderEngine
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.calibration import (
    CalibrationMemory,
    Disturbance,
    calibration_key,
    measure_frame_s,
)
from styleavatar_core.engine.frozen.parts import FrozenParts
from styleavatar_core.engine.gate import PRECISIONS, SAFER, Candidate, open_gated
from styleavatar_core.engine.keeping import forget_deleted
from styleavatar_core.engine.memory import keep_freed_memory
from styleavatar_core.engine.opening import OpeningAvatar
from styleavatar_core.engine.reference import reference_of
from styleavatar_core.engine.verdicts import VerdictMemory
from styleavatar_core.errors import (
    AssetError,
    EngineUnavailableError,
    InvalidInputError,
    RenderError,
)

logger = logging.getLogger(__name__)

_FAILED_S = 1e9  # what a frame takes a runtime that is installed and does not work


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
            of the first three that is installed and has the precision, measured in fp32 once per
            machine and preset. With a CUDA device ``auto`` is torch.
        precision: ``fp32``, ``fp16``, ``bf16`` (OpenVINO) or ``int8``; the next safer one if its
            pictures do not pass the quality gate. None is fp16 on a CUDA device and fp32 on a CPU.
        thread_count: Threads of a CPU runtime; ``auto`` also tries one, as small networks may lose
            more by waiting for each other's threads than they win.
        cache: Where derived engines are kept; the user's cache folder if None.

    Returns:
        An engine, not warmed up.

    Raises:
        InvalidInputError: There is no such backend or precision.
        EngineUnavailableError: The backend is not installed.
        AssetError: The bundle is damaged.
    """
    if precision is not None and precision not in PRECISIONS:
        raise InvalidInputError(
            f"there is no precision '{precision}'; choose one of {', '.join(PRECISIONS)}"
        )
    keep_freed_memory()
    avatar = OpeningAvatar(FrozenParts(bundle), cache or EngineCache(), thread_count)
    name = backend
    if backend == "auto" and torch.cuda.is_available():
        name = "torch"
    elif backend == "auto":
        memory = CalibrationMemory(avatar.cache.folder / "calibration.json")
        times_s = _recall(avatar, memory)
        if times_s is None:
            times_s, engine = _calibrate(avatar, memory)
            if precision in (None, "fp32"):
                return engine
            engine.close()
        fastest = _fastest(avatar, times_s, precision or "fp32")
        name = fastest.backend
        avatar = replace(avatar, thread_count=fastest.thread_count)
    wanted = precision or ("fp16" if get_backend(name).is_on_gpu() else "fp32")
    return open_judged(avatar, name, wanted)


def open_judged(avatar: OpeningAvatar, name: str, precision: str) -> RenderEngine:
    """Opens an avatar in a backend, in a precision whose pictures pass the quality gate.

    Args:
        avatar: The avatar.
        name: Of the backend.
        precision: Wanted; the next safer one if its pictures do not pass.

    Raises:
        InvalidInputError, EngineUnavailableError, AssetError: As ``open_engine``.
    """
    bundle = avatar.bundle
    try:
        engine = open_gated(
            _candidates(avatar, name, precision),
            lambda: reference_of(avatar.frozen, avatar.cache, avatar.thread_count),
            VerdictMemory(avatar.cache),
        )
    finally:
        if not bundle.is_there():  # deleted meanwhile, and with it what was kept until then
            forget_deleted(avatar.cache, bundle.digest)
    info = engine.info
    told = {"backend": info.backend, "version": info.version, "precision": info.precision}
    logger.info("engine opened", extra=told | ({"why": info.note} if info.note else {}))
    return engine


def _candidates(avatar: OpeningAvatar, name: str, precision: str) -> Iterator[Candidate]:
    """Gives the ways to run an avatar, from the one that is wanted to the safest.

    In fp32 on a CPU nothing is judged: that all backends give the same pictures there is tested.

    Args:
        avatar: The avatar.
        name: Of the backend.
        precision: Wanted.

    Raises:
        InvalidInputError: There is no such backend, or it has no such precision.
        EngineUnavailableError: The backend is not installed.
    """
    backend = get_backend(name)
    if precision not in backend.precisions:
        raise InvalidInputError(
            f"the rendering backend '{name}' does not compute in precision '{precision}'; choose "
            f"{' or '.join(backend.precisions)}, or another backend"
        )
    at: str | None = precision
    while at is not None:
        # What others share first, a plan or code, where there is such; then what is its own.
        has_shared = backend.shares_plans(at) and not avatar.has_own_plan
        for is_own in (False, True) if has_shared else (True,):
            opening = replace(avatar, precision=at, has_own_plan=is_own)
            yield Candidate(
                at,
                functools.partial(backend.open, opening),
                engine_key(opening, name),
                is_judged=at != "fp32" or backend.is_on_gpu(),
                is_judged_anew=not is_own,
            )
        at = SAFER.get(at)


class _Choice(NamedTuple):
    """What a CPU can run an avatar with."""

    backend: str
    thread_count: int

    @property
    def name(self) -> str:
        """Under which its render time is remembered."""
        return f"{self.backend}/{self.thread_count}"


def _choices(thread_count: int) -> list[_Choice]:
    """Returns what ``auto`` chooses from; threads beyond the cores would only wait."""
    most = min(thread_count, usable_core_count())
    return [
        _Choice(name, count)
        for name in automatic_backends()
        for count in sorted({1, most}, reverse=True)
    ]


def _key(avatar: OpeningAvatar) -> str:
    """Returns under which key the render times of an avatar's preset are remembered."""
    versions = {name: backend_version(name) for name in automatic_backends()}
    return calibration_key(avatar.bundle.manifest.preset, versions, avatar.thread_count)


def _recall(avatar: OpeningAvatar, memory: CalibrationMemory) -> dict[str, float] | None:
    """Returns what each choice took for a frame here, or None if not all were measured."""
    times_s = memory.recall(_key(avatar)) or {}
    names = {choice.name for choice in _choices(avatar.thread_count)}
    return times_s if names <= set(times_s) else None


def _fastest(avatar: OpeningAvatar, times_s: dict[str, float], precision: str) -> _Choice:
    """Returns the fastest of the choices that compute in a precision.

    Raises:
        EngineUnavailableError: None of those that are installed does.
    """
    choices = [
        choice
        for choice in _choices(avatar.thread_count)
        if precision in BACKENDS[choice.backend].precisions
    ]
    if not choices:
        raise EngineUnavailableError(
            f"no rendering backend that is installed here computes in precision '{precision}'; "
            "install OpenVINO (the extra 'openvino'), or choose fp32"
        )
    return min(choices, key=lambda choice: times_s[choice.name])


def _calibrate(
    avatar: OpeningAvatar, memory: CalibrationMemory
) -> tuple[dict[str, float], RenderEngine]:
    """Opens one engine after the other, keeps the fastest and remembers what they took.

    On a busy machine it may be another than on a quiet one, and a runtime that fails may be mended:
    then it is asked again some minutes later.

    Raises:
        AssetError, RenderError, ImportError, OSError: None can be opened; why the last one cannot.
    """
    times_s: dict[str, float] = {}
    disturbance = Disturbance()
    best: tuple[_Choice, RenderEngine] | None = None
    failure: Exception | None = None
    for choice in _choices(avatar.thread_count):
        opening = replace(avatar, thread_count=choice.thread_count)
        engine: RenderEngine | None = None
        try:
            engine = BACKENDS[choice.backend].open(opening)
            with disturbance.noted():
                times_s[choice.name] = measure_frame_s(engine)
        except (AssetError, RenderError, ImportError, OSError) as error:
            failure, times_s[choice.name] = error, _FAILED_S
            extra = {"choice": choice.name, "why": str(error)}
            logger.warning("a rendering backend that is installed does not work", extra=extra)
            if engine is not None:
                engine.close()
            continue
        if times_s[choice.name] > min(times_s.values()):
            engine.close()
            continue
        if best is not None:
            best[1].close()
        best = choice, engine
    if best is None:
        assert failure is not None
        raise failure
    memory.remember(_key(avatar), times_s, disturbance.is_calm and failure is None)
    told = {"chosen": best[0].name, "seconds_per_frame": times_s, "is_calm": disturbance.is_calm}
    logger.info("rendering backend chosen", extra=told)
    return times_s, best[1]
