# SPDX-License-Identifier: Apache-2.0
"""The sample clip's mesh is like a head: deep, with a nose that stays and cheeks that stretch."""

from __future__ import annotations

import numpy as np
import pytest

from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.landmark_groups import LIDS, LIPS, NOSE
from styleavatar_core.sample.skin import LifelikeSkin

CHEEK, EARS, NOSE_TIP = 425, (234, 454), 1


@pytest.fixture(scope="module")
def skin() -> LifelikeSkin:
    return LifelikeSkin(builtin_model())


def movement(**values: float) -> np.ndarray:
    model = builtin_model()
    names = list(model.expression_names)
    return sum(model.expression_basis[..., names.index(n)] * v for n, v in values.items())


def at(vertices: np.ndarray, landmarks: tuple[int, ...]) -> np.ndarray:
    return vertices[builtin_model().landmark_indices[list(landmarks)]]


def test_the_nose_stays_while_lips_and_lids_move_as_the_model_says(skin: LifelikeSkin) -> None:
    asked = movement(mouthSmileLeft=0.5, mouthSmileRight=0.5, eyeBlinkLeft=1.0, jawOpen=0.5)
    given = skin.moved(asked)
    assert np.abs(at(given, NOSE)).max() == 0.0
    corners = (61, 291, 14, 17, 145, 159, 386)
    assert set(corners) <= set(LIPS + LIDS)
    np.testing.assert_allclose(at(given, corners), at(asked, corners), atol=1e-6)


def test_cheeks_stretch_when_the_jaw_opens(skin: LifelikeSkin) -> None:
    asked = movement(jawOpen=1.0)
    given = skin.moved(asked)
    down = at(given, (CHEEK,))[0, 1]
    # Between the eye, which stays, and the corner of the mouth, which goes down.
    assert at(asked, (CHEEK,))[0, 1] < 0.2 * down
    assert 0.0 < down < at(given, (291,))[0, 1]


def test_a_head_is_as_deep_as_people_are(skin: LifelikeSkin) -> None:
    mean = builtin_model().mean_shape
    deep = skin.deepened(mean)
    depth = at(deep, EARS)[:, 2].mean() - at(deep, (NOSE_TIP,))[0, 2]
    assert 1.10 < depth < 1.22  # decimetres
    np.testing.assert_array_equal(deep[:, :2], mean[:, :2])
