# SPDX-License-Identifier: Apache-2.0
"""What comes back from a rendering worker."""

from __future__ import annotations

from dataclasses import dataclass

from styleavatar_core.errors import OverloadedError
from styleavatar_core.types import ByteArray

# Reason of the error when a worker is asked for an engine that it does not hold.
AVATAR_NOT_LOADED = "AVATAR_NOT_LOADED"
# Reason of the error when a frame waited longer for a worker than its stream allows.
FRAME_LATE = "FRAME_LATE"
# Reason of the error when nobody waits for a frame any more whose rendering has not begun.
FRAME_ABANDONED = "FRAME_ABANDONED"


@dataclass(frozen=True, slots=True)
class RenderedPicture:
    """One picture from a worker.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        timings_ms: Time of each stage inside the worker.
        mask: (S, S) uint8, 255 = person; None when it was not asked for.
        busy_s: How long the worker was at it; its share of a batch.
        batch_size: Frames that were rendered together with it, itself included.
        came_s: ``time.perf_counter()`` when it came.
    """

    image: ByteArray
    timings_ms: dict[str, float]
    mask: ByteArray | None = None
    busy_s: float = 0.0
    batch_size: int = 1
    came_s: float = 0.0


def frame_late() -> OverloadedError:
    """Returns the error of a frame that waited longer for a worker than its stream allows."""
    return OverloadedError("The frame waited too long.", reason=FRAME_LATE)
