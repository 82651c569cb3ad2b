# SPDX-License-Identifier: Apache-2.0
"""Eq. 3 over several frames, whatever passes before some of them."""

from __future__ import annotations

import numpy as np
import pytest

from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import matrix_from_quaternion, quaternion_from_rotation_vector
from styleavatar_core.raster.render import FaceRenderer
from styleavatar_core.tracking.fitter import FaceFitter, Fit
from styleavatar_core.tracking.solver import Pose
from styleavatar_core.tracking.texture import solve_texture
from styleavatar_core.tracking.tracker import fit_to_parameters
from styleavatar_core.tracking.views import VIEW_COUNT, ViewSampler
from styleavatar_core.types import ByteArray, FloatArray

SIDE_PX = 160
model = builtin_model()
TRUTH = np.zeros(model.texture_basis.shape[-1], np.float32)
TRUTH[:4] = (1.5, -1.0, 0.8, -0.6)


def view(yaw: float) -> tuple[Fit, ByteArray]:
    """A person of known texture as seen by the camera, flatly lit."""
    rotation = matrix_from_quaternion(quaternion_from_rotation_vector(np.array([0.0, yaw, 0.0])))
    expression, eyes = np.zeros(52, np.float32), np.zeros((2, 2), np.float32)
    fit = Fit(Pose(rotation, np.zeros(3), 0.55), expression, eyes)
    vertices = model.vertices(model.mean_shape, expression, eyes)
    renderer = FaceRenderer(model, model.albedo(TRUTH), SIDE_PX)
    return fit, renderer.render(vertices, fit_to_parameters(model, fit, 0.0, 0)).texture


def color_error(texture: FloatArray) -> float:
    return float(np.abs(model.albedo(texture) - model.albedo(TRUTH))[:468].mean())


@pytest.fixture(scope="module")
def views() -> list[tuple[Fit, ByteArray]]:
    return [view(yaw) for yaw in (-0.4, -0.2, 0.0, 0.2, 0.4)]


def test_a_hand_before_the_first_frames_is_not_painted_on_the_face(
    views: list[tuple[Fit, ByteArray]],
) -> None:
    fitter = FaceFitter(model)
    clean = solve_texture(model, fitter, views)
    covered = [(fit, picture.copy()) for fit, picture in views]
    for _, picture in covered[:2]:
        picture[70:, :] = (20, 90, 220)  # blue, over mouth and cheeks
    robust = solve_texture(model, fitter, covered)
    alone = solve_texture(model, fitter, covered[:1])
    error, before = color_error(robust), color_error(clean)
    assert error < before + 0.02
    assert color_error(alone) > error + 0.03


def test_frames_are_kept_evenly_and_few_and_small() -> None:
    sampler: ViewSampler[int] = ViewSampler()
    frame = np.zeros((1080, 608, 3), np.uint8)
    for index in range(1000):
        sampler.offer(index, frame)
    kept = [index for index, _ in sampler.views]
    assert VIEW_COUNT / 2 <= len(kept) <= VIEW_COUNT
    assert kept[0] == 0
    assert kept[-1] > 700
    assert len(set(np.diff(kept))) == 1
    assert sampler.views[0][1].shape == (512, 288, 3)
