# SPDX-License-Identifier: Apache-2.0
"""One tracker for each stream, fed from shared memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from services.common.image_codec import decode_image
from services.common.worker.arena import SharedArena
from services.common.worker.parameters import identity_from_body, pack_parameters
from services.tracking.h264 import H264Decoder
from services.tracking.pool import STREAM_NOT_OPEN
from styleavatar_core.errors import AssetError, RenderError
from styleavatar_core.types import ByteArray, FaceIdentity, FaceParameters

logger = logging.getLogger(__name__)

Body = dict[str, Any]


class FaceTracker(Protocol):
    """Follows one face through the frames of one stream."""

    def track(
        self, frame_rgb: ByteArray, capture_time_s: float = 0.0, frame_index: int = 0
    ) -> FaceParameters | None:
        """Returns the face in a frame, None when there is none."""

    def close(self) -> None:
        """Frees the landmark model."""


OpenTracker = Callable[[str, FaceIdentity | None, bool], FaceTracker]


def open_tracker(model_id: str, identity: FaceIdentity | None, filtered: bool) -> FaceTracker:
    """Makes a tracker; the heavy libraries come with it.

    Args:
        model_id: Face model to track with; the built-in one if empty.
        identity: The person, when known.
        filtered: Whether parameters are smoothed over time.

    Raises:
        AssetError: There is no such face model here.
        InvalidInputError: The identity is of another one.
    """
    from styleavatar_core.face3d.library import find_face_model
    from styleavatar_core.tracking.tracker import Tracker

    try:
        model = find_face_model(model_id)
    except AssetError as error:
        logger.warning("face model not found", extra={"cause": str(error)})
        raise AssetError(
            f"This service has no face model '{model_id[:64]}'.", reason=error.reason
        ) from error
    return Tracker(model, identity, filtered=filtered)


@dataclass(slots=True)
class _Stream:
    """What one stream holds here: its tracker, and its decoder once it sends H.264."""

    tracker: FaceTracker
    decoder: H264Decoder | None = None

    def decode(self, arena: SharedArena, body: Body) -> ByteArray:
        """Returns the picture that lies in a slot, (H, W, 3) uint8 RGB; see ``Runner.track``."""
        ends = list(accumulate(body["byte_counts"]))
        data = arena.read(body["slot"], ends[-1])
        if body["image_format"] != "h264":
            return decode_image(data, body["image_format"], body["width_px"], body["height_px"])
        self.decoder = self.decoder or H264Decoder()
        units = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        for unit in units[:-1]:
            self.decoder.skip(unit)
        return self.decoder.decode(units[-1])


class Runner:
    """The trackers of one worker."""

    def __init__(self, arena: SharedArena, open_one: OpenTracker) -> None:
        self._arena = arena
        self._open = open_one
        self._streams: dict[str, _Stream] = {}

    def open(self, body: Body) -> Body:
        """Makes the tracker of a stream.

        Args:
            body: ``stream_id``, ``model_id``, ``identity`` or None, ``filtered``.
        """
        identity = body["identity"] and identity_from_body(body["identity"])
        tracker = self._open(body["model_id"], identity, body["filtered"])
        self._streams[body["stream_id"]] = _Stream(tracker)
        return {}

    def close(self, body: Body) -> Body:
        """Ends the tracker of a stream: ``stream_id``."""
        stream = self._streams.pop(body["stream_id"], None)
        if stream is not None:
            stream.tracker.close()
        return {}

    def track(self, body: Body) -> Body:
        """Tracks one frame.

        Args:
            body: ``stream_id``, ``slot``, ``byte_counts`` of what lies there one after the other,
                the frame last, ``image_format``, ``width_px``, ``height_px``, ``capture_time_s``,
                ``frame_index``.

        Returns:
            ``model_id`` and ``byte_count`` of the face that lies in the slot now, 0 when there is
            none; ``timings_s`` by stage.
        """
        stream = self._streams.get(body["stream_id"])
        if stream is None:
            raise RenderError("The stream is not open here.", reason=STREAM_NOT_OPEN)
        started = time.perf_counter()
        frame = stream.decode(self._arena, body)
        decoded = time.perf_counter()
        parameters = stream.tracker.track(frame, body["capture_time_s"], body["frame_index"])
        tracked = time.perf_counter()
        found = pack_parameters(parameters) if parameters else b""
        self._arena.write(body["slot"], found)
        return {
            "model_id": parameters.model_id if parameters else "",
            "byte_count": len(found),
            "timings_s": {"decoding": decoded - started, "tracking": tracked - decoded},
        }
