# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from styleavatar_core.raster.software import interpolate, rasterize, shade

TRIANGLE = np.array([[0, 1, 2]], np.int32)


def test_a_known_triangle_covers_its_pixel_centres() -> None:
    points = np.array([[0, 0, 0], [4, 0, 0], [4, 4, 0]], np.float32)
    covered = rasterize(points, TRIANGLE, 5, 4).face_index >= 0
    # Centres (i + 0.5, j + 0.5) with x >= y, the diagonal included, and x < 4.
    expected = np.array([[column >= row and column < 4 for column in range(5)] for row in range(4)])
    assert np.array_equal(covered, expected)


def test_faces_from_behind_are_left_out() -> None:
    points = np.array([[0, 0, 0], [4, 4, 0], [4, 0, 0]], np.float32)
    assert (rasterize(points, TRIANGLE, 4, 4).face_index == -1).all()


def test_the_nearer_face_wins_whatever_the_order() -> None:
    square = [[0, 0], [9, 0], [9, 9]]
    points = np.array([[*p, 1.0] for p in square] + [[*p, -1.0] for p in square], np.float32)
    for faces in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        array = np.array(faces, np.int32)
        fragments = rasterize(points, array, 8, 8)
        near = array[fragments.face_index[fragments.face_index >= 0]]
        assert (near == [3, 4, 5]).all()


def test_interpolation_gives_back_the_position() -> None:
    points = np.array([[1, 2, 0], [30, 5, 0], [14, 29, 0]], np.float32)
    fragments = rasterize(points, TRIANGLE, 32, 32)
    image = interpolate(fragments, TRIANGLE, points[:, :2].copy())
    rows, columns = np.nonzero(fragments.face_index >= 0)
    assert len(rows) > 300
    assert image[rows, columns] == pytest.approx(np.stack([columns, rows], 1) + 0.5, abs=1e-3)
    assert (image[fragments.face_index < 0] == 0).all()


def test_shading_is_interpolation_in_bytes() -> None:
    points = np.array([[1, 2, 0], [30, 5, 0], [14, 29, 0]], np.float32)
    colors = np.array([[0.2, 0.5, 1.4], [0.9, 0.1, 0.3], [-0.2, 0.7, 0.6]], np.float32)
    fragments = rasterize(points, TRIANGLE, 32, 32)
    image, uv, mask = shade(fragments, TRIANGLE, colors, points[:, :2].copy())
    wanted = interpolate(fragments, TRIANGLE, np.clip(colors, 0, 1))
    assert np.abs(image - 255 * wanted).max() <= 0.51
    assert uv == pytest.approx(interpolate(fragments, TRIANGLE, points[:, :2]), abs=1e-4)
    assert np.array_equal(mask, fragments.face_index >= 0)


def test_a_face_covers_the_pixel_centres_within_whatever_its_shape() -> None:
    rng, centers = (
        np.random.default_rng(1),
        np.indices((40, 50)).transpose(1, 2, 0)[..., ::-1] + 0.5,
    )
    for _ in range(200):
        points = rng.uniform(-15, 60, (3, 3)).astype(np.float32)
        points[1:, :2] = points[0, :2] + rng.normal(size=(2, 2)) * 10 ** rng.uniform(0, 2)
        ends = np.roll(points, -1, axis=0).astype(float)
        along, away = ends[:, :2] - points[:, :2], centers[..., None, :] - points[:, :2]
        sides = along[:, 0] * away[..., 1] - along[:, 1] * away[..., 0]
        drawn = rasterize(points, TRIANGLE, 50, 40).face_index == 0
        assert np.array_equal(drawn, (sides > 0).all(axis=-1))


def test_two_triangles_share_an_edge_without_gap() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        corner = rng.uniform(4, 28, (2, 2))
        points = np.array(
            [[-40, 70, 0], [-40, -40, 0], [*corner[0], 0], [70, -40, 0], [70, 70, 0]], np.float32
        )
        faces = np.array([[1, 3, 2], [3, 4, 2], [4, 0, 2], [0, 1, 2]], np.int32)
        assert (rasterize(points, faces, 32, 32).face_index >= 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_absurd_points_do_no_harm(bad: float) -> None:
    points = np.array([[bad, 0, 0], [4, 0, 0], [4, 4, 0]], np.float32)
    fragments = rasterize(points, TRIANGLE, 8, 8)
    assert fragments.face_index.shape == (8, 8)
    far = np.array([[100, 100, 0], [140, 100, 0], [140, 140, 0]], np.float32)
    assert (rasterize(far, TRIANGLE, 8, 8).face_index == -1).all()
