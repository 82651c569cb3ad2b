# SPDX-License-Identifier: Apache-2.0
"""How well faces are tracked: real clips, known truth, noise, another person's face."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np

from styleavatar_core.avatar.reenactment import ParameterStatistics, Retargeter
from styleavatar_core.data.video import read_frames
from styleavatar_core.evaluation.control import control_fidelity, control_series, pearson
from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.face3d.arkit import ARKIT_INDEX
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import (
    matrix_from_quaternion,
    quaternion_from_matrix,
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
    to_pixels,
)
from styleavatar_core.face3d.lip_gap import lip_gap
from styleavatar_core.sample.clip import animate, fit_portrait, make_sample_clip
from styleavatar_core.sample.motion import sample_curves
from styleavatar_core.sample.warp import PortraitWarp
from styleavatar_core.tracking.fit_prior import FitConfig
from styleavatar_core.tracking.fitter import FaceFitter
from styleavatar_core.tracking.landmarks import LandmarkDetector
from styleavatar_core.tracking.solver import Pose
from styleavatar_core.tracking.tracker import Tracker, fit_to_parameters
from styleavatar_core.tracking.video import TrackedVideo, fit_landmarks, track_video
from styleavatar_core.types import CropBox, FaceParameters, FloatArray

_NOISES_MM = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
_USUAL_NOISE_MM = 1.0
_SAMPLE_PX = 512
_CROSS_STEP = 4  # frames of the driver for one that is rendered
_CROSS_GROUPS = ("rotation", "mouth", "smile", "lids", "gaze")


def clip_figures(name: str, video: TrackedVideo) -> dict[str, float | None]:
    """Reprojection error and openings of one clip, the identity fixed for all of it."""
    fits, fitter = fit_landmarks(builtin_model(), video.landmarks, video.width, video.height)
    found = [index for index, fit in enumerate(fits) if fit is not None]
    predicted = np.stack(
        [
            to_pixels(fitter.predicted(fit), video.width, video.height)
            for fit in fits
            if fit is not None
        ]
    )[..., :2]
    seen = video.landmarks[found][..., :2]
    left, right = (list(c) for c in (groups.LEFT_EYE_CORNERS, groups.RIGHT_EYE_CORNERS))
    eye_distance = np.linalg.norm(seen[:, left].mean(1) - seen[:, right].mean(1), axis=1)
    errors = 100 * np.linalg.norm(predicted - seen, axis=-1) / eye_distance[:, None]

    def opening(points: FloatArray, *pairs: tuple[int, int]) -> FloatArray:
        gaps = [np.linalg.norm(points[:, a] - points[:, b], axis=1) for a, b in pairs]
        return np.sum(gaps, axis=0) / eye_distance

    lids = ((159, 145), (386, 374))
    return {
        f"{name}.nme_percent": errors[:, : groups.FACE_LANDMARK_COUNT].mean(),
        f"{name}.lips_nme_percent": errors[:, list(groups.LIPS)].mean(),
        f"{name}.lids_nme_percent": errors[:, list(groups.LIDS)].mean(),
        f"{name}.mouth_r": _correlation(opening(predicted, (13, 14)), opening(seen, (13, 14))),
        f"{name}.lids_r": _correlation(opening(predicted, *lids), opening(seen, *lids)),
        f"{name}.detected_percent": 100 * len(found) / len(fits),
    }


def sample_figures(seconds: float) -> dict[str, float | None]:
    """Errors against the known parameters of the sample clip.

    As a file is tracked. Also the rotation error of live tracking, unfiltered and from a stranger's
    first frame on, and that on the landmarks that the clip was made with: the solver's own part,
    without the detector's.
    """
    with tempfile.TemporaryDirectory() as folder:
        clip = make_sample_clip(Path(folder) / "sample.mp4", seconds, fps=25, size_px=_SAMPLE_PX)
        tracked = track_video(clip.path)
        live = _tracked_live(clip.path)
    pairs = [
        (p, t) for p, t in zip(tracked.parameters, clip.parameters, strict=True) if p is not None
    ]
    expressions = np.array([p.expression - t.expression for p, t in pairs])
    eyes = np.array([p.eye_rotation - t.eye_rotation for p, t in pairs])
    model = builtin_model()
    warp = PortraitWarp(fit_portrait(_SAMPLE_PX), model)
    landmarks = np.stack([warp.landmarks(truth) for truth in clip.parameters])
    fits, _ = fit_landmarks(model, landmarks, _SAMPLE_PX, _SAMPLE_PX)
    solved = [fit.pose.rotation for fit in fits if fit is not None]
    seen = [matrix_from_quaternion(p.rotation) for p, _ in pairs]
    return {
        "sample.rotation_error_deg": _turn_deg(seen, [truth for _, truth in pairs]),
        "sample.live_rotation_error_deg": _turn_deg(
            [matrix_from_quaternion(p.rotation) for p in live],
            [clip.parameters[p.frame_index] for p in live],
        ),
        "sample.solver_rotation_error_deg": _turn_deg(solved, clip.parameters),
        "sample.expression_rmse": np.sqrt((expressions**2).mean()),
        "sample.eye_rotation_error_deg": np.degrees(np.abs(eyes)).mean(),
    }


def _tracked_live(path: Path) -> list[FaceParameters]:
    """Tracks a clip as a live stream of somebody unknown, without the filter's delay."""
    tracker = Tracker(filtered=False)
    try:
        found = [tracker.track(frame, time_s, index) for index, time_s, frame in read_frames(path)]
    finally:
        tracker.close()
    return [params for params in found if params is not None]


def _turn_deg(found: Sequence[FloatArray], truth: Sequence[FaceParameters]) -> float:
    """Returns the mean angle between (3, 3) rotations and the true ones."""
    turns = [
        rotation_vector_from_quaternion(
            quaternion_from_matrix(rotation @ matrix_from_quaternion(params.rotation).T)
        )
        for rotation, params in zip(found, truth, strict=True)
    ]
    return float(np.degrees(np.linalg.norm(turns, axis=1)).mean())


def noise_curve(sample_count: int) -> dict[str, list[float]]:
    """Errors on projections of known faces, by the noise of their landmarks.

    Returns:
        ``noise_mm``, ``rotation_error_deg``, ``expression_rmse`` and ``eye_rotation_error_deg``:
        one value per noise.
    """
    model, rng = builtin_model(), np.random.default_rng(0)
    curve: dict[str, list[float]] = {"noise_mm": list(_NOISES_MM)}
    turns: list[list[float]] = [[] for _ in _NOISES_MM]
    errors: list[list[float]] = [[] for _ in _NOISES_MM]
    strayed: list[list[float]] = [[] for _ in _NOISES_MM]
    for _ in range(sample_count):
        identity = rng.normal(size=(model.identity_basis.shape[-1],))
        expression = np.zeros(len(model.expression_names), np.float32)
        shown = rng.choice(len(expression), 6, replace=False)
        expression[shown] = rng.uniform(0, 1, 6)
        rotation = matrix_from_quaternion(
            quaternion_from_rotation_vector(rng.normal(size=3) * [0.15, 0.35, 0.1])
        )
        pose = Pose(rotation, rng.normal(size=3) * 0.2, 0.7)
        gaze = np.tile(rng.normal(size=2) * [0.1, 0.2], (2, 1)).astype(np.float32)
        _follow_gaze(expression, gaze)
        points = model.vertices(model.neutral(identity), expression, gaze)
        points = points[model.landmark_indices].astype(np.float64)
        fitter = FaceFitter(model, identity)
        for index, noise in enumerate(_NOISES_MM):
            fit = fitter.fit(pose.apply(points + rng.normal(size=points.shape) * noise / 100))
            cosine = (np.trace(fit.pose.rotation @ rotation.T) - 1) / 2
            turns[index].append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
            errors[index].append(np.sqrt(((fit.expression - expression) ** 2).mean()))
            strayed[index].append(np.degrees(np.abs(fit.eye_rotation - gaze)).mean())
    curve["rotation_error_deg"] = [float(np.mean(values)) for values in turns]
    curve["expression_rmse"] = [float(np.mean(values)) for values in errors]
    curve["eye_rotation_error_deg"] = [float(np.mean(values)) for values in strayed]
    return curve


def _follow_gaze(expression: FloatArray, gaze: FloatArray) -> None:
    """Gives the lids what eyeballs that look somewhere do to them, in place."""
    limit = FitConfig().gaze_limit
    for side, (pitch, yaw), outward in (("Left", gaze[0], 1), ("Right", gaze[1], -1)):
        turns = {"Down": pitch, "Up": -pitch, "Out": outward * yaw, "In": -outward * yaw}
        for way, turn in turns.items():
            expression[ARKIT_INDEX[f"eyeLook{way}{side}"]] = np.clip(turn / limit, 0, 1)


def noise_figures(curve: dict[str, list[float]]) -> dict[str, float | None]:
    """Picks the figures of a usual noise out of a noise curve."""
    usual = curve["noise_mm"].index(_USUAL_NOISE_MM)
    return {
        "synthetic.rotation_error_deg": curve["rotation_error_deg"][usual],
        "synthetic.expression_rmse": curve["expression_rmse"][usual],
        "synthetic.eye_rotation_error_deg": curve["eye_rotation_error_deg"][usual],
    }


def plot_noise(curve: dict[str, list[float]], path: Path) -> None:
    """Draws a noise curve as a PNG."""
    figure = matplotlib.figure.Figure(figsize=(10, 3.2), layout="constrained")
    for axes, name, unit in zip(
        figure.subplots(1, 3),
        ("rotation_error_deg", "expression_rmse", "eye_rotation_error_deg"),
        ("rotation error, degrees", "expression error, rms", "eye rotation error, degrees"),
        strict=True,
    ):
        axes.plot(curve["noise_mm"], curve[name], marker="o")
        axes.set(xlabel="noise of a landmark, mm", ylabel=unit, ylim=(0, None))
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def liveliest(videos: Sequence[TrackedVideo]) -> TrackedVideo:
    """Returns the video whose lips move most: a still face says nothing of how it is followed."""

    def lip_movement(video: TrackedVideo) -> float:
        found = [params.expression for params in video.parameters if params is not None]
        return float(np.std(lip_gap(video.identity.model_id).of(np.stack(found))))

    return max(videos, key=lip_movement)


def cross_figures(driver: TrackedVideo, frame_count: int) -> dict[str, float | None]:
    """Drives the sample portrait with another person and tracks the result again.

    Besides the correlations, how much the driver's lips and lids move at all.
    """
    portrait, model = fit_portrait(_SAMPLE_PX), builtin_model()
    seen = animate(portrait.params, sample_curves(200, 25, 0), model, 25)
    statistics = ParameterStatistics.from_parameters(seen, CropBox(0.0, 0.0, 1.0))
    retargeter, warp = Retargeter(statistics), PortraitWarp(portrait, model)
    found = [params for params in driver.parameters if params is not None]
    asked: list[FaceParameters] = []
    landmarks: list[FloatArray] = []
    with LandmarkDetector() as detector:
        for index, params in enumerate(found[: _CROSS_STEP * frame_count]):
            wanted = retargeter.retarget(params).parameters
            if index % _CROSS_STEP:
                continue
            again = detector.detect(warp.render(wanted))
            if again is not None:
                asked.append(params)
                landmarks.append(again)
    if len(asked) < 3:
        return {}
    fits, _ = fit_landmarks(model, np.stack(landmarks), _SAMPLE_PX, _SAMPLE_PX)
    output = [fit_to_parameters(model, fit, 0.0, 0) for fit in fits if fit is not None]
    figures = control_fidelity(asked, output)
    series = control_series(asked, output)
    coefficients = [np.stack([p.expression for p in params]) for params in (asked, output)]
    moving = np.flatnonzero(coefficients[0].std(axis=0) > 0.08)
    each = [pearson(coefficients[0][:, k], coefficients[1][:, k]) for k in moving]
    return {
        **{f"cross.{name}_r": figures[f"{name}_r"] for name in _CROSS_GROUPS},
        "cross.expression_r": float(np.nanmean(each)) if len(moving) else None,
        "cross.driver_mouth_std_mm": series["mouth"][0].std(),
        "cross.driver_lids_std": series["lids"][0].std(),
    }


def _correlation(a: FloatArray, b: FloatArray) -> float | None:
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and a.std() > 0 and b.std() > 0 else None
