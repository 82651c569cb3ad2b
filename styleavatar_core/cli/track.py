# SPDX-License-Identifier: Apache-2.0
"""``styleavatar track``: face parameters of a video, as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from styleavatar_core.cli.face_model_option import FaceModelOption
from styleavatar_core.cli.progress import progress_bars, stop_on_interrupt
from styleavatar_core.errors import InvalidInputError

if TYPE_CHECKING:
    from styleavatar_core.face3d.model import FaceModel
    from styleavatar_core.tracking.video import TrackedVideo


def track(
    video: Annotated[Path, typer.Argument(help="Video of a face.")],
    output: Annotated[Path, typer.Argument(help="Where the parameters go: .npz or .json.")],
    overlay: Annotated[
        Path | None, typer.Option(help="Also write this mp4: the face model over the video.")
    ] = None,
    face_model: FaceModelOption = "",
) -> None:
    """Track the face of a video: pose, expression, gaze and identity (paper, Eq. 1-3)."""
    from styleavatar_core.face3d.library import choose_face_model
    from styleavatar_core.tracking.capture import FrameObserver, assess_capture
    from styleavatar_core.tracking.video import track_video

    if output.suffix not in (".npz", ".json"):
        raise InvalidInputError(f"{output.name} must end in .npz or .json")
    model = choose_face_model(face_model)
    observer = FrameObserver()
    with stop_on_interrupt() as should_stop, progress_bars() as on_progress:
        tracked = track_video(video, model, on_progress, should_stop, observer.see)
    arrays: dict[str, Any] = _arrays(tracked)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".npz":
        np.savez_compressed(output, **arrays)
    else:
        values = {name: array.tolist() for name, array in arrays.items()}
        output.write_text(json.dumps(values) + "\n")
    if overlay is not None:
        _write_overlay(video, overlay, tracked, model)
    found = len(arrays["frame_index"])
    typer.echo(f"{output}: a face in {found} of {len(tracked.parameters)} frames")
    typer.echo(assess_capture(video.name, tracked, observer).to_text())


def _arrays(tracked: TrackedVideo) -> dict[str, np.ndarray]:
    from styleavatar_core.data.parameter_arrays import stack_parameters

    found = [params for params in tracked.parameters if params is not None]
    size = np.array([tracked.width, tracked.height])
    return {
        **stack_parameters(found),
        "identity": tracked.identity.identity,
        "texture": tracked.identity.texture,
        "model_id": np.array(tracked.identity.model_id),
        "fps": np.array(tracked.fps),
        "frame_size_px": size,
    }


def _write_overlay(video: Path, overlay: Path, tracked: TrackedVideo, model: FaceModel) -> None:
    """Writes the frames with the texture rendering laid over the face."""
    from styleavatar_core.avatar.conditioning import ConditioningRenderer
    from styleavatar_core.data.crop import crop_image
    from styleavatar_core.data.video import read_frames
    from styleavatar_core.data.video_writer import VideoWriter
    from styleavatar_core.face3d.camera import parameters_in_crop
    from styleavatar_core.types import CropBox

    side = min(tracked.width, tracked.height) // 2 * 2
    square = CropBox(0.0, 0.0, side / tracked.height)
    renderer = ConditioningRenderer(model, tracked.identity, side)
    overlay.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(overlay, tracked.fps, side, side) as writer:
        for index, _, frame in read_frames(video):
            picture = crop_image(frame, square, side)
            params = tracked.parameters[index]
            if params is not None:
                drawn = renderer.render(parameters_in_crop(params, square))
                inside = drawn.face_mask > 0
                mixed = picture[inside] * 0.35 + drawn.texture_rendering[inside] * 0.65
                picture[inside] = mixed.astype(np.uint8)
            writer.write(picture)
