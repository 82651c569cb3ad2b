# SPDX-License-Identifier: Apache-2.0
"""A renderer whose pictures say whose they are and which frame they show."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.errors import AssetError, InvalidInputError, RenderError
from styleavatar_core.types import ByteArray, FaceParameters

IMAGE_SIZE_PX = 64
BEHAVIOR_NAME = "behavior.json"
GATE_NAME = "gate"
AT_GATE_NAME = "at-gate"
CLOSED_NAME = "closed"
MEMORY_BYTES = 1_000_000


@dataclass
class FakeFrame:
    image: ByteArray
    mask: ByteArray = field(default_factory=lambda: half_mask())
    timings_ms: dict[str, float] = field(default_factory=dict)


class FakeRenderer:
    """Marks each picture; a file ``behavior.json`` in the bundle makes it misbehave.

    With ``load_gate`` it is not loaded before there is a file ``gate`` in the bundle, and there
    is a file ``at-gate`` once it waits; with ``tell_closed`` there is a file ``closed`` once it was
    let go. Where ``renders_ahead`` is told, ``turns`` notes what is begun and ended.
    """

    turns: ClassVar[list[tuple[object, ...]]] = []

    def __init__(
        self,
        bundle: Path,
        *,
        backend: str = "auto",
        precision: str | None = None,
        thread_count: int = 1,
    ) -> None:
        opened = read_bundle(bundle)
        self.digest = opened.digest
        self._mark = int(opened.manifest.style_time)
        self._closed = bundle / CLOSED_NAME
        behavior = bundle / BEHAVIOR_NAME
        self._behavior = json.loads(behavior.read_text()) if behavior.exists() else {}
        if self._behavior.get("refuse_to_load"):
            raise AssetError("This bundle is damaged on purpose.")
        if self._behavior.get("die_at_load"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._behavior.get("out_of_memory"):
            raise MemoryError
        if self._behavior.get("engine_out_of_memory"):
            raise RenderError("torch could not render this frame") from MemoryError()
        if self._behavior.get("device_fails_at_load"):
            raise RuntimeError("CUDA error: unspecified launch failure")
        self.memory_bytes = self._behavior.get("memory_bytes", MEMORY_BYTES)
        self.batch_limit = self._behavior.get("batch_limit", 1)
        self.renders_ahead = self._behavior.get("renders_ahead", False)
        time.sleep(self._behavior.get("load_s", 0.0))
        if self._behavior.get("load_gate"):
            (bundle / AT_GATE_NAME).touch()
        while self._behavior.get("load_gate") and not (bundle / GATE_NAME).exists():
            time.sleep(0.01)

    def begin_batch(self, batch: Sequence[FaceParameters]) -> Callable[[], list[FakeFrame]]:
        if batch[0].frame_index == self._behavior.get("begin_fails_at"):
            raise RenderError("This frame cannot be begun, on purpose.")
        self._tell_turn("begins", batch)

        def finish() -> list[FakeFrame]:
            self._tell_turn("ends", batch)
            time.sleep(self._behavior.get("render_s", 0.0))
            return [self._draw(parameters) for parameters in batch]

        return finish

    def _tell_turn(self, what: str, batch: Sequence[FaceParameters]) -> None:
        if "renders_ahead" in self._behavior:
            self.turns.append((what, *(parameters.frame_index for parameters in batch)))

    def _draw(self, parameters: FaceParameters) -> FakeFrame:
        index = parameters.frame_index
        if index == self._behavior.get("fail_at"):
            raise RenderError("This frame fails on purpose.")
        if index == self._behavior.get("refuse_at"):
            raise InvalidInputError("This frame is refused on purpose.")
        if index == self._behavior.get("memory_fails_at"):
            raise RenderError("torch could not render this frame") from MemoryError()
        if index == self._behavior.get("device_fails_at"):
            raise RenderError("torch could not render this frame: CUDA error: unspecified failure")
        if index >= self._behavior.get("die_from", index + 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self._behavior.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        image = marked_image(self._mark, index, float(parameters.expression[0]))
        network_ms = 1e3 * self._behavior.get("render_s", 0.0)
        return FakeFrame(image, timings_ms={"conditioning": 0.1, "network": network_ms})

    def close(self) -> None:
        if self._behavior.get("tell_closed"):
            self._closed.touch()


def half_mask() -> ByteArray:
    """(64, 64) uint8: the person is in the right half."""
    mask = np.zeros((IMAGE_SIZE_PX, IMAGE_SIZE_PX), np.uint8)
    mask[:, IMAGE_SIZE_PX // 2 :] = 255
    return mask


def marked_image(mark: int, frame_index: int, value: float) -> ByteArray:
    """(64, 64, 3) uint8: quarters of red = mark, green = index, blue = value in percent."""
    image = np.zeros((IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3), np.uint8)
    image[...] = (mark, frame_index % 256, round(100 * value) % 256)
    return image


def read_mark(image: ByteArray) -> tuple[int, int, int]:
    """Returns mark, index and value of a picture."""
    red, green, blue = image[IMAGE_SIZE_PX // 2, IMAGE_SIZE_PX // 2].tolist()
    return red, green, blue
