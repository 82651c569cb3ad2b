# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.face3d.arkit import ARKIT_INDEX
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import project, quaternion_from_rotation_vector, to_pixels
from styleavatar_core.types import FaceIdentity, FaceParameters

SIZE = 128
model = builtin_model()
IDENTITY = FaceIdentity(
    model.model_id,
    np.zeros(model.identity_basis.shape[-1], np.float32),
    np.zeros(model.texture_basis.shape[-1], np.float32),
)


def make(rotation: tuple[float, float, float] = (0, 0, 0), **expression: float) -> FaceParameters:
    coefficients = np.zeros(52, np.float32)
    for name, value in expression.items():
        coefficients[ARKIT_INDEX[name]] = value
    return FaceParameters(
        model.model_id,
        quaternion_from_rotation_vector(np.array(rotation)),
        np.array([0.05, -0.03, 0.0], np.float32),
        0.9,
        coefficients,
        np.zeros((2, 2), np.float32),
    )


@pytest.fixture(scope="module")
def renderer() -> ConditioningRenderer:
    made = ConditioningRenderer(model, IDENTITY, SIZE)
    made.warm_up()
    return made


def test_shapes_and_ranges(renderer: ConditioningRenderer) -> None:
    result = renderer.render(make())
    assert result.texture_rendering.shape == (SIZE, SIZE, 3)
    assert result.texture_rendering.dtype == np.uint8
    assert result.uv_rendering.dtype == np.float32
    assert set(np.unique(result.face_mask)) == {0, 1}
    assert 0 <= result.uv_rendering.min() <= result.uv_rendering.max() <= 1
    assert (result.texture_rendering[result.face_mask == 0] == 0).all()
    assert (result.uv_rendering[result.face_mask == 0] == 0).all()
    assert 0.1 < result.face_mask.mean() < 0.7


@pytest.mark.parametrize("rotation", [(0, 0, 0), (0.1, 0.3, -0.2)])
def test_known_vertices_land_on_their_pixels(
    renderer: ConditioningRenderer, rotation: tuple[float, float, float]
) -> None:
    params = make(rotation)
    uv = renderer.render(params).uv_rendering
    vertices = model.vertices(model.mean_shape, params.expression, params.eye_rotation)
    pixels = to_pixels(project(vertices, params), SIZE, SIZE)
    for vertex in (4, 50, 280, 151, 199):  # nose tip, cheeks, forehead, chin
        x, y = pixels[vertex, :2] - 0.5
        # Bilinear sampling of the UV rendering at the vertex gives the vertex's UV.
        column, row = int(x), int(y)
        fx, fy = x - column, y - row
        patch = uv[row : row + 2, column : column + 2]
        value = np.einsum("r,c,rcn->n", [1 - fy, fy], [1 - fx, fx], patch)
        assert value == pytest.approx(model.uv_coordinates[vertex], abs=0.015)


def test_an_open_mouth_shows_its_inside_and_a_closed_eye_hides_the_iris(
    renderer: ConditioningRenderer,
) -> None:
    def at(result: np.ndarray, landmarks: list[int], params: FaceParameters) -> np.ndarray:
        vertices = model.vertices(model.mean_shape, params.expression, params.eye_rotation)
        pixels = to_pixels(project(vertices, params), SIZE, SIZE)
        x, y = pixels[landmarks, :2].mean(axis=0)
        return result[int(y), int(x)]

    opened = make(jawOpen=0.8)
    inside = model.uv_coordinates[slice(*model.mouth_vertices)]
    seen = at(renderer.render(opened).uv_rendering, [13, 14], opened)
    assert ((inside.min(axis=0) < seen) & (seen < inside.max(axis=0))).all()
    pupil = int(model.landmark_indices[473])
    rest, blink = make(), make(eyeBlinkLeft=1.0)
    awake = at(renderer.render(rest).texture_rendering, [pupil], rest).mean()
    asleep = at(renderer.render(blink).texture_rendering, [pupil], blink).mean()
    assert awake < 40 < 70 < asleep


def test_parameters_of_another_model_are_refused(renderer: ConditioningRenderer) -> None:
    with pytest.raises(InvalidInputError, match="faceverse-v3"):
        renderer.render(replace(make(), model_id="faceverse-v3"))
    with pytest.raises(InvalidInputError, match="faceverse-v3"):
        ConditioningRenderer(model, replace(IDENTITY, model_id="faceverse-v3"), SIZE)


@pytest.mark.parametrize("what", ["identity", "texture"])
def test_coefficients_of_another_version_of_the_model_are_refused(what: str) -> None:
    old = replace(IDENTITY, **{what: np.zeros(3, np.float32)})
    with pytest.raises(InvalidInputError, match=f"3 {what} coefficients"):
        ConditioningRenderer(model, old, SIZE)
