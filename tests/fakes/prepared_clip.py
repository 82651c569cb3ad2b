# SPDX-License-Identifier: Apache-2.0
"""A prepared dataset without any video: a disc that wanders over a pattern."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from styleavatar_core.data.dataset import AvatarDataset, DatasetWriter
from styleavatar_core.data.dataset_info import DatasetInfo
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.types import FaceParameters

SOURCE_SHA256 = "0" * 64


def write_prepared_clip(
    folder: Path,
    *,
    size_px: int = 64,
    frame_count: int = 20,
    train_count: int = 14,
    invalid_columns: int = 0,
) -> AvatarDataset:
    """Writes a clip whose window has ``size_px`` pixels; the canvas is half as large again.

    The canvas's first ``invalid_columns`` columns count as outside of the source frame.
    """
    model = builtin_model()
    side = size_px * 3 // 2
    info = DatasetInfo(
        source_name="disc.mp4",
        source_sha256=SOURCE_SHA256,
        source_width=side,
        source_height=side,
        fps=25.0,
        frame_count=frame_count,
        train_count=train_count,
        missing_face_count=0,
        image_size_px=size_px,
        rendering_size_px=size_px,
        canvas_factor=1.5,
        window=(0.0, 0.0, 2 / 3),
        model_id=model.model_id,
        identity=[0.0] * model.identity_basis.shape[2],
        texture=[0.0] * model.texture_basis.shape[2],
        matting="none",
        landmarks="none",
        frame_cap=100,
    )
    writer = DatasetWriter(folder, frame_count, side, side)
    rows, columns = (np.indices((side, side)) + 0.5) / side
    parameters = []
    for index in range(frame_count):
        x = 0.5 + 0.08 * np.sin(index)
        inside = (columns - x) ** 2 + (rows - 0.5) ** 2 < 0.04
        frame = np.stack([columns * 192, rows * 192, np.full_like(rows, 90)], axis=2)
        frame[inside] = (220, 150, 120)
        uv = np.stack([(columns - x) * 2 + 0.5, (rows - 0.5) * 2 + 0.5], axis=2)
        writer.put(
            index,
            frame=frame.astype(np.uint8),
            mask=inside.astype(np.float32),
            rendering=(inside[..., None] * np.full(3, 200)).astype(np.uint8),
            uv=uv.astype(np.float32),
            face_mask=inside.astype(np.uint8),
        )
        parameters.append(
            FaceParameters(
                model_id=model.model_id,
                rotation=np.array([1, 0, 0, 0], np.float32),
                translation=np.array([2 * x - 1, 0, 0], np.float32),
                scale=0.4,
                expression=np.full(52, index / 100, np.float32),
                eye_rotation=np.zeros((2, 2), np.float32),
                capture_time_s=index / info.fps,
                frame_index=index,
            )
        )
    valid = np.ones((side, side), np.uint8)
    valid[:, :invalid_columns] = 0
    writer.finish(info, parameters, valid)
    return AvatarDataset(folder)


def name_source(folder: Path, video: Path, matting: str) -> None:
    """Makes a prepared clip that of a file, which may hold anything, with masks of a method."""
    path = folder / "dataset.json"
    digest = hashlib.sha256(video.read_bytes()).hexdigest()
    values = json.loads(path.read_text()) | {"source_sha256": digest, "matting": matting}
    path.write_text(json.dumps(values))
