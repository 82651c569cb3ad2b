# SPDX-License-Identifier: Apache-2.0
"""A loaded avatar: face parameters in, picture out (paper, Sec. 3.4)."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from styleavatar_core.avatar.bundle import AvatarBundle, use_bundle
from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.avatar.person_window import PersonWindow
from styleavatar_core.engine.base import HOME, EngineInfo, Pictures, RenderEngine
from styleavatar_core.engine.calibration import CalibrationMemory, recall_batch_limit
from styleavatar_core.engine.device_renderer import DeviceRenderer
from styleavatar_core.engine.host_renderer import HostRenderer, MovedRenderer
from styleavatar_core.engine.selection import open_engine
from styleavatar_core.types import ByteArray, FaceParameters


@dataclass(frozen=True, slots=True)
class RenderedFrame:
    """One picture of an avatar.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        mask: (S, S) uint8 foreground, 255 = person.
        timings_ms: Milliseconds of ``conditioning`` and ``network``; of the second on a device
            until it was waited for, other work of the process meanwhile included.
    """

    image: ByteArray
    mask: ByteArray
    timings_ms: dict[str, float]


class FrameRenderer(Protocol):
    """What renders frames whose window is in the middle: on the host, or where a GPU is."""

    def warm_up(self, batch_limit: int) -> None:
        """Makes ready for batches of up to so many frames."""

    def prepare(self, batch: Sequence[FaceParameters]) -> Any:
        """Does the host's part of conditioning, for ``begin``."""

    def begin(self, prepared: Any) -> Callable[[], list[Pictures]]:
        """Begins rendering what was prepared; what it returns gives the pictures."""

    def close(self) -> None:
        """Frees what it holds beside the engine."""


class AvatarRenderer:
    """Renders one avatar. Not thread-safe.

    A head beyond the trained range is drawn where it was seen, in a window that moves, while the
    background stays (Sec. 3.2).

    Args:
        bundle_path: The bundle, directory or zip.
        backend: ``auto``, ``torch``, ``onnxruntime``, ``openvino`` or ``tensorrt``.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``, as ``open_engine`` takes it.
        thread_count: Threads of a CPU runtime.

    Attributes:
        digest: Of the bundle that was read, ``AvatarBundle.digest``.
        memory_bytes: By how much the process and its CUDA device grew when the avatar was opened,
            and will with its first picture; at least the size of its bundle. The first of a process
            counts the runtime's libraries. What other processes take of the device meanwhile counts
            too: nobody but the device itself knows what graphs and TensorRT take.
        batch_limit: Frames that may be rendered at once with next to no delay for the first.
        renders_ahead: Whether frames are rendered, on a device, while this process does other work
            between ``begin_batch`` and what that returns.

    Raises:
        NotFoundError: There is no such bundle.
        AssetError: It is damaged, or its face model is not here.
        InvalidInputError: The backend has no such precision.
        EngineUnavailableError: The backend is not installed.
    """

    def __init__(
        self,
        bundle_path: Path | str,
        *,
        backend: str = "auto",
        precision: str | None = None,
        thread_count: int = 2,
    ) -> None:
        path = Path(bundle_path)
        # The device first: asking it may begin with libraries that no avatar brought.
        device_before = _device_bytes()
        host_before = _resident_bytes()

        def open_bundle(bundle: AvatarBundle) -> tuple[AvatarBundle, RenderEngine]:
            return bundle, open_engine(
                bundle, backend, precision=precision, thread_count=thread_count
            )

        bundle, self._engine = use_bundle(path, open_bundle)
        self.manifest: AvatarManifest = bundle.manifest
        self.digest = bundle.digest
        with contextlib.ExitStack() as undo:  # what is left in memory would be missed by others
            undo.callback(self._engine.close)
            self._prepare(bundle, undo)
            undo.pop_all()
        # What another avatar had left behind may be used again without growing, or given back.
        grown = max(0, _resident_bytes() - host_before) + max(0, _device_bytes() - device_before)
        taken = grown + self._engine.coming_bytes
        if self.manifest.window_reach and not (self._engine.moves_windows or self.renders_ahead):
            taken += _stored_bytes(path)  # what torch will hold beside it; on a device it does
        self.memory_bytes = max(_stored_bytes(path), taken)

    def _prepare(self, bundle: AvatarBundle, undo: contextlib.ExitStack) -> None:
        """Makes what renders beside the engine, ready for frames; ``undo`` is to close it."""
        size_px = self._engine.info.rendering_size_px
        model, identity = self.manifest.face_model(), self.manifest.face_identity
        conditioning = ConditioningRenderer(model, identity, size_px)
        conditioning.warm_up()
        self.renders_ahead = on_device = self._engine.stream is not None
        self._renderer: FrameRenderer = (DeviceRenderer if on_device else HostRenderer)(
            self._engine, self.manifest, conditioning
        )
        undo.callback(self._renderer.close)
        self._window = PersonWindow(self.manifest)
        self._moved = MovedRenderer(self._engine, bundle, conditioning)
        memory = CalibrationMemory()
        self.batch_limit = recall_batch_limit(self._engine, self.manifest.preset, memory)
        self._renderer.warm_up(self.batch_limit)
        if on_device and self.manifest.window_reach:  # kernels that no graph has take long at first
            undo.callback(self._moved.close)
            self._moved.warm_up()

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
        """Renders several frames at once, as :meth:`begin_batch` does, and waits for them."""
        return self.begin_batch(batch)()

    def begin_batch(self, batch: Sequence[FaceParameters]) -> Callable[[], list[RenderedFrame]]:
        """Begins rendering several frames at once; each is told the times of all.

        Args:
            batch: At least one, in the coordinates of the avatar's window.

        Returns:
            Waits for the pictures and gives as many; raises as this does.

        Raises:
            InvalidInputError: Parameters belong to another face model.
            RenderError: These frames failed; the renderer lives.
        """
        start = time.perf_counter()
        placed = [self._window.place(parameters) for parameters in batch]
        middle = [index for index, (_, window) in enumerate(placed) if window == HOME]
        moved = [index for index in range(len(batch)) if index not in middle]
        together = self._renderer.prepare([batch[index] for index in middle]) if middle else None
        alone = [self._moved.prepare(batch[index], *placed[index]) for index in moved]
        conditioned = time.perf_counter()
        finish_together = self._renderer.begin(together) if middle else list

        def finish() -> list[RenderedFrame]:
            pictures = dict(zip(middle, finish_together(), strict=True))
            pictures.update(zip(moved, map(self._moved.render, alone), strict=True))
            end = time.perf_counter()
            timings_ms = {
                "conditioning": (conditioned - start) * 1e3,
                "network": (end - conditioned) * 1e3,
            }
            return [RenderedFrame(*pictures[index], timings_ms) for index in range(len(batch))]

        return finish

    def close(self) -> None:
        """Frees the engine; no other call may follow."""
        self._moved.close()
        self._renderer.close()
        self._engine.close()


def _stored_bytes(path: Path) -> int:
    """Returns the size of a bundle on disk."""
    return sum(file.stat().st_size for file in (path, *path.glob("*")))


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
