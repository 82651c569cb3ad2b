# SPDX-License-Identifier: Apache-2.0
"""What every engine does: conditioning in, pictures out. Imports neither torch nor a runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from styleavatar_core.types import ByteArray, FloatArray


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What runs an avatar.

    Attributes:
        backend: ``torch``, ``onnxruntime``, ``openvino`` or ``tensorrt``.
        precision: ``fp32`` or ``fp16``.
        image_size_px: Side of the pictures.
        rendering_size_px: Side R of the texture rendering.
        uv_size: Side U of UV rendering and face mask.
        note: Why it is not what was asked for, or how far it is from fp32; for people.
    """

    backend: str
    precision: str
    image_size_px: int
    rendering_size_px: int
    uv_size: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class RenderInput:
    """Conditioning of a batch, in the avatar's window.

    Attributes:
        texture_rendering: (B, R, R, 3) uint8 RGB.
        uv_rendering: (B, U, U, 2) float32 in [0, 1].
        face_mask: (B, U, U) uint8, 1 on the face.
    """

    texture_rendering: ByteArray
    uv_rendering: FloatArray
    face_mask: ByteArray


@dataclass(frozen=True, slots=True)
class RenderOutput:
    """Pictures of a batch.

    Attributes:
        image: (B, H, W, 3) uint8 RGB.
        mask: (B, H, W) uint8, foreground: 255 = person.
    """

    image: ByteArray
    mask: ByteArray


class RenderEngine(Protocol):
    """Renders one avatar. Not thread-safe."""

    @property
    def info(self) -> EngineInfo:
        """What it is."""

    def render(self, inputs: RenderInput) -> RenderOutput:
        """Renders a batch.

        Raises:
            RenderError: This batch failed; the engine lives.
        """

    def warm_up(self) -> None:
        """Renders once, so that the next call is as fast as all others."""

    def close(self) -> None:
        """Frees what it holds; no other call may follow."""


def blank_input(info: EngineInfo) -> RenderInput:
    """Returns an input without a face, for warm-up and calibration."""
    size, uv_size = info.rendering_size_px, info.uv_size
    return RenderInput(
        np.zeros((1, size, size, 3), np.uint8),
        np.zeros((1, uv_size, uv_size, 2), np.float32),
        np.zeros((1, uv_size, uv_size), np.uint8),
    )
