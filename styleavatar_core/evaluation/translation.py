# SPDX-License-Identifier: Apache-2.0
"""Translation generalisation (paper, Fig. 4): the head driven to where the clip never had it.

An avatar is rendered as live streams have it rendered: with sliding windows the foreground is drawn
where it was trained and its window moved, while the background stays (``avatar/person_window.py``).
Without them the network sees its rendering where it never saw one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.data.picture import contact_sheet
from styleavatar_core.networks import (
    FeatureMaps,
    PortraitGenerator,
    fixed_noise,
    position_code,
)
from styleavatar_core.types import ByteArray, FaceParameters, FloatArray

SHIFTS = (-0.25, -0.125, 0.0, 0.125, 0.25)  # shares of the picture's side
DIRECTIONS = {  # (x, y), by the name that their figures have
    "translation": [(1, 0)],
    "translation_vertical": [(0, 1)],
    "translation_diagonal": [(1, 1), (1, -1)],
}
LIMIT = 0.1  # the mask, its area and landmarks must stay within this of what is expected
_SMALL_SIDE = 64  # of the pictures in which ghosts are looked for
_MARGIN = np.ones((5, 5), np.uint8)  # around a person, where hair may lie
_LEAST_LEFT = 0.005  # of the picture: a ghost is looked for where a head left at least so much

Shift = tuple[float, float]
RenderShifted = Callable[[Shift], tuple[ByteArray, ByteArray]]
"""Renders with the head moved by (x, y) shares of the side: (S, S, 3) picture, (F, F) mask."""
DetectLandmarks = Callable[[ByteArray], FloatArray | None]
"""Finds (K, 2 or more) landmarks in pixels, or None where there is no face."""


@dataclass(frozen=True, slots=True)
class ShiftResult:
    """What came out for one shift.

    Attributes:
        shift: (x, y) shares of the side.
        area_error: Relative error of the foreground's area.
        mask_overlap: Of the mask with where it should be: what both show over what either shows.
        landmark_error: Mean distance of landmarks from where they should be, over the face's
            height; NaN where no face is found.
        ghost: How much of the unmoved person shines through where nobody should be now: 0 where the
            background is seen there, 1 where the picture stayed; NaN where the person moved too
            little to tell.
        image: (S, S, 3) uint8.
        mask: (F, F) uint8, 255 = person.
    """

    shift: Shift
    area_error: float
    mask_overlap: float
    landmark_error: float
    ghost: float
    image: ByteArray
    mask: ByteArray

    @property
    def holds(self) -> bool:
        """Whether nothing tore: a face is where it should be, and the person is whole."""
        errors = (self.area_error, 1 - self.mask_overlap, self.landmark_error)
        return all(error <= LIMIT for error in errors)


class NetworkFaces:
    """Renders faces by trained networks whose windows stay in the middle: the rendering moves.

    Args:
        generator: The trained generator.
        maps: Static maps of face and background.
        conditioning: Renders the avatar's face at the generator's rendering size.
        style_time: The z_tmp of inference.
    """

    def __init__(
        self,
        generator: PortraitGenerator,
        maps: tuple[FeatureMaps, FeatureMaps],
        conditioning: ConditioningRenderer,
        style_time: float,
    ) -> None:
        self._generator = generator
        self._maps = maps
        self._conditioning = conditioning
        config = generator.config
        self._style = position_code(
            torch.tensor([style_time]), config.style.style_dim, config.position_octaves
        )
        self._noise = fixed_noise(config)

    def __call__(self, parameters: FaceParameters) -> tuple[ByteArray, ByteArray]:
        """Renders a face in the avatar's window: (S, S, 3) picture, (F, F) mask."""
        config = self._generator.config
        shown = self._conditioning.render(parameters)
        step = config.rendering_size_px // config.uv_size
        with torch.inference_mode():
            output = self._generator(
                self._style,
                torch.from_numpy(shown.texture_rendering)[None].permute(0, 3, 1, 2) / 127.5 - 1.0,
                torch.from_numpy(shown.uv_rendering[None, ::step, ::step]).permute(0, 3, 1, 2),
                torch.from_numpy(shown.face_mask[None, None, ::step, ::step]).float(),
                *self._maps,
                torch.zeros(1, 2, dtype=torch.int64),
                noise=self._noise,
            )
        image = ((output.image[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        mask = (output.mask[0, 0].clamp(0, 1) * 255).round().to(torch.uint8)
        return np.ascontiguousarray(image.permute(1, 2, 0).numpy()), mask.numpy()


def shift_head(parameters: FaceParameters, shift: Shift) -> FaceParameters:
    """Returns the same head moved in the picture by (x, y) shares of its side."""
    # The side is 2 frame units; the translation is in model units, before the scale.
    moved = np.array([*shift, 0.0], np.float32) * np.float32(2.0 / parameters.scale)
    return replace(parameters, translation=np.asarray(parameters.translation, np.float32) + moved)


def measure_translation(
    render: RenderShifted, detect: DetectLandmarks, shifts: Sequence[Shift]
) -> list[ShiftResult]:
    """Renders a frame at several shifts and compares each with the unshifted one, moved.

    Args:
        render: The avatar.
        detect: Finds the face in a picture; new for every picture, as heads jump.
        shifts: (x, y) shares of the side.
    """
    image, mask = render((0.0, 0.0))
    landmarks = detect(image)
    results = []
    for shift in shifts:
        shifted, shifted_mask = render(shift)
        expected, person = _move(mask, shift) > 127, shifted_mask > 127
        wanted = float(expected.mean())
        overlap = float((expected & person).sum() / max(1, (expected | person).sum()))
        found = detect(shifted)
        error = float("nan")
        if landmarks is not None and found is not None:
            there = landmarks[:, :2] + np.multiply(shift, image.shape[0])
            height = float(np.ptp(landmarks[:, 1]))
            error = float(np.linalg.norm(found[:, :2] - there, axis=1).mean() / height)
        area_error = abs(float(person.mean()) - wanted) / max(wanted, 1e-6)
        ghost = _ghost((image, shifted), mask > 127, expected)
        results.append(ShiftResult(shift, area_error, overlap, error, ghost, shifted, shifted_mask))
    return results


def translation_figures(results: Sequence[ShiftResult]) -> dict[str, float]:
    """Returns the worst of each measure, and ``held_percent`` of the heads that were moved.

    Of area, mask, landmarks and what was left behind: ``area_error_percent``,
    ``mask_overlap_percent``, ``landmark_error_percent``, missing when a face was not found at some
    shift, and ``ghost_percent``, missing when no head moved far enough.
    """
    moved = [result for result in results if any(result.shift)]
    figures = {
        "area_error_percent": 100 * max(result.area_error for result in results),
        "mask_overlap_percent": 100 * min(result.mask_overlap for result in results),
        "held_percent": 100 * float(np.mean([result.holds for result in moved])),
    }
    errors = [result.landmark_error for result in results]
    if np.isfinite(errors).all():
        figures["landmark_error_percent"] = 100 * max(errors)
    ghosts = [result.ghost for result in moved if np.isfinite(result.ghost)]
    if ghosts:
        figures["ghost_percent"] = 100 * max(ghosts)
    return figures


def translation_sheet(rows: Sequence[Sequence[ShiftResult]], cell_px: int = 192) -> ByteArray:
    """Puts the pictures of each avatar, and their masks below, into a grid (as Fig. 4)."""
    lines: list[list[ByteArray]] = []
    for results in rows:
        lines.append([result.image for result in results])
        lines.append([result.mask for result in results])
    return contact_sheet(lines, cell_px)


def _ghost(pictures: tuple[ByteArray, ByteArray], person: np.ndarray, moved: np.ndarray) -> float:
    """Returns how much of a person still shines through where nobody should be any more.

    The share of the person, in front of a background that is made up from what surrounds them,
    that comes nearest the second picture (least squares over all colours).

    Args:
        pictures: (S, S, 3) uint8 before and after the person moved.
        person: (F, F) where the person was.
        moved: (F, F) where the person should be now.
    """
    was, now = (_small(place.astype(np.float32)) > 0 for place in (person, moved))
    taken = cv2.dilate(now.astype(np.uint8), _MARGIN) > 0
    left = (_small(person.astype(np.float32)) == 1) & ~taken
    if left.mean() < _LEAST_LEFT:
        return math.nan
    before, after = map(_small, pictures)
    hidden = cv2.dilate((was | taken).astype(np.uint8), _MARGIN)
    behind = cv2.inpaint(after, hidden, 1, cv2.INPAINT_TELEA).astype(np.float32)
    head, found = (picture[left] - behind[left] for picture in (before, after))
    energy = float((head**2).sum())
    return float((head * found).sum()) / energy if energy > 0 else math.nan


def _small(values: np.ndarray) -> np.ndarray:
    """Returns a picture or a mask of a side of 64."""
    return cv2.resize(values, (_SMALL_SIDE, _SMALL_SIDE), interpolation=cv2.INTER_AREA)


def _move(mask: ByteArray, shift: Shift) -> ByteArray:
    """Moves a mask; what comes in from outside goes on as the border was."""
    side = mask.shape[0]
    x, y = (round(share * side) for share in shift)
    rows = np.clip(np.arange(side) - y, 0, side - 1)
    columns = np.clip(np.arange(side) - x, 0, side - 1)
    return mask[rows][:, columns]
