# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from styleavatar_core.face3d.camera import (
    eye_matrix,
    matrix_from_quaternion,
    quaternion_from_rotation_vector,
)
from styleavatar_core.tracking.solver import (
    Pose,
    gram_matrix,
    moment_vector,
    refine_pose,
    solve_bounded,
    solve_gaze,
    solve_pose,
)

angles = st.floats(-1.2, 1.2)


@settings(max_examples=40, deadline=None)
@given(st.tuples(angles, angles, angles), st.floats(0.1, 3.0))
def test_pose_is_found_exactly(vector: tuple[float, float, float], scale: float) -> None:
    rng = np.random.default_rng(1)
    rotation = matrix_from_quaternion(quaternion_from_rotation_vector(np.array(vector)))
    truth = Pose(rotation, np.array([0.3, -0.2, 1.0]), scale)
    source = rng.normal(size=(12, 3))
    found = solve_pose(source, truth.apply(source), rng.uniform(0.1, 1, 12))
    assert found.rotation == pytest.approx(rotation, abs=1e-6)
    assert found.translation == pytest.approx(truth.translation, abs=1e-5)
    assert found.scale == pytest.approx(scale)
    assert found.invert(truth.apply(source)) == pytest.approx(source, abs=1e-5)


def test_a_point_without_weight_has_no_say() -> None:
    rng = np.random.default_rng(2)
    source = rng.normal(size=(8, 3))
    target = source.copy()
    target[0] += 50
    weights = np.ones(8)
    weights[0] = 0
    assert solve_pose(source, target, weights).rotation == pytest.approx(np.eye(3), abs=1e-9)


def test_a_mirrored_face_is_no_rotation() -> None:
    source = np.random.default_rng(3).normal(size=(20, 3))
    found = solve_pose(source, source * [-1, 1, 1], np.ones(20))
    assert np.linalg.det(found.rotation) == pytest.approx(1.0)


@settings(max_examples=20, deadline=None)
@given(st.tuples(angles, angles, angles), st.floats(0.1, 3.0))
def test_steps_lead_to_the_pose_that_the_image_shows(
    vector: tuple[float, float, float], scale: float
) -> None:
    rng = np.random.default_rng(4)
    rotation = matrix_from_quaternion(quaternion_from_rotation_vector(np.array(vector)))
    truth = Pose(rotation, np.array([0.3, -0.2, 1.0]), scale)
    source, weights = rng.normal(size=(40, 3)), rng.uniform(0.1, 1, 40)
    target = truth.apply(source)
    target[:, 2] *= 0.7  # a detector that sees less depth than there is
    closed = found = solve_pose(source, target, weights)
    for _ in range(12):
        found = refine_pose(found, source, target, weights, 1e-6)
    assert found.rotation == pytest.approx(rotation, abs=1e-3)
    assert found.rotation @ found.rotation.T == pytest.approx(np.eye(3), abs=1e-12)
    assert found.scale == pytest.approx(scale, rel=1e-3)
    assert found.apply(source)[:, :2] == pytest.approx(target[:, :2], abs=1e-2)
    assert abs(closed.scale - scale) > 0.03 * scale


def test_with_equal_weights_the_closed_form_stands() -> None:
    rng = np.random.default_rng(5)
    source, weights = rng.normal(size=(30, 3)), rng.uniform(0.1, 1, 30)
    target = source * 0.8 + rng.normal(size=source.shape) * 0.05
    closed = found = solve_pose(source, target, weights)
    for _ in range(20):
        found = refine_pose(found, source, target, weights, 1.0)
    assert found.rotation == pytest.approx(closed.rotation, abs=2e-3)
    assert found.translation == pytest.approx(closed.translation, abs=2e-3)
    assert found.scale == pytest.approx(closed.scale, rel=1e-2)


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6))
def test_eyes_are_found_from_the_image_alone(pitch: float, yaw: float) -> None:
    ring = np.array(
        [
            [0, 0, -0.13],
            [0.06, 0, -0.115],
            [0, -0.06, -0.115],
            [-0.06, 0, -0.115],
            [0, 0.06, -0.115],
        ]
    )
    head = matrix_from_quaternion(quaternion_from_rotation_vector(np.array([0.1, 0.3, -0.2])))
    pose = Pose(head, np.array([0.2, -0.1, 1.0]), 0.7)
    centers = np.array([[0.3, -0.4, 0.2], [-0.3, -0.4, 0.2]])
    turns = [eye_matrix(pitch, yaw), eye_matrix(-pitch, yaw / 2)]
    seen = np.stack([pose.apply(ring @ turn.T + c) for turn, c in zip(turns, centers, strict=True)])
    seen[..., 2] = np.nan  # a detector's irises have no depth
    found = solve_gaze(seen, centers, np.stack([ring, ring]), pose)
    assert found == pytest.approx(np.array([[pitch, yaw], [-pitch, yaw / 2]]), abs=0.003)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("is_started", [False, True])
def test_bounded_solution_agrees_with_scipy(seed: int, is_started: bool) -> None:
    rng = np.random.default_rng(seed)
    rows, right = rng.normal(size=(60, 20)), rng.normal(size=60) * 2
    lower, upper = np.zeros(20), np.full(20, 0.3)
    lower[3] = upper[3] = 0.2  # given
    start = rng.uniform(0, 0.3, 20) if is_started else None
    found = solve_bounded(rows.T @ rows, rows.T @ right, lower, upper, start)
    assert found[3] == 0.2
    free = np.delete(np.arange(20), 3)
    best = lsq_linear(rows[:, free], right - 0.2 * rows[:, 3], (0.0, 0.3), tol=1e-12).x
    assert found[free] == pytest.approx(best, abs=1e-5)


def test_normal_equations_are_those_of_the_dense_system() -> None:
    rng = np.random.default_rng(4)
    directions = rng.normal(size=(9, 3, 6))
    directions[:4, :, 2] = 0.0
    rotation = matrix_from_quaternion(quaternion_from_rotation_vector(np.array([0.2, 0.5, -0.3])))
    axes, weights, left = np.array([1, 1, 0.1]), rng.uniform(0, 1, 9), rng.normal(size=(9, 3))
    gram = gram_matrix(directions, rotation, axes, weights)
    moment = moment_vector(directions, rotation, axes, weights, left)
    rows = np.sqrt(axes * weights[:, None])[..., None] * np.matmul(rotation, directions)
    right = (np.sqrt(axes * weights[:, None]) * left).ravel()
    assert gram == pytest.approx(rows.reshape(27, 6).T @ rows.reshape(27, 6))
    assert moment == pytest.approx(rows.reshape(27, 6).T @ right)
