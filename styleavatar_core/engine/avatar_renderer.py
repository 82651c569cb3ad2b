# SPDX-License-Identifier: Apache-2.0
"""A loaded avatar: face parameters in, picture out (paper, Sec. 3.4)."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.avatar.person_window import PersonWindow
from styleavatar_core.engine.backends import OpeningAvatar, get_backend
from styleavatar_core.engine.base import HOME, EngineInfo, RenderEngine, RenderInput, joined
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.calibration import CalibrationMemory, recall_batch_limit
from styleavatar_core.engine.device_renderer import DeviceRenderer
from styleavatar_core.engine.frozen_parts import FrozenParts
from styleavatar_core.engine.selection import open_engine
from styleavatar_core.engine.typical_inputs import to_render_input
from styleavatar_core.types import ByteArray, FaceParameters


@dataclass(frozen=True, slots=True)
class RenderedFrame:
    """One picture of an avatar.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        mask: (S, S) uint8 foreground, 255 = person.
        clamped: Whether parameters were moved into the trained range.
        timings_ms: Milliseconds of ``conditioning`` and ``network``.
    """

    image: ByteArray
    mask: ByteArray
    clamped: bool
    timings_ms: dict[str, float]


class AvatarRenderer:
    """Renders one avatar. Not thread-safe.

    A head beyond the trained range is drawn where it was seen, in a window that moves, while the
    background stays (Sec. 3.2). Where the engine's graph has a fixed window, such frames are
    rendered by torch beside it, from the first of them on.

    Args:
        bundle_path: The bundle, directory or zip.
        backend: ``auto``, ``torch``, ``onnxruntime``, ``openvino`` or ``tensorrt``.
        thread_count: Threads of a CPU runtime.

    Attributes:
        memory_bytes: By how much the process and its CUDA device grew when the avatar was opened,
            and will with its first picture; at least the size of its bundle. The first of a process
            counts the runtime's libraries. What other processes take of the device meanwhile counts
            too: nobody but the device itself knows what graphs and TensorRT take.
        batch_limit: Frames that may be rendered at once with next to no delay for the first.

    Raises:
        NotFoundError: There is no such bundle.
        AssetError: It is damaged, or its face model is not here.
        EngineUnavailableError: The backend is not installed.
    """

    def __init__(
        self, bundle_path: Path | str, *, backend: str = "auto", thread_count: int = 2
    ) -> None:
        path = Path(bundle_path)
        taken_before = _occupied_bytes()
        self._bundle = read_bundle(path, verify=False)  # what is read is verified then
        self.manifest: AvatarManifest = self._bundle.manifest
        model = self.manifest.face_model()
        self._engine = open_engine(self._bundle, backend, thread_count=thread_count)
        self._window = PersonWindow(self.manifest)
        self._conditioning = ConditioningRenderer(
            model, self.manifest.face_identity, self._engine.info.rendering_size_px
        )
        self._conditioning.warm_up()
        memory = CalibrationMemory()
        self.batch_limit = recall_batch_limit(self._engine, self.manifest.preset, memory)
        self._on_device: DeviceRenderer | None = None
        if self._engine.stream is None:
            self._engine.warm_up(self.batch_limit)
        else:
            self._on_device = DeviceRenderer(self._engine, self.manifest, self._conditioning)
            self._on_device.warm_up(self.batch_limit)
        # What another avatar had left behind may be used again without growing.
        taken = _occupied_bytes() - taken_before + self._engine.coming_bytes
        if self.manifest.window_reach and not self._engine.moves_windows:
            taken += _stored_bytes(path)  # what torch will hold beside it
        self.memory_bytes = max(_stored_bytes(path), taken)

    @property
    def engine_info(self) -> EngineInfo:
        """What runs the networks."""
        return self._engine.info

    def render(self, parameters: FaceParameters) -> RenderedFrame:
        """Renders one frame.

        Args:
            parameters: In the coordinates of the avatar's window.

        Returns:
            The picture.

        Raises:
            InvalidInputError: The parameters belong to another face model.
            RenderError: This frame failed; the renderer lives.
        """
        return self.render_batch([parameters])[0]

    def render_batch(self, batch: Sequence[FaceParameters]) -> list[RenderedFrame]:
        """Renders several frames at once; each is told the times of all.

        Args:
            batch: At least one, in the coordinates of the avatar's window.

        Returns:
            As many.

        Raises:
            InvalidInputError: Parameters belong to another face model.
            RenderError: These frames failed; the renderer lives.
        """
        start = time.perf_counter()
        is_moved = any(self._window.place(parameters)[1] != HOME for parameters in batch)
        if self._on_device is None or is_moved:
            inputs = [self._prepare(parameters) for parameters in batch]
            conditioned = time.perf_counter()
            pictures = self._draw(inputs)
        else:  # only the mesh is moved here; the rest is drawn there
            prepared = self._on_device.prepare(batch)
            conditioned = time.perf_counter()
            pictures = self._on_device.render(prepared)
        end = time.perf_counter()
        timings_ms = {
            "conditioning": (conditioned - start) * 1e3,
            "network": (end - conditioned) * 1e3,
        }
        return [
            RenderedFrame(image=image, mask=mask, clamped=False, timings_ms=timings_ms)
            for image, mask in pictures
        ]

    def _prepare(self, parameters: FaceParameters) -> RenderInput:
        """Returns what the networks see of a frame."""
        still, window = self._window.place(parameters)
        conditioning = self._conditioning.render(parameters)
        if window != HOME:
            texture = self._conditioning.render(still).texture_rendering
            conditioning = replace(conditioning, texture_rendering=texture)
        return replace(
            to_render_input(conditioning, self._engine.info, self.manifest), window=window
        )

    def _draw(self, inputs: Sequence[RenderInput]) -> list[tuple[ByteArray, ByteArray]]:
        """Returns picture and mask of each frame; those in the middle are drawn together."""
        if all(one.window == HOME for one in inputs):
            output = self._engine.render(joined(inputs))
            return list(zip(output.image, output.mask, strict=True))
        outputs = [
            (self._engine if one.window == HOME else self._moving_engine).render(one)
            for one in inputs
        ]
        return [(output.image[0], output.mask[0]) for output in outputs]

    @cached_property
    def _moving_engine(self) -> RenderEngine:
        """What renders frames whose window is not in the middle."""
        if self._engine.moves_windows:
            return self._engine
        # One thread: threads of two runtimes that wait for each other take ten times as long.
        opening = OpeningAvatar(FrozenParts(self._bundle), EngineCache(), thread_count=1)
        return get_backend("torch").open(opening)

    def close(self) -> None:
        """Frees the engine; no other call may follow."""
        if not self._engine.moves_windows and "_moving_engine" in vars(self):
            self._moving_engine.close()
        if self._on_device is not None:
            self._on_device.close()
        self._engine.close()


def _stored_bytes(path: Path) -> int:
    """Returns the size of a bundle on disk."""
    return sum(file.stat().st_size for file in (path, *path.glob("*")))


def _occupied_bytes() -> int:
    """Returns what this process holds in memory, and what is taken of its CUDA device."""
    return _resident_bytes() + _device_bytes()


def _resident_bytes() -> int:
    """Returns what this process holds in memory; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    return 0


def _device_bytes() -> int:
    """Returns what is taken of the CUDA device, by whomever; 0 if there is none.

    Torch's own count leaves out the pools of captured graphs and all of TensorRT.
    """
    if not torch.cuda.is_available():
        return 0
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    return total_bytes - free_bytes
