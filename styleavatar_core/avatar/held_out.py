# SPDX-License-Identifier: Apache-2.0
"""Faces of frames that training never saw: what an avatar's engines are judged by.

Parameters only, without pictures and times. Imports neither torch nor OpenCV.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from styleavatar_core.data.spread import spread_evenly
from styleavatar_core.errors import AssetError
from styleavatar_core.types import FaceParameters

MOST_FRAMES = 32
# Of one frame, by name; None is as many as the face model has.
_SHAPES: dict[str, tuple[int | None, ...]] = {
    "rotation": (4,),
    "translation": (3,),
    "scale": (),
    "expression": (None,),
    "eye_rotation": (2, 2),
}
_UNIT = 1e-3  # how far a rotation's length may be from 1


def pack_held_out(frames: Sequence[FaceParameters]) -> dict[str, npt.NDArray[np.generic]]:
    """Stacks frames, evenly spread over those given.

    Args:
        frames: At least one, in the coordinates of the avatar's window.

    Returns:
        (N, ...) float32 by name of the parameter, N at most ``MOST_FRAMES``.
    """
    chosen = spread_evenly(frames, MOST_FRAMES)
    return {
        name: np.stack([np.asarray(getattr(frame, name), np.float32) for frame in chosen])
        for name in _SHAPES
    }


def unpack_held_out(
    tensors: Mapping[str, npt.NDArray[Any]], model_id: str, expression_count: int
) -> list[FaceParameters]:
    """Restores what :func:`pack_held_out` stacked.

    Args:
        tensors: By name; they may be anything.
        model_id: Face model of the avatar.
        expression_count: Coefficients E that it has.

    Raises:
        AssetError: They are not parameters of faces.
    """
    count = len(tensors["scale"]) if np.ndim(tensors.get("scale", 0)) == 1 else 0
    if not 1 <= count <= MOST_FRAMES:
        raise AssetError(f"held-out frames must be 1 to {MOST_FRAMES}; create the avatar again")
    for name, shape in _SHAPES.items():
        wanted = (count, *(expression_count if side is None else side for side in shape))
        values = tensors.get(name, np.empty(0))
        is_as_wanted = values.shape == wanted and values.dtype == np.float32
        if not is_as_wanted or not np.isfinite(values).all():
            raise AssetError(f"'{name}' of the held-out frames is damaged; create the avatar again")
    lengths = np.linalg.norm(tensors["rotation"], axis=1)
    if (abs(lengths - 1) > _UNIT).any() or (tensors["scale"] <= 0).any():
        raise AssetError("held-out frames hold no heads; create the avatar again")
    scales = tensors["scale"].tolist()
    return [
        FaceParameters(
            model_id,
            tensors["rotation"][index],
            tensors["translation"][index],
            scales[index],
            tensors["expression"][index],
            tensors["eye_rotation"][index],
        )
        for index in range(count)
    ]
