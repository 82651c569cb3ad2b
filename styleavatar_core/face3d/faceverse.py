# SPDX-License-Identifier: Apache-2.0
"""FaceVerse v2, v3 and v4 files as face models of ours.

Users download the files from their authors, whose terms hold. Their axes and units differ from
version to version, so the mean shape is laid on the built-in one by Eq. 1 and tells them itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from styleavatar_core.errors import AssetError
from styleavatar_core.face3d.alignment import Similarity, align
from styleavatar_core.face3d.arkit import ARKIT_NAMES
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.faceverse_parts import (
    cylinder_uv,
    grafted_eyes,
    landmarks_from_68,
    turned_to_camera,
)
from styleavatar_core.face3d.landmark_groups import LANDMARK_COUNT
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.face3d.pickled_arrays import read_pickled_dict
from styleavatar_core.types import FloatArray

_COMMON = {"meanshape", "meantex", "idBase", "texBase", "tri"}
_FACE_MASK = "face_mask"
_IGNORED = {"point_buf", "parsing", _FACE_MASK, "skinmask", "keypoints_name_list"}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a version keeps what we need, and what else it may hold."""

    version: str
    expression: str
    landmarks: str
    names: str | None
    others: frozenset[str]


_LAYOUTS = (
    _Layout("v4", "exBase", "keypoints_mediapipe", None,
            frozenset({"ver_inds", "tri_inds", "keypoints_68", "keypoints"})),
    _Layout("v3", "exBase_52", "mediapipe_keypoints", "exp_name_list_52",
            frozenset({"ver_inds", "tri_inds", "uvtex", "keypoints", "exBase", "exp_name_list"})),
    _Layout("v2", "exBase", "keypoints", "exp_name_list",
            frozenset({"select_id", "tri_select", "keypoints_select", "point_buf_select",
                       "skinmask_select"})),
)  # fmt: skip


def convert_faceverse(path: Path) -> FaceModel:
    """Reads a FaceVerse file.

    Args:
        path: The pickled ``.npy`` as its authors distribute it; nothing in it is executed.

    Returns:
        The model, in our axes, units and order of expressions.

    Raises:
        NotFoundError: There is no such file.
        AssetError: It is no FaceVerse file, lacks something, or holds keys that are not known.
    """
    data = read_pickled_dict(path)
    layout = _layout(data, path.name)
    mean = _directions(data["meanshape"], path.name)[..., 0]
    landmarks = np.asarray(data[layout.landmarks], np.int64).ravel()
    if len(landmarks) == 68:
        landmarks = landmarks_from_68(mean, landmarks)
    if len(landmarks) != LANDMARK_COUNT:
        raise AssetError(
            f"{path.name} names {len(landmarks)} landmarks; 68 or MediaPipe's 478 are needed."
        )
    if landmarks.min() < 0 or landmarks.max() >= len(mean):
        raise AssetError(f"{path.name}: its landmarks name vertices that it does not have.")
    builtin = builtin_model()
    place = align(mean[landmarks[:468]], builtin.mean_shape[builtin.landmark_indices[:468]])
    model = _assemble(data, layout, mean, landmarks, place, path.name)
    return model if layout.version != "v2" else grafted_eyes(model, builtin)


def _layout(data: dict[str, Any], name: str) -> _Layout:
    for layout in _LAYOUTS:
        needed = _COMMON | {layout.expression, layout.landmarks}
        needed |= {layout.names} if layout.names else {"ver_inds"}
        if not needed <= set(data):
            continue
        unknown = sorted(set(data) - needed - _IGNORED - layout.others)
        if unknown:
            raise AssetError(
                f"{name} looks like FaceVerse {layout.version} but holds keys that are not known: "
                f"{', '.join(unknown)}. Files of v2, v3 and v4 are read."
            )
        return layout
    raise AssetError(
        f"{name} is not a FaceVerse file of v2, v3 or v4; its keys are: {', '.join(sorted(data))}."
    )


def _assemble(
    data: dict[str, Any],
    layout: _Layout,
    mean: FloatArray,
    landmarks: npt.NDArray[np.int64],
    place: Similarity,
    name: str,
) -> FaceModel:
    shape = place.apply(mean)
    count = len(shape)
    expression = place.turn(_directions(data[layout.expression], name))
    if layout.names:
        names, expression = _in_arkit_order(data[layout.names], expression, name)
    else:
        names = tuple(f"component{k}" for k in range(expression.shape[-1]))
    # Blend shapes end at 1; the authors keep v4's components from becoming negative, and no more.
    expression_max = 1.0 if layout.names else np.inf
    identity = place.turn(_directions(data["idBase"], name))
    texture = _directions(data["texBase"], name) / 255
    for what, basis in (("idBase", identity), ("texBase", texture), ("exBase", expression)):
        if len(basis) != count:
            raise AssetError(f"{name}: {what} has {len(basis)} vertices, its mean shape {count}.")
    faces = np.asarray(data["tri"], np.int32).reshape(-1, 3)
    if faces.min() < 0 or faces.max() >= count:
        raise AssetError(f"{name}: its triangles name vertices that it does not have.")
    eyes = _eye_ranges(data["ver_inds"], shape) if "ver_inds" in data else ((0, 0), (0, 0))
    return FaceModel(
        model_id=f"faceverse-{layout.version}",
        mean_shape=shape.astype(np.float32),
        identity_basis=identity.astype(np.float32),
        expression_basis=expression.astype(np.float32),
        expression_names=names,
        mean_texture=(_directions(data["meantex"], name)[..., 0] / 255).astype(np.float32),
        texture_basis=texture.astype(np.float32),
        faces=turned_to_camera(faces, shape, landmarks[:468]),
        uv_coordinates=_uv(data, shape, eyes).astype(np.float32),
        landmark_indices=landmarks.astype(np.int32),
        eye_vertices=eyes,
        expression_max=expression_max,
        is_face=_is_face(data, count, name),
    )


def _directions(flat: Any, name: str) -> FloatArray:
    """Returns (V, 3, N) of an array flattened over vertices and axes; N is 1 for a shape."""
    array = np.asarray(flat, np.float64)
    if (array.shape[-1] == 3 and array.ndim == 2) or array.ndim == 1 or array.shape[0] == 1:
        return array.reshape(-1, 3, 1)
    if array.ndim != 2 or array.shape[0] % 3 or not np.isfinite(array).all():
        raise AssetError(f"{name}: an array of shape {array.shape} is no basis over vertices.")
    return array.reshape(-1, 3, array.shape[1])


def _in_arkit_order(
    names: Any, expression: FloatArray, file_name: str
) -> tuple[tuple[str, ...], FloatArray]:
    wanted = {_plain(name): name for name in ARKIT_NAMES}
    given = [_plain(str(name)) for name in names]
    if sorted(given) != sorted(wanted) or expression.shape[-1] != len(given):
        missing = sorted(wanted[key] for key in set(wanted) - set(given))
        raise AssetError(
            f"{file_name}: its {len(given)} expressions are not the 52 of ARKit; missing: "
            f"{', '.join(missing) or 'none'}."
        )
    order = [given.index(_plain(name)) for name in ARKIT_NAMES]
    return ARKIT_NAMES, expression[..., order]


def _plain(name: str) -> str:
    """Spells ``eyeBlink_L`` and ``EyeBlinkLeft`` alike."""
    base, _, side = name.partition("_")
    sides = {"L": "left", "R": "right"}
    return (base + sides.get(side, side)).replace("_", "").lower()


def _eye_ranges(ends: Any, shape: FloatArray) -> tuple[tuple[int, int], tuple[int, int]]:
    head, first, second = (int(end) for end in np.asarray(ends).ravel()[:3])
    one, other = (head, first), (first, second)
    # Left is the subject's, at x > 0.
    is_left_first = shape[slice(*one), 0].mean() > shape[slice(*other), 0].mean()
    return (one, other) if is_left_first else (other, one)


def _is_face(data: dict[str, Any], count: int, name: str) -> npt.NDArray[np.uint8] | None:
    """Returns what the file says of each vertex; eyeballs, which follow the head, are face."""
    if _FACE_MASK not in data or "ver_inds" not in data:
        return None
    head = int(np.asarray(data["ver_inds"]).ravel()[0])
    given = np.asarray(data[_FACE_MASK]).ravel()
    if len(given) < head:
        raise AssetError(f"{name}: its face mask has {len(given)} of {head} vertices of the head.")
    is_face = np.ones(count, np.uint8)
    is_face[:head] = given[:head] > 0
    return None if is_face.all() else is_face


def _uv(
    data: dict[str, Any], shape: FloatArray, eyes: tuple[tuple[int, int], tuple[int, int]]
) -> FloatArray:
    if "uvtex" in data:
        return np.clip(np.asarray(data["uvtex"], np.float64).reshape(-1, 3)[:, :2] / 255, 0, 1)
    return cylinder_uv(shape, eyes)
