# SPDX-License-Identifier: Apache-2.0
"""From face parameters to a JPEG, in one process; and what the JPEG alone takes."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.engine_parts.case import Figures, Held
from benchmarks.engine_parts.first_frame import frontal_face
from services.common.image_codec import DEFAULT_JPEG_QUALITY, encode_image
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.face3d.camera import quaternion_from_rotation_vector
from styleavatar_core.types import ByteArray
from tests.fakes.nano_bundle import write_nano_bundle

_UNTIMED = 2
_LEAST_FRAMES = 7
_SIDE_PX = 1024
_GRAIN = 2.0  # steps of uint8: a camera's


def to_jpeg_figures(
    preset: str, backend: str, folder: str, thread_count: int, frames: int, seconds: float
) -> Figures:
    """Renders an untrained avatar from parameters, in the precision that is used by default.

    Args:
        preset: Name of the preset.
        backend: What renders.
        folder: For the bundle and an engine cache that starts empty.
        thread_count: Threads of a runtime.
        frames: At most.
        seconds: For all of them, at most.
    """
    os.environ["XDG_CACHE_HOME"] = folder
    torch.set_num_threads(thread_count)
    path = write_nano_bundle(Path(folder) / "avatar", preset=preset)
    renderer = AvatarRenderer(path, backend=backend, thread_count=thread_count)
    ahead, parts = frontal_face(), list[tuple[float, float, float]]()
    for index in range(frames + _UNTIMED):
        if len(parts) >= _UNTIMED + _LEAST_FRAMES and sum(p[0] for p in parts) > 1e3 * seconds:
            break
        turn = np.array([0.0, 0.3 * np.sin(index / 5), 0.0])
        face = replace(ahead, rotation=quaternion_from_rotation_vector(turn))
        start = time.perf_counter()
        frame = renderer.render(face)
        encode_image(frame.image, "jpeg", DEFAULT_JPEG_QUALITY)
        whole_ms = (time.perf_counter() - start) * 1e3
        parts.append((whole_ms, frame.timings_ms["conditioning"], frame.timings_ms["network"]))
    whole, conditioning, network = np.array(parts[_UNTIMED:]).T
    prefix = f"{preset}.{backend}.{renderer.engine_info.precision}.to_jpeg"
    memory = _next_avatar_memory(preset, backend, Path(folder) / "next", thread_count)
    renderer.close()
    return {
        **{f"{prefix}.{name}": value for name, value in memory.items()},
        f"{prefix}_ms_p50": float(np.percentile(whole, 50)),
        f"{prefix}_ms_p99": float(np.percentile(whole, 99)),
        f"{prefix}.conditioning_ms_p50": float(np.percentile(conditioning, 50)),
        f"{prefix}.network_ms_p50": float(np.percentile(network, 50)),
    }


def _next_avatar_memory(preset: str, backend: str, path: Path, thread_count: int) -> Figures:
    """Returns what an avatar takes beside another, as a service holds it: ready for its batches."""
    write_nano_bundle(path, seed=1, preset=preset)
    before = Held.now()
    renderer = AvatarRenderer(path, backend=backend, thread_count=thread_count)
    renderer.render(frontal_face())
    grown = Held.now().growth_since(before, "next_avatar_memory")
    renderer.close()
    return grown


def jpeg_figures() -> Figures:
    """Encodes a picture of 1024 pixels by what the service uses."""
    picture = _picture()
    return {
        "jpeg.turbo_ms": _median_ms(lambda: encode_image(picture, "jpeg", DEFAULT_JPEG_QUALITY))
    }


def nvjpeg_figures() -> Figures:
    """Encodes the same picture on the GPU; gives nothing where torchvision, which has it, is not.

    Apart from the other: not every build of torchvision can.
    """
    if importlib.util.find_spec("torchvision") is None:
        return {}
    from torchvision.io import encode_jpeg

    pixels = torch.from_numpy(_picture()).permute(2, 0, 1).contiguous().cuda()
    return {
        "jpeg.nvjpeg_ms": _median_ms(
            lambda: encode_jpeg(pixels, quality=DEFAULT_JPEG_QUALITY).cpu()
        )
    }


def _picture() -> ByteArray:
    """Returns a picture as smooth and as grainy as a face before a camera."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 24, 24)))
    smooth = torch.nn.functional.interpolate(coarse, size=(_SIDE_PX, _SIDE_PX), mode="bicubic")
    grain = rng.normal(0, _GRAIN, (_SIDE_PX, _SIDE_PX, 3))
    pixels = smooth[0].permute(1, 2, 0).numpy() + grain
    return np.ascontiguousarray(pixels.clip(0, 255).astype(np.uint8))


def _median_ms(work: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(_UNTIMED + 20):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times[_UNTIMED:]))
