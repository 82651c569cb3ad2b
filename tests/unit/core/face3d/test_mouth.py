# SPDX-License-Identifier: Apache-2.0
"""The surface behind the lips: where it shows and where it must not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from styleavatar_core.face3d.arkit import ARKIT_INDEX
from styleavatar_core.face3d.builtin import builtin_model, earlier_model
from styleavatar_core.face3d.camera import project, quaternion_from_rotation_vector, to_pixels
from styleavatar_core.face3d.model import load_face_model
from styleavatar_core.raster.render import FaceRenderer
from styleavatar_core.types import FaceParameters, FloatArray
from tools.builtin_model.mouth import RIM, with_mouth

SIZE = 384
Mask = npt.NDArray[np.bool_]

model, without = builtin_model(), earlier_model()
NOBODY = np.zeros(model.identity_basis.shape[-1], np.float32)
renderer = FaceRenderer(model, model.mean_texture, SIZE)
hollow = FaceRenderer(without, without.mean_texture, SIZE)


def params(expression: FloatArray, rotation: tuple[float, float, float]) -> FaceParameters:
    return FaceParameters(
        model.model_id,
        quaternion_from_rotation_vector(np.array(rotation)),
        np.array([0.0, -0.3, 0.0], np.float32),
        1.6,
        np.asarray(expression, np.float32),
        np.zeros((2, 2), np.float32),
    )


def coefficients(**values: float) -> FloatArray:
    expression = np.zeros(52, np.float32)
    for name, value in values.items():
        expression[ARKIT_INDEX[name]] = value
    return expression


def draw(
    expression: FloatArray,
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0),
    identity: FloatArray = NOBODY,
) -> tuple[Mask, Mask, Mask]:
    """Where the mouth's inside shows, where a head without it shows, and within the inner lips."""
    face = params(expression, rotation)
    vertices = model.vertices(model.neutral(identity), face.expression, face.eye_rotation)
    drawn = renderer.render(vertices, face)
    span = model.uv_coordinates[slice(*model.mouth_vertices)]
    shown = ((drawn.uv >= span.min(axis=0)) & (drawn.uv <= span.max(axis=0))).all(axis=2)
    before = hollow.render(vertices[: len(without.mean_shape)], face).mask > 0
    ring = to_pixels(project(vertices, face), SIZE, SIZE)[list(RIM), :2]
    within = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(within, [np.rint((ring - 0.5) * 16).astype(np.int32)], 1, shift=4)
    return shown, before, within > 0


@pytest.mark.parametrize("rotation", [(0, 0, 0), (0, 0.52, 0), (0, -0.52, 0), (0.3, 0, 0)])
@pytest.mark.parametrize("values", [{"jawOpen": 0.7}, {"jawOpen": 1.0, "mouthFunnel": 0.5}, {}])
def test_it_fills_an_open_mouth(
    rotation: tuple[float, float, float], values: dict[str, float]
) -> None:
    shown, before, within = draw(coefficients(**values), rotation)
    assert shown.sum() > (1000 if values else 100)
    # The polygon's own border is up to rounding.
    inner = cv2.erode(within.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert (shown | before)[inner].all()
    if rotation == (0, 0, 0):
        assert shown[inner].all()


@pytest.mark.parametrize("yaw", [0.0, 0.5, -0.5])
@pytest.mark.parametrize(
    "values",
    [
        {"mouthClose": 0.4},
        {"jawOpen": 0.3, "mouthClose": 0.8},
        {"mouthClose": 0.5, "mouthPressLeft": 0.5, "mouthPressRight": 0.5},
        {"mouthClose": 0.5, "mouthRollLower": 0.4, "mouthRollUpper": 0.4},
    ],
)
def test_closed_lips_hide_it(values: dict[str, float], yaw: float) -> None:
    shown, _, _ = draw(coefficients(**values), (0.0, yaw, 0.0))
    assert shown.sum() == 0


def test_it_is_never_before_anything_of_the_face() -> None:
    rng = np.random.default_rng(0)
    shown_count = 0
    for index in range(60):
        expression = rng.random(52)
        if index % 3:
            expression = expression.round() if index % 3 == 1 else expression * (expression > 0.7)
        identity = rng.normal(size=len(NOBODY)).astype(np.float32)
        turn = rng.normal(size=3) * [0.3, 0.5, 0.2]
        shown, before, _ = draw(expression, tuple(turn.tolist()), identity)
        shown_count += int(shown.sum())
        # The neck, seen through a mouth that looks down, may be behind it.
        assert (shown & before).sum() <= 60
    assert shown_count > 50_000


def test_it_is_a_bag_whose_only_opening_is_between_the_lips() -> None:
    start, stop = model.mouth_vertices
    faces = model.faces[(model.faces >= start).any(axis=1)]
    assert faces.min() == start
    assert faces.max() == stop - 1
    edges = Counter((a, b) for f in faces.tolist() for a, b in zip(f, (*f[1:], f[0]), strict=True))
    assert set(edges.values()) == {1}
    rim = [a for a, b in edges if (b, a) not in edges]
    assert len(rim) == len(RIM)
    rng = np.random.default_rng(1)
    identity = rng.normal(size=len(NOBODY)).astype(np.float32)
    moved = model.vertices(model.neutral(identity), rng.random(52), np.zeros((2, 2)))
    assert np.array_equal(moved[sorted(rim)], moved[list(RIM)])  # to the bit: no gap


def test_the_lower_teeth_go_with_the_jaw_and_the_upper_ones_keep_still() -> None:
    start, stop = model.mouth_vertices
    rings = model.expression_basis[start:stop].reshape(-1, len(RIM), 3, 52)
    upper, lower = rings[1:, 1:10], rings[1:, 11:]
    assert (upper == 0).all()
    opened = lower[..., ARKIT_INDEX["jawOpen"]]
    assert (opened[0, :, 1] > 0.2).all()
    assert opened[-1, :, 1] == pytest.approx(0.3 * opened[0, :, 1], rel=1e-3)
    assert (lower[..., ARKIT_INDEX["mouthSmileLeft"]] == 0).all()


def test_without_it_the_model_is_its_predecessor_to_the_bit() -> None:
    assert without.model_id == "builtin-2"
    assert without.digest == "87c64ff2fe2a3278db1225ca1cc87ac24b31a0449c720e7ac9ec847f525f4938"
    assert without.mouth_vertices == (0, 0)
    assert np.array_equal(without.landmark_indices, model.landmark_indices)


def test_the_file_holds_what_the_tool_adds(tmp_path: Path) -> None:
    made = replace(with_mouth(without), model_id=model.model_id)
    made.save(tmp_path / "made.safetensors")
    again = load_face_model(tmp_path / "made.safetensors")
    assert np.array_equal(again.faces, model.faces)
    assert again.mouth_vertices == model.mouth_vertices
    for name in ("mean_shape", "expression_basis", "mean_texture", "uv_coordinates"):
        # Other processors may round the last digit otherwise.
        assert getattr(again, name) == pytest.approx(getattr(model, name), abs=1e-3), name
