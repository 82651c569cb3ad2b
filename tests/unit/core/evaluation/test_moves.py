# SPDX-License-Identifier: Apache-2.0
"""Heads moved beyond the clip: measured on renderers whose behaviour is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.evaluation.moves import (
    MOVES,
    HeadMove,
    NetworkFaces,
    measure_moves,
    move_figures,
    moves_sheet,
    shift_head,
)
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import (
    project,
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
    to_pixels,
)
from styleavatar_core.networks import fixed_noise, get_preset, position_code
from styleavatar_core.types import ByteArray, FaceIdentity, FaceParameters, FloatArray
from tests.fakes.networks import UntrainedAvatar, published_options

SIDE = 64
MODEL = builtin_model()
FACE = FaceParameters(
    model_id=MODEL.model_id,
    rotation=np.array([1, 0, 0, 0], np.float32),
    translation=np.zeros(3, np.float32),
    scale=0.4,
    expression=np.zeros(52, np.float32),
    eye_rotation=np.zeros((2, 2), np.float32),
)
[ACROSS] = MOVES["translation"]
[TILTS] = MOVES["tilt"]


def disc(x: float, y: float) -> tuple[ByteArray, ByteArray]:
    rows, columns = np.indices((SIDE, SIDE))
    mask = ((columns - x) ** 2 + (rows - y) ** 2 < 100).astype(np.uint8) * 255
    return np.repeat(mask[..., None], 3, axis=2), mask


def place_of(face: FaceParameters) -> np.ndarray:
    """Where the middle of the head is, pixels."""
    return to_pixels(project(np.zeros((1, 3), np.float32), face), SIDE, SIDE)[0, :2]


def follows(face: FaceParameters) -> tuple[ByteArray, ByteArray]:
    return disc(*place_of(face))


def oval(face: FaceParameters) -> tuple[ByteArray, ByteArray]:
    """A head twice as high as wide, upright where its face is; its upper half is lighter."""
    roll = rotation_vector_from_quaternion(face.rotation)[2]
    (x, y), pixels = place_of(face), np.indices((SIDE, SIDE))
    along = -np.sin(roll) * (pixels[1] - x) + np.cos(roll) * (pixels[0] - y)
    across = np.cos(roll) * (pixels[1] - x) + np.sin(roll) * (pixels[0] - y)
    mask = ((across / 8) ** 2 + (along / 16) ** 2 < 1).astype(np.uint8) * 255
    return np.stack([mask, mask * (along < 0), mask], axis=2), mask


def sticks(face: FaceParameters) -> tuple[ByteArray, ByteArray]:
    return disc(32, 32)


def tears(face: FaceParameters) -> tuple[ByteArray, ByteArray]:
    image, mask = follows(face)
    return (image, mask) if abs(place_of(face)[0] - 32) < 0.2 * SIDE else (image, mask // 2)


def leaves_its_mask(face: FaceParameters) -> tuple[ByteArray, ByteArray]:
    """The head moves through a mask as large as before, in its place of before."""
    return follows(face)[0], sticks(face)[1]


def blob(image: ByteArray) -> FloatArray | None:
    """Centre and top of what is white."""
    rows, columns = np.nonzero(image[..., 0])
    centre = [columns.mean(), rows.mean()]
    return np.array([centre, [columns.mean(), rows.min()]], np.float32)


def middles(image: ByteArray) -> FloatArray | None:
    """Centres of a head and of its upper half, see ``oval``."""
    centres = [[part.mean() for part in np.nonzero(image[..., i])[::-1]] for i in (0, 1)]
    return np.array(centres, np.float32)


def test_a_head_that_follows_holds_and_others_do_not() -> None:
    good = move_figures(measure_moves(follows, blob, FACE, ACROSS))
    assert good["held_percent"] == 100
    assert good["landmark_error_percent"] == pytest.approx(0.0, abs=1.0)
    assert good["area_error_percent"] < 1
    stuck = measure_moves(sticks, blob, FACE, ACROSS)
    assert [result.holds for result in stuck] == [False, False, True, False, False]
    # A quarter of 64 pixels, over a height of 9 pixels from centre to top.
    assert stuck[0].landmark_error == pytest.approx(16 / 9, rel=0.05)
    left = measure_moves(leaves_its_mask, blob, FACE, ACROSS)
    assert [result.holds for result in left] == [False, False, True, False, False]
    assert max(result.area_error for result in left) < 0.01
    # Two discs of 10 pixels' radius, 16 apart, share 10.4 % of their area.
    overlap = move_figures(left)["mask_overlap_percent"]
    assert overlap == pytest.approx(100 * 0.104 / (2 - 0.104), abs=1.5)
    torn = move_figures(measure_moves(tears, blob, FACE, ACROSS))
    assert torn["area_error_percent"] == 100
    assert torn["held_percent"] == 50  # of the four that were moved


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_what_is_left_where_the_head_was_is_a_ghost(share: float) -> None:
    """A head of noise moves before a plain wall, and some of it stays where it was."""
    noise = np.random.default_rng(3).normal(0, 40, (SIDE, SIDE, 1))

    def head(face: FaceParameters) -> np.ndarray:
        x, y = (round(part - 32) for part in place_of(face).tolist())
        return np.roll(noise, (y, x), (0, 1)) * (follows(face)[1][..., None] > 0)

    def haunted(face: FaceParameters) -> tuple[ByteArray, ByteArray]:
        mask = follows(face)[1]
        stays = head(FACE) * (mask[..., None] == 0) * share
        image = (128 + head(face) + stays).clip(0, 255).astype(np.uint8)
        return np.repeat(image, 3, axis=2), mask

    results = measure_moves(haunted, lambda image: None, FACE, ACROSS)
    assert math.isnan(results[2].ghost)  # nothing moved
    assert move_figures(results)["ghost_percent"] == pytest.approx(100 * share, abs=3)


def test_a_lost_face_does_not_hold_and_its_figure_is_missing() -> None:
    calls = iter([blob, blob, lambda image: None])
    results = measure_moves(follows, lambda image: next(calls)(image), FACE, ACROSS[2::2])
    assert [result.holds for result in results] == [True, False]
    assert "landmark_error_percent" not in move_figures(results)


def test_the_sheet_shows_pictures_and_masks() -> None:
    results = measure_moves(follows, blob, FACE, ACROSS)
    assert moves_sheet([results, results], 32).shape == (4 * 32, 5 * 32, 3)


@pytest.mark.parametrize("move", [*ACROSS, *TILTS], ids=str)
def test_heads_and_pictures_move_alike(move: HeadMove) -> None:
    """Where vertices of the moved head lie is where its picture takes them."""
    vertices = MODEL.neutral(np.zeros(MODEL.identity_basis.shape[2], np.float32))[::50]
    turned = quaternion_from_rotation_vector(np.array([0.2, -0.3, 0.1]))
    face = replace(FACE, rotation=turned, translation=np.array([0.3, -0.2, 0.0], np.float32))
    before, after = (
        to_pixels(project(vertices, parameters), 100, 100)[:, :2] - 0.5
        for parameters in (face, move.head(face))
    )
    matrix = move.matrix(face, 100)
    np.testing.assert_allclose(after, before @ matrix[:, :2].T + matrix[:, 2], atol=1e-3)


def test_a_mask_goes_with_the_head_and_the_body_stays_when_it_tilts() -> None:
    """The head is a square to the right above the neck, the body one far below it."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    head, body = mask.copy(), mask.copy()
    head[24:32, 40:52] = 255
    body[52:60, 36:44] = 255
    tilt = HeadMove(shift=(0.125, 0.0), tilt_deg=12.0)
    moved = tilt.mask(head | body, FACE)
    matrix = tilt.matrix(FACE, SIDE)
    there = matrix[:, :2] @ [45.5, 27.5] + matrix[:, 2]
    rows, columns = np.nonzero(moved[:45])
    np.testing.assert_allclose([columns.mean(), rows.mean()], there, atol=0.5)
    np.testing.assert_array_equal(moved[50:], np.roll(body, 8, axis=1)[50:])


def test_a_head_that_tilts_holds_and_one_that_only_moves_does_not() -> None:
    good = measure_moves(oval, middles, FACE, TILTS)
    assert [result.holds for result in good] == [True] * 5
    stiff = measure_moves(
        lambda face: oval(replace(face, rotation=FACE.rotation)), middles, FACE, TILTS
    )
    assert [result.holds for result in stiff] == [False, False, True, False, False]


def test_a_shift_moves_the_head_by_its_share_of_the_side() -> None:
    points = np.zeros((1, 3), np.float32)
    before, after = (
        to_pixels(project(points, parameters), 100, 100)[0, :2]
        for parameters in (FACE, shift_head(FACE, (0.25, -0.1)))
    )
    np.testing.assert_allclose(after - before, [25.0, -10.0], atol=1e-3)


def test_networks_without_windows_see_the_rendering_move() -> None:
    config = published_options(get_preset("nano"))
    avatar = UntrainedAvatar.make(config)
    model = MODEL
    identity = FaceIdentity(
        model.model_id,
        np.zeros(model.identity_basis.shape[2], np.float32),
        np.zeros(model.texture_basis.shape[2], np.float32),
    )
    conditioning = ConditioningRenderer(model, identity, config.rendering_size_px)
    render = NetworkFaces(avatar.generator, (avatar.face, avatar.background), conditioning, 0.5)
    moved = shift_head(FACE, (0.25, 0.0))
    image, mask = render(moved)
    assert image.shape == (128, 128, 3)
    assert mask.shape == (64, 64)
    shown = conditioning.render(moved)
    with torch.no_grad():
        wanted = avatar.generator(
            position_code(torch.tensor([0.5]), config.style.style_dim, config.position_octaves),
            torch.from_numpy(shown.texture_rendering)[None].permute(0, 3, 1, 2) / 127.5 - 1,
            torch.from_numpy(shown.uv_rendering[None, ::2, ::2]).permute(0, 3, 1, 2),
            torch.from_numpy(shown.face_mask[None, None, ::2, ::2]).float(),
            avatar.face,
            avatar.background,
            torch.zeros(1, 2, dtype=torch.int64),
            noise=fixed_noise(config),
        ).image[0]
    pixels = ((wanted.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
    np.testing.assert_allclose(image, pixels, atol=1)


def test_frames_keep_their_expression() -> None:
    smiling = replace(FACE, expression=np.full(52, 0.5, np.float32))
    np.testing.assert_array_equal(shift_head(smiling, (0.1, 0.1)).expression, smiling.expression)
