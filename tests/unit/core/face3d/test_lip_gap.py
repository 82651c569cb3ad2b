# SPDX-License-Identifier: Apache-2.0
"""The distance between the lips as a function of the coefficients."""

from __future__ import annotations

import numpy as np
import pytest

from styleavatar_core.face3d.arkit import ARKIT_NAMES
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.landmark_groups import LOWER_INNER_LIP, UPPER_INNER_LIP
from styleavatar_core.face3d.lip_gap import lip_gap

MODEL = builtin_model()
LIPS = lip_gap(MODEL.model_id)
JAW, CLOSE = ARKIT_NAMES.index("jawOpen"), ARKIT_NAMES.index("mouthClose")


def coefficients(**values: float) -> np.ndarray:
    expression = np.zeros(len(ARKIT_NAMES), np.float32)
    for name, value in values.items():
        expression[ARKIT_NAMES.index(name)] = value
    return expression


def test_the_gap_is_that_of_the_mesh() -> None:
    expression = np.random.default_rng(0).uniform(0, 1, len(ARKIT_NAMES)).astype(np.float32)
    vertices = MODEL.mean_shape + MODEL.expression_basis @ expression
    places = MODEL.landmark_indices
    lower, upper = (vertices[places[list(lip)]] for lip in (LOWER_INNER_LIP, UPPER_INNER_LIP))
    assert LIPS.of(expression) == pytest.approx((lower - upper)[:, 1].mean(), abs=1e-5)


def test_an_open_jaw_opens_the_mouth_and_closing_lips_close_it() -> None:
    shut, opened, closed = (
        float(LIPS.of(coefficients(**values)))
        for values in ({}, {"jawOpen": 0.6}, {"jawOpen": 0.6, "mouthClose": 0.6})
    )
    assert abs(shut) < 0.04
    assert opened > shut + 0.08
    assert closed == pytest.approx(shut, abs=0.02)


@pytest.mark.parametrize("gap", [-0.005, 0.0, 0.03, 0.15])
def test_nearest_coefficients_give_the_wanted_gap(gap: float) -> None:
    start = coefficients(jawOpen=0.4, mouthPucker=0.3, mouthFunnel=0.2)
    found = LIPS.with_gap(start, gap, np.ones(len(start)))
    assert float(LIPS.of(found)) == pytest.approx(gap, abs=1e-3)
    assert found.min() >= 0.0
    assert found.max() <= 1.0
    changed = np.abs(found - start)
    assert max(changed[JAW], changed[CLOSE]) == changed.max()


def test_a_gap_beyond_all_faces_ends_at_the_bounds() -> None:
    found = LIPS.with_gap(coefficients(), 10.0, np.ones(len(ARKIT_NAMES)))
    assert np.isin(found, (0.0, 1.0)).all()


def test_what_does_not_vary_stays() -> None:
    spread = coefficients(mouthFunnel=0.2)
    found = LIPS.with_gap(coefficients(jawOpen=0.3), 0.1, spread)
    assert set(np.flatnonzero(found)) == {ARKIT_NAMES.index("mouthFunnel"), JAW}
    assert found[JAW] == pytest.approx(0.3)
