# SPDX-License-Identifier: Apache-2.0
"""A tiny network and a tiny prepared clip: a coloured disc that wanders over a pattern."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from styleavatar_core.data.dataset import AvatarDataset, DatasetInfo, DatasetWriter
from styleavatar_core.networks.presets import _fast
from styleavatar_core.types import FaceParameters

FRAME_COUNT = 20


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_config():
    config = _fast("tiny", 64, base=4, face_channels=2, levels=3, widths=(8, 8, 8, 8))
    judge = replace(config.discriminator, channels=(8, 8, 8, 8), hidden_channels=8)
    return replace(config, discriminator=judge)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory, tiny_config):
    folder = tmp_path_factory.mktemp("dataset")
    info = DatasetInfo(
        source_name="disc.mp4",
        source_sha256="0" * 64,
        source_width=96,
        source_height=96,
        fps=25.0,
        frame_count=FRAME_COUNT,
        train_count=16,
        missing_face_count=0,
        image_size_px=64,
        rendering_size_px=64,
        canvas_factor=1.5,
        window=(0.0, 0.0, 2 / 3),
        model_id="builtin-2",
        identity=[0.0],
        texture=[0.0],
        matting="none",
        landmarks="none",
        frame_cap=100,
    )
    writer = DatasetWriter(folder, FRAME_COUNT, 96, 96)
    rows, columns = np.indices((96, 96)) + 0.5
    parameters = []
    for index in range(FRAME_COUNT):
        x = 48 + 8 * np.sin(index)
        inside = (columns - x) ** 2 + (rows - 48) ** 2 < 18**2
        frame = np.stack([columns * 2, rows * 2, np.full_like(rows, 90)], axis=2)
        frame[inside] = (220, 150, 120)
        uv = np.stack([(columns - x) / 40 + 0.5, (rows - 48) / 40 + 0.5], axis=2)
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
                model_id="builtin-2",
                rotation=np.array([1, 0, 0, 0], np.float32),
                translation=np.array([x / 48 - 1, 0, 0], np.float32),
                scale=1.0,
                expression=np.full(52, index / 100, np.float32),
                eye_rotation=np.zeros((2, 2), np.float32),
                frame_index=index,
            )
        )
    valid = np.ones((96, 96), np.uint8)
    valid[:, :8] = 0
    writer.finish(info, parameters, valid)
    return AvatarDataset(folder)
