# SPDX-License-Identifier: Apache-2.0
"""Self-driven evaluation on the held-out fifth (paper, Sec. 4), with baselines and a sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from styleavatar_core.data.dataset import AvatarDataset, decode_uv
from styleavatar_core.data.picture import contact_sheet, encode_jpeg
from styleavatar_core.data.spread import spread_evenly
from styleavatar_core.evaluation.baselines import NearestSample, mean_frame, nearest_parameters
from styleavatar_core.evaluation.learned_metrics import LearnedMetrics
from styleavatar_core.evaluation.metrics import flicker, psnr, remove_background, sharpness, ssim
from styleavatar_core.face3d.camera import parameters_in_crop, project, to_pixels
from styleavatar_core.face3d.landmark_groups import FACE_LANDMARK_COUNT
from styleavatar_core.types import ByteArray, FloatArray

RenderIndex = Callable[[int], tuple[ByteArray, ByteArray]]
"""Renders dataset frame ``index`` at the centred window: (S, S, 3) uint8 picture, (F, F) mask."""

_PAPER_SIDE_PX = 512  # the paper compares at this size, with background and without
SHEET_ROWS = 6
_SHEET_CELL_PX = 192


@dataclass(frozen=True)
class HeldOutEvaluation:
    """Figures of single frames, and what they come to.

    Attributes:
        indices: Dataset frames that were looked at, in order.
        series: Values by figure name, one per frame; NaN where a frame has none.
        figures: Means over frames, of pictures of at most 512 pixels a side as in the paper:
            ``psnr_db``, ``ssim``, ``sharpness``, ``flicker``, with ``no_background_`` for the
            person on black; those of the baselines with the prefixes
            ``nearest_sample_`` and ``mean_frame_``; Table 4's ``nearest_..._std``; learned metrics
            whose weights were given; ``frame_count``.
    """

    indices: list[int]
    series: dict[str, list[float]]
    figures: dict[str, float]


def evaluate_held_out(
    dataset: AvatarDataset,
    render: RenderIndex,
    *,
    frame_limit: int | None = None,
    on_output: Callable[[int, ByteArray], None] | None = None,
    sheet_path: Path | None = None,
) -> dict[str, float]:
    """Compares rendered held-out frames with the truth.

    Args:
        dataset: The clip.
        render: The avatar.
        frame_limit: Most frames to look at; None takes all.
        on_output: Shown each frame's index and picture, in order.
        sheet_path: Where a contact sheet goes: input, renderings, mask, output, truth.

    Returns:
        ``HeldOutEvaluation.figures``.
    """
    evaluation = evaluate_frames(dataset, render, frame_limit=frame_limit, on_output=on_output)
    if sheet_path is not None:
        write_sheet(dataset, render, evaluation.indices, sheet_path)
    return evaluation.figures


def evaluate_frames(
    dataset: AvatarDataset,
    render: RenderIndex,
    *,
    frame_limit: int | None = None,
    learned: LearnedMetrics | None = None,
    on_output: Callable[[int, ByteArray], None] | None = None,
) -> HeldOutEvaluation:
    """Compares rendered held-out frames with the truth, frame by frame.

    Args:
        dataset: The clip.
        render: The avatar.
        frame_limit: Most frames to look at, see :func:`pick_frames`.
        learned: LPIPS and FID, where there are weights for them.
        on_output: Shown each frame's index and picture, in order.
    """
    indices = pick_frames(dataset, frame_limit)
    train = [dataset.parameters[i] for i in dataset.train_indices]
    nearest = NearestSample(train, dataset.info.crop)
    mean = _compared(mean_frame(dataset))
    series: dict[str, list[float]] = {}
    before: dict[str, ByteArray] = {}
    for place, index in enumerate(indices):
        output, truth = render(index)[0], _compared(held_out_truth(dataset, index))
        sample = held_out_truth(dataset, nearest.find(dataset.parameters[index]))
        pictures = {
            "": _compared(output),
            "nearest_sample_": _compared(sample),
            "mean_frame_": mean,
        }
        follows = place > 0 and _is_next(dataset, indices[place - 1], index)
        face = face_mask(dataset, index, truth.shape[0])
        person = _compared(_person(dataset, index))
        for prefix, image in pictures.items():
            values = _figures(image, truth, face, person)
            values["flicker"] = (
                flicker(image, before[prefix], truth, before["truth"]) if follows else math.nan
            )
            for name, value in values.items():
                series.setdefault(prefix + name, []).append(value)
        before = {**pictures, "truth": truth}
        if learned is not None:
            learned.add(pictures[""], truth)
            alone, alone_truth = (remove_background(p, person) for p in (pictures[""], truth))
            learned.add(alone, alone_truth, prefix="no_background_")
        if on_output is not None:
            on_output(index, output)
    figures = {name: _finite_mean(values) for name, values in series.items()}
    driven = [dataset.parameters[i] for i in indices]
    figures |= nearest_parameters(train, driven, dataset.info.crop)
    figures |= learned.figures() if learned is not None else {}
    figures["frame_count"] = float(len(indices))
    return HeldOutEvaluation(indices, series, figures)


def pick_frames(dataset: AvatarDataset, frame_limit: int | None) -> list[int]:
    """Returns the held-out frames to look at: all, or neighbouring pairs, evenly spaced.

    Pairs, as flicker is only seen between neighbours.
    """
    indices = list(dataset.held_out_indices)
    if frame_limit is None or len(indices) <= frame_limit:
        return indices
    if frame_limit == 1:
        return indices[:1]
    starts = np.linspace(0, len(indices) - 2, frame_limit // 2).round().astype(int)
    return sorted({indices[start + step] for start in starts for step in (0, 1)})


def mean_psnr(dataset: AvatarDataset, render: RenderIndex, indices: Sequence[int]) -> float:
    """Returns the mean PSNR over some frames, decibels."""
    return _finite_mean([psnr(render(i)[0], held_out_truth(dataset, i)) for i in indices])


def write_sheet(
    dataset: AvatarDataset, render: RenderIndex, indices: Sequence[int], path: Path
) -> None:
    """Writes a contact sheet of some frames, evenly spread."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(frames_sheet(dataset, render, spread_evenly(indices, SHEET_ROWS)))


def frames_sheet(dataset: AvatarDataset, render: RenderIndex, indices: Sequence[int]) -> bytes:
    """Returns a contact sheet of frames, one row each, as JPEG.

    Columns: canvas, texture rendering, UV rendering, predicted mask, output, truth.
    """
    rows = [_sheet_row(dataset, render, index) for index in indices]
    return encode_jpeg(contact_sheet(rows, _SHEET_CELL_PX))


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
        held_out_truth(dataset, index),
    ]


def _figures(
    image: ByteArray, truth: ByteArray, face: ByteArray, person: ByteArray
) -> dict[str, float]:
    alone, alone_truth = (remove_background(picture, person) for picture in (image, truth))
    return {
        "psnr_db": psnr(image, truth),
        "ssim": ssim(image, truth),
        "sharpness": sharpness(image, truth, face),
        "no_background_psnr_db": psnr(alone, alone_truth),
        "no_background_ssim": ssim(alone, alone_truth),
    }


def _compared(image: ByteArray) -> ByteArray:
    """Returns a picture or mask at most as large as in the paper's comparisons."""
    if image.shape[0] <= _PAPER_SIDE_PX:
        return image
    side = (_PAPER_SIDE_PX, _PAPER_SIDE_PX)
    return np.asarray(cv2.resize(image, side, interpolation=cv2.INTER_AREA), np.uint8)


def held_out_truth(dataset: AvatarDataset, index: int) -> ByteArray:
    """Returns the window's true picture, (S, S, 3) uint8 RGB."""
    return np.ascontiguousarray(dataset.window(dataset.frames[index]))


def _person(dataset: AvatarDataset, index: int) -> ByteArray:
    """Returns the window's foreground mask, (S, S) uint8, 255 = person."""
    return np.ascontiguousarray(dataset.window(dataset.masks[index]))


def _is_next(dataset: AvatarDataset, index: int, later: int) -> bool:
    """Says whether a frame follows another one as closely as frames of this dataset do."""
    numbers = [p.frame_index for p in dataset.parameters]
    usual = np.median(np.diff(numbers))  # 0 where faces were drawn by chance: none follows another
    return later == index + 1 and bool(0 < numbers[later] - numbers[index] <= usual)


def face_mask(dataset: AvatarDataset, index: int, side: int) -> ByteArray:
    """Returns the convex hull of the face landmarks of the fitted mesh, (side, side) uint8."""
    pixels = landmark_pixels(dataset, index, side)
    mask = np.zeros((side, side), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(pixels).astype(np.int32)), 1)
    return mask


def landmark_pixels(dataset: AvatarDataset, index: int, side: int) -> FloatArray:
    """Returns the 468 face landmarks of the fitted mesh in a window of a side, (468, 2) pixels."""
    model, identity = dataset.info.face_model(), dataset.info.face_identity
    parameters = parameters_in_crop(dataset.parameters[index], dataset.info.crop)
    neutral = model.neutral(identity.identity)
    vertices = model.vertices(neutral, parameters.expression, parameters.eye_rotation)
    landmarks = vertices[model.landmark_indices[:FACE_LANDMARK_COUNT]]
    return to_pixels(project(landmarks, parameters), side, side)[:, :2]


def _finite_mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan
