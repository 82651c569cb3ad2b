# SPDX-License-Identifier: Apache-2.0
"""What goes into a drive and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DriverFrame:
    """A frame of the driver.

    Attributes:
        frame_index: Echoed by the answer.
        capture_time_s: Seconds from any zero; grows.
        image: (H, W, 3) uint8 RGB.
        is_neutral: Whether the driver's expression in the frame before is declared neutral.
    """

    frame_index: int
    capture_time_s: float
    image: ByteArray
    is_neutral: bool = False


@dataclass(frozen=True, slots=True)
class AvatarFrame:
    """A picture of the avatar, or why there is none.

    Attributes:
        frame_index: Index of the driver's frame.
        capture_time_s: Its capture time.
        image: (S, S, 3) uint8 RGB; None when the frame failed.
        latency_s: From handing the frame to gRPC to having the answer.
        synthetic: True for every picture: no camera saw it.
        clamped: Whether the driver left what the avatar has learned.
        held: Whether no face was found, so that the last one is shown again.
        dropped_count: Frames dropped since the last answer.
        stage_ms: Time of each stage inside the services.
        failure: One sentence when the frame failed.
    """

    frame_index: int
    capture_time_s: float
    image: ByteArray | None
    latency_s: float
    synthetic: bool = False
    clamped: bool = False
    held: bool = False
    dropped_count: int = 0
    stage_ms: dict[str, float] = field(default_factory=dict)
    failure: str = ""
