# SPDX-License-Identifier: Apache-2.0
"""Torch draws the pixels that the software path draws, in one batch and without the host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from styleavatar_core.errors import RenderError
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import quaternion_from_rotation_vector
from styleavatar_core.raster import software
from styleavatar_core.raster.mesh import MovingMesh
from styleavatar_core.raster.render import FaceRenderer, FaceRendering
from styleavatar_core.raster.tensor_render import TensorFaceRenderer, pose_numbers
from styleavatar_core.raster.tensors import rasterize
from styleavatar_core.types import FaceParameters, FloatArray
from tests.unit.core.engine.test_cuda_graph import HostWatch

model = builtin_model()
mesh = MovingMesh(model, model.neutral(np.zeros(model.identity_basis.shape[-1], np.float32)))
ALBEDO = model.albedo(np.zeros(model.texture_basis.shape[-1], np.float32))


def posed(yaw: float, scale: float, seed: int) -> FaceParameters:
    """A face that turns, speaks and looks aside."""
    rng = np.random.default_rng(seed)
    return FaceParameters(
        model.model_id,
        quaternion_from_rotation_vector(np.array([0.2, yaw, 0.1])),
        np.array([0.1, -0.05, 0.0], np.float32),
        scale,
        np.clip(rng.normal(size=52) * 0.4, 0, 1).astype(np.float32),
        (rng.normal(size=(2, 2)) * 0.2).astype(np.float32),
    )


# Frontal, turned, far away, so near that the image shows a part of the face, and beside the image.
POSES = [posed(*numbers) for numbers in ((0, 0.5, 0), (0.7, 0.6, 1), (-0.4, 0.1, 2), (0.2, 3.0, 3))]


def moved(params: FaceParameters) -> FloatArray:
    return mesh.vertices(params.expression, params.eye_rotation)


def draw(renderer: TensorFaceRenderer, poses: list[FaceParameters]) -> tuple[torch.Tensor, ...]:
    vertices = torch.from_numpy(np.stack([moved(pose) for pose in poses]))
    numbers = torch.from_numpy(np.stack([pose_numbers(pose) for pose in poses]))
    drawn: tuple[torch.Tensor, ...] = renderer(vertices, numbers)
    return drawn


def assert_same(drawn: tuple[torch.Tensor, ...], index: int, wanted: FaceRendering) -> None:
    texture, uv, mask = (part[index].numpy() for part in drawn[:3])
    assert np.array_equal(mask, wanted.mask)
    assert np.abs(uv - wanted.uv).max() < 1e-6
    steps = np.abs(texture.astype(int) - wanted.texture)
    assert steps.max() <= 1  # light is summed in another order
    assert (steps > 0).mean() < 1e-3


@pytest.mark.parametrize("size", [64, 128, 256])
def test_torch_draws_what_the_software_path_draws(size: int) -> None:
    host, device = FaceRenderer(model, ALBEDO, size), TensorFaceRenderer(model, ALBEDO, size)
    drawn = draw(device, POSES)
    for index, pose in enumerate(POSES):
        wanted = host.render(moved(pose), pose)
        assert wanted.mask.sum() > 0.005 * size**2
        assert_same(drawn, index, wanted)
    needed, there_were = drawn[3].tolist()
    assert 0 < needed <= there_were


def test_the_eyeballs_turn_behind_the_lids() -> None:
    ahead = posed(0.3, 0.6, 5)
    aside = replace(ahead, eye_rotation=ahead.eye_rotation + np.float32(0.3))
    host = FaceRenderer(model, ALBEDO, 128)
    drawn = draw(TensorFaceRenderer(model, ALBEDO, 128), [ahead, aside])
    for index, pose in enumerate((ahead, aside)):
        assert_same(drawn, index, host.render(moved(pose), pose))
    is_other = (drawn[0][0] != drawn[0][1]).any(dim=-1)
    assert 20 < int(is_other.sum()) < 0.05 * 128**2


def test_any_triangles_give_the_same_faces() -> None:
    rng = np.random.default_rng(4)
    for spread in (2.0, 20.0, 200.0):
        points = rng.uniform(-5, 45, (300, 3)).astype(np.float32)
        points[1::3] = points[::3] + rng.normal(size=(100, 3)) * spread
        points[2::3] = points[::3] + rng.normal(size=(100, 3)) * spread
        faces = np.arange(300).reshape(100, 3)
        covered = rasterize(torch.from_numpy(points)[None], torch.from_numpy(faces), 40, 30, 150000)
        wanted = software.rasterize(points, faces.astype(np.int32), 40, 30).face_index
        assert np.array_equal(covered.face_index[0].numpy(), wanted)
        assert (wanted >= 0).sum() > 50


def test_the_first_of_two_faces_in_one_place_wins_and_the_nearer_of_two() -> None:
    square = [[0, 0, -1], [9, 0, -1], [9, 9, -1]]
    points = torch.tensor([square + square + [[x, y, -3] for x, y, _ in square]]).float()
    faces = torch.arange(9).reshape(3, 3)
    assert set(rasterize(points, faces[:2], 8, 8, 999).face_index.unique().tolist()) == {-1, 0}
    assert set(rasterize(points, faces, 8, 8, 999).face_index.unique().tolist()) == {-1, 2}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_absurd_points_do_no_harm(bad: float) -> None:
    points = torch.tensor([[[bad, 0, 0], [4, 0, 0], [4, 4, 0], [0, 0, bad], [4, 0, 1], [4, 4, 1]]])
    faces = torch.arange(6).reshape(2, 3)
    index = rasterize(points.float(), faces, 8, 8, 999).face_index
    wanted = software.rasterize(points[0].float().numpy(), faces.int().numpy(), 8, 8).face_index
    assert np.array_equal(index[0].numpy(), wanted)


def test_a_list_that_is_too_short_is_told_and_made_longer() -> None:
    layers = 30  # of the whole image, one behind the other: no face looks like this
    corners = np.array([[-9, -9], [99, -9], [-9, 99]], np.float32)
    points = [[x, y, depth] for depth in range(layers) for x, y in corners]
    faces = torch.arange(3 * layers).reshape(layers, 3)
    points = torch.tensor(points).float()[None]
    short = rasterize(points, faces, 16, 16, 100)
    assert int(short.needed) == layers * 256
    assert (rasterize(points, faces, 16, 16, int(short.needed)).face_index == 0).all()
    renderer = TensorFaceRenderer(model, ALBEDO, 16)
    renderer.make_room(int(short.needed), 1)
    assert draw(renderer, POSES[:1])[3][1] >= short.needed
    with pytest.raises(RenderError, match="40 times over"):
        renderer.make_room(40 * 256, 1)


def test_nothing_between_a_mesh_and_its_pictures_touches_the_host() -> None:
    renderer = TensorFaceRenderer(model, ALBEDO, 64).to("meta")
    vertices = torch.empty(2, len(model.mean_shape), 3, device="meta")
    with torch.inference_mode(), HostWatch() as watch:
        texture, uv, mask, _ = renderer(vertices, torch.empty(2, 13, device="meta"))
    assert texture.shape == (2, 64, 64, 3)
    assert (uv.shape, mask.shape) == ((2, 64, 64, 2), (2, 64, 64))
    assert watch.seen == []
