# SPDX-License-Identifier: Apache-2.0
"""Conditioning on the device that renders: vertices and pose go there, bytes come back.

Texture rendering, UV rendering and mask are drawn where the networks are and never leave it. Used
beside a GPU's engine; written for any device, so that tests hold it to the host's path on a CPU.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.engine.base import EngineInfo, Pictures, RenderEngine
from styleavatar_core.engine.cuda.graph import CapturedModule, batch_sizes, padded_count
from styleavatar_core.engine.cuda.stream import Tensors
from styleavatar_core.engine.cuda.transfers import Transfers, Underway
from styleavatar_core.errors import RenderError
from styleavatar_core.raster.tensor_render import POSE_COUNT, TensorFaceRenderer, pose_numbers
from styleavatar_core.types import FaceParameters, FloatArray

Moved = tuple[FloatArray, FloatArray]  # vertices (V, 3) and pose (POSE_COUNT,) of a frame

_MOST_UNDERWAY = 2  # one is computed while the other comes back


class DeviceConditioning(nn.Module):
    """From vertices and pose to what the networks take, on one device.

    Args:
        manifest: The avatar's; networks of the published code see the face without its rim.
        info: The engine that will render.
    """

    def __init__(self, manifest: AvatarManifest, info: EngineInfo) -> None:
        super().__init__()
        model = manifest.face_model()
        albedo = model.albedo(manifest.face_identity.texture)
        self.renderer = TensorFaceRenderer(model, albedo, info.rendering_size_px)
        self._step = info.rendering_size_px // info.uv_size
        self._has_rim = not manifest.is_imported

    def forward(self, vertices: torch.Tensor, pose: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Draws a batch.

        Args:
            vertices: (B, V, 3) float32, model space.
            pose: (B, POSE_COUNT) float32, see ``pose_numbers``.

        Returns:
            The three inputs of an engine's graph; entries that this needed, and that there were.
        """
        texture, uv, mask, room = self.renderer(vertices, pose)
        every = slice(None, None, self._step)
        mask = mask[:, every, every]
        return texture, uv[:, every, every], mask if self._has_rim else _without_rim(mask), room


def _without_rim(mask: torch.Tensor) -> torch.Tensor:
    """Takes those texels of (B, U, U) away that have a neighbour in a row or column outside."""
    wide = F.pad(mask[:, None].float(), (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = torch.minimum(wide[:, :-2, 1:-1], wide[:, 2:, 1:-1])
    columns = torch.minimum(wide[:, 1:-1, :-2], wide[:, 1:-1, 2:])
    return torch.minimum(torch.minimum(rows, columns).to(mask.dtype), mask)


class DeviceRenderer:
    """Renders an avatar whose engine can launch what is on its device. Not thread-safe.

    Args:
        engine: The engine.
        manifest: The avatar's.
        conditioning: The host's, which moves the mesh.
    """

    def __init__(
        self, engine: RenderEngine, manifest: AvatarManifest, conditioning: ConditioningRenderer
    ) -> None:
        assert engine.stream is not None
        self._engine, self._mesh, self._stream = engine, conditioning, engine.stream
        module = DeviceConditioning(manifest, engine.info)
        self._module = module.to(self._stream.device).eval()
        self._vertex_count = len(manifest.face_model().mean_shape)
        self._drawing = self._captured()
        self._transfers = Transfers(self._compute, self._stream)

    def _captured(self) -> CapturedModule:
        """Returns what draws."""
        inputs = [((self._vertex_count, 3), torch.float32), ((POSE_COUNT,), torch.float32)]
        return CapturedModule(self._module, inputs, self._stream)

    def warm_up(self, batch_limit: int) -> None:
        """Renders a frame of each batch size, so that no live one waits for what it needs.

        Args:
            batch_limit: Frames that will be rendered at once, at most.
        """
        self._engine.warm_up(batch_limit)
        self._drawing.prepare(batch_limit)
        vertices = np.zeros((self._vertex_count, 3), np.float32)
        nobody = (vertices, np.zeros(POSE_COUNT, np.float32))
        for size in batch_sizes(batch_limit):
            self.begin([nobody] * size)()

    def prepare(self, batch: Sequence[FaceParameters]) -> list[Moved]:
        """Does the host's part: moves the mesh of each frame.

        Raises:
            InvalidInputError: Parameters belong to another face model.
        """
        return [(self._mesh.vertices(face), pose_numbers(face)) for face in batch]

    def begin(self, prepared: Sequence[Moved]) -> Callable[[], list[Pictures]]:
        """Begins rendering what was prepared, and does not wait for it.

        As one batch if the engine gains by that; otherwise one frame is rendered while the one
        before it comes back.

        Returns:
            Waits, and gives image (H, W, 3) and mask (H, W) uint8 of each frame, not copied once
            more; raises as this does.

        Raises:
            RenderError: These frames failed; the renderer lives.
        """
        size = len(prepared) if self._engine.gains_by_batches else 1
        waiting = deque(prepared[start : start + size] for start in range(0, len(prepared), size))
        underway: deque[tuple[Sequence[Moved], Underway]] = deque()

        def give() -> None:
            while waiting and len(underway) < _MOST_UNDERWAY:
                group = waiting.popleft()
                underway.append((group, self._give(group)))

        def finish() -> list[Pictures]:
            outputs: list[Pictures] = []
            with self._explained():
                while underway:
                    outputs.append(self._take(*underway.popleft()))
                    give()
            return [pair for images, masks in outputs for pair in zip(images, masks, strict=True)]

        with self._explained():
            give()
        return finish

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Says of whatever fails that it is these frames."""
        try:
            yield
        except Exception as error:  # the runtimes' exceptions have no common base
            runtime = self._engine.runtime
            raise RenderError(f"{runtime} could not render these frames: {error}") from error

    def _give(self, group: Sequence[Moved]) -> Underway:
        missing = padded_count(len(group)) - len(group)
        filled = [*group, *[group[-1]] * missing]
        return self._transfers.give([np.stack(parts) for parts in zip(*filled, strict=True)])

    def _take(self, group: Sequence[Moved], batch: Underway) -> Pictures:
        """Returns the pictures of a batch; renders it again, if its mesh did not fit."""
        image, mask, (needed, there_were) = self._transfers.take(batch)
        if needed <= there_were:
            return image[: len(group)], mask[: len(group)]
        self._module.renderer.make_room(int(needed), len(image))
        self._drawing.close()  # what was captured has the old size
        self._drawing = self._captured()
        return self._take(group, self._give(group))

    def _compute(self, *given: torch.Tensor) -> Tensors:
        """Draws and renders on the device, without waiting for it."""
        *inputs, room = self._drawing.launch(given)
        return (*self._engine.launch(inputs), room)

    def close(self) -> None:
        """Frees graphs and places; the engine is closed after it."""
        self._drawing.close()
        del self._transfers
