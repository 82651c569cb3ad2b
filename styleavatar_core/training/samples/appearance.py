# SPDX-License-Identifier: Apache-2.0
"""What a clip shows of a person and of the room, before any training: one picture of each.

The neural texture and the background start from them: what thin lines there are (glasses, brows,
moles) need not be learned by a generator that starts from noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import sparse

from styleavatar_core.data.dataset import AvatarDataset, decode_uv
from styleavatar_core.data.spread import spread_evenly
from styleavatar_core.evaluation.evaluate import face_mask
from styleavatar_core.evaluation.metrics import sharpness
from styleavatar_core.raster.software import interpolate, rasterize
from styleavatar_core.types import ByteArray, FloatArray

_FRAME_COUNT = 128
_PERSON_LEVEL = 12  # of 255: more than this is the person
# Mattes end a little too early and leave strands out. What is farther from the person than this
# share of the canvas is surely the room; the nearer, the less a frame counts.
_NEAR_SHARE = 0.05
_NEAREST_WEIGHT = 0.001
_REFINEMENT_LIMIT = 12  # each makes the texture sharper; more of them learn the tracking's noise
_JUDGED_FRAME_STEP = 8  # of the frames, one in so many tells whether the texture is sharp enough
_MATTE_POWER = 8  # what is half transparent, outlines, shows the room too and hardly counts
_COARSE_WEIGHT = 1.0  # observations that the next coarser level counts as
_MOUTH_WEIGHT = 0.1  # the same of the face model's colours of the mouth
_LIT_WEIGHT = 1e-6  # the same, by texel, of the light that these colours are painted in


def backplate(dataset: AvatarDataset) -> ByteArray:
    """Averages each pixel over the training frames that show background there.

    What the person always hides is filled smoothly from its surroundings.

    Args:
        dataset: The clip; its camera should stand still.

    Returns:
        (S, S, 3) uint8 RGB, the canvas.
    """
    side = dataset.frames.shape[1]
    total, weight = np.zeros((side, side, 3)), np.zeros((side, side))
    for index in _spread_frames(dataset):
        is_room = (dataset.masks[index] <= _PERSON_LEVEL).astype(np.uint8)
        away = cv2.distanceTransform(is_room, cv2.DIST_L2, 5) / (_NEAR_SHARE * side)
        seen = np.maximum(np.minimum(away, 1.0) ** 4, _NEAREST_WEIGHT) * is_room
        total += dataset.frames[index] * seen[..., None]
        weight += seen
    return _picture(_mean(total, weight))


def unwrapped_texture(dataset: AvatarDataset, side: int) -> ByteArray:
    """Finds the colours in UV space that, rendered, come closest to the training frames.

    Eq. 3 with a colour for each texel instead of coefficients, solved by steps of gradient descent
    from the mean, until it is as sharp as the frames are. How soft the mean is depends on how well
    they lie on each other, and how rough on how often a texel is seen. Each pixel of the face tells
    the four texels around its UV position, if the matte says that it is the person's. Where
    the surface turns away fewer pixels fall on a texel, so that views from the front count more.

    Args:
        dataset: The clip.
        side: Texels per side.

    Returns:
        (side, side, 3) uint8 RGB. Texels that no frame shows are filled smoothly; those of the
        mouth's inside, an island without surroundings, are the face model's, as bright as what the
        frames show of it: a clip whose lips stay closed shows a dark slit, and teeth as white as
        the model's would glint in it.
    """
    views = [_view(dataset, index, side) for index in _spread_frames(dataset)]
    look_up = sparse.vstack([view.look_up for view in views], format="csr")  # (pixels, texels)
    shown = np.concatenate([view.colors for view in views])
    share = np.concatenate([view.share for view in views])[:, None]
    weight = look_up.T @ share  # (texels, 1)
    total = look_up.T @ (share * shown)
    mean = _mean(total.reshape(side, side, 3), weight.reshape(side, side))
    mouth, is_mouth = _mouth_colors(dataset, side, total, weight)
    known = weight / (weight + _MOUTH_WEIGHT) * is_mouth + ~is_mouth
    texture = known * mean.reshape(-1, 3) + (1 - known) * mouth
    for _ in range(_REFINEMENT_LIMIT):
        if _is_sharp_enough(dataset, views, texture):
            break
        lacking = look_up.T @ (share * (shown - look_up @ texture))
        texture = texture + lacking / (weight + _COARSE_WEIGHT)
    return _picture(texture.reshape(side, side, 3))


@dataclass(frozen=True, slots=True)
class _View:
    """What a frame shows of the face, in P pixels.

    Attributes:
        index: Of the frame.
        is_face: (R, R) bool, which pixels these are.
        look_up: (P, side * side), takes each pixel's colour from the four texels around its UV
            position.
        colors: (P, 3) float32 in [0, 255].
        share: (P,) float32 in [0, 1], how much each pixel counts, 1 = surely the person's.
    """

    index: int
    is_face: npt.NDArray[np.bool_]
    look_up: sparse.csr_matrix
    colors: FloatArray
    share: FloatArray


def _is_sharp_enough(dataset: AvatarDataset, views: list[_View], texture: FloatArray) -> bool:
    """Says whether a texture (side * side, 3) is as sharp as what the views show, on average."""
    ratios = [_sharpness(dataset, view, texture) for view in views[::_JUDGED_FRAME_STEP]]
    known = [ratio for ratio in ratios if np.isfinite(ratio)]
    return not known or bool(np.mean(known) >= 1.0)


def _sharpness(dataset: AvatarDataset, view: _View, texture: FloatArray) -> float:
    """Returns how sharp a texture (side * side, 3) is in a frame, over the frame: 1 is as sharp."""
    truth, drawn = np.zeros((2, *view.is_face.shape, 3), np.uint8)
    truth[view.is_face] = _picture(view.colors)
    drawn[view.is_face] = _picture(view.look_up @ texture)
    truth, drawn = (np.ascontiguousarray(dataset.window(picture)) for picture in (truth, drawn))
    return sharpness(drawn, truth, face_mask(dataset, view.index, len(truth)))


def _view(dataset: AvatarDataset, index: int, side: int) -> _View:
    """Returns what a frame shows of the face."""
    uv, drawn = decode_uv(dataset.uv[index])
    is_face = drawn > 0
    size = drawn.shape[::-1]
    colors = cv2.resize(dataset.frames[index], size, interpolation=cv2.INTER_AREA)[is_face]
    matte = cv2.resize(dataset.masks[index], size, interpolation=cv2.INTER_AREA)[is_face]
    place = np.clip(uv[is_face] * side - 0.5, 0, side - 1.01)
    corner = np.floor(place).astype(np.int32)
    right, down = (place - corner).T
    first = corner[:, 1] * side + corner[:, 0]
    texels = np.stack([first, first + 1, first + side, first + side + 1], axis=1)
    shares = [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down]
    count = len(first)
    look_up = sparse.csr_matrix(
        (
            np.stack(shares, axis=1).ravel().astype(np.float32),
            texels.ravel(),
            4 * np.arange(count + 1),
        ),
        shape=(count, side * side),
    )
    share = (matte.astype(np.float32) / 255) ** _MATTE_POWER
    return _View(index, is_face, look_up, colors.astype(np.float32), share)


def _mouth_colors(
    dataset: AvatarDataset, side: int, total: FloatArray, weight: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Returns the face model's colours (side * side, 3) of the mouth's texels, in the clip's light.

    Args:
        dataset: The clip.
        side: Texels per side.
        total: (side * side, 3), sums of what the frames show.
        weight: (side * side, 1), how often.

    Returns:
        The colours, and which texels (side * side, 1) are the mouth's.
    """
    model = dataset.info.face_model()
    start, stop = model.mouth_vertices
    faces = model.faces[((model.faces >= start) & (model.faces < stop)).all(axis=1)]
    places = np.pad(side * model.uv_coordinates, ((0, 0), (0, 1)))
    drawn = rasterize(places, faces, side, side)
    colors = 255 * interpolate(drawn, faces, model.mean_texture)
    colors, is_mouth = colors.reshape(-1, 3), (drawn.face_index >= 0).reshape(-1, 1)
    shown = (total + _LIT_WEIGHT * colors) * is_mouth
    expected = (weight + _LIT_WEIGHT) * colors * is_mouth
    light = shown.sum() / max(float(expected.sum()), _LIT_WEIGHT)  # some models have no mouth
    return light * colors, is_mouth


def _spread_frames(dataset: AvatarDataset) -> list[int]:
    """Returns training frames spread evenly over the clip."""
    return spread_evenly(dataset.train_indices, _FRAME_COUNT)


def _picture(colors: FloatArray) -> ByteArray:
    return np.rint(np.clip(colors, 0, 255)).astype(np.uint8)


def _mean(total: FloatArray, weight: FloatArray) -> FloatArray:
    """Divides sums (S, S, 3) by weights (S, S); what was hardly seen comes from its surroundings.

    Level by level of a pyramid: the coarser mean counts as one observation more.
    """
    side = len(weight)
    if side == 1:
        return total / np.maximum(weight, 1e-6)[..., None]
    half = ((side + 1) // 2,) * 2
    sums, weights = (
        4 * np.asarray(cv2.resize(x, half, interpolation=cv2.INTER_AREA), x.dtype)
        for x in (total, weight)
    )
    sums, weights = sums.reshape(*half, 3), weights.reshape(half)
    coarse = cv2.resize(_mean(sums, weights), (side, side), interpolation=cv2.INTER_LINEAR)
    return (total + _COARSE_WEIGHT * coarse) / (weight + _COARSE_WEIGHT)[..., None]
