# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest

from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import (
    project,
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
    to_pixels,
)
from styleavatar_core.face3d.tilt import tilt_head, tilt_matrix, tilt_sources
from styleavatar_core.types import FaceParameters

MODEL = builtin_model()


def head(rotation: tuple[float, float, float]) -> FaceParameters:
    return FaceParameters(
        model_id=MODEL.model_id,
        rotation=quaternion_from_rotation_vector(np.array(rotation)),
        translation=np.array([0.3, -0.2, 0.5], np.float32),
        scale=0.5,
        expression=np.zeros(52, np.float32),
        eye_rotation=np.zeros((2, 2), np.float32),
    )


@pytest.mark.parametrize("degrees", [0.0, 20.0, -7.0])
def test_the_mesh_of_a_tilted_head_lies_where_the_picture_takes_it(degrees: float) -> None:
    upright = head((0.2, -0.3, 0.1))
    vertices = MODEL.neutral(np.zeros(MODEL.identity_basis.shape[2], np.float32))[::50]
    before, after = (
        to_pixels(project(vertices, parameters), 200, 200)[:, :2] - 0.5
        for parameters in (upright, tilt_head(upright, degrees))
    )
    matrix = tilt_matrix(upright, degrees, 200)
    np.testing.assert_allclose(after, before @ matrix[:, :2].T + matrix[:, 2], atol=2e-3)


def test_a_tilt_is_clockwise_and_keeps_the_neck_in_its_place() -> None:
    upright = head((0.0, 0.0, 0.0))
    tilted = tilt_head(upright, 10.0)
    roll = rotation_vector_from_quaternion(tilted.rotation)
    np.testing.assert_allclose(roll, [0.0, 0.0, np.deg2rad(10.0)], atol=1e-6)
    middle, neck = np.zeros((1, 3), np.float32), np.array([[0, 0.9, 0]], np.float32)
    np.testing.assert_allclose(project(neck, tilted), project(neck, upright), atol=1e-6)
    aside = project(middle, tilted)[0, 0] - project(middle, upright)[0, 0]
    assert aside == pytest.approx(0.9 * 0.5 * np.sin(np.deg2rad(10.0)), abs=1e-5)


@pytest.mark.parametrize("degrees", [15.0, -9.0])
def test_the_head_is_turned_as_a_whole_the_body_stays_and_the_neck_bends(degrees: float) -> None:
    upright = head((0.2, -0.3, 0.1))
    middle_y = float(to_pixels(project(np.zeros((1, 3), np.float32), upright), 200, 200)[0, 1])
    decimetre = 0.5 * 100  # pixels: of the 200 on a side a frame unit has 100
    x, y = tilt_sources(upright, degrees, 200)
    matrix = cv2.invertAffineTransform(tilt_matrix(upright, degrees, 200))
    columns, rows = np.meshgrid(np.arange(200), np.arange(200))
    turned = np.stack([columns, rows], axis=2) @ matrix[:, :2].T + matrix[:, 2]
    above = rows + 0.5 < middle_y + 0.72 * decimetre  # of the chin, which is 0.75 dm below
    below = rows + 0.5 > middle_y + 1.16 * decimetre
    assert above.any()
    assert below.any()
    sources = np.stack([x, y], axis=2)
    np.testing.assert_allclose(sources[above], turned[above], atol=1e-3)
    np.testing.assert_allclose(sources[below], np.stack([columns, rows], axis=2)[below], atol=1e-3)
    # Nothing is torn between them: neighbours come from neighbours.
    assert np.abs(np.diff(sources, axis=0)).max() < 4
    assert np.abs(np.diff(sources, axis=1)).max() < 1.1


def test_nobody_is_bent_by_no_tilt() -> None:
    x, y = tilt_sources(head((0.2, -0.3, 0.1)), 0.0, 50)
    np.testing.assert_allclose(x, np.tile(np.arange(50), (50, 1)), atol=1e-4)
    np.testing.assert_allclose(y.T, np.tile(np.arange(50), (50, 1)), atol=1e-4)
