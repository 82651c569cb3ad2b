# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import to_pixels
from styleavatar_core.raster.mesh import MovingMesh, irradiance, place, vertex_normals


def test_a_flat_face_looks_at_the_camera() -> None:
    points = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0], [9, 9, 9]], np.float32)
    normals = vertex_normals(np.array([[0, 1, 2]], np.int32), points)
    assert normals[:3] == pytest.approx(np.tile([0.0, 0.0, -1.0], (3, 1)))
    assert (normals[3] == 0).all()


def test_normals_of_the_eyeballs_point_away_from_their_centre() -> None:
    model = builtin_model()
    normals = vertex_normals(model.faces, model.mean_shape)
    for start, stop in model.eye_vertices:
        ball = model.mean_shape[start:stop]
        outward = ball - ball.mean(axis=0)
        assert ((normals[start:stop] * outward).sum(axis=1) > 0).all()


def test_a_placed_mesh_has_the_pixels_of_its_points() -> None:
    rng = np.random.default_rng(1)
    vertices, matrix, offset = (rng.normal(size=n).astype(np.float32) for n in ((9, 3), (3, 3), 3))
    points, pixels = place(vertices, matrix, offset, 90)
    assert points == pytest.approx(vertices @ matrix.T + offset, abs=1e-5)
    assert np.array_equal(pixels, to_pixels(points, 90, 90))


def test_light_comes_from_the_camera_and_above() -> None:
    front, above, below = irradiance(np.array([[0, 0, -1], [0, -1, 0], [0, 1, 0]], np.float32))
    assert min(front, above) > 1.3 * below > 0


def test_a_moving_mesh_is_where_the_model_says() -> None:
    model, rng = builtin_model(), np.random.default_rng(3)
    neutral = model.neutral(rng.normal(size=model.identity_basis.shape[-1]))
    expression = np.maximum(rng.normal(size=52), 0).astype(np.float32)
    gaze = rng.normal(size=(2, 2)).astype(np.float32) * 0.2
    moved = MovingMesh(model, neutral).vertices(expression, gaze)
    assert moved == pytest.approx(model.vertices(neutral, expression, gaze), abs=5e-5)
