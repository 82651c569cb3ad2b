# SPDX-License-Identifier: Apache-2.0
"""Heads moved beyond the clip: measured on renderers whose behaviour is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.evaluation.translation import (
    SHIFTS,
    NetworkFaces,
    Shift,
    measure_translation,
    shift_head,
    translation_figures,
    translation_sheet,
)
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import project, to_pixels
from styleavatar_core.networks import fixed_noise, get_preset, position_code
from styleavatar_core.types import ByteArray, FaceIdentity, FaceParameters, FloatArray
from tests.fakes.networks import UntrainedAvatar, published_options

SIDE = 64
ALL_SHIFTS = [(share, 0.0) for share in SHIFTS]


def disc(x: float, y: float) -> tuple[ByteArray, ByteArray]:
    rows, columns = np.indices((SIDE, SIDE))
    mask = ((columns - x) ** 2 + (rows - y) ** 2 < 100).astype(np.uint8) * 255
    return np.repeat(mask[..., None], 3, axis=2), mask


def follows(shift: Shift) -> tuple[ByteArray, ByteArray]:
    return disc(32 + shift[0] * SIDE, 32 + shift[1] * SIDE)


def sticks(shift: Shift) -> tuple[ByteArray, ByteArray]:
    return disc(32, 32)


def tears(shift: Shift) -> tuple[ByteArray, ByteArray]:
    image, mask = follows(shift)
    return (image, mask) if abs(shift[0]) < 0.2 else (image, mask // 2)


def leaves_its_mask(shift: Shift) -> tuple[ByteArray, ByteArray]:
    """The head moves through a mask as large as before, in its place of before."""
    return follows(shift)[0], sticks(shift)[1]


def blob(image: ByteArray) -> FloatArray | None:
    """Centre and top of what is white."""
    rows, columns = np.nonzero(image[..., 0])
    centre = [columns.mean(), rows.mean()]
    return np.array([centre, [columns.mean(), rows.min()]], np.float32)


def test_a_head_that_follows_holds_and_others_do_not() -> None:
    good = translation_figures(measure_translation(follows, blob, ALL_SHIFTS))
    assert good["held_percent"] == 100
    assert good["landmark_error_percent"] == pytest.approx(0.0, abs=1.0)
    assert good["area_error_percent"] < 1
    stuck = measure_translation(sticks, blob, ALL_SHIFTS)
    assert [result.holds for result in stuck] == [False, False, True, False, False]
    # A quarter of 64 pixels, over a height of 9 pixels from centre to top.
    assert stuck[0].landmark_error == pytest.approx(16 / 9, rel=0.05)
    left = measure_translation(leaves_its_mask, blob, ALL_SHIFTS)
    assert [result.holds for result in left] == [False, False, True, False, False]
    assert max(result.area_error for result in left) < 0.01
    # Two discs of 10 pixels' radius, 16 apart, share 10.4 % of their area.
    overlap = translation_figures(left)["mask_overlap_percent"]
    assert overlap == pytest.approx(100 * 0.104 / (2 - 0.104), abs=1.5)
    torn = translation_figures(measure_translation(tears, blob, ALL_SHIFTS))
    assert torn["area_error_percent"] == 100
    assert torn["held_percent"] == 50  # of the four that were moved


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_what_is_left_where_the_head_was_is_a_ghost(share: float) -> None:
    """A head of noise moves before a plain wall, and some of it stays where it was."""
    noise = np.random.default_rng(3).normal(0, 40, (SIDE, SIDE, 1))

    def head(shift: Shift) -> np.ndarray:
        x, y = (round(part * SIDE) for part in shift)
        return np.roll(noise, (y, x), (0, 1)) * (follows(shift)[1][..., None] > 0)

    def haunted(shift: Shift) -> tuple[ByteArray, ByteArray]:
        mask = follows(shift)[1]
        stays = head((0.0, 0.0)) * (mask[..., None] == 0) * share
        image = (128 + head(shift) + stays).clip(0, 255).astype(np.uint8)
        return np.repeat(image, 3, axis=2), mask

    results = measure_translation(haunted, lambda image: None, ALL_SHIFTS)
    assert math.isnan(results[2].ghost)  # nothing moved
    assert translation_figures(results)["ghost_percent"] == pytest.approx(100 * share, abs=3)


def test_a_lost_face_does_not_hold_and_its_figure_is_missing() -> None:
    calls = iter([blob, blob, lambda image: None])
    results = measure_translation(
        follows, lambda image: next(calls)(image), [(0.0, 0.0), (0.25, 0.0)]
    )
    assert [result.holds for result in results] == [True, False]
    assert "landmark_error_percent" not in translation_figures(results)


def test_the_sheet_shows_pictures_and_masks() -> None:
    results = measure_translation(follows, blob, ALL_SHIFTS)
    assert translation_sheet([results, results], 32).shape == (4 * 32, 5 * 32, 3)


@pytest.fixture(scope="module")
def face() -> FaceParameters:
    model = builtin_model()
    return FaceParameters(
        model_id=model.model_id,
        rotation=np.array([1, 0, 0, 0], np.float32),
        translation=np.zeros(3, np.float32),
        scale=0.4,
        expression=np.zeros(52, np.float32),
        eye_rotation=np.zeros((2, 2), np.float32),
    )


def test_a_shift_moves_the_head_by_its_share_of_the_side(face: FaceParameters) -> None:
    points = np.zeros((1, 3), np.float32)
    before, after = (
        to_pixels(project(points, parameters), 100, 100)[0, :2]
        for parameters in (face, shift_head(face, (0.25, -0.1)))
    )
    np.testing.assert_allclose(after - before, [25.0, -10.0], atol=1e-3)


def test_networks_without_windows_see_the_rendering_move(face: FaceParameters) -> None:
    config = published_options(get_preset("nano"))
    avatar = UntrainedAvatar.make(config)
    model = builtin_model()
    identity = FaceIdentity(
        model.model_id,
        np.zeros(model.identity_basis.shape[2], np.float32),
        np.zeros(model.texture_basis.shape[2], np.float32),
    )
    conditioning = ConditioningRenderer(model, identity, config.rendering_size_px)
    render = NetworkFaces(avatar.generator, (avatar.face, avatar.background), conditioning, 0.5)
    moved = shift_head(face, (0.25, 0.0))
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


def test_frames_keep_their_expression(face: FaceParameters) -> None:
    smiling = replace(face, expression=np.full(52, 0.5, np.float32))
    np.testing.assert_array_equal(shift_head(smiling, (0.1, 0.1)).expression, smiling.expression)
