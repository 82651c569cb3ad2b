# SPDX-License-Identifier: Apache-2.0
"""How well and how fast faces are tracked: ``python -m benchmarks.tracking --clips FILE... ``."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import build_report, print_report, write_report
from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.data.sample_clip import make_sample_clip
from styleavatar_core.data.video import read_frames
from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import (
    from_pixels,
    matrix_from_quaternion,
    quaternion_from_matrix,
    rotation_vector_from_quaternion,
    to_pixels,
)
from styleavatar_core.tracking.fitter import FaceFitter, Fit
from styleavatar_core.tracking.identity import fit_identity
from styleavatar_core.tracking.landmarks import LandmarkDetector
from styleavatar_core.tracking.tracker import fit_to_parameters
from styleavatar_core.tracking.video import TrackedVideo, fit_landmarks, track_video
from styleavatar_core.types import FaceIdentity, FloatArray

_RENDERING_SIZE_PX = 256


def clip_figures(name: str, video: TrackedVideo) -> dict[str, float | None]:
    """Reprojection error and openings of one clip, the identity fixed for all of it."""
    fits, fitter = fit_landmarks(builtin_model(), video.landmarks, video.width, video.height)
    found = [index for index, fit in enumerate(fits) if fit is not None]
    predicted = np.stack(
        [to_pixels(fitter.predicted(fits[index]), video.width, video.height) for index in found]
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
    """Errors against the known parameters of the sample clip."""
    with tempfile.TemporaryDirectory() as folder:
        clip = make_sample_clip(Path(folder) / "sample.mp4", seconds=seconds, fps=25, size_px=512)
        tracked = track_video(clip.path)
    pairs = [
        (p, t) for p, t in zip(tracked.parameters, clip.parameters, strict=True) if p is not None
    ]
    turns = []
    for seen, truth in pairs:
        relative = matrix_from_quaternion(seen.rotation) @ matrix_from_quaternion(truth.rotation).T
        turns.append(rotation_vector_from_quaternion(quaternion_from_matrix(relative)))
    expressions = np.array([p.expression - t.expression for p, t in pairs])
    eyes = np.array([p.eye_rotation - t.eye_rotation for p, t in pairs])
    return {
        "sample.rotation_error_deg": np.degrees(np.linalg.norm(turns, axis=1)).mean(),
        "sample.expression_rmse": np.sqrt((expressions**2).mean()),
        "sample.eye_rotation_error_deg": np.degrees(np.abs(eyes)).mean(),
    }


def stage_figures(path: Path, frame_count: int) -> dict[str, float | None]:
    """Median time of each stage, one frame after the other on one thread."""
    model = builtin_model()
    frames = []
    for index, _, frame in read_frames(path):
        if index >= frame_count:
            break
        frames.append(frame)
    height, width = frames[0].shape[:2]
    with LandmarkDetector() as detector:
        detected, landmarks_ms = _timed(detector.detect, frames)
    points = [from_pixels(p, width, height).astype(np.float64) for p in detected if p is not None]
    if not points:
        return {}
    fitter = FaceFitter(model)
    last = fit_identity(fitter, points[:8])[0]

    def follow(point: FloatArray) -> Fit:
        nonlocal last
        last = fitter.fit(point, last)
        return last

    fits, solve_ms = _timed(follow, points)
    texture = np.zeros(model.texture_basis.shape[-1], np.float32)
    identity = FaceIdentity(model.model_id, fitter.identity.astype(np.float32), texture)
    renderer = ConditioningRenderer(model, identity, _RENDERING_SIZE_PX)
    renderer.warm_up()
    parameters = [fit_to_parameters(model, fit, 0.0, index) for index, fit in enumerate(fits)]
    renderer.render(parameters[0])
    _, raster_ms = _timed(renderer.render, parameters)
    per_frame_ms = landmarks_ms + solve_ms + raster_ms
    return {
        "stage.landmarks_ms": landmarks_ms,
        "stage.solve_ms": solve_ms,
        "stage.raster_ms": raster_ms,
        "streams_30fps_per_core": 1000 / 30 / per_frame_ms,
    }


def _timed(work: Callable, items: list) -> tuple[list, float]:
    results, times_ms = [], []
    for item in items:
        start = time.perf_counter()
        results.append(work(item))
        times_ms.append((time.perf_counter() - start) * 1e3)
    return results, float(np.median(times_ms))


def _correlation(a: FloatArray, b: FloatArray) -> float | None:
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and a.std() > 0 and b.std() > 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="cheap figures, for tests only")
    options = parser.parse_args()
    figures: dict[str, float | None] = sample_figures(6.0 if options.quick else 16.0)
    for clip in options.clips:
        figures |= clip_figures(clip.stem, track_video(clip))
    if options.clips:
        figures |= stage_figures(options.clips[0], 20 if options.quick else 200)
    named = {"clips": [clip.name for clip in options.clips], "quick": options.quick}
    report = build_report("tracking", figures, named)
    print_report(report)
    if options.json:
        write_report(report, options.json)


if __name__ == "__main__":
    main()
