# SPDX-License-Identifier: Apache-2.0
"""OpenGL draws the pixels that the software path draws; by Mesa where there is no GPU."""

from __future__ import annotations

import numpy as np
import pytest

from styleavatar_core.errors import EngineUnavailableError
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import (
    matrix_from_quaternion,
    quaternion_from_rotation_vector,
    to_pixels,
)
from styleavatar_core.raster.opengl import OpenGlRasterizer, choose_rasterizer
from styleavatar_core.raster.software import rasterize, shade
from styleavatar_core.tracking.landmarks import LandmarkDetector
from styleavatar_core.types import FloatArray

model = builtin_model()


@pytest.fixture(scope="module")
def opengl() -> OpenGlRasterizer:
    try:
        return OpenGlRasterizer()
    except EngineUnavailableError as error:
        pytest.skip(f"this machine has no EGL: {error}")


def posed(yaw: float, size: int) -> FloatArray:
    turn = quaternion_from_rotation_vector(np.array([0.1, yaw, 0.05]))
    rotation = matrix_from_quaternion(turn).astype(np.float32)
    return to_pixels(0.6 * model.mean_shape @ rotation.T, size, size)


@pytest.mark.parametrize("size", [64, 256, 512])
@pytest.mark.parametrize("yaw", [0.0, 0.5])
def test_both_draw_the_same_face(opengl: OpenGlRasterizer, size: int, yaw: float) -> None:
    points = posed(yaw, size)
    fragments = [draw(points, model.faces, size, size) for draw in (rasterize, opengl.rasterize)]
    colors = model.mean_texture
    drawn = [shade(part, model.faces, colors, model.uv_coordinates) for part in fragments]
    (image, uv, mask), (their_image, their_uv, their_mask) = drawn
    covered = int(mask.sum())
    assert covered > 0.1 * size**2
    # Edges are where roundings differ: by a pixel here and there, and nowhere else.
    assert (mask != their_mask).sum() <= 0.002 * covered
    both = (mask & their_mask) > 0
    assert (np.abs(image.astype(int) - their_image).max(axis=2)[both] > 2).mean() < 0.01
    assert (np.abs(uv - their_uv).max(axis=2)[both] > 2e-3).mean() < 0.01


def test_a_known_triangle_covers_its_pixel_centres(opengl: OpenGlRasterizer) -> None:
    points = np.array([[0.2, 0, 0], [4, 0, 0], [4, 3.8, 0]], np.float32)
    one = np.array([[0, 1, 2]], np.int32)
    ours, theirs = rasterize(points, one, 5, 4), opengl.rasterize(points, one, 5, 4)
    assert np.array_equal(theirs.face_index, ours.face_index)
    assert (opengl.rasterize(points, one[:, ::-1].copy(), 5, 4).face_index == -1).all()


def test_a_driver_that_draws_on_the_cpu_is_not_preferred(opengl: OpenGlRasterizer) -> None:
    try:
        with LandmarkDetector():  # beside MediaPipe, Mesa lists its CPU driver as a GPU
            gpu = OpenGlRasterizer(needs_gpu=True)
    except EngineUnavailableError:
        assert choose_rasterizer() is rasterize
    else:
        assert "llvmpipe" not in gpu.renderer_name
