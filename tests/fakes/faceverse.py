# SPDX-License-Identifier: Apache-2.0
"""Files in the layouts of FaceVerse v2, v3 and v4, made of the built-in face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.faceverse_parts import _OF_68

_TEXTURE_COUNT, _IDENTITY_COUNT = 5, 12


def faceverse_contents(version: str) -> dict[str, Any]:
    """Returns the dict of a file: the built-in face in the axes and units of that version."""
    model = builtin_model()
    left, right = (np.arange(*span) for span in model.eye_vertices)
    head = np.setdiff1d(np.arange(len(model.mean_shape)), np.concatenate([left, right]))
    parts = [head] if version == "v2" else [head, left, right]
    order = np.concatenate(parts)
    place = np.full(len(model.mean_shape), -1)
    place[order] = np.arange(len(order))
    # As on disk: v3 in hundredths, all with y up and z towards the camera.
    unit = {"v2": 1.0, "v3": 100.0, "v4": 100.0}[version] * np.array([1.0, -1.0, -1.0])

    def flat(basis: np.ndarray) -> np.ndarray:
        columns = basis[order] * unit[:, None]
        return columns.reshape(3 * len(order), -1).astype(np.float32)

    faces = place[model.faces]
    landmarks = place[model.landmark_indices]
    contents: dict[str, Any] = {
        "meanshape": flat(model.mean_shape[..., None]).ravel(),
        "meantex": 255 * model.mean_texture[order].reshape(1, -1),
        "idBase": flat(model.identity_basis[..., :_IDENTITY_COUNT]),
        "texBase": 255 * model.texture_basis[order][..., :_TEXTURE_COUNT].reshape(-1, 5),
        "tri": faces[(faces >= 0).all(axis=1)][:, ::-1].copy(),
        "point_buf": np.zeros((len(order), 8), np.int64),
    }
    if version == "v2":
        spelt = [name.replace("Left", "_L").replace("Right", "_R") for name in _shuffled(model)]
        contents |= {"exBase": flat(model.expression_basis[..., _SHUFFLE]), "exp_name_list": spelt}
        contents |= {"keypoints": landmarks[list(_OF_68)], "skinmask": np.ones(len(order))}
        return contents
    contents["ver_inds"] = np.cumsum([len(part) for part in parts])
    contents["tri_inds"] = np.array([1, 2, 3])
    if version == "v3":
        contents |= {"exBase_52": flat(model.expression_basis[..., _SHUFFLE])}
        contents |= {"exp_name_list_52": _shuffled(model), "mediapipe_keypoints": landmarks}
        uv = np.concatenate([model.uv_coordinates[order], np.zeros((len(order), 1))], axis=1)
        contents |= {"uvtex": 255 * uv, "face_mask": np.ones(len(order))}
        return contents
    contents |= {"exBase": flat(np.tile(model.expression_basis, 4)[..., :177])}
    contents |= {"keypoints_mediapipe": landmarks, "parsing": {"skin": np.ones(len(order), bool)}}
    return contents


def write_faceverse(path: Path, contents: dict[str, Any]) -> Path:
    """Saves a dict as the authors' files are saved."""
    np.save(path, np.array(contents, dtype=object))
    return path


_SHUFFLE = np.random.default_rng(4).permutation(52)


def _shuffled(model: Any) -> list[str]:
    return [model.expression_names[k] for k in _SHUFFLE]
