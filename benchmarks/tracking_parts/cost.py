# SPDX-License-Identifier: Apache-2.0
"""What tracking costs, stage by stage, on one thread and without a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.data.video import read_frames
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import from_pixels
from styleavatar_core.face3d.model import VERTEX_ARRAYS, FaceModel
from styleavatar_core.raster.software import rasterize
from styleavatar_core.tracking.fitter import FaceFitter, Fit
from styleavatar_core.tracking.identity import SETTLING_COUNT, fit_identity
from styleavatar_core.tracking.landmarks import LandmarkDetector
from styleavatar_core.tracking.tracker import Tracker, fit_to_parameters
from styleavatar_core.types import ByteArray, FaceIdentity, FaceParameters, FloatArray

FACEVERSE_VERTEX_COUNT = 28_632
_RENDERING_SIZE_PX = 256


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
    points: list[FloatArray] = [
        from_pixels(p, width, height).astype(np.float64) for p in detected if p is not None
    ]
    if not points:
        return {}
    solve_ms, raster_ms = _solve_and_raster_ms(model, points)
    large = _solve_and_raster_ms(with_vertices(model, FACEVERSE_VERTEX_COUNT), points)
    return {
        "stage.landmarks_ms": landmarks_ms,
        "stage.solve_ms": solve_ms,
        "stage.raster_ms": raster_ms,
        "faceverse_sized.added_ms": sum(large),
        **_tracker_figures(frames),
    }


class _TimedDetector(LandmarkDetector):
    """Counts the time that is MediaPipe's."""

    spent_s = 0.0

    def detect(self, frame: ByteArray, capture_time_s: float = 0.0) -> FloatArray | None:
        start = time.perf_counter()
        found = super().detect(frame, capture_time_s)
        self.spent_s += time.perf_counter() - start
        return found


def _tracker_figures(frames: list[ByteArray]) -> dict[str, float | None]:
    """Median time that all of ``Tracker.track`` takes beyond detection.

    While it learns who is seen, which is more work, and once it knows.
    """
    count = SETTLING_COUNT + max(len(frames), SETTLING_COUNT // 2)
    detector = _TimedDetector()
    tracker = Tracker(detector=detector)
    added_ms: list[float] = []
    for index in range(count):
        start, before_s = time.perf_counter(), detector.spent_s
        found = tracker.track(frames[index % len(frames)], index / 30, index)
        if found is not None:
            spent_s = time.perf_counter() - start - (detector.spent_s - before_s)
            added_ms.append(spent_s * 1e3)
    tracker.close()
    settling, settled = added_ms[:SETTLING_COUNT], added_ms[SETTLING_COUNT:]
    return {
        "stage.tracker_settling_ms": float(np.median(settling)) if settling else None,
        "stage.tracker_settled_ms": float(np.median(settled)) if settled else None,
    }


def with_vertices(model: FaceModel, vertex_count: int) -> FaceModel:
    """Returns the same surface with more vertices.

    All edges are halved as often as that fits, then triangles get a vertex in their middle.
    """
    arrays = {name: getattr(model, name) for name in VERTEX_ARRAYS}
    faces = model.faces

    def add(parents: np.ndarray) -> None:
        for name, array in arrays.items():
            arrays[name] = np.concatenate([array, array[parents].mean(axis=1)])

    while True:
        total = len(arrays["mean_shape"])
        ends = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]))
        edges, places = np.unique(ends, axis=0, return_inverse=True)
        if total + len(edges) > vertex_count:
            break
        add(edges)
        ab, bc, ca = total + places.reshape(3, -1)
        a, b, c = faces.T
        corners = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
        faces = np.concatenate([np.stack(three, axis=1) for three in corners])
    split, kept = faces[: vertex_count - total], faces[vertex_count - total :]
    add(split)
    (a, b, c), middle = split.T, total + np.arange(len(split))
    parts = [np.stack(three, axis=1) for three in ((a, b, middle), (b, c, middle), (c, a, middle))]
    faces = np.ascontiguousarray(np.concatenate([*parts, kept]), np.int32)
    return replace(model, faces=faces, **arrays)


def _solve_and_raster_ms(model: FaceModel, points: list[FloatArray]) -> tuple[float, float]:
    """Median times of Eq. 1-2 and of both renderings of one frame."""
    fitter = FaceFitter(model)
    last = fit_identity(fitter, points[:8])[0]

    def follow(point: FloatArray) -> Fit:
        nonlocal last
        last = fitter.fit(point, last)
        return last

    fits, solve_ms = _timed(follow, points)
    texture = np.zeros(model.texture_basis.shape[-1], np.float32)
    identity = FaceIdentity(model.model_id, fitter.identity.astype(np.float32), texture)
    renderer = ConditioningRenderer(model, identity, _RENDERING_SIZE_PX, rasterize)
    renderer.warm_up()
    parameters = [fit_to_parameters(model, fit, 0.0, index) for index, fit in enumerate(fits)]
    renderer.render(parameters[0])

    def draw(params: FaceParameters) -> None:
        renderer.render(params)  # and let go, as live: pictures that are kept need new memory

    return solve_ms, _timed(draw, parameters)[1]


def _timed(work: Callable, items: list) -> tuple[list, float]:
    results, times_ms = [], []
    for item in items:
        start = time.perf_counter()
        results.append(work(item))
        times_ms.append((time.perf_counter() - start) * 1e3)
    return results, float(np.median(times_ms))
