# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from styleavatar_core.errors import AssetError
from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.face3d.arkit import ARKIT_INDEX, ARKIT_NAMES, mirrored_name
from styleavatar_core.face3d.builtin import BUILTIN_MODEL_PATH, builtin_model
from styleavatar_core.face3d.model import load_face_model
from styleavatar_core.raster.mesh import vertex_normals

model = builtin_model()


def moved(**coefficients: float) -> np.ndarray:
    """Displacement of the 468 face landmarks from rest."""
    expression = np.zeros(len(ARKIT_NAMES), np.float32)
    for name, value in coefficients.items():
        expression[ARKIT_INDEX[name]] = value
    vertices = model.vertices(model.mean_shape, expression, np.zeros((2, 2)))
    return (vertices - model.mean_shape)[model.landmark_indices[:468]]


def test_the_file_is_small_and_consistent() -> None:
    assert BUILTIN_MODEL_PATH.stat().st_size < 1_500_000
    count = len(model.mean_shape)
    assert model.faces.min() == 0
    assert model.faces.max() == count - 1
    assert model.expression_names == ARKIT_NAMES
    assert len(set(model.expression_names)) == 52
    assert len(set(model.landmark_indices.tolist())) == groups.LANDMARK_COUNT
    for array in (
        model.mean_shape,
        model.identity_basis,
        model.expression_basis,
        model.texture_basis,
    ):
        assert np.isfinite(array).all()


def test_zero_coefficients_are_the_mean_face() -> None:
    neutral = model.neutral(np.zeros(model.identity_basis.shape[-1]))
    vertices = model.vertices(neutral, np.zeros(52), np.zeros((2, 2)))
    assert vertices == pytest.approx(model.mean_shape, abs=1e-6)


def test_the_eyes_are_as_far_apart_as_peoples() -> None:
    points = model.mean_shape[model.landmark_indices]
    left = points[list(groups.LEFT_EYE_CORNERS)].mean(axis=0)
    right = points[list(groups.RIGHT_EYE_CORNERS)].mean(axis=0)
    assert np.linalg.norm(left - right) == pytest.approx(0.63, abs=0.02)
    assert left[0] > 0 > right[0]  # the subject's left is at image right


def test_left_and_right_expressions_are_mirror_images() -> None:
    points = model.mean_shape[:468]
    distances = np.linalg.norm((points * [-1, 1, 1])[:, None] - points[None], axis=-1)
    partners = distances.argmin(axis=1)
    assert distances.min(axis=1).max() < 1e-3
    for name in ARKIT_NAMES:
        own = moved(**{name: 1.0})
        other = moved(**{mirrored_name(name): 1.0})
        assert own == pytest.approx(other[partners] * [-1, 1, 1], abs=1e-3), name


@pytest.mark.parametrize("name", [n for n in ARKIT_NAMES if n != "tongueOut"])
def test_every_expression_moves_something(name: str) -> None:
    assert np.linalg.norm(moved(**{name: 1.0}), axis=1).max() > 0.008


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_a_blink_closes_its_lid_and_no_other(side: str) -> None:
    lids = {
        "Left": (groups.LEFT_UPPER_LID[3], groups.LEFT_LOWER_LID[3]),
        "Right": (groups.RIGHT_UPPER_LID[3], groups.RIGHT_LOWER_LID[3]),
    }
    rest = model.mean_shape[:468]
    after = rest + moved(**{f"eyeBlink{side}": 1.0})
    for name, (upper, lower) in lids.items():
        opening = (after[lower, 1] - after[upper, 1]) / (rest[lower, 1] - rest[upper, 1])
        assert (opening < 0.2) if name == side else (opening > 0.9)


def test_the_jaw_opens_the_mouth_and_lowers_the_chin() -> None:
    motion = moved(jawOpen=1.0)
    assert motion[14, 1] - motion[13, 1] > 0.2
    assert motion[152, 1] > 0.1
    assert abs(motion[10, 1]) < 0.02


@pytest.mark.parametrize(
    ("name", "landmark", "axis", "sign"),
    [
        ("mouthSmileLeft", 291, 1, -1),
        ("mouthSmileRight", 61, 0, -1),
        ("mouthFrownLeft", 291, 1, 1),
        ("mouthLeft", 13, 0, 1),
        ("browInnerUp", 336, 1, -1),
        ("browDownRight", 107, 1, 1),
        ("mouthPucker", 61, 0, 1),
        ("jawForward", 152, 2, -1),
    ],
)
def test_expressions_mean_what_they_say(name: str, landmark: int, axis: int, sign: int) -> None:
    assert moved(**{name: 1.0})[landmark, axis] * sign > 0.02


def test_eyeballs_turn_about_their_centre() -> None:
    turned = model.vertices(model.mean_shape, np.zeros(52), np.array([[0.2, 0.0], [0.0, 0.3]]))
    for start, stop in model.eye_vertices:
        assert turned[start:stop].mean(0) == pytest.approx(
            model.mean_shape[start:stop].mean(0), abs=1e-4
        )
    left, right = model.landmark_indices[[groups.LEFT_IRIS[0], groups.RIGHT_IRIS[0]]]
    motion = turned - model.mean_shape
    assert motion[left, 1] > 0.02
    assert abs(motion[left, 0]) < 1e-4
    assert motion[right, 0] > 0.02


def test_the_uv_map_does_not_fold_and_stays_inside() -> None:
    uv = model.uv_coordinates
    assert uv.min() >= 0
    assert uv.max() <= 1
    eyes = np.concatenate([np.arange(start, stop) for start, stop in model.eye_vertices])
    is_eye = np.isin(model.faces, eyes).any(axis=1)
    a, b, c = (uv[model.faces[~is_eye][:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    assert (area > 0).all()
    mouth = np.arange(*model.mouth_vertices)
    head = np.setdiff1d(np.arange(len(uv)), [*eyes, *mouth])
    assert uv[head, 1].max() < uv[[*eyes, *mouth], 1].min() - 0.01  # islands of their own
    (left, _), (right, _) = (uv[slice(*span)].min(axis=0) for span in model.eye_vertices)
    assert right < uv[mouth, 0].min() < uv[mouth, 0].max() < left - 0.01
    assert uv[slice(*model.eye_vertices[1]), 0].max() < uv[mouth, 0].min() - 0.01


def test_a_shell_around_the_face_turns_with_the_head_and_has_no_expression_far_from_it() -> None:
    shell = np.arange(model.eye_vertices[1][1], model.mouth_vertices[0])
    points = model.mean_shape[shell]
    face = model.mean_shape[:468]
    assert points[:, 1].min() < face[:, 1].min() - 0.4  # over the forehead
    assert points[:, 1].max() > face[:, 1].max() + 0.4  # down the neck
    assert points[:, 2].max() > 1.7  # to the back of the head
    motion = np.linalg.norm(model.expression_basis[shell], axis=1)
    assert motion[-36:].max() == 0  # the last ring
    outward = points - [0.0, 0.0, 0.75]
    normals = vertex_normals(model.faces, model.mean_shape)[shell]
    assert ((outward * normals).sum(axis=1)[:72] > 0).all()  # the two rings next to the face


def test_saving_keeps_the_model(tmp_path: Path) -> None:
    model.save(tmp_path / "model.safetensors")
    again = load_face_model(tmp_path / "model.safetensors")
    assert again.eye_vertices == model.eye_vertices
    assert again.mouth_vertices == model.mouth_vertices
    assert again.digest == model.digest
    assert np.array_equal(again.expression_basis, model.expression_basis)


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"missing\.safetensors"):
        load_face_model(tmp_path / "missing.safetensors")
    (tmp_path / "noise").write_bytes(b"no model")
    with pytest.raises(AssetError, match="cannot be read"):
        load_face_model(tmp_path / "noise")
    save_file({"x": np.zeros(1)}, tmp_path / "other")
    with pytest.raises(AssetError, match="format"):
        load_face_model(tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("faces", lambda faces: faces + 1, "names vertices that are not there"),
        ("faces", lambda faces: -faces, "names vertices that are not there"),
        ("faces", lambda faces: faces[:, :2], "shape"),
        ("landmark_indices", lambda indices: indices + 10**6, "not there"),
        ("uv_coordinates", lambda places: places[:-1], "shape"),
        ("mean_texture", lambda colors: colors[:-1], "shape"),
        ("mean_shape", lambda shape: shape * np.nan, "no number"),
        ("expression_basis", lambda basis: basis[..., :-1], "expression_basis is of"),
        ("eye_vertices", lambda eyes: (eyes[0], (0, 0)), "no vertices"),
        ("eye_vertices", lambda eyes: (eyes[0], (0, 10**6)), "not there"),
    ],
)
def test_a_file_whose_parts_do_not_fit_together_is_refused(
    tmp_path: Path, name: str, change: Callable, why: str
) -> None:
    path = tmp_path / "face.safetensors"
    replace(model, **{name: change(getattr(model, name))}).save(path)
    with pytest.raises(AssetError, match=f"face.safetensors cannot be used: .*{why}"):
        load_face_model(path)
