# SPDX-License-Identifier: Apache-2.0
"""Drives a finished avatar with somebody else's video and tracks what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from styleavatar_core.avatar.reenactment import Retargeter
from styleavatar_core.avatar.statistics import ParameterStatistics
from styleavatar_core.data.picture import contact_sheet
from styleavatar_core.data.video import read_frames
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.errors import FaceNotFoundError
from styleavatar_core.tracking.tracker import Tracker
from styleavatar_core.types import ByteArray, FaceParameters

PICTURE_PX = 208  # of each picture that is shown
_PICTURE_STEP = 15  # of the driver's frames, one in so many may be shown


@dataclass(frozen=True, slots=True)
class DrivenFrames:
    """What happened, frame by frame; frames without a face in driver or output are left out.

    Attributes:
        wanted: The driver's parameters.
        given: What the avatar was given for them, in the coordinates of its window.
        seen: Parameters of the avatar's pictures.
        pictures: Some frames of the driver beside the avatar's pictures, small: those of a long
            clip would fill the memory.
    """

    wanted: list[FaceParameters] = field(default_factory=list)
    given: list[FaceParameters] = field(default_factory=list)
    seen: list[FaceParameters] = field(default_factory=list)
    pictures: list[ByteArray] = field(default_factory=list)


def drive_avatar(
    renderer: AvatarRenderer, driver: Path, *, frame_limit: int | None = None
) -> DrivenFrames:
    """Drives an avatar as the services do, but without filter.

    Args:
        renderer: The avatar.
        driver: Another person's video.
        frame_limit: Look at the first so many frames only.

    Raises:
        FaceNotFoundError: Driver or output shows no face.
    """
    manifest = renderer.manifest
    retargeter = Retargeter(
        ParameterStatistics.from_dict(manifest.statistics), reach=manifest.reach
    )
    model = manifest.face_model()
    driver_tracker, output_tracker = (Tracker(model, filtered=False) for _ in range(2))
    frames = DrivenFrames()
    try:
        for index, time_s, frame in read_frames(driver):
            if frame_limit is not None and index >= frame_limit:
                break
            wanted = driver_tracker.track(frame, time_s, index)
            if wanted is None:
                continue
            given = retargeter.retarget(wanted).parameters
            image = renderer.render(given).image
            seen = output_tracker.track(image, time_s, index)
            if seen is not None:
                frames.wanted.append(wanted)
                frames.given.append(given)
                frames.seen.append(seen)
            if index % _PICTURE_STEP == 0 or not frames.pictures:
                frames.pictures.append(contact_sheet([[frame, image]], PICTURE_PX))
    finally:
        driver_tracker.close()
        output_tracker.close()
    if len(frames.seen) < 2:
        raise FaceNotFoundError(f"too few faces were found in {driver.name} or the avatar's output")
    return frames
