# SPDX-License-Identifier: Apache-2.0
"""MediaPipe's face landmarks: 478 points, irises included. The only file here that knows MediaPipe.

MediaPipe up to 0.10.21 carries its models; later versions need ``face_landmarker.task`` from their
publisher, given as ``task_path``. One detector serves one stream of frames, in one thread.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from styleavatar_core.data.frame_clock import FrameClock
from styleavatar_core.data.mediapipe_import import QuietSolution, import_mediapipe
from styleavatar_core.errors import AssetError, InvalidInputError
from styleavatar_core.face3d.camera import from_pixels, to_pixels
from styleavatar_core.types import ByteArray, FloatArray

mp = import_mediapipe()

# How many faces are looked for before one is chosen.
_CANDIDATE_COUNT = 3
# How far the person can have gone, in face heights: between two frames, and more the longer they
# are hidden, but never as far as somebody sits who sits beside them.
_REACH, _REACH_PER_S, _REACH_MAX = 0.75, 0.5, 1.25
_SIZE_RATIO_MAX = 1.6  # and by how much they can have come nearer: who stands behind is smaller
GIVE_UP_S = 3.0  # so long hidden, they are gone, and the largest face there is takes their place
_SURROUNDINGS = 0.6  # of a face's size are left around it when all else is blacked out
_TASK_FRAME_MS = 33


class Backend(Protocol):
    """Finds faces in one picture after the other."""

    def landmarks(self, frame: ByteArray) -> list[FloatArray]:
        """Returns the landmarks of each face in (H, W, 3) uint8 RGB: (478, 3) float32 pixels."""

    def close(self) -> None:
        """Frees the models."""


class LandmarkDetector:
    """Finds the landmarks of one person and stays with that person, whoever else is there.

    The largest face is chosen first. While it is followed, no other is looked for, which is what
    makes a frame cheap; when it was lost or the detector has jumped to somebody else, all faces are
    looked for and the one is taken that is where the person can be. Nobody is followed for them
    before they have been hidden for 3 s.

    Args:
        task_path: ``face_landmarker.task``; needed only where MediaPipe has no bundled models.

    Raises:
        AssetError: This MediaPipe has no models and no ``task_path`` was given.
    """

    def __init__(self, task_path: Path | None = None) -> None:
        self._task_path = task_path
        self._follower = self._open_follower()
        self._finder: Backend | None = None  # made when several faces are first looked for
        self._last: FloatArray | None = None
        self._size = (0, 0)  # width and height of the frame before
        self._clock = FrameClock()
        self._lost_s = 0.0
        self._is_following = False

    def detect(self, frame: ByteArray, capture_time_s: float = 0.0) -> FloatArray | None:
        """Finds the face.

        Args:
            frame: (H, W, 3) uint8 RGB.
            capture_time_s: When it was captured: tells how long a lost person has been hidden.

        Returns:
            (478, 3) float32: x and y in pixels, z on the scale of x, growing away from the camera;
            None if there is no face.
        """
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise InvalidInputError(
                f"A frame must be (height, width, 3) uint8; got {frame.shape} {frame.dtype}."
            )
        self._lost_s += self._clock.step(capture_time_s)
        if self._lost_s > GIVE_UP_S:
            self._last = None
        self._resize(frame.shape[1], frame.shape[0])
        frame = np.ascontiguousarray(frame)
        found = self._choose(self._follower.landmarks(frame)) if self._is_following else None
        if found is None:
            found = self._find(frame)
        self._is_following = found is not None
        if found is not None:
            self._last = found
            self._lost_s = 0.0
        return found

    def _resize(self, width: int, height: int) -> None:
        """Carries the person's place over into frames of another size: a call changes it."""
        if self._last is not None and self._size != (width, height):
            self._last = to_pixels(from_pixels(self._last, *self._size), width, height)
        self._size = (width, height)

    def _find(self, frame: ByteArray) -> FloatArray | None:
        """Chooses among all faces, and makes the follower follow the chosen one."""
        if self._finder is None:
            self._finder = self._open(_CANDIDATE_COUNT)
        faces = self._finder.landmarks(frame)
        chosen = self._choose(faces)
        if chosen is None:
            return None
        view = _alone(frame, chosen) if len(faces) > 1 else frame
        # The first answer is up to a pixel off: the region of interest settles with the second.
        self._follower.landmarks(view)
        followed = self._choose(self._follower.landmarks(view))
        return chosen if followed is None else followed

    def _choose(self, faces: list[FloatArray]) -> FloatArray | None:
        if self._last is None:
            return max(faces, key=height_of, default=None)
        center, height = self._last[:, :2].mean(axis=0), height_of(self._last)
        reach = min(_REACH + _REACH_PER_S * self._lost_s, _REACH_MAX) * height

        def away(face: FloatArray) -> float:
            return float(np.linalg.norm(face[:, :2].mean(axis=0) - center))

        def can_be(face: FloatArray) -> bool:
            ratio = height_of(face) / height
            return away(face) <= reach and 1 / _SIZE_RATIO_MAX <= ratio <= _SIZE_RATIO_MAX

        return min(filter(can_be, faces), key=away, default=None)

    def _open_follower(self) -> Backend:
        return self._open(1)

    def _open(self, face_count: int) -> Backend:
        if self._task_path is not None:
            return _TaskBackend(self._task_path, face_count)
        if hasattr(mp, "solutions"):
            return _BundledBackend(face_count)
        raise AssetError(
            "This MediaPipe version carries no models: give the path of face_landmarker.task, "
            "or install mediapipe 0.10.21."
        )

    def close(self) -> None:
        """Frees the models."""
        self._follower.close()
        if self._finder is not None:
            self._finder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _BundledBackend:
    def __init__(self, face_count: int) -> None:
        options = {"max_num_faces": face_count, "refine_landmarks": True}
        self._mesh = QuietSolution(
            lambda: mp.solutions.face_mesh.FaceMesh(static_image_mode=face_count > 1, **options)
        )

    def landmarks(self, frame: ByteArray) -> list[FloatArray]:
        found = self._mesh.process(frame).multi_face_landmarks
        return [_to_pixels(face.landmark, frame) for face in found or ()]

    def close(self) -> None:
        self._mesh.close()


class _TaskBackend:
    def __init__(self, path: Path, face_count: int) -> None:
        if not path.is_file():
            raise AssetError(f"The landmark model {path.name} is not there.")
        vision = mp.tasks.vision
        self._landmarker = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=mp.tasks.BaseOptions(model_asset_path=str(path)),
                running_mode=vision.RunningMode.VIDEO,
                num_faces=face_count,
            )
        )
        self._time_ms = 0

    def landmarks(self, frame: ByteArray) -> list[FloatArray]:
        self._time_ms += _TASK_FRAME_MS  # MediaPipe wants time to grow, not to be true
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=frame)
        found = self._landmarker.detect_for_video(image, self._time_ms).face_landmarks
        return [_to_pixels(face, frame) for face in found]

    def close(self) -> None:
        self._landmarker.close()


def height_of(face: FloatArray) -> float:
    """Returns the height of the face that (478, 3) landmarks outline, pixels."""
    return float(np.ptp(face[:, 1]))


def _alone(frame: ByteArray, face: FloatArray) -> ByteArray:
    """Blacks out all but one face and what is around it."""
    low, high = face[:, :2].min(axis=0), face[:, :2].max(axis=0)
    margin = _SURROUNDINGS * (high - low)
    left, top = np.maximum(low - margin, 0).astype(int)
    right, bottom = (high + margin).astype(int) + 1
    view = np.zeros_like(frame)
    view[top:bottom, left:right] = frame[top:bottom, left:right]
    return view


def _to_pixels(points: Any, frame: ByteArray) -> FloatArray:
    height, width = frame.shape[:2]
    array = np.array([(p.x, p.y, p.z) for p in points], np.float32)
    return array * np.array([width, height, width], np.float32)
