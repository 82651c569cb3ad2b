# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from styleavatar_core.face3d import camera
from styleavatar_core.types import CropBox, FaceParameters

vectors = st.tuples(*[st.floats(-2.5, 2.5)] * 3)


def make(rotation=(0.0, 0.0, 0.0), translation=(0.0, 0.0, 0.0), scale=1.0) -> FaceParameters:
    return FaceParameters(
        "builtin-3",
        camera.quaternion_from_rotation_vector(np.array(rotation)),
        np.array(translation, np.float32),
        scale,
        np.zeros(52, np.float32),
        np.zeros((2, 2), np.float32),
    )


def test_a_known_point_lands_on_its_pixel() -> None:
    # (1 + 0.25) * 0.4 = 0.5 half heights right of the centre of a 640 x 480 frame.
    point = camera.project(
        np.array([[1.0, 0, 0]], np.float32), make(translation=(0.25, 0, 0), scale=0.4)
    )
    assert camera.to_pixels(point, 640, 480)[0, :2] == pytest.approx([320 + 120, 240])


def test_pixels_and_frame_coordinates_are_inverse() -> None:
    pixels = np.array([[0.5, 0.5, 3.0], [100.25, 470.0, -20.0]], np.float32)
    back = camera.to_pixels(camera.from_pixels(pixels, 640, 480), 640, 480)
    assert back == pytest.approx(pixels, abs=1e-4)


def test_turning_about_y_moves_the_nose_towards_image_left() -> None:
    nose = camera.project(np.array([[0, 0, -1.0]], np.float32), make(rotation=(0, 0.5, 0)))
    assert nose[0, 0] == pytest.approx(-np.sin(0.5), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(vectors)
def test_rotations_survive_every_form(vector: tuple[float, float, float]) -> None:
    quaternion = camera.quaternion_from_rotation_vector(np.array(vector))
    matrix = camera.matrix_from_quaternion(quaternion)
    assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-6)
    assert np.linalg.det(matrix) == pytest.approx(1.0)
    again = camera.quaternion_from_matrix(matrix)
    assert abs(float(again @ quaternion)) == pytest.approx(1.0, abs=1e-5)
    if np.linalg.norm(vector) < 3.0:
        back = camera.rotation_vector_from_quaternion(quaternion)
        assert back == pytest.approx(np.array(vector), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(0.2, 1.5))
def test_a_crop_sees_the_same_head(x: float, y: float, half: float) -> None:
    params = make((0.1, 0.2, -0.1), (0.3, -0.2, 1.0), 0.6)
    crop = CropBox(x, y, half)
    points = np.array([[0.2, -0.3, 0.1], [-0.4, 0.5, 0.0]], np.float32)
    whole = camera.project(points, params)[:, :2]
    inside = camera.project(points, camera.parameters_in_crop(params, crop))[:, :2]
    assert inside == pytest.approx((whole - [x, y]) / half, abs=1e-4)


@pytest.mark.parametrize(
    ("pitch", "yaw", "axis", "sign"), [(0.3, 0, 1, 1), (0, 0.3, 0, 1), (0, -0.3, 0, -1)]
)
def test_eyes_look_down_and_right_when_positive(
    pitch: float, yaw: float, axis: int, sign: int
) -> None:
    gaze = camera.eye_matrix(pitch, yaw) @ np.array([0.0, 0.0, -1.0])
    assert gaze[axis] * sign == pytest.approx(np.sin(0.3))
