# SPDX-License-Identifier: Apache-2.0
"""From a video to a dataset on disk: track, choose the window, render, matte, crop (Sec. 3.1)."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.data.crop import crop_image, valid_mask
from styleavatar_core.data.dataset import AvatarDataset, DatasetWriter
from styleavatar_core.data.dataset_info import DatasetInfo, read_info
from styleavatar_core.data.matting import ForegroundMatting
from styleavatar_core.data.portrait import CANVAS_FACTOR, choose_window
from styleavatar_core.data.spread import spread_evenly
from styleavatar_core.data.video import MIN_FACE_FRAMES, probe_for_training, read_frames
from styleavatar_core.errors import FaceNotFoundError, TrainingCanceled
from styleavatar_core.face3d.camera import parameters_in_crop
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.networks.config import GeneratorConfig
from styleavatar_core.tracking.capture import CaptureReport, FrameObserver, assess_capture
from styleavatar_core.tracking.capture_files import write_capture_report
from styleavatar_core.tracking.silhouette import fit_silhouette
from styleavatar_core.tracking.video import TrackedVideo, track_video
from styleavatar_core.training.dataset.match import (
    choose_matting,
    choose_model,
    differences,
    require_no_training,
)
from styleavatar_core.types import CropBox, FaceParameters, FloatArray, Progress

logger = logging.getLogger(__name__)

OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]

DEFAULT_FRAME_CAP = 3000
CAPTURE_FOLDER = "capture"
_TRAIN_SHARE = 0.8  # Sec. 4.1
_OUTLINE_FRAME_COUNT = 16
_OUTLINE_SIZE_PX = 128


def prepare_dataset(
    video: Path,
    folder: Path,
    config: GeneratorConfig,
    *,
    face_model: str = "",
    frame_cap: int = DEFAULT_FRAME_CAP,
    matting_weights: Path | None = None,
    checkpoint: Path | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> AvatarDataset:
    """Prepares a video for training; a finished dataset of the same video and settings is reused.

    Args:
        video: The clip.
        folder: Where the dataset goes.
        config: The preset: sizes of pictures and renderings.
        face_model: Id of the face model to track with; the built-in one if empty.
        frame_cap: Most frames to keep; longer clips are thinned evenly.
        matting_weights: TorchScript file of Robust Video Matting, if there is one.
        checkpoint: Of the training on this dataset; while it is there, no other dataset replaces
            this one.
        on_progress: Told how far it is.
        should_stop: Asked between frames.

    Raises:
        InvalidInputError: The video cannot be used.
        AssetError: There is no such face model.
        ConflictError: The training is on a dataset of something else.
        TrainingCanceled: ``should_stop`` said so.
    """
    digest = _sha256(video)
    known = read_info(folder)
    model = choose_model(face_model, known, checkpoint)
    if known is not None:
        matting_name = choose_matting(matting_weights, known, checkpoint)
        wanted = _wanted(digest, config, model, frame_cap, matting_name)
        if not known.model_digest:  # of an older version, which did not write it down
            del wanted["model_digest"]
        different = differences(known, wanted)
        if not different:
            logger.info("dataset reused", extra={"folder": str(folder)})
            return AvatarDataset(folder)
        require_no_training(checkpoint, known, different)
    (folder / "dataset.json").unlink(missing_ok=True)
    probe_for_training(video)
    report = on_progress or (lambda _: None)
    observer = FrameObserver()
    tracked = track_video(video, model, report, should_stop, observer.see)
    chosen = _choose_frames(tracked, frame_cap)
    _report_capture(assess_capture(video.name, tracked, observer), folder, report)
    found = (tracked.parameters[index] for index in chosen)
    parameters = [params for params in found if params is not None]  # as chosen, all have one
    train = chosen[: int(len(chosen) * _TRAIN_SHARE)]
    window = _choose_window(tracked, train)
    identity = _fit_head(video, model, tracked, train, window, matting_weights, should_stop)
    matting = ForegroundMatting(matting_weights)
    info = DatasetInfo(
        source_name=video.name,
        source_sha256=digest,
        source_width=tracked.width,
        source_height=tracked.height,
        fps=tracked.fps,
        frame_count=len(chosen),
        train_count=len(train),
        missing_face_count=sum(p is None for p in tracked.parameters),
        image_size_px=config.image_size_px,
        rendering_size_px=config.rendering_size_px,
        canvas_factor=CANVAS_FACTOR,
        window=(window.center_x, window.center_y, window.half_size),
        model_id=model.model_id,
        model_digest=model.digest,
        identity=[float(x) for x in identity],
        texture=[float(x) for x in tracked.identity.texture],
        matting=matting.name,
        landmarks="mediapipe-face-mesh-four-looks",
        frame_cap=frame_cap,
    )
    try:
        _render_frames(video, folder, info, chosen, parameters, matting, report, should_stop)
    finally:
        matting.close()
    return AvatarDataset(folder)


def _report_capture(capture: CaptureReport, folder: Path, report: OnProgress) -> None:
    """Says before the training what the clip lacks; it stops nothing."""
    try:
        shutil.rmtree(folder / CAPTURE_FOLDER, ignore_errors=True)  # of another clip
        write_capture_report(capture, folder / CAPTURE_FOLDER)
    except OSError as error:  # on a full disk the dataset says what to do
        logger.warning("the capture report cannot be written", extra={"reason": str(error)})
    if not capture.findings:
        message = "the clip shows all that an avatar needs"
    else:
        worst, *others = capture.findings
        more = f" ({len(others)} more in the capture report)" if others else ""
        message = f"{worst.seen} {worst.advice}{more}"
    report(Progress("tracking", 1.0, message))


def _choose_window(tracked: TrackedVideo, train: list[int]) -> CropBox:
    """Chooses the window by the training frames; what is held out must not say where it is."""
    return choose_window(tracked.landmarks[train], tracked.width, tracked.height)


def _fit_head(
    video: Path,
    model: FaceModel,
    tracked: TrackedVideo,
    train: list[int],
    window: CropBox,
    matting_weights: Path | None,
    should_stop: ShouldStop | None,
) -> FloatArray:
    """Returns the identity with hair and neck fitted to the outline in frames of all headings."""
    known = {index: params for index in train if (params := tracked.parameters[index]) is not None}
    by_yaw = sorted(known, key=lambda index: float(known[index].rotation[2]))
    picked = set(spread_evenly(by_yaw, _OUTLINE_FRAME_COUNT))
    masks, parameters = [], []
    matting = ForegroundMatting(matting_weights)
    try:
        for index, time_s, frame in read_frames(video):
            if should_stop is not None and should_stop():
                raise TrainingCanceled
            if index in picked:
                mask = crop_image(matting.matte(frame, time_s), window, _OUTLINE_SIZE_PX)
                masks.append(np.rint(mask * 255).astype(np.uint8))
                parameters.append(parameters_in_crop(known[index], window))
            if len(masks) == len(picked):
                break
    finally:
        matting.close()
    return fit_silhouette(model, tracked.identity.identity, parameters, masks)


def _render_frames(
    video: Path,
    folder: Path,
    info: DatasetInfo,
    chosen: list[int],
    parameters: list[FaceParameters],
    matting: ForegroundMatting,
    report: OnProgress,
    should_stop: ShouldStop | None,
) -> None:
    """Second pass over the video: crops, mattes and renderings of the chosen frames."""
    canvas = info.crop.enlarged(info.canvas_factor)
    side = info.rendering_canvas_px
    renderer = ConditioningRenderer(info.face_model(), info.face_identity, side)
    writer = DatasetWriter(folder, len(chosen), info.canvas_size_px, side)
    positions = {frame_index: position for position, frame_index in enumerate(chosen)}
    for index, time_s, frame in read_frames(video):
        if should_stop is not None and should_stop():
            raise TrainingCanceled
        position = positions.get(index)
        if position is None:
            continue
        conditioning = renderer.render(parameters_in_crop(parameters[position], canvas))
        writer.put(
            position,
            frame=crop_image(frame, canvas, info.canvas_size_px),
            mask=crop_image(matting.matte(frame, time_s), canvas, info.canvas_size_px),
            rendering=conditioning.texture_rendering,
            uv=conditioning.uv_rendering,
            face_mask=conditioning.face_mask,
        )
        if position % 10 == 0:
            fraction = (position + 1) / len(chosen)
            report(Progress("rendering", fraction, f"frame {position + 1} of {len(chosen)}"))
    valid = valid_mask(canvas, info.source_width, info.source_height, info.canvas_size_px)
    writer.finish(info, parameters, valid)
    report(Progress("rendering", 1.0, f"{len(chosen)} frames ready"))


def _choose_frames(tracked: TrackedVideo, frame_cap: int) -> list[int]:
    """Returns the frames with a face, thinned evenly to the cap."""
    found = [index for index, params in enumerate(tracked.parameters) if params is not None]
    if len(found) < MIN_FACE_FRAMES:
        raise FaceNotFoundError(
            f"a face was found in {len(found)} of {len(tracked.parameters)} frames; at least "
            f"{MIN_FACE_FRAMES} are needed. Use a video of one well-lit face looking at the camera"
        )
    return spread_evenly(found, frame_cap)


def _wanted(
    digest: str, config: GeneratorConfig, model: FaceModel, frame_cap: int, matting: str
) -> dict[str, object]:
    """Returns what a dataset must have been made with to be used again."""
    return {
        "source_sha256": digest,
        "image_size_px": config.image_size_px,
        "rendering_size_px": config.rendering_size_px,
        "frame_cap": frame_cap,
        "model_id": model.model_id,
        "model_digest": model.digest,
        "matting": matting,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
