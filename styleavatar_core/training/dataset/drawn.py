# SPDX-License-Identifier: Apache-2.0
"""A dataset whose pictures an avatar draws, for smaller avatars to learn from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import torch

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.avatar.statistics import ParameterStatistics
from styleavatar_core.data.crop import valid_mask
from styleavatar_core.data.dataset import AvatarDataset, DatasetWriter
from styleavatar_core.data.dataset_info import DATASET_NAME, DatasetInfo, read_info
from styleavatar_core.data.portrait import CANVAS_FACTOR
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.engine.typical_inputs import draw_parameters
from styleavatar_core.errors import InvalidInputError, TrainingCanceled
from styleavatar_core.face3d.camera import parameters_in_crop
from styleavatar_core.networks import GeneratorConfig
from styleavatar_core.training.dataset.match import (
    differences,
    made_with,
    require_no_training,
)
from styleavatar_core.types import CropBox, Progress

_TRAIN_SHARE = 0.8  # the rest is held out, as of a clip (Sec. 4.1)


def draw_dataset(
    teacher: AvatarBundle,
    folder: Path,
    config: GeneratorConfig,
    *,
    frame_count: int,
    seed: int = 0,
    backend: str = "auto",
    checkpoint: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> AvatarDataset:
    """Lets an avatar draw faces from the range that it was trained on.

    It shows its window only: the rest of the canvas is marked as outside the source's frame. A
    finished dataset of the same avatar and settings is used again.

    Args:
        teacher: The avatar that draws.
        folder: Where the dataset goes.
        config: Preset of who learns: sizes of pictures and renderings.
        frame_count: Pictures, at least five; the last fifth is held out.
        seed: Of the faces.
        backend: What the avatar is rendered with.
        checkpoint: Of the training on this dataset; while it is there, no other dataset replaces
            this one.
        on_progress: Told how far it is.
        should_stop: Asked between pictures.

    Raises:
        InvalidInputError: The avatar is smaller than the preset, or there are too few pictures.
        ConflictError: The training is on other pictures.
        TrainingCanceled: ``should_stop`` said so.
    """
    if frame_count < 5:
        raise InvalidInputError(f"{frame_count} pictures cannot be learned from; draw 5 or more")
    if teacher.manifest.image_size_px < config.image_size_px:
        raise InvalidInputError(
            f"{teacher.path.name} draws {teacher.manifest.image_size_px} pixels, fewer than the "
            f"{config.image_size_px} of '{config.name}'; choose a smaller preset"
        )
    info = _info(teacher, config, frame_count, seed)
    known = read_info(folder)
    if known is not None:
        # Its teacher may have another name by now: the pictures are the same.
        different = differences(known, made_with(info))
        if not different:
            return AvatarDataset(folder)
        require_no_training(checkpoint, known, different)
    _draw(teacher, folder, info, seed, backend, on_progress or (lambda _: None), should_stop)
    return AvatarDataset(folder)


def _info(
    teacher: AvatarBundle, config: GeneratorConfig, frame_count: int, seed: int
) -> DatasetInfo:
    manifest = teacher.manifest
    return DatasetInfo(
        source_name=teacher.path.name,
        source_sha256=teacher.digest,
        source_width=manifest.source.width,
        source_height=manifest.source.height,
        fps=manifest.source.fps,
        frame_count=frame_count,
        train_count=int(frame_count * _TRAIN_SHARE),
        missing_face_count=0,
        image_size_px=config.image_size_px,
        rendering_size_px=config.rendering_size_px,
        canvas_factor=CANVAS_FACTOR,
        window=manifest.window,
        model_id=manifest.model_id,
        identity=manifest.identity,
        texture=manifest.texture,
        matting=f"the avatar's own masks, faces drawn with seed {seed}",
        landmarks=manifest.methods.landmarks,
        frame_cap=frame_count,
        model_digest=manifest.model_digest,
    )


def _draw(
    teacher: AvatarBundle,
    folder: Path,
    info: DatasetInfo,
    seed: int,
    backend: str,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool] | None,
) -> None:
    """Draws and writes the dataset."""
    statistics = ParameterStatistics.from_dict(teacher.manifest.statistics)
    rng = np.random.default_rng(seed)
    side, margin = info.image_size_px, (info.canvas_size_px - info.image_size_px) // 2
    canvas = CropBox(0.0, 0.0, info.canvas_factor)  # in the coordinates of the window
    face = ConditioningRenderer(info.face_model(), info.face_identity, info.rendering_canvas_px)
    (folder / DATASET_NAME).unlink(missing_ok=True)
    writer = DatasetWriter(folder, info.frame_count, info.canvas_size_px, info.rendering_canvas_px)
    parameters = []
    threads = torch.get_num_threads()
    with closing(AvatarRenderer(teacher.path, backend=backend, thread_count=threads)) as renderer:
        for position in range(info.frame_count):
            if should_stop is not None and should_stop():
                raise TrainingCanceled
            drawn = draw_parameters(statistics, rng)
            frame = renderer.render(drawn)
            conditioning = face.render(parameters_in_crop(drawn, canvas))
            writer.put(
                position,
                frame=_on_canvas(frame.image, side, margin),
                mask=(_on_canvas(frame.mask, side, margin) / 255).astype(np.float32),
                rendering=conditioning.texture_rendering,
                uv=conditioning.uv_rendering,
                face_mask=conditioning.face_mask,
            )
            parameters.append(parameters_in_crop(drawn, _source_frame(info.crop)))
            fraction = (position + 1) / info.frame_count
            report(Progress("rendering", fraction, f"picture {position + 1} of {info.frame_count}"))
    valid = _on_canvas(
        valid_mask(info.crop, info.source_width, info.source_height, side), side, margin
    )
    valid[:margin] = valid[margin + side :] = 0
    valid[:, :margin] = valid[:, margin + side :] = 0
    writer.finish(info, parameters, valid)


def _on_canvas(picture: np.ndarray, side: int, margin: int) -> np.ndarray:
    """Returns a window's picture at a side, its border repeated as far as the canvas goes."""
    resized = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(resized, *(margin,) * 4, cv2.BORDER_REPLICATE)


def _source_frame(window: CropBox) -> CropBox:
    """Returns the source's frame in the coordinates of a window in it."""
    size = window.half_size
    return CropBox(-window.center_x / size, -window.center_y / size, 1.0 / size)
