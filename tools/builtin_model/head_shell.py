# SPDX-License-Identifier: Apache-2.0
"""Hair, ears and neck as one hand-made shell that hangs on the face oval and turns with the head.

Landmarks end at the face oval, but what lies around it moves with the head too. The shell need not
fit anyone's hair: it gives each pixel near the head a place that is fixed to the head, which the
neural texture can paint. From each vertex of the oval one ray runs over the cranium to its back, or
under the jaw and down the neck.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from styleavatar_core.face3d import landmark_groups as groups

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Where the rings lie along a ray: 0 is the face oval, 1 the back of the head or the neck's end.
RING_SHARES = np.array([0.1, 0.24, 0.42, 0.68, 1.0])

# Cranium with hair, decimetres in model space (adult head breadth 1.55, length 1.95, and hair).
_CRANIUM_CENTER = np.array([0.0, -0.45, 0.75])
_CRANIUM_RADII = np.array([0.92, 1.0, 1.05])
_CRANIUM_REACHED = 0.2  # share of a ray after which it lies on the cranium
SIZE_COUNT = 4
_SIZE_STEP = 0.05  # decimetres per unit of a size direction
_NECK_RADII = (0.60, 0.55)  # across and along the view
_NECK_CENTER_Z = 0.85
_NECK_END_Y = 1.5
_NECK_FROM_Y, _NECK_TO_Y = -0.1, 0.5  # oval vertices above lead over the cranium, below to the neck


def neck_shares(face: Array) -> Array:
    """Returns (36,) in [0, 1]: 1 where the ray of an oval vertex runs down the neck."""
    height = face[list(groups.FACE_OVAL), 1]
    share = np.clip((height - _NECK_FROM_Y) / (_NECK_TO_Y - _NECK_FROM_Y), 0.0, 1.0)
    return share * share * (3 - 2 * share)


def shell_vertices(face: Array) -> Array:
    """Places the rings.

    Args:
        face: (468, 3) mean face, decimetres.

    Returns:
        (rings, 36, 3) float64.
    """
    start = face[list(groups.FACE_OVAL)]
    neck = neck_shares(face)[:, None]
    rings = [
        (1 - neck) * _over_cranium(start, share) + neck * _down_neck(start, share)
        for share in RING_SHARES
    ]
    return np.stack(rings)


def shell_basis(basis: Array, *, rest: Array, power: float) -> Array:
    """Continues directions of the face along the rays.

    Args:
        basis: (468, 3, N) directions of the face.
        rest: (3, N) what the far end of every ray does.
        power: Exponent of the fall-off; larger ends nearer to the face.

    Returns:
        (rings, 36, 3, N) float64.
    """
    near = basis[list(groups.FACE_OVAL)]
    shares = (1 - RING_SHARES[:, None, None, None]) ** power
    return near * shares + rest * (1 - shares)


def size_basis(face: Array) -> Array:
    """Directions of the shell alone: breadth, height and depth of hair and cranium, and the neck.

    No landmark sees them; a person's coefficients come from their silhouette.

    Args:
        face: (468, 3) mean face, decimetres.

    Returns:
        (rings, 36, 3, SIZE_COUNT) float64 per unit; zero on the face oval.
    """
    unit = (shell_vertices(face) - _CRANIUM_CENTER) / _CRANIUM_RADII
    neck = neck_shares(face)
    reached = np.minimum(RING_SHARES / _CRANIUM_REACHED, 1.0)[:, None]
    basis = np.zeros((*unit.shape, SIZE_COUNT))
    basis[..., 0, 0] = unit[..., 0] * (1 - neck)
    basis[..., 1, 1] = np.minimum(unit[..., 1], 0.0) * (1 - neck)
    basis[..., 2, 2] = np.maximum(unit[..., 2], 0.0) * (1 - neck)
    basis[..., 0, 3] = unit[..., 0] * neck
    return _SIZE_STEP * basis * reached[..., None, None]


def shell_triangles(start: int) -> Indices:
    """Joins the rings to the face oval and to each other.

    Args:
        start: Place of the first ring's first vertex in the mesh.

    Returns:
        (F, 3) int64, wound as the face's triangles.
    """
    count = len(groups.FACE_OVAL)
    rings = start + np.arange(len(RING_SHARES) * count).reshape(-1, count)
    rings = np.concatenate([np.array([groups.FACE_OVAL]), rings])
    a, c = rings[:-1], rings[1:]
    b, d = np.roll(a, -1, axis=1), np.roll(c, -1, axis=1)
    return (
        np.stack([np.stack([a, c, d]), np.stack([a, d, b])])
        .reshape(2, 3, -1)
        .swapaxes(1, 2)
        .reshape(-1, 3)
    )


def _over_cranium(start: Array, share: float) -> Array:
    """Moves along the ellipsoid from the oval to its back pole."""
    unit = (start - _CRANIUM_CENTER) / _CRANIUM_RADII
    length = np.linalg.norm(unit, axis=1, keepdims=True)
    direction = unit / length
    pole = np.array([0.0, 0.0, 1.0])
    angle = np.arccos(np.clip(direction @ pole, -1.0, 1.0))[:, None]
    turned = np.sin((1 - share) * angle) * direction + np.sin(share * angle) * pole
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    reached = min(share / _CRANIUM_REACHED, 1.0)
    return (length + (1 - length) * reached) * turned * _CRANIUM_RADII + _CRANIUM_CENTER


def _down_neck(start: Array, share: float) -> Array:
    """Moves under the jaw to the neck and down: a quadratic curve."""
    across, along = _NECK_RADII
    turn = np.arctan2(start[:, 0], np.maximum(0.62 - start[:, 2], 0.0) + 0.12)
    end = np.stack(
        [
            across * np.sin(turn),
            np.full(len(start), _NECK_END_Y),
            _NECK_CENTER_Z - along * np.cos(turn),
        ],
        axis=1,
    )
    bend = end.copy()
    bend[:, 1] = start[:, 1] + 0.06
    return (1 - share) ** 2 * start + 2 * share * (1 - share) * bend + share**2 * end
