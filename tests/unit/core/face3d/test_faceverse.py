# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.errors import AssetError, NotFoundError
from styleavatar_core.face3d.arkit import ARKIT_INDEX, ARKIT_NAMES
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.faceverse import convert_faceverse
from styleavatar_core.face3d.model import FaceModel, load_face_model
from styleavatar_core.face3d.pickled_arrays import read_pickled_dict
from styleavatar_core.raster.render import FaceRenderer
from styleavatar_core.raster.tensor_render import TensorFaceRenderer, pose_numbers
from styleavatar_core.tracking.fitter import FaceFitter
from styleavatar_core.tracking.tracker import fit_to_parameters
from styleavatar_core.types import FaceIdentity
from tests.fakes.faceverse import faceverse_contents, write_faceverse

BUILTIN = builtin_model()


def converted(folder: Path, version: str) -> FaceModel:
    path = write_faceverse(folder / "file.npy", faceverse_contents(version))
    convert_faceverse(path).save(folder / "model.safetensors")
    return load_face_model(folder / "model.safetensors")


@pytest.mark.parametrize("version", ["v2", "v3", "v4"])
def test_a_file_becomes_the_same_face_in_our_axes(tmp_path: Path, version: str) -> None:
    model = converted(tmp_path, version)
    assert model.model_id == f"faceverse-{version}"
    ours = BUILTIN.mean_shape[BUILTIN.landmark_indices]
    error = np.linalg.norm(model.mean_shape[model.landmark_indices] - ours, axis=1)
    # v2 knows 68 landmarks only: the others are found again, their vertices mostly the same.
    assert np.median(error) < 0.002
    assert error.max() < (0.15 if version == "v2" else 0.002)
    assert model.landmark_indices.shape == (478,)
    for (start, stop), sign in zip(model.eye_vertices, (1, -1), strict=True):
        assert sign * model.mean_shape[start:stop, 0].mean() > 0.2


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_52_expressions_come_in_our_order(tmp_path: Path, version: str) -> None:
    model = converted(tmp_path, version)
    assert model.expression_names == ARKIT_NAMES
    jaw = ARKIT_INDEX["jawOpen"]
    chin, ours = model.landmark_indices[152], BUILTIN.landmark_indices[152]
    assert model.expression_basis[chin, :, jaw] == pytest.approx(
        BUILTIN.expression_basis[ours, :, jaw], abs=2e-3
    )


@pytest.mark.parametrize("version", ["v2", "v3", "v4"])
def test_a_converted_model_tracks_and_renders(tmp_path: Path, version: str) -> None:
    model = converted(tmp_path, version)
    expression = np.zeros(52, np.float32)
    expression[ARKIT_INDEX["jawOpen"]] = 0.6
    gaze = np.array([[0.1, 0.2], [0.1, 0.2]])
    vertices = BUILTIN.vertices(BUILTIN.mean_shape, expression, gaze)
    landmarks = 0.7 * vertices[BUILTIN.landmark_indices].astype(np.float64)
    fitter = FaceFitter(model)
    fit = fitter.fit(landmarks)
    error = np.linalg.norm((fitter.predicted(fit) - landmarks)[:468, :2], axis=1)
    assert error.mean() < 0.01 * 0.63 * 0.7
    assert fit.eye_rotation == pytest.approx(gaze, abs=0.08)
    sizes = model.identity_basis.shape[-1], model.texture_basis.shape[-1]
    identity = FaceIdentity(model.model_id, *(np.zeros(n, np.float32) for n in sizes))
    drawn = ConditioningRenderer(model, identity, 96).render(fit_to_parameters(model, fit, 0.0, 0))
    assert 0.1 < drawn.face_mask.mean() < 0.9
    assert drawn.texture_rendering[drawn.face_mask > 0].mean() > 40


@pytest.mark.parametrize("version", ["v3", "v4"])
def test_what_the_file_calls_no_face_is_drawn_but_not_in_the_face_mask(
    tmp_path: Path, version: str
) -> None:
    contents = faceverse_contents(version)
    whole = convert_faceverse(write_faceverse(tmp_path / "whole.npy", contents))
    assert whole.is_face is None
    is_low = whole.mean_shape[:, 1] > whole.mean_shape[whole.landmark_indices[9], 1]  # the brows
    contents["face_mask"] = is_low.astype(float)
    convert_faceverse(write_faceverse(tmp_path / "part.npy", contents)).save(tmp_path / "part")
    part = load_face_model(tmp_path / "part")
    whole.save(tmp_path / "whole")
    assert part.digest != load_face_model(tmp_path / "whole").digest
    fit = FaceFitter(whole).fit(0.7 * whole.mean_shape[whole.landmark_indices].astype(np.float64))
    params = fit_to_parameters(whole, fit, 0.0, 0)
    vertices = whole.mean_shape
    albedo = whole.mean_texture
    known, drawn = (FaceRenderer(m, albedo, 96).render(vertices, params) for m in (whole, part))
    assert np.array_equal(known.texture, drawn.texture)
    assert np.array_equal(known.uv, drawn.uv)
    assert (drawn.mask <= known.mask).all()
    rows = [int(np.flatnonzero(mask.any(axis=1))[0]) for mask in (known.mask, drawn.mask)]
    assert rows[1] > rows[0] + 5
    assert drawn.texture[rows[0] : rows[1] - 1].any()
    pose = torch.from_numpy(pose_numbers(params))[None]
    *_, mask, _ = TensorFaceRenderer(part, albedo, 96)(torch.from_numpy(vertices)[None], pose)
    assert (mask[0].numpy() != drawn.mask).mean() < 0.002


@pytest.mark.parametrize(("version", "largest"), [("v2", 1.0), ("v3", 1.0), ("v4", np.inf)])
def test_a_converted_model_keeps_its_bounds(tmp_path: Path, version: str, largest: float) -> None:
    contents = faceverse_contents(version)
    basis = "exBase_52" if version == "v3" else "exBase"
    contents[basis] = contents[basis][:, :52] / 2  # an open mouth takes 1.6 of these
    path = write_faceverse(tmp_path / "file.npy", contents)
    convert_faceverse(path).save(tmp_path / "model.safetensors")
    model = load_face_model(tmp_path / "model.safetensors")
    assert model.expression_max == largest
    expression = np.zeros(52, np.float32)
    expression[ARKIT_INDEX["jawOpen"]] = 0.8
    vertices = BUILTIN.vertices(BUILTIN.mean_shape, expression, np.zeros((2, 2)))
    landmarks = 0.7 * vertices[BUILTIN.landmark_indices].astype(np.float64)
    found = FaceFitter(model).fit(landmarks).expression
    assert found.min() >= 0.0
    if largest == 1.0:
        assert found.max() == 1.0
    else:
        assert 1.2 < found[ARKIT_INDEX["jawOpen"]] < 1.8


def test_unknown_and_missing_keys_are_listed(tmp_path: Path) -> None:
    contents = faceverse_contents("v3")
    path = write_faceverse(tmp_path / "more.npy", {**contents, "zebra": 1, "apple": [2]})
    with pytest.raises(AssetError, match="apple, zebra"):
        convert_faceverse(path)
    del contents["idBase"]
    path = write_faceverse(tmp_path / "less.npy", contents)
    with pytest.raises(AssetError, match="exBase_52"):
        convert_faceverse(path)
    names = faceverse_contents("v3")
    names["exp_name_list_52"][0] = "earWiggle"
    with pytest.raises(AssetError, match="missing"):
        convert_faceverse(write_faceverse(tmp_path / "names.npy", names))


class Evil:
    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._mark}",)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = write_faceverse(tmp_path / "evil.npy", {"meanshape": Evil(mark)})
    with pytest.raises(AssetError, match="system"):
        convert_faceverse(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"hello", b"\x93NUMPY\x01\x00v\x00{}"])
def test_what_is_no_file_of_numpy_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    with pytest.raises(AssetError, match=r"bad\.npy"):
        read_pickled_dict(path)
    with pytest.raises(NotFoundError):
        read_pickled_dict(tmp_path / "none.npy")


def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    path = write_faceverse(tmp_path / "cut.npy", {"a": np.arange(9.0), "b": ["x", 1.5, None]})
    assert read_pickled_dict(path)["b"] == ["x", 1.5, None]
    whole = path.read_bytes()
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(AssetError):
            read_pickled_dict(path)
