# SPDX-License-Identifier: Apache-2.0
"""Measures finished avatars through their engine, as users see them."""

from __future__ import annotations

from pathlib import Path

from styleavatar_core.avatar.reenactment import Retargeter
from styleavatar_core.avatar.statistics import ParameterStatistics
from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.data.picture import contact_sheet, encode_jpeg
from styleavatar_core.data.video import read_frames
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.errors import ConflictError, FaceNotFoundError
from styleavatar_core.evaluation.control import control_fidelity
from styleavatar_core.evaluation.evaluate import evaluate_held_out
from styleavatar_core.face3d.camera import parameters_in_crop
from styleavatar_core.tracking.tracker import Tracker
from styleavatar_core.types import ByteArray, FaceParameters

_SHEET_ROWS = 6
_SHEET_CELL_PX = 192


def measure_avatar(
    bundle: Path,
    dataset_folder: Path,
    *,
    backend: str = "auto",
    frame_limit: int | None = None,
    sheet_path: Path | None = None,
) -> dict[str, float]:
    """Renders held-out frames with an avatar's engine and compares them with the truth.

    Args:
        bundle: The avatar.
        dataset_folder: The dataset that it was trained on.
        backend: Engine backend.
        frame_limit: Most frames to look at.
        sheet_path: Where a contact sheet goes.

    Returns:
        What :func:`styleavatar_core.evaluation.evaluate.evaluate_held_out` returns.

    Raises:
        ConflictError: The dataset is of another video.
    """
    dataset = AvatarDataset(dataset_folder)
    renderer = AvatarRenderer(bundle, backend=backend)
    try:
        if renderer.manifest.source.sha256 != dataset.info.source_sha256:
            raise ConflictError(f"{bundle} was not trained on the video of {dataset_folder}")

        def render(index: int) -> tuple[ByteArray, ByteArray]:
            local = parameters_in_crop(dataset.parameters[index], dataset.info.crop)
            frame = renderer.render(local)
            return frame.image, frame.mask

        return evaluate_held_out(dataset, render, frame_limit=frame_limit, sheet_path=sheet_path)
    finally:
        renderer.close()


def measure_control(
    bundle: Path,
    driver: Path,
    *,
    backend: str = "auto",
    frame_limit: int | None = None,
    sheet_path: Path | None = None,
) -> dict[str, float]:
    """Drives an avatar with somebody else's video and tracks what comes out.

    Args:
        bundle: The avatar.
        driver: The driver's video.
        backend: Engine backend.
        frame_limit: Look at the first so many frames only.
        sheet_path: Where pictures of driver and output go, side by side.

    Returns:
        Pearson correlations, see :func:`styleavatar_core.evaluation.control.control_fidelity`.

    Raises:
        FaceNotFoundError: Driver or output shows no face.
    """
    renderer = AvatarRenderer(bundle, backend=backend)
    statistics = ParameterStatistics.from_dict(renderer.manifest.statistics)
    retargeter = Retargeter(statistics, "other_person")
    driver_tracker, output_tracker = Tracker(filtered=False), Tracker(filtered=False)
    wanted: list[FaceParameters] = []
    got: list[FaceParameters] = []
    pictures: list[tuple[ByteArray, ByteArray]] = []
    try:
        for index, time_s, frame in read_frames(driver):
            if frame_limit is not None and index >= frame_limit:
                break
            params = driver_tracker.track(frame, time_s, index)
            if params is None:
                continue
            image = renderer.render(retargeter.retarget(params).parameters).image
            result = output_tracker.track(image, time_s, index)
            if result is not None:
                wanted.append(params)
                got.append(result)
            if index % 15 == 0:
                pictures.append((frame, image))
    finally:
        renderer.close()
        driver_tracker.close()
        output_tracker.close()
    if len(got) < 2:
        raise FaceNotFoundError(f"too few faces were found in {driver.name} or the avatar's output")
    if sheet_path is not None:
        step = max(len(pictures) // _SHEET_ROWS, 1)
        rows = pictures[::step][:_SHEET_ROWS]
        sheet_path.write_bytes(encode_jpeg(contact_sheet(rows, _SHEET_CELL_PX)))
    return control_fidelity(wanted, got)
