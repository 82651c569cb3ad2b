# SPDX-License-Identifier: Apache-2.0
"""A talking portrait that we may hand out, with the parameters that it was made with.

scikit-image carries NASA's portrait of the astronaut Eileen Collins, which is in the public domain.
Our face model is fitted to it and, driven by known curves, warps it over its background. The result
is the demo's default input and a fixture of the tests; it is no substitute for real video when
quality is measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from skimage.data import astronaut

from styleavatar_core.data.matting import ForegroundMatting
from styleavatar_core.data.video_writer import VideoWriter
from styleavatar_core.errors import FaceNotFoundError, InvalidInputError
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import matrix_from_quaternion, quaternion_from_matrix
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.sample.motion import MotionCurves, sample_curves
from styleavatar_core.sample.warp import Portrait, PortraitWarp
from styleavatar_core.tracking.fit_prior import FitConfig
from styleavatar_core.tracking.landmarks import LandmarkDetector
from styleavatar_core.tracking.tracker import Tracker
from styleavatar_core.types import ByteArray, FaceIdentity, FaceParameters, FloatArray, Progress

SAMPLE_SUBJECT = "Eileen Collins, in NASA's official portrait"
SAMPLE_ORIGIN = (
    "NASA portrait of the astronaut Eileen Collins (public domain, distributed with scikit-image), "
    "animated by StyleAvatar: a synthetic video made from one photograph"
)
SAMPLE_CONSENT = (
    "The source is a public-domain NASA portrait of Eileen Collins, animated by software to "
    "demonstrate StyleAvatar. It is not a recording of her, and she does not endorse it."
)
# Left, top and side of the square around head and shoulders, pixels of the photograph.
_WINDOW = (64, 0, 320)
# The head turns about the top of the spine: below and behind the face's centre, decimetres.
_PIVOT_DM = np.array([0.0, 0.75, 0.9])
_FIT_SIZE_PX = 512
# The clip and its truth stay what they are when the tracker learns to see more.
_FIT = FitConfig(forehead_weight=1.0)


@dataclass(frozen=True, slots=True)
class SampleClip:
    """The clip and its ground truth.

    Attributes:
        path: The mp4; the truth lies beside it, as JSON.
        parameters: What each frame was made with, in frame coordinates.
        fps: Frames per second.
        size_px: Side of the square frames.
    """

    path: Path
    parameters: list[FaceParameters]
    fps: float
    size_px: int

    @property
    def truth_path(self) -> Path:
        """Where the parameters are written."""
        return self.path.with_suffix(".truth.json")


def make_sample_clip(
    path: Path,
    seconds: float = 24.0,
    fps: int = 25,
    size_px: int = 512,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> SampleClip:
    """Animates the portrait.

    Args:
        path: Where the mp4 goes. The truth is written beside it.
        seconds: Length of the clip, at least 1.
        fps: Frames per second.
        size_px: Side of the square frames, even, at least 128.
        seed: Chooses the motion; the same arguments give the same clip.
        on_progress: Told about every frame.

    Returns:
        The clip with the parameters of every frame.

    Raises:
        InvalidInputError: The length or the size cannot be made.
    """
    if seconds < 1 or size_px < 128 or size_px % 2:
        raise InvalidInputError(
            f"a sample clip lasts at least 1 s (got {seconds:g}) and its side is even and at least "
            f"128 pixels (got {size_px})"
        )
    model = builtin_model()
    portrait = fit_portrait(size_px)
    curves = sample_curves(round(seconds * fps), fps, seed)
    parameters = animate(portrait.params, curves, model, fps)
    clip = SampleClip(path, parameters, float(fps), size_px)
    warp = PortraitWarp(portrait, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, fps=fps, width=size_px, height=size_px) as writer:
        for index, params in enumerate(parameters):
            writer.write(warp.render(params))
            if on_progress is not None:
                share = (index + 1) / len(parameters)
                on_progress(Progress("animating", share, "Animating the NASA portrait"))
    _write_truth(clip)
    return clip


def fit_portrait(size_px: int) -> Portrait:
    """Cuts the square out of the photograph and fits the face model's mean face to it.

    Not its own identity: what one photograph seems to say of depth is the detector's guess.
    """
    left, top, side = _WINDOW
    photo = astronaut()[top : top + side, left : left + side]
    # The fit is made at one size, so that clips of all sizes have the same truth.
    large = _resized(photo, _FIT_SIZE_PX)
    model = builtin_model()
    mean = FaceIdentity(
        model.model_id,
        np.zeros(model.identity_basis.shape[-1], np.float32),
        np.zeros(model.texture_basis.shape[-1], np.float32),
    )
    tracker, detector = Tracker(model, mean, config=_FIT), LandmarkDetector()
    matting = ForegroundMatting()
    try:
        # The detector settles on its region within two frames.
        fits = [tracker.track(large, frame_index=index) for index in range(4)]
        landmarks = [detector.detect(large) for _ in range(3)][-1]
        matte = [matting.matte(large) for _ in range(2)][-1]
    finally:
        tracker.close()
        detector.close()
        matting.close()
    if fits[-1] is None or landmarks is None:
        raise FaceNotFoundError("no face was found in the sample portrait")
    small = cv2.resize(matte, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return Portrait(
        image=_resized(photo, size_px),
        matte=np.asarray(small, np.float32),
        landmarks=landmarks[:, :2] * (size_px / _FIT_SIZE_PX),
        params=fits[-1],
        identity=mean,
    )


def animate(
    rest: FaceParameters, curves: MotionCurves, model: FaceModel, fps: float
) -> list[FaceParameters]:
    """Turns curves into the parameters of every frame, starting from the photograph's own."""
    base = matrix_from_quaternion(rest.rotation)
    return [
        _moved(rest, base, curves, model, index, index / fps) for index in range(len(curves.rest))
    ]


def _moved(
    rest: FaceParameters,
    base: FloatArray,
    curves: MotionCurves,
    model: FaceModel,
    index: int,
    time_s: float,
) -> FaceParameters:
    rotation = _turn(*curves.angles[index]) @ base
    shift = np.array([*curves.shift[index], 0.0])
    # p = s (R v + t): the pivot stays where it was, apart from the shift.
    translation = rest.translation + (base - rotation) @ _PIVOT_DM + shift
    return replace(
        rest,
        rotation=quaternion_from_matrix(rotation),
        translation=translation.astype(np.float32),
        expression=_expression(rest.expression, curves, model, index),
        eye_rotation=np.tile(curves.gaze[index], (2, 1)).astype(np.float32),
        capture_time_s=time_s,
        frame_index=index,
        confidence=1.0,
    )


def _turn(pitch: float, yaw: float, roll: float) -> FloatArray:
    """Rotation in the camera's axes: pitch down, yaw to the image's right, roll clockwise."""
    cp, sp, cy, sy = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    cr, sr = np.cos(roll), np.sin(roll)
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _expression(rest: FloatArray, curves: MotionCurves, model: FaceModel, index: int) -> FloatArray:
    """Adds the curves to what remains of the photograph's expression, (E,) float32 in [0, 1]."""
    expression = np.asarray(rest, np.float32) * curves.rest[index]
    for name, curve in curves.expression.items():
        sides = [name] if name in model.expression_names else [f"{name}Left", f"{name}Right"]
        for side in sides:
            expression[model.expression_names.index(side)] += curve[index]
    return np.clip(expression, 0.0, 1.0)


def _resized(photo: ByteArray, size_px: int) -> ByteArray:
    shrinks = size_px < len(photo)
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(photo, (size_px, size_px), interpolation=method), np.uint8)


def _write_truth(clip: SampleClip) -> None:
    frames = [
        {
            "frame_index": params.frame_index,
            "capture_time_s": params.capture_time_s,
            "rotation": params.rotation.tolist(),
            "translation": params.translation.tolist(),
            "scale": float(params.scale),
            "expression": params.expression.tolist(),
            "eye_rotation": params.eye_rotation.tolist(),
        }
        for params in clip.parameters
    ]
    truth = {
        "origin": SAMPLE_ORIGIN,
        "fps": clip.fps,
        "size_px": clip.size_px,
        "model_id": clip.parameters[0].model_id,
        "expression_names": list(builtin_model().expression_names),
        "frames": frames,
    }
    clip.truth_path.write_text(json.dumps(truth))
