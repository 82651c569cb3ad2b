# SPDX-License-Identifier: Apache-2.0
"""Self-driven evaluation on the held-out fifth (paper, Sec. 4), with baselines and a sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from styleavatar_core.data.dataset import AvatarDataset, decode_uv
from styleavatar_core.data.picture import contact_sheet, encode_jpeg
from styleavatar_core.evaluation.baselines import NearestSample, mean_frame
from styleavatar_core.evaluation.metrics import psnr, sharpness, ssim
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import parameters_in_crop, project, to_pixels
from styleavatar_core.face3d.landmark_groups import FACE_LANDMARK_COUNT
from styleavatar_core.types import ByteArray

RenderIndex = Callable[[int], tuple[ByteArray, ByteArray]]
"""Renders dataset frame ``index`` at the centred window: (S, S, 3) uint8 picture, (F, F) mask."""

_SHEET_ROWS = 6
_SHEET_CELL_PX = 192


def evaluate_held_out(
    dataset: AvatarDataset,
    render: RenderIndex,
    *,
    frame_limit: int | None = None,
    sheet_path: Path | None = None,
) -> dict[str, float]:
    """Compares rendered held-out frames with the truth.

    Args:
        dataset: The clip.
        render: The avatar.
        frame_limit: Most frames to look at, evenly spaced; None takes all.
        sheet_path: Where a contact sheet goes: input, renderings, mask, output, truth.

    Returns:
        Means over frames: ``psnr_db``, ``ssim``, ``sharpness``, the same with the prefixes
        ``nearest_sample_`` and ``mean_frame_``, and ``frame_count``.
    """
    indices = list(dataset.held_out_indices)
    if frame_limit is not None and len(indices) > frame_limit:
        picked = np.linspace(0, len(indices) - 1, frame_limit).round().astype(int)
        indices = [indices[i] for i in picked]
    train = [dataset.parameters[i] for i in dataset.train_indices]
    nearest = NearestSample(train, dataset.info.crop)
    mean = mean_frame(dataset)
    collected: dict[str, list[float]] = {}
    for index in indices:
        truth = _truth(dataset, index)
        near = _truth(dataset, nearest.find(dataset.parameters[index]))
        face = _face_mask(dataset, index, truth.shape[0])
        output, _ = render(index)
        for prefix, image in (("", output), ("nearest_sample_", near), ("mean_frame_", mean)):
            for name, value in _figures(image, truth, face).items():
                collected.setdefault(prefix + name, []).append(value)
    if sheet_path is not None:
        write_sheet(dataset, render, indices, sheet_path)
    means = {name: _finite_mean(values) for name, values in collected.items()}
    return {**means, "frame_count": float(len(indices))}


def mean_psnr(dataset: AvatarDataset, render: RenderIndex, indices: Sequence[int]) -> float:
    """Returns the mean PSNR over some frames, decibels."""
    return _finite_mean([psnr(render(i)[0], _truth(dataset, i)) for i in indices])


def write_sheet(
    dataset: AvatarDataset, render: RenderIndex, indices: Sequence[int], path: Path
) -> bytes:
    """Writes a contact sheet of some frames and returns its JPEG.

    Columns: canvas, texture rendering, UV rendering, predicted mask, output, truth.
    """
    picked = np.linspace(0, len(indices) - 1, min(_SHEET_ROWS, len(indices))).round().astype(int)
    rows = [_sheet_row(dataset, render, indices[i]) for i in picked]
    data = encode_jpeg(contact_sheet(rows, _SHEET_CELL_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return data


def _sheet_row(dataset: AvatarDataset, render: RenderIndex, index: int) -> list[np.ndarray]:
    uv, mask = decode_uv(dataset.window(dataset.uv[index]))
    colors = np.concatenate([uv, mask[..., None]], axis=2) * mask[..., None]
    output, foreground = render(index)
    return [
        np.asarray(dataset.frames[index]),
        dataset.window(dataset.renderings[index]),
        np.rint(colors * 255).astype(np.uint8),
        foreground,
        output,
        _truth(dataset, index),
    ]


def _figures(image: ByteArray, truth: ByteArray, face: ByteArray) -> dict[str, float]:
    return {
        "psnr_db": psnr(image, truth),
        "ssim": ssim(image, truth),
        "sharpness": sharpness(image, truth, face),
    }


def _truth(dataset: AvatarDataset, index: int) -> ByteArray:
    return np.ascontiguousarray(dataset.window(dataset.frames[index]))


def _face_mask(dataset: AvatarDataset, index: int, side: int) -> ByteArray:
    """Returns the convex hull of the 468 face landmarks of the fitted mesh, (side, side) uint8."""
    model, identity = builtin_model(), dataset.info.face_identity
    parameters = parameters_in_crop(dataset.parameters[index], dataset.info.crop)
    neutral = model.neutral(identity.identity)
    vertices = model.vertices(neutral, parameters.expression, parameters.eye_rotation)
    landmarks = vertices[model.landmark_indices[:FACE_LANDMARK_COUNT]]
    pixels = to_pixels(project(landmarks, parameters), side, side)[:, :2]
    mask = np.zeros((side, side), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(pixels).astype(np.int32)), 1)
    return mask


def _finite_mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan
