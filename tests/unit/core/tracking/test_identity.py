# SPDX-License-Identifier: Apache-2.0
"""Who is seen is learned from good frames, and anew when somebody else sits down."""

from __future__ import annotations

import numpy as np
import pytest

from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import (
    matrix_from_quaternion,
    quaternion_from_rotation_vector,
)
from styleavatar_core.tracking.fitter import FaceFitter
from styleavatar_core.tracking.identity import SETTLING_COUNT, IdentityLearner
from styleavatar_core.tracking.solver import Pose

MODEL = builtin_model()
NOISE_DM = 0.005


class Person:
    """Somebody whose landmarks are known, but for a little noise."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.identity = self._rng.normal(size=MODEL.identity_basis.shape[-1])
        self._neutral = MODEL.neutral(self.identity)

    def frame(self, yaw: float = 0.0) -> np.ndarray:
        """Landmarks of the next frame, (478, 3): a face that talks and moves a little."""
        rng = self._rng
        expression = np.zeros(len(MODEL.expression_names), np.float32)
        expression[rng.choice(len(expression), 3, replace=False)] = rng.uniform(0, 0.5, 3)
        vertices = MODEL.vertices(self._neutral, expression, np.zeros((2, 2), np.float32))
        points = vertices[MODEL.landmark_indices].astype(np.float64)
        turn = rng.normal(size=3) * 0.08 + [0.0, yaw, 0.0]
        rotation = matrix_from_quaternion(quaternion_from_rotation_vector(turn))
        noise = rng.normal(size=points.shape) * NOISE_DM
        return Pose(rotation, np.zeros(3), 0.7).apply(points + noise)


class Learner:
    """A learner with its fitter, fed as a tracker feeds it."""

    def __init__(self) -> None:
        self.fitter = FaceFitter(MODEL)
        self.made = IdentityLearner(self.fitter)

    def see(self, landmarks: np.ndarray) -> None:
        self.made.begin(landmarks)
        self.made.learn(landmarks, self.fitter.fit(landmarks))

    def watch(self, person: Person, count: int) -> None:
        for _ in range(count):
            self.see(person.frame())


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b))


@pytest.fixture
def learner() -> Learner:
    return Learner()


def test_frames_that_tell_nothing_of_the_shape_are_left_out(learner: Learner) -> None:
    person, other = Person(1), Learner()
    rng = np.random.default_rng(0)
    for index in range(SETTLING_COUNT):
        landmarks = person.frame()
        other.see(landmarks)
        learner.see(landmarks)
        turned = person.frame(yaw=0.9)
        learner.see(turned)
        learner.see(turned + rng.normal(size=turned.shape) * 0.02)
        if index > 20 and index % 3 == 2:  # the next frame would be a witness
            learner.see(landmarks + rng.normal(size=landmarks.shape) * 0.03)
    assert learner.made.is_settled
    assert other.made.is_settled
    assert np.array_equal(learner.fitter.identity, other.fitter.identity)


def test_who_comes_back_after_long_is_still_known(learner: Learner) -> None:
    person = Person(2)
    learner.watch(person, SETTLING_COUNT + 110)
    known = learner.fitter.identity.copy()
    learner.made.doubt()
    learner.watch(person, 120)
    assert np.array_equal(learner.fitter.identity, known)


def test_somebody_else_who_sits_down_is_learned_anew(learner: Learner) -> None:
    learner.watch(Person(2), SETTLING_COUNT + 110)
    known = learner.fitter.identity.copy()
    learner.made.doubt()
    assert learner.made.person_index == 0
    learner.watch(Person(3), 100 + SETTLING_COUNT)
    assert learner.made.person_index == 1
    alone = Learner()
    alone.watch(Person(3), SETTLING_COUNT)
    assert learner.made.is_settled
    after, wanted = learner.fitter.identity, alone.fitter.identity
    assert distance(after, wanted) < 0.4 * distance(known, wanted)


def test_who_leaves_before_they_are_known_leaves_nothing_behind(learner: Learner) -> None:
    learner.watch(Person(2), SETTLING_COUNT // 2)
    learner.made.doubt()
    learner.watch(Person(3), SETTLING_COUNT)
    alone = Learner()
    alone.watch(Person(3), SETTLING_COUNT)
    assert np.array_equal(learner.fitter.identity, alone.fitter.identity)
