# SPDX-License-Identifier: Apache-2.0
"""What goes into a stream and what comes out of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from styleavatar.v1 import face_pb2, image_pb2, rendering_service_pb2

ByteArray = npt.NDArray[np.uint8]

IMAGE_FORMATS = {
    "raw_rgb": image_pb2.IMAGE_FORMAT_RAW_RGB,
    "jpeg": image_pb2.IMAGE_FORMAT_JPEG,
    "png": image_pb2.IMAGE_FORMAT_PNG,
    "h264": image_pb2.IMAGE_FORMAT_H264,
}
_BACKGROUNDS = {
    "original": rendering_service_pb2.BACKGROUND_ORIGINAL,
    "green": rendering_service_pb2.BACKGROUND_GREEN_SCREEN,
    "transparent": rendering_service_pb2.BACKGROUND_TRANSPARENT,
}


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
class StoredFrame:
    """A frame of the driver as a camera or a call gives it: for lines that are too thin for pixels.

    Attributes:
        frame_index: Echoed by the answer.
        capture_time_s: Seconds from any zero; grows.
        data: The stored pixels; of H.264 one access unit (Annex B), in the order of the stream.
        image_format: How they are stored.
        is_neutral: Whether the driver's expression in the frame before is declared neutral.
    """

    frame_index: int
    capture_time_s: float
    data: bytes
    image_format: Literal["jpeg", "png", "h264"]
    is_neutral: bool = False


FrameT = TypeVar("FrameT", DriverFrame, StoredFrame)


@dataclass(frozen=True, slots=True)
class DriverFace:
    """A face of the driver, tracked by whomever.

    Attributes:
        parameters: The face, with its frame index and capture time, which the answer echoes.
        is_neutral: Whether the driver's expression in the face before is declared neutral.
    """

    parameters: face_pb2.FaceParameters
    is_neutral: bool = False

    @property
    def frame_index(self) -> int:
        """Echoed by the answer."""
        return self.parameters.frame_index


@dataclass(frozen=True, slots=True)
class MissingFace:
    """A frame in which whoever tracks found no face: the last one is held, then fades to rest.

    Attributes:
        frame_index: Echoed by the answer.
        capture_time_s: On the clock of the faces' ``capture_offset``.
        is_neutral: Whether the driver's expression in the face before is declared neutral.
    """

    frame_index: int
    capture_time_s: float
    is_neutral: bool = False


@dataclass(frozen=True, slots=True)
class PictureOptions:
    """How pictures are to be, and how often.

    Attributes:
        image_size_px: Side of the pictures; 0 for the avatar's own.
        image_format: How they come: as arrays, or as bytes of a format.
        crop: Left, top and side of the part to show, in shares of the side; None for the whole.
        background: What is behind the person: the original, green, nothing (PNG only), or a
            picture, (H, W, 3) uint8 RGB, stretched to the avatar's.
        jpeg_quality: 1 to 100; 0 for the service's.
        bits_per_second: Of H.264; 0 for what suits the size.
        frames_per_second: Rate that the stream will have, for which the service sets time aside;
            0 for its default. A service that has no time for 30 may have it for 15.
        visible_label: Whether the letters AI stand in the corner, for those who watch.
        live: Whether frames come from a camera though every one is to be answered: beside live
            streams others have what these leave.
    """

    image_size_px: int = 0
    image_format: Literal["raw_rgb", "jpeg", "png", "h264"] = "raw_rgb"
    crop: tuple[float, float, float] | None = None
    background: Literal["original", "green", "transparent"] | ByteArray = "original"
    jpeg_quality: int = 0
    bits_per_second: int = 0
    frames_per_second: int = 0
    visible_label: bool = False
    live: bool = False

    def apply_to(self, config: rendering_service_pb2.RenderConfig) -> None:
        """Writes the options into a config."""
        config.image_size_px = self.image_size_px
        config.image_format = IMAGE_FORMATS[self.image_format]
        config.jpeg_quality = self.jpeg_quality
        config.bits_per_second = self.bits_per_second
        config.frames_per_second = self.frames_per_second
        config.visible_label = self.visible_label
        config.live = self.live
        if self.crop is not None:
            config.crop.left, config.crop.top, config.crop.side = self.crop
        if isinstance(self.background, str):
            config.background = _BACKGROUNDS[self.background]
            return
        height, width = self.background.shape[:2]
        config.background = rendering_service_pb2.BACKGROUND_IMAGE
        behind = config.background_image
        behind.format = image_pb2.IMAGE_FORMAT_RAW_RGB
        behind.width_px, behind.height_px = width, height
        behind.data = np.ascontiguousarray(self.background).tobytes()


@dataclass(frozen=True, slots=True)
class AvatarFrame:
    """A picture of the avatar, or why there is none.

    Attributes:
        frame_index: Index of the driver's frame.
        capture_time_s: Its capture time.
        image: (S, S, 3) uint8 RGB; None when the frame failed or comes as bytes.
        latency_s: From handing the frame to gRPC to having the answer.
        synthetic: True for every picture: no camera saw it.
        clamped: Whether the driver left what the avatar has learned.
        held: Whether no face was found, so that the last one is shown again.
        dropped_count: Frames dropped since the last answer.
        stage_ms: Time of each stage inside the services.
        failure: One sentence when the frame failed.
        data: The picture in the format that was asked for, unless as an array.
        reason: Stable UPPER_SNAKE word when the frame failed, e.g. ``KEY_FRAME_NEEDED``.
        key_frame: Of H.264: whether decoding can begin with this picture.
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
    data: bytes = b""
    reason: str = ""
    key_frame: bool = False


def paced(frames: Iterable[FrameT]) -> Iterator[FrameT]:
    """Lets each frame go at its capture time, the first one at once, as a camera does."""
    start_s: float | None = None
    for frame in frames:
        if start_s is None:
            start_s = time.perf_counter() - frame.capture_time_s
        time.sleep(max(0.0, start_s + frame.capture_time_s - time.perf_counter()))
        yield frame
