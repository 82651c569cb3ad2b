# SPDX-License-Identifier: Apache-2.0
"""Generalisation (paper, Fig. 4): the head driven to where the clip never had it, and tilted.

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
from styleavatar_core.face3d.tilt import tilt_head, tilt_matrix, tilt_sources
from styleavatar_core.networks import (
    FeatureMaps,
    PortraitGenerator,
    fixed_noise,
    position_code,
)
from styleavatar_core.types import ByteArray, FaceParameters, FloatArray

LIMIT = 0.1  # the mask, its area and landmarks must stay within this of what is expected
_SMALL_SIDE = 64  # of the pictures in which ghosts are looked for
_MARGIN = np.ones((5, 5), np.uint8)  # around a person, where hair may lie
_LEAST_LEFT = 0.005  # of the picture: a ghost is looked for where a head left at least so much

RenderFace = Callable[[FaceParameters], tuple[ByteArray, ByteArray]]
"""Renders a face in the avatar's window: (S, S, 3) picture, (F, F) mask."""
DetectLandmarks = Callable[[ByteArray], FloatArray | None]
"""Finds (K, 2 or more) landmarks in pixels, or None where there is no face."""


@dataclass(frozen=True, slots=True)
class HeadMove:
    """Where a head goes from where it is.

    Attributes:
        shift: (x, y) shares of the picture's side.
        tilt_deg: About the neck, before the body stays, degrees clockwise on the screen.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    tilt_deg: float = 0.0

    def head(self, parameters: FaceParameters) -> FaceParameters:
        """Returns the moved head."""
        return shift_head(tilt_head(parameters, self.tilt_deg), self.shift)

    def matrix(self, parameters: FaceParameters, side_px: int) -> FloatArray:
        """Returns how its picture moves: (2, 3) float64, from old to new pixel indices."""
        matrix = tilt_matrix(parameters, self.tilt_deg, side_px)
        matrix[:, 2] += np.multiply(self.shift, side_px)
        return matrix

    def mask(self, mask: ByteArray, parameters: FaceParameters) -> ByteArray:
        """Returns where the person is then; what comes in from outside goes on as the border was.

        Args:
            mask: (F, F), 255 = person.
            parameters: The face before it moves, in the coordinates of the mask.
        """
        side = mask.shape[0]
        x, y = tilt_sources(parameters, self.tilt_deg, side)
        right, down = np.multiply(self.shift, side)
        shift = np.array([[1, 0, right], [0, 1, down]])
        nearest, goes_on = cv2.INTER_NEAREST, cv2.BORDER_REPLICATE
        tilted = cv2.remap(mask, x, y, nearest, borderMode=goes_on)
        moved = cv2.warpAffine(tilted, shift, mask.shape, flags=nearest, borderMode=goes_on)
        return np.asarray(moved)


def _along(x: float, y: float) -> list[HeadMove]:
    return [HeadMove((share * x, share * y)) for share in (-0.25, -0.125, 0.0, 0.125, 0.25)]


MOVES = {  # rows of heads, by the name that their figures have
    "translation": [_along(1, 0)],
    "translation_vertical": [_along(0, 1)],
    "translation_diagonal": [_along(1, 1), _along(1, -1)],
    "tilt": [[HeadMove(tilt_deg=degrees) for degrees in (-15.0, -7.5, 0.0, 7.5, 15.0)]],
}


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What came out for one move.

    Attributes:
        move: The move.
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

    move: HeadMove
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


def shift_head(parameters: FaceParameters, shift: tuple[float, float]) -> FaceParameters:
    """Returns the same head moved in the picture by (x, y) shares of its side."""
    # The side is 2 frame units; the translation is in model units, before the scale.
    moved = np.array([*shift, 0.0], np.float32) * np.float32(2.0 / parameters.scale)
    return replace(parameters, translation=np.asarray(parameters.translation, np.float32) + moved)


def measure_moves(
    render: RenderFace,
    detect: DetectLandmarks,
    parameters: FaceParameters,
    moves: Sequence[HeadMove],
) -> list[MoveResult]:
    """Renders a face moved in several ways and compares each with the unmoved one's picture, moved.

    Args:
        render: The avatar.
        detect: Finds the face in a picture; new for every picture, as heads jump.
        parameters: The face that is moved.
        moves: How.
    """
    image, mask = render(parameters)
    landmarks = detect(image)
    results = []
    for move in moves:
        moved, moved_mask = render(move.head(parameters))
        expected = move.mask(mask, parameters) > 127
        person = moved_mask > 127
        wanted = float(expected.mean())
        overlap = float((expected & person).sum() / max(1, (expected | person).sum()))
        found = detect(moved)
        error = float("nan")
        if landmarks is not None and found is not None:
            matrix = move.matrix(parameters, image.shape[0])
            there = (landmarks[:, :2] - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5
            height = float(np.ptp(landmarks[:, 1]))
            error = float(np.linalg.norm(found[:, :2] - there, axis=1).mean() / height)
        area_error = abs(float(person.mean()) - wanted) / max(wanted, 1e-6)
        ghost = _ghost((image, moved), mask > 127, expected)
        results.append(MoveResult(move, area_error, overlap, error, ghost, moved, moved_mask))
    return results


def move_figures(results: Sequence[MoveResult]) -> dict[str, float]:
    """Returns the worst of each measure, and ``held_percent`` of the heads that were moved.

    Of area, mask, landmarks and what was left behind: ``area_error_percent``,
    ``mask_overlap_percent``, ``landmark_error_percent``, missing when a face was not found after
    some move, and ``ghost_percent``, missing when no head moved far enough.
    """
    moved = [result for result in results if result.move != HeadMove()]
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


def moves_sheet(rows: Sequence[Sequence[MoveResult]], cell_px: int = 192) -> ByteArray:
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
