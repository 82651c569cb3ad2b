# SPDX-License-Identifier: Apache-2.0
"""What lies behind the lips: a bag that hangs on the inner lips and holds two rows of teeth.

Landmarks end at the lips. The bag gives each pixel of an open mouth a place that the neural texture
can paint. Its rim is the lips' own, so that it fills every opening that they leave and none where
they meet; the upper teeth keep still with the skull, the lower ones go with the jaw, and the walls
between stretch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.face3d.arkit import ARKIT_INDEX
from styleavatar_core.face3d.model import FaceModel

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Inner lips, clockwise on the screen from the right corner: the bag's columns.
RIM = (78, *groups.UPPER_INNER_LIP, 308, *reversed(groups.LOWER_INNER_LIP))
_HALF = len(RIM) // 2
_RING_COUNT = 5  # rim, roots of the teeth, their edges, just behind these, throat

# Of each ring but the rim, decimetres from the mouth's middle: y above and below, z in the middle.
# The lower half rises to the throat, as a tongue does: an open mouth shows it from the front.
_UPPER_Y = (-0.09, 0.03, -0.005, -0.06)
_LOWER_Y = (0.12, 0.042, 0.065, -0.03)
_UPPER_Z = (0.055, 0.06, 0.09, 0.35)
_LOWER_Z = (0.065, 0.075, 0.11, 0.35)
_WIDTHS = (1.1, 1.1, 1.02, 0.75)  # across, over the lips'
_ARCH = 3.0  # how the rows of teeth curve back: z per square of x
_ARCH_SHARES = (1.0, 1.0, 0.9, 0.0)

_JAW_NAMES = ("jawOpen", "jawForward", "jawLeft", "jawRight")
_JAW_SHARES = (1.0, 1.0, 0.9, 0.3)  # the throat is nearer to the hinge
_LOWER_LIP_MIDDLE = (87, 14, 317)  # the lower teeth stay behind it while the jaw moves

_INNER_LIP = (0.48, 0.22, 0.21)
_TOOTH = (0.80, 0.75, 0.69)
_CORNER = (0.36, 0.16, 0.15)
_PALATE = (0.36, 0.16, 0.15)
_TONGUE = (0.52, 0.27, 0.26)
_THROAT = (0.09, 0.04, 0.04)

# Free room of the UV square between the eyeballs' discs; each ring's ends from the middle of it.
_UV_CENTER = (0.5, 0.895)
_UV_RADII = (0.142, 0.092)
_UV_TOPS = (-1.0, -0.94, -0.56, -0.5, -0.4)
_UV_BOTTOMS = (1.0, 0.94, 0.72, 0.66, -0.2)
_UV_WIDTHS = (1.0, 0.95, 0.86, 0.82, 0.5)


def with_mouth(model: FaceModel) -> FaceModel:
    """Adds the mouth's inside behind all vertices of a model; these stay as they are.

    Args:
        model: The built-in model without it.
    """
    texture = np.zeros((_RING_COUNT * len(RIM), *model.texture_basis.shape[1:]))
    start = len(model.mean_shape)
    added = {
        "mean_shape": _vertices(model.mean_shape.astype(np.float64)),
        "identity_basis": _identity(model.identity_basis.astype(np.float64)),
        "expression_basis": _expression(model.expression_basis.astype(np.float64)),
        "mean_texture": _colors(),
        "texture_basis": texture,
        "uv_coordinates": _uv(),
        "faces": _triangles(start),
    }
    grown: dict[str, Any] = {}
    for name, rows in added.items():
        own = getattr(model, name)
        grown[name] = np.concatenate([own, rows.reshape(-1, *own.shape[1:]).astype(own.dtype)])
    stop = len(grown["mean_shape"])
    return replace(model, mouth_vertices=(start, stop), digest="", **grown)


def _lower_shares() -> Array:
    """Returns (20,): 1 for columns of the lower jaw, 0 for the skull's, a half in the corners."""
    shares = np.zeros(len(RIM))
    shares[_HALF + 1 :] = 1.0
    shares[[0, _HALF]] = 0.5
    return shares


def _vertices(face: Array) -> Array:
    """Places the rings.

    Args:
        face: (468, 3) mean face, decimetres.

    Returns:
        (rings, 20, 3) float64; the first ring is the inner lips.
    """
    rim = face[list(RIM)]
    middle = rim.mean(axis=0)
    front = rim[:, 2].min()
    low = _lower_shares()
    rings = [rim]
    for ring in range(_RING_COUNT - 1):
        x = rim[:, 0] * _WIDTHS[ring]
        y = middle[1] + (1 - low) * _UPPER_Y[ring] + low * _LOWER_Y[ring]
        depth = (1 - low) * _UPPER_Z[ring] + low * _LOWER_Z[ring]
        rings.append(np.stack([x, y, front + depth + _ARCH * _ARCH_SHARES[ring] * x**2], axis=1))
    return np.stack(rings)


def _identity(basis: Array) -> Array:
    """Continues identity directions: the rim is the lips', the rest goes where the mouth is.

    Args:
        basis: (468, 3, N) directions of the face.

    Returns:
        (rings, 20, 3, N) float64.
    """
    rim = basis[list(RIM)]
    inside = np.broadcast_to(rim.mean(axis=0), (_RING_COUNT - 1, *rim.shape))
    return np.concatenate([rim[None], inside])


def _expression(basis: Array) -> Array:
    """Continues expression directions: the rim is the lips', the lower teeth are the jaw's.

    Args:
        basis: (468, 3, 52) directions of the face.

    Returns:
        (rings, 20, 3, 52) float64.
    """
    moved = np.zeros((_RING_COUNT, len(RIM), *basis.shape[1:]))
    moved[0] = basis[list(RIM)]
    jaw = np.zeros(basis.shape[1:])
    columns = [ARKIT_INDEX[name] for name in _JAW_NAMES]
    jaw[:, columns] = basis[list(_LOWER_LIP_MIDDLE)].mean(axis=0)[:, columns]
    shares = np.array(_JAW_SHARES)[:, None] * _lower_shares()
    moved[1:] = shares[..., None, None] * jaw
    return moved


def _triangles(start: int) -> Indices:
    """Joins the rings to each other and closes the last one.

    Args:
        start: Place of the rim's first vertex in the mesh.

    Returns:
        (F, 3) int64, wound as the face's triangles.
    """
    count = len(RIM)
    rings = start + np.arange(_RING_COUNT * count).reshape(-1, count)
    a, c = rings[:-1], rings[1:]
    b, d = np.roll(a, -1, axis=1), np.roll(c, -1, axis=1)
    strips = [np.stack(corners, axis=-1).reshape(-1, 3) for corners in ((a, b, d), (a, d, c))]
    upper = rings[-1, : _HALF + 1]
    lower = rings[-1, np.arange(count, _HALF - 1, -1) % count]
    wall = [
        np.stack([upper[:-1], upper[1:], lower[1:]], axis=1)[:-1],
        np.stack([upper[:-1], lower[1:], lower[:-1]], axis=1)[1:],
    ]
    return np.concatenate([*strips, *wall])


def _colors() -> Array:
    """Returns (rings * 20, 3) float64 RGB in [0, 1]: teeth, tongue and dark."""
    low = _lower_shares()[:, None]
    is_corner = low == 0.5
    teeth = np.where(is_corner, _CORNER, _TOOTH)
    behind = (1 - low) * np.array(_PALATE) + low * np.array(_TONGUE)
    rim, throat = (np.tile(np.array(color), (len(RIM), 1)) for color in (_INNER_LIP, _THROAT))
    return np.concatenate([rim, teeth, teeth, behind, throat])


def _uv() -> Array:
    """Returns (rings, 20, 2) float64: rounded squares, one within the other."""
    turn = np.arange(len(RIM)) * 2 * np.pi / len(RIM)
    x, y = -np.cos(turn), -np.sin(turn)
    outline = np.stack([x, y], axis=1) / ((np.abs(x) ** 4 + np.abs(y) ** 4) ** 0.25)[:, None]
    tops, bottoms = np.array(_UV_TOPS), np.array(_UV_BOTTOMS)
    sizes = np.stack([np.array(_UV_WIDTHS), (bottoms - tops) / 2], axis=1)
    middles = np.stack([np.zeros(_RING_COUNT), (bottoms + tops) / 2], axis=1)
    return (sizes[:, None] * outline + middles[:, None]) * _UV_RADII + _UV_CENTER
