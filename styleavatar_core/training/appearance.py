# SPDX-License-Identifier: Apache-2.0
"""What a clip shows of a person and of the room, before any training: one picture of each.

The neural texture and the background start from them: what thin lines there are (glasses, brows,
moles) need not be learned by a generator that starts from noise.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy import sparse

from styleavatar_core.data.dataset import AvatarDataset, decode_uv
from styleavatar_core.raster.software import interpolate, rasterize
from styleavatar_core.types import ByteArray, FloatArray

_FRAME_COUNT = 64
_MARGIN_SHARE = 0.02  # of the canvas: mattes are soft and end a little too early
_PERSON_LEVEL = 12  # of 255: more than this is the person
_NEAR_WEIGHT = 0.05  # of background so close to the person
_REFINEMENTS = 2  # each makes the texture sharper, until it learns the tracking's noise
_COARSE_WEIGHT = 1.0  # observations that the next coarser level counts as


def backplate(dataset: AvatarDataset) -> ByteArray:
    """Averages each pixel over the training frames that show background there.

    What the person always hides is filled smoothly from its surroundings.

    Args:
        dataset: The clip; its camera should stand still.

    Returns:
        (S, S, 3) uint8 RGB, the canvas.
    """
    side = dataset.frames.shape[1]
    margin = max(1, round(_MARGIN_SHARE * side))
    grow = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    total, weight = np.zeros((side, side, 3)), np.zeros((side, side))
    for index in _spread_frames(dataset):
        matte = np.ascontiguousarray(dataset.masks[index])
        is_near = cv2.dilate(matte, grow) > _PERSON_LEVEL
        seen = np.where(is_near, _NEAR_WEIGHT, 1.0) * (matte <= _PERSON_LEVEL)
        total += dataset.frames[index] * seen[..., None]
        weight += seen
    return _picture(_mean(total, weight))


def unwrapped_texture(dataset: AvatarDataset, side: int) -> ByteArray:
    """Finds the colours in UV space that, rendered, come closest to the training frames.

    Eq. 3 with a colour for each texel instead of coefficients, solved by a few steps of gradient
    descent from the mean. Each pixel of the face tells the four texels around its UV position, as
    far as the matte says that it is the person's. Where the surface turns away fewer pixels fall on
    a texel, so that views from the front count more.

    Args:
        dataset: The clip.
        side: Texels per side.

    Returns:
        (side, side, 3) uint8 RGB. Texels that no frame shows are filled smoothly; those of the
        mouth's inside, an island without surroundings, are the face model's.
    """
    parts = [_seen_texture(dataset, index, side) for index in _spread_frames(dataset)]
    looked_up, colors, matte = (list(values) for values in zip(*parts, strict=True))
    look_up = sparse.vstack(looked_up, format="csr")  # (pixels, texels)
    shown, share = np.concatenate(colors), np.concatenate(matte)[:, None]
    weight = look_up.T @ share  # (texels, 1)
    total = look_up.T @ (share * shown)
    mean = _mean(total.reshape(side, side, 3), weight.reshape(side, side))
    albedo, is_mouth = _mouth_albedo(dataset, side)
    known = weight / (weight + _COARSE_WEIGHT) * is_mouth + ~is_mouth
    texture = known * mean.reshape(-1, 3) + (1 - known) * albedo
    for _ in range(_REFINEMENTS):
        lacking = look_up.T @ (share * (shown - look_up @ texture))
        texture = texture + lacking / (weight + _COARSE_WEIGHT)
    return _picture(texture.reshape(side, side, 3))


def _seen_texture(
    dataset: AvatarDataset, index: int, side: int
) -> tuple[sparse.csr_matrix, FloatArray, FloatArray]:
    """Returns a frame's P pixels of the face: look-up (P, side * side), colours (P, 3), matte (P,).

    The look-up takes each pixel's colour from the four texels around its UV position.
    """
    uv, face_mask = decode_uv(dataset.uv[index])
    is_face = face_mask > 0
    size = face_mask.shape[::-1]
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
        (np.stack(shares, axis=1).ravel(), texels.ravel(), 4 * np.arange(count + 1)),
        shape=(count, side * side),
    )
    return look_up, colors.astype(np.float32), matte.astype(np.float32) / 255


def _mouth_albedo(dataset: AvatarDataset, side: int) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Returns the face model's colours (side * side, 3) of the mouth's texels; which these are."""
    model = dataset.info.face_model()
    start, stop = model.mouth_vertices
    faces = model.faces[((model.faces >= start) & (model.faces < stop)).all(axis=1)]
    places = np.pad(side * model.uv_coordinates, ((0, 0), (0, 1)))
    drawn = rasterize(places, faces, side, side)
    colors = 255 * interpolate(drawn, faces, model.mean_texture)
    return colors.reshape(-1, 3), (drawn.face_index >= 0).reshape(-1, 1)


def _spread_frames(dataset: AvatarDataset) -> list[int]:
    """Returns training frames spread evenly over the clip."""
    train = dataset.train_indices
    places = np.linspace(0, len(train) - 1, min(_FRAME_COUNT, len(train)))
    return [train[int(place)] for place in places.round()]


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
    sums, weights = (4 * cv2.resize(x, half, interpolation=cv2.INTER_AREA) for x in (total, weight))
    sums, weights = sums.reshape(*half, 3), weights.reshape(half)
    coarse = cv2.resize(_mean(sums, weights), (side, side), interpolation=cv2.INTER_LINEAR)
    return (total + _COARSE_WEIGHT * coarse) / (weight + _COARSE_WEIGHT)[..., None]
