# SPDX-License-Identifier: Apache-2.0
"""Tracking of a whole video with one identity: landmarks wait in a file, not in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from styleavatar_core.data.video import probe, read_frames
from styleavatar_core.errors import FaceNotFoundError, TrainingCanceled
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import from_pixels
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.tracking.fitter import FaceFitter, Fit
from styleavatar_core.tracking.identity import fit_identity
from styleavatar_core.tracking.looks import FourLooksDetector
from styleavatar_core.tracking.texture import solve_texture
from styleavatar_core.tracking.tracker import fit_to_parameters
from styleavatar_core.tracking.views import ViewSampler
from styleavatar_core.tracking.visits import find_others
from styleavatar_core.types import ByteArray, FaceIdentity, FaceParameters, FloatArray, Progress

_IDENTITY_FRAME_COUNT = 50
_PROGRESS_STEP = 10
_NO_FACE = np.full((478, 3), np.nan, np.float32)


@dataclass(frozen=True, slots=True)
class TrackedVideo:
    """A tracked video.

    Attributes:
        parameters: One per frame, in frame coordinates; None where there is no face.
        identity: Who is seen: one for the whole video.
        fps: Frames per second, on average.
        width: Frame width as displayed, pixels.
        height: Frame height as displayed, pixels.
        landmarks: (T, 478, 3) float32 pixels, z on the scale of x; NaN where there is no face.
            Mapped from a temporary file, as an hour of them has 600 MB.
        other_count: Frames that show somebody else, which count as frames without a face.
    """

    parameters: list[FaceParameters | None]
    identity: FaceIdentity
    fps: float
    width: int
    height: int
    landmarks: FloatArray
    other_count: int = 0


def track_video(
    path: Path,
    model: FaceModel | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_frame: Callable[[float, ByteArray, FloatArray | None], None] | None = None,
) -> TrackedVideo:
    """Tracks the face of a video.

    Landmarks first, by four looks at each frame; then one identity over frames spread through the
    clip; then every frame with that identity. Of several people, seen one after the other, the one
    is tracked who is seen most. Parameters are not filtered: they must lie on the pixels that a
    network learns from.

    Args:
        path: The video.
        model: The face model; the built-in one if None.
        on_progress: Told every few frames.
        should_stop: Asked every frame.
        on_frame: Shown every frame: its time, the picture, its landmarks in pixels or None.

    Raises:
        InvalidInputError: The file is no usable video, or shows nobody for most of the time.
        FaceNotFoundError: No frame shows a face.
        TrainingCanceled: ``should_stop`` said so.
    """
    model = model or builtin_model()
    info = probe(path)
    times: list[float] = []
    sampler: ViewSampler[int] = ViewSampler()
    width = height = 0
    with tempfile.TemporaryFile() as file, FourLooksDetector() as detector:
        for index, time_s, frame in read_frames(path):
            if should_stop and should_stop():
                raise TrainingCanceled("Tracking was stopped.")
            found = detector.detect(frame, time_s)
            if found is not None:
                sampler.offer(index, frame)
                height, width = frame.shape[:2]
            file.write((_NO_FACE if found is None else found).tobytes())
            times.append(time_s)
            if on_frame:
                on_frame(time_s, frame, found)
            if on_progress and index % _PROGRESS_STEP == 0:
                fraction = min(0.95 * (index + 1) / max(info.frame_count, 1), 0.95)
                on_progress(Progress("tracking", fraction, f"landmarks of frame {index + 1}"))
        if not sampler.views:
            raise FaceNotFoundError(
                f"No face was found in {path.name}: film one person, facing the camera, in good "
                "light."
            )
        file.flush()
        landmarks = np.memmap(file, np.float32, mode="r+", shape=(len(times), *_NO_FACE.shape))
    size = (width, height)
    others = find_others(model, landmarks, times, *size)
    landmarks[others.strangers] = landmarks[others.unclear] = np.nan
    parameters, identity = _solve(model, landmarks, times, sampler.views, size, should_stop)
    if on_progress:
        on_progress(Progress("tracking", 1.0, f"tracked {len(parameters)} frames"))
    return TrackedVideo(
        parameters, identity, info.fps, width, height, landmarks, other_count=len(others.strangers)
    )


def _solve(
    model: FaceModel,
    landmarks: FloatArray,
    times: list[float],
    views: list[tuple[int, ByteArray]],
    size: tuple[int, int],
    should_stop: Callable[[], bool] | None = None,
) -> tuple[list[FaceParameters | None], FaceIdentity]:
    """Solves who is seen and every frame, keeping no more of a frame than its parameters."""
    fitter = _identified(model, landmarks, *size)
    seen, shown = dict(views), []
    parameters: list[FaceParameters | None] = []
    for index, fit in enumerate(_fits(fitter, landmarks, *size)):
        if should_stop and should_stop():
            raise TrainingCanceled("Tracking was stopped.")
        if fit is None:
            parameters.append(None)
            continue
        parameters.append(fit_to_parameters(model, fit, times[index], index))
        if index in seen:
            shown.append((fit, seen[index]))
    texture = solve_texture(model, fitter, shown)
    identity = FaceIdentity(model.model_id, fitter.identity.astype(np.float32), texture)
    return parameters, identity


def fit_landmarks(
    model: FaceModel, landmarks: FloatArray, width: int, height: int
) -> tuple[list[Fit | None], FaceFitter]:
    """Solves one identity for a clip, then every frame.

    Args:
        model: The face model.
        landmarks: (T, 478, 3) pixels, NaN where there is no face.
        width: Frame width, pixels.
        height: Frame height, pixels.

    Returns:
        The fit of each frame (None without a face), and the fitter that holds the identity.
    """
    fitter = _identified(model, landmarks, width, height)
    return list(_fits(fitter, landmarks, width, height)), fitter


def _identified(model: FaceModel, landmarks: FloatArray, width: int, height: int) -> FaceFitter:
    """Returns a fitter that knows who is seen, by frames spread through the clip."""
    fitter = FaceFitter(model)
    found = np.flatnonzero(np.isfinite(landmarks[:, 0, 0]))
    count = min(_IDENTITY_FRAME_COUNT, len(found))
    chosen = found[np.linspace(0, len(found) - 1, count).round().astype(int)]
    fit_identity(fitter, [_points(landmarks[index], width, height) for index in chosen])
    return fitter


def _fits(
    fitter: FaceFitter, landmarks: FloatArray, width: int, height: int
) -> Iterator[Fit | None]:
    """Yields the fit of each frame, None without a face; each begins with the one before."""
    last: Fit | None = None
    for pixels in landmarks:
        has_face = np.isfinite(pixels[0, 0])
        last = fitter.fit(_points(pixels, width, height), last) if has_face else None
        yield last


def _points(pixels: FloatArray, width: int, height: int) -> FloatArray:
    return from_pixels(pixels, width, height).astype(np.float64)
