# SPDX-License-Identifier: Apache-2.0
"""Colours and UV layout of the built-in model; both hand-made, as landmarks show neither."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import spsolve

from styleavatar_core.face3d import landmark_groups as groups
from tools.builtin_model import head_shell
from tools.builtin_model.mouth import RIM

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_SKIN = (0.78, 0.58, 0.48)
_LIP = (0.66, 0.33, 0.32)
_BROW = (0.34, 0.24, 0.19)
_LID = (0.62, 0.43, 0.36)
_HAIR = (0.30, 0.22, 0.18)
_NECK = (0.58, 0.42, 0.34)  # darker than the face, so that the jaw stands out
_EYE_WHITE = (0.90, 0.88, 0.86)
_IRIS = (0.30, 0.22, 0.16)
_PUPIL = (0.04, 0.04, 0.04)

_LEFT_RIM = (263, *groups.LEFT_UPPER_LID, 362, *reversed(groups.LEFT_LOWER_LID))
_RIGHT_RIM = (33, *groups.RIGHT_UPPER_LID, 133, *reversed(groups.RIGHT_LOWER_LID))

# Face and head shell fill the upper part of the UV square, the eyeballs two discs below it; between
# the discs is the mouth's inside.
_HEAD_HEIGHT = 0.79
_FACE_SHARE = 0.74  # of the head's side in UV; the shell lies around the face
_CENTER_GAIN = 0.8  # exponent of the distance from the middle: below 1 enlarges the middle
_EYE_DISC_RADIUS = 0.095
_EYE_DISC_CENTERS = ((0.75, 0.895), (0.25, 0.895))  # left, right: as they appear in the image

_SMOOTH_COUNT = 8


def mean_texture(face: Array, eye_angles: Array) -> Array:
    """Colours the mean face.

    Args:
        face: (468, 3) mean face, whose vertices come first.
        eye_angles: (M,) radians from the pupil axis, for the vertices of one eyeball.

    Returns:
        (468 + 2 M + shell, 3) float64 RGB in [0, 1].
    """
    colors = np.tile(np.array(_SKIN), (len(face), 1))
    colors[list(groups.LEFT_BROW + groups.RIGHT_BROW)] = _BROW
    colors[list(groups.LIPS)] = _LIP
    colors[list(groups.LIDS)] = _LID
    eye = np.tile(np.array(_EYE_WHITE), (len(eye_angles), 1))
    eye[eye_angles < 0.49] = _IRIS
    eye[eye_angles < 0.21] = _PUPIL
    skin = _shell_skin(face)[:, None]
    return np.concatenate([colors, eye, eye, skin * _NECK + (1 - skin) * _HAIR])


def texture_basis(face: Array, edges: npt.NDArray[np.int64], eye_angles: Array) -> Array:
    """Directions of colour: skin, lips, brows, irises, hair, and smooth variation of the face.

    Args:
        face: (468, 3) mean face.
        edges: (N, 2) edges of the face.
        eye_angles: (M,) radians from the pupil axis, for the vertices of one eyeball.

    Returns:
        (468 + 2 M + shell, 3, T) float64; a coefficient of 1 is a strong but plausible change.
    """
    count, shell_skin = len(face), _shell_skin(face)
    eyes, grey = np.zeros(2 * len(eye_angles)), np.array([1.0, 1.0, 1.0])
    warm, red = np.array([1.0, 0.0, -1.0]), np.array([1.0, -0.6, -0.4])
    skin = np.concatenate([np.ones(count), eyes, shell_skin])
    hair = np.concatenate([np.zeros(count), eyes, 1 - shell_skin])
    shell = np.zeros(len(shell_skin))
    parts: list[tuple[float, Array, Array]] = [
        (0.25, skin, grey), (0.12, skin, warm), (0.1, skin, red)
    ]  # fmt: skip
    features = np.zeros(count)
    for members in (groups.LIPS, groups.LEFT_BROW + groups.RIGHT_BROW):
        mask = np.zeros(count)
        mask[list(members)] = 1.0
        features += mask
        parts.append((0.2, np.concatenate([mask, eyes, shell]), grey))
    iris = np.tile((eye_angles < 0.49) & (eye_angles > 0.21), 2).astype(float)
    white = np.tile(eye_angles >= 0.49, 2).astype(float)
    iris, white = (np.concatenate([np.zeros(count), part, shell]) for part in (iris, white))
    parts += [(0.2, iris, grey), (0.15, iris, warm), (0.2, white, grey)]
    parts += [(0.25, hair, grey), (0.12, hair, warm)]
    for mode in _smooth_modes(count, edges).T:
        parts.append((0.15, np.concatenate([mode * (1 - features), eyes, shell]), grey))
    return np.stack([gain * place[:, None] * color for gain, place, color in parts], axis=-1)


def _shell_skin(face: Array) -> Array:
    """Returns (shell,) in [0, 1]: 1 where the shell is neck, 0 where it is hair."""
    return np.tile(head_shell.neck_shares(face), len(head_shell.RING_SHARES))


def _smooth_modes(count: int, edges: npt.NDArray[np.int64]) -> Array:
    weights = coo_matrix((np.ones(len(edges)), edges.T), (count, count))
    weights = weights + weights.T
    laplacian = diags(np.asarray(weights.sum(axis=1)).ravel()) - weights
    _, vectors = np.linalg.eigh(laplacian.toarray())
    modes = vectors[:, 1 : 1 + _SMOOTH_COUNT]
    return modes / np.abs(modes).max(axis=0) * np.sign(modes.sum(axis=0) + 1e-9)


def unwrap(mean: Array, partners: Indices, faces: Indices, eye_points: Array) -> Array:
    """Unwraps the mean shape: a convex-combination map with mean-value weights, which cannot fold.

    Holes are closed for the computation; the middle of the face is then enlarged along rays.

    Args:
        mean: (468, 3) mean face.
        partners: (468,) mirror partners.
        faces: (F, 3) triangles of the face.
        eye_points: (M, 3) vertices of one eyeball relative to its centre.

    Returns:
        (468 + 2 M + shell, 2) float64 in [0, 1].
    """
    points, triangles = mean, [faces]
    for rim in (RIM, _LEFT_RIM, _RIGHT_RIM):
        middle = len(points)
        triangles.append(
            np.array([(a, b, middle) for a, b in zip(rim, np.roll(rim, 1), strict=True)])
        )
        points = np.concatenate([points, mean[list(rim)].mean(axis=0, keepdims=True)])
    system = _mean_value_system(points, np.concatenate(triangles))
    border = np.array(groups.FACE_OVAL)
    positions = np.zeros((len(points), 2))
    positions[border] = _border_positions(mean[border])
    inner = np.setdiff1d(np.arange(len(points)), border)
    right_side = -system[inner][:, border] @ positions[border]
    positions[inner] = spsolve(system[inner][:, inner].tocsc(), right_side)
    face = positions[: len(mean)]
    face = (face + face[partners] * [-1.0, 1.0]) / 2
    radius = (np.abs(face) ** 4).sum(axis=1, keepdims=True) ** 0.25
    face = face * np.maximum(radius, 1e-9) ** (_CENTER_GAIN - 1)
    shell = _FACE_SHARE + (1 - _FACE_SHARE) * head_shell.RING_SHARES[:, None, None] ** 0.6
    shell = (shell * face[border]).reshape(-1, 2)
    head = (0.5 + 0.485 * np.concatenate([face * _FACE_SHARE, shell])) * [1.0, _HEAD_HEIGHT]
    eyes = [_eye_disc(eye_points) * _EYE_DISC_RADIUS + center for center in _EYE_DISC_CENTERS]
    return np.concatenate([head[: len(mean)], *eyes, head[len(mean) :]])


def _mean_value_system(points: Array, triangles: Indices) -> csr_matrix:
    """Floater's mean-value weights as a matrix whose rows sum to zero."""
    rows, columns, values = [], [], []
    for corner in range(3):
        i, j, k = (triangles[:, (corner + n) % 3] for n in range(3))
        first, second = points[j] - points[i], points[k] - points[i]
        lengths = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
        cosine = (first * second).sum(axis=1) / (lengths[0] * lengths[1])
        half_tangent = np.sqrt((1 - cosine) / np.maximum(1 + cosine, 1e-9))
        rows += [i, i]
        columns += [j, k]
        values += [half_tangent / lengths[0], half_tangent / lengths[1]]
    size = len(points)
    place = (np.concatenate(rows), np.concatenate(columns))
    weights = coo_matrix((np.concatenate(values), place), (size, size)).tocsr()
    return (diags(np.asarray(weights.sum(axis=1)).ravel()) - weights).tocsr()


def _border_positions(points: Array) -> Array:
    """Puts the face oval on a rounded square of half size 1, spaced as on the mean shape."""
    steps = np.linalg.norm(np.diff(points, axis=0, append=points[:1]), axis=1)
    turn = 2 * np.pi * np.concatenate([[0.0], np.cumsum(steps)[:-1]]) / steps.sum()
    x, y = np.sin(turn), -np.cos(turn)
    radius = 1 / (np.abs(x) ** 4 + np.abs(y) ** 4) ** 0.25
    return np.stack([x * radius, y * radius], axis=1)


def _eye_disc(points: Array) -> Array:
    """Azimuthal map of an eyeball: the front half fills 0.9 of the disc's radius."""
    angle = np.arctan2(np.linalg.norm(points[:, :2], axis=1), -points[:, 2])
    radius = np.where(
        angle < np.pi / 2, 0.9 * angle / (np.pi / 2), 0.9 + 0.1 * (angle / (np.pi / 2) - 1)
    )
    length = np.linalg.norm(points[:, :2], axis=1)
    return points[:, :2] / np.maximum(length, 1e-9)[:, None] * radius[:, None]
