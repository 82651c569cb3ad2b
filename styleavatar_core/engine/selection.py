# SPDX-License-Identifier: Apache-2.0
"""Which engine runs an avatar on this machine: by measurement, unless the caller says."""

from __future__ import annotations

import logging
import time

import torch

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine.base import RenderEngine, blank_input
from styleavatar_core.engine.cache import onnx_path
from styleavatar_core.engine.freeze import FrozenGenerator
from styleavatar_core.engine.loading import load_frozen
from styleavatar_core.engine.onnx_engine import OnnxEngine
from styleavatar_core.engine.onnx_graph import write_onnx
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.errors import AssetError, InvalidInputError

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", "onnxruntime")
_CALIBRATION_FRAMES = 3

# The faster backend by preset, found by the first calibration in this process.
_fastest: dict[str, str] = {}


def open_engine(
    bundle: AvatarBundle, backend: str = "auto", *, thread_count: int = 2
) -> RenderEngine:
    """Opens the engine of a bundle.

    Args:
        bundle: The avatar.
        backend: ``torch``, ``onnxruntime``, or ``auto``: the faster one, measured once per preset
            and process. With a CUDA device ``auto`` is torch.
        thread_count: Threads of ONNX Runtime.

    Returns:
        An engine, not warmed up.

    Raises:
        InvalidInputError: There is no such backend.
        AssetError: The bundle is damaged.
    """
    if backend not in BACKENDS:
        raise InvalidInputError(
            f"there is no rendering backend '{backend}'; choose one of {', '.join(BACKENDS)}"
        )
    has_cuda = torch.cuda.is_available()
    if backend == "auto":
        backend = "torch" if has_cuda else _fastest.get(bundle.manifest.preset, "auto")
    if backend == "torch":
        return TorchEngine(load_frozen(bundle), device="cuda" if has_cuda else "cpu")
    if backend == "onnxruntime":
        return _open_onnx(bundle, None, thread_count)
    return _calibrate(bundle, thread_count)


def _open_onnx(
    bundle: AvatarBundle, generator: FrozenGenerator | None, thread_count: int
) -> OnnxEngine:
    """Opens the cached graph, or writes it first; an unusable cache is written anew."""
    path = onnx_path(bundle.digest)
    if path.exists():
        try:
            return OnnxEngine(path, thread_count=thread_count)
        except AssetError:
            logger.warning("cached engine is unusable, writing it anew", extra={"path": str(path)})
    write_onnx(generator or load_frozen(bundle), path)
    return OnnxEngine(path, thread_count=thread_count)


def _calibrate(bundle: AvatarBundle, thread_count: int) -> RenderEngine:
    """Opens both engines, keeps the faster and remembers which it was."""
    generator = load_frozen(bundle)
    engines: list[RenderEngine] = [
        _open_onnx(bundle, generator, thread_count),
        TorchEngine(generator),
    ]
    times_s = {engine.info.backend: measure_frame_s(engine) for engine in engines}
    engines.sort(key=lambda engine: times_s[engine.info.backend])
    chosen, *rest = engines
    for engine in rest:
        engine.close()
    _fastest[bundle.manifest.preset] = chosen.info.backend
    logger.info(
        "rendering backend chosen",
        extra={"backend": chosen.info.backend, "seconds_per_frame": times_s},
    )
    return chosen


def measure_frame_s(engine: RenderEngine, frame_count: int = _CALIBRATION_FRAMES) -> float:
    """Returns the shortest of a few render times, in seconds, after a warm-up.

    Args:
        engine: What is measured.
        frame_count: Renders.
    """
    engine.warm_up()
    sample = blank_input(engine.info)
    best = float("inf")
    for _ in range(frame_count):
        start = time.perf_counter()
        engine.render(sample)
        best = min(best, time.perf_counter() - start)
    return best


def forget_calibration() -> None:
    """Lets the next ``auto`` measure again."""
    _fastest.clear()
