# SPDX-License-Identifier: Apache-2.0
"""What every engine does: conditioning in, pictures out. Imports neither torch nor a runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from styleavatar_core.errors import RenderError
from styleavatar_core.types import ByteArray, FloatArray

if TYPE_CHECKING:
    import torch

    from styleavatar_core.engine.cuda.stream import CudaStream
    from styleavatar_core.engine.face_lookup import FaceLookup

INPUT_NAMES = ("texture_rendering", "uv_rendering", "face_mask")
SAMPLED_NAMES = ("texture_rendering", "face_feature", "face_pixels")  # the face is sampled already
OUTPUT_NAMES = ("image", "mask")
Pictures = tuple[ByteArray, ByteArray]  # image and mask of a frame, or those of a batch
HOME: tuple[int, int] = (0, 0)  # the window in the middle of the canvas, where graphs have it


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What runs an avatar.

    Attributes:
        backend: ``torch``, ``onnxruntime``, ``openvino`` or ``tensorrt``.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        image_size_px: Side of the pictures.
        rendering_size_px: Side R of the texture rendering.
        uv_size: Side U of UV rendering and face mask.
        version: Of the runtime that was met.
        note: Why it is not what was asked for, or how far it is from fp32; for people.
    """

    backend: str
    precision: str
    image_size_px: int
    rendering_size_px: int
    uv_size: int
    version: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class RenderInput:
    """Conditioning of a batch, in the avatar's window.

    Attributes:
        texture_rendering: (B, R, R, 3) uint8 RGB.
        uv_rendering: (B, U, U, 2) float32 in [0, 1].
        face_mask: (B, U, U) uint8, 1 on the face.
        window: (x, y) of the foreground's window from the middle of the canvas, texels. The texture
            rendering is not moved with it; the others are.
    """

    texture_rendering: ByteArray
    uv_rendering: FloatArray
    face_mask: ByteArray
    window: tuple[int, int] = HOME

    def part(self, start: int, count: int = 1) -> RenderInput:
        """Returns some of them; beyond the last one it is repeated."""
        held = len(self.face_mask)
        rows: slice | np.ndarray = slice(start, start + count)
        if start + count > held:
            rows = np.minimum(np.arange(start, start + count), held - 1)
        return RenderInput(
            self.texture_rendering[rows], self.uv_rendering[rows], self.face_mask[rows]
        )


@dataclass(frozen=True, slots=True)
class RenderOutput:
    """Pictures of a batch.

    Attributes:
        image: (B, H, W, 3) uint8 RGB.
        mask: (B, H, W) uint8, foreground: 255 = person.
    """

    image: ByteArray
    mask: ByteArray


class RenderEngine(ABC):
    """Renders one avatar. Not thread-safe.

    Args:
        info: What it is.
    """

    runtime: ClassVar[str]  # for people
    # Whether frames rendered at once may take less time than one after the other.
    gains_by_batches: bool = False
    stream: CudaStream | None = None  # where it renders on a GPU, and ``launch`` what is there
    moves_windows: ClassVar[bool] = False  # whether it takes another window than ``HOME``
    _warm: ClassVar[set[EngineInfo]] = set()  # kinds of engines that have rendered in this process

    def __init__(self, info: EngineInfo) -> None:
        self._info = info

    @property
    def info(self) -> EngineInfo:
        """What it is."""
        return self._info

    def explain(self, note: str) -> None:
        """Has ``info`` say why it is what it is."""
        self._info = replace(self._info, note=note)

    @property
    def coming_bytes(self) -> int:
        """Memory that it does not take yet, but will from its first picture on."""
        return 0

    def render(self, inputs: RenderInput) -> RenderOutput:
        """Renders a batch.

        Raises:
            RenderError: This batch failed; the engine lives.
        """
        if inputs.window != HOME and not self.moves_windows:
            raise RenderError(f"{self.runtime} cannot move the person's window in its graph")
        try:
            return self._render(inputs)
        except Exception as error:  # the runtimes' exceptions have no common base
            raise RenderError(f"{self.runtime} could not render this frame: {error}") from error

    @abstractmethod
    def _render(self, inputs: RenderInput) -> RenderOutput:
        """Renders a batch; may raise what its runtime raises."""

    def launch(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Starts rendering what is on its device already; called where its stream launches.

        Args:
            inputs: What the graph takes, in the order of ``INPUT_NAMES``; a power of two of
                samples, one if it does not gain by batches.

        Returns:
            Image and mask, on the device; the next call may overwrite them.
        """
        raise RenderError(f"{self.runtime} takes its inputs from the host")

    def warm_up(self, batch_limit: int = 1) -> None:
        """Renders once, unless an engine of its kind has: code and memory are in the process then.

        The first frame of another avatar must not wait for a frame that nobody sees.

        Args:
            batch_limit: Frames that will be rendered at once, at most; for engines that must be
                made ready for that.
        """
        kind = replace(self._info, note="")
        if kind not in self._warm:
            self.render(blank_input(self._info))
            self._warm.add(kind)

    @abstractmethod
    def close(self) -> None:
        """Frees what it holds; no other call may follow."""


def feed_of(inputs: RenderInput, lookup: FaceLookup | None) -> dict[str, np.ndarray]:
    """Returns what a graph takes, by name and in its order.

    Args:
        inputs: A batch.
        lookup: Samples the face for a graph that takes it sampled; None where a graph does that.
    """
    if lookup is None:
        return {name: getattr(inputs, name) for name in INPUT_NAMES}
    samples = lookup.sample(inputs.uv_rendering, inputs.face_mask)
    return dict(zip(SAMPLED_NAMES, (inputs.texture_rendering, *samples), strict=True))


def blank_input(info: EngineInfo, count: int = 1) -> RenderInput:
    """Returns a batch without a face, for warm-up and calibration."""
    size, uv_size = info.rendering_size_px, info.uv_size
    return RenderInput(
        np.zeros((count, size, size, 3), np.uint8),
        np.zeros((count, uv_size, uv_size, 2), np.float32),
        np.zeros((count, uv_size, uv_size), np.uint8),
    )


def joined(inputs: Sequence[RenderInput]) -> RenderInput:
    """Makes one batch of several whose window is in the middle."""
    if len(inputs) == 1:
        return inputs[0]
    texture, uv, mask = (
        np.concatenate([getattr(part, name) for part in inputs]) for name in INPUT_NAMES
    )
    return RenderInput(texture, uv, mask)
