# SPDX-License-Identifier: Apache-2.0
"""Heads moved beyond the clip: measured on renderers whose behaviour is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.evaluation.translation import (
    SHIFTS,
    Shift,
    ShiftedRenderer,
    measure_translation,
    shift_head,
    translation_figures,
    translation_sheet,
)
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import project, to_pixels
from styleavatar_core.networks import get_preset
from styleavatar_core.types import ByteArray, FaceIdentity, FaceParameters, FloatArray
from tests.fakes.networks import UntrainedAvatar

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
    torn = translation_figures(measure_translation(tears, blob, ALL_SHIFTS))
    assert torn["area_error_percent"] == 100
    assert torn["held_percent"] == 60


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


def test_windows_move_the_foreground_and_keep_the_background(face: FaceParameters) -> None:
    config = get_preset("nano")
    avatar = UntrainedAvatar.make(config)
    model = builtin_model()
    identity = FaceIdentity(
        model.model_id,
        np.zeros(model.identity_basis.shape[2], np.float32),
        np.zeros(model.texture_basis.shape[2], np.float32),
    )
    conditioning = ConditioningRenderer(model, identity, config.rendering_size_px)
    seen: list[dict[str, torch.Tensor]] = []
    forward = avatar.generator.forward

    def record(*arguments, **named):
        names = ("style", "rendering", "uv", "face_mask", "face", "background", "window", "behind")
        seen.append(dict(zip(names, arguments, strict=True)))
        return forward(*arguments, **named)

    avatar.generator.forward = record  # type: ignore[method-assign]
    parts = (avatar.generator, (avatar.face, avatar.background), conditioning, face, 0.5)
    for has_windows in (True, False):
        image, mask = ShiftedRenderer(*parts, has_windows=has_windows)((0.25, 0.0))
        assert image.shape == (128, 128, 3)
        assert mask.shape == (64, 64)
        ShiftedRenderer(*parts, has_windows=has_windows)((0.0, 0.0))
    windows, windows_still, rendering, rendering_still = seen
    assert torch.equal(windows["rendering"], windows_still["rendering"])
    assert windows["window"].tolist() == [[-16, 0]]
    assert rendering["window"].tolist() == [[0, 0]]
    assert not torch.equal(rendering["rendering"], rendering_still["rendering"])
    for shifted, still in ((windows, windows_still), (rendering, rendering_still)):
        assert shifted["behind"].tolist() == [[0, 0]]
        centres = [
            part["face_mask"][0, 0].nonzero()[:, 1].float().mean() for part in (still, shifted)
        ]
        assert centres[1] - centres[0] == pytest.approx(32.0, abs=0.5)  # UV maps have 128 pixels


def test_frames_keep_their_expression(face: FaceParameters) -> None:
    smiling = replace(face, expression=np.full(52, 0.5, np.float32))
    np.testing.assert_array_equal(shift_head(smiling, (0.1, 0.1)).expression, smiling.expression)
