# SPDX-License-Identifier: Apache-2.0
"""MediaPipe's face landmarks: 478 points, irises included. The only file here that knows MediaPipe.

MediaPipe up to 0.10.21 carries its models; later versions need ``face_landmarker.task`` from their
publisher, given as ``task_path``. One detector serves one stream of frames, in one thread.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import mediapipe as mp
import numpy as np

from styleavatar_core.errors import AssetError, InvalidInputError
from styleavatar_core.types import ByteArray, FloatArray

# How many faces are looked for before one is chosen; more costs time on every frame.
_CANDIDATE_COUNT = 3
_TASK_FRAME_MS = 33


class _Backend(Protocol):
    def landmarks(self, frame: ByteArray) -> list[FloatArray]: ...

    def close(self) -> None: ...


class LandmarkDetector:
    """Finds the landmarks of one face and stays with it.

    Args:
        task_path: ``face_landmarker.task``; needed only where MediaPipe has no bundled models.
        single_face: Look for one face only, which is faster; else the largest is chosen first and
            the nearest to the last one afterwards.

    Raises:
        AssetError: This MediaPipe has no models and no ``task_path`` was given.
    """

    def __init__(self, task_path: Path | None = None, *, single_face: bool = True) -> None:
        count = 1 if single_face else _CANDIDATE_COUNT
        self._backend: _Backend
        if task_path is not None:
            self._backend = _TaskBackend(task_path, count)
        elif hasattr(mp, "solutions"):
            self._backend = _BundledBackend(count)
        else:
            raise AssetError(
                "This MediaPipe version carries no models: give the path of face_landmarker.task, "
                "or install mediapipe 0.10.21."
            )
        self._last: FloatArray | None = None
        self._is_warm = False

    def detect(self, frame: ByteArray) -> FloatArray | None:
        """Finds the face.

        Args:
            frame: (H, W, 3) uint8 RGB.

        Returns:
            (478, 3) float32: x and y in pixels, z on the scale of x, growing away from the camera;
            None if there is no face.
        """
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
            raise InvalidInputError(
                f"A frame must be (height, width, 3) uint8; got {frame.shape} {frame.dtype}."
            )
        frame = np.ascontiguousarray(frame)
        if not self._is_warm:
            # The first answer is up to a pixel off: the region of interest settles with the second.
            self._backend.landmarks(frame)
            self._is_warm = True
        faces = self._backend.landmarks(frame)
        self._last = self._choose(faces)
        return self._last

    def close(self) -> None:
        """Frees the models."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _choose(self, faces: list[FloatArray]) -> FloatArray | None:
        if not faces:
            return None
        if self._last is None:
            return max(faces, key=lambda face: float(np.ptp(face[:, 1])))
        center = self._last.mean(axis=0)
        return min(faces, key=lambda face: float(np.linalg.norm((face.mean(axis=0) - center)[:2])))


class _BundledBackend:
    def __init__(self, face_count: int) -> None:
        self._mesh = mp.solutions.face_mesh.FaceMesh(
            static_image_mode=False, max_num_faces=face_count, refine_landmarks=True
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


def _to_pixels(points: Any, frame: ByteArray) -> FloatArray:
    height, width = frame.shape[:2]
    array = np.array([(p.x, p.y, p.z) for p in points], np.float32)
    return array * np.array([width, height, width], np.float32)
