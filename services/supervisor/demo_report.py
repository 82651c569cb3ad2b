# SPDX-License-Identifier: Apache-2.0
"""What the demo leaves behind: a video, a picture of the training curve, and a short report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from styleavatar_core.data.picture import SYNTHETIC_NOTE, encode_jpeg, fitted
from styleavatar_core.data.video_writer import VideoWriter
from styleavatar_core.types import ByteArray

PANEL_PX = 384
SHEET_COLUMNS = 6
_LABEL_BAR_PX, _BAR_GRAY = 28, 24
_AVATAR_LABEL = "avatar - synthetic, made by StyleAvatar"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One progress event of the training stage.

    Attributes:
        minutes: Time since the training began.
        losses: Weighted loss terms by name.
        psnr_db: PSNR of the watched frames, when it was measured at this point.
    """

    minutes: float
    losses: dict[str, float]
    psnr_db: float | None


def side_by_side(driver: ByteArray, avatar: ByteArray) -> ByteArray:
    """Puts driver and avatar beside each other and says which one is synthetic.

    Args:
        driver: (H, W, 3) uint8 RGB, any size; shown whole.
        avatar: (S, S, 3) uint8 RGB.

    Returns:
        (PANEL_PX + bar, 2 * PANEL_PX, 3) uint8 RGB.
    """
    panel = np.full((PANEL_PX + _LABEL_BAR_PX, 2 * PANEL_PX, 3), _BAR_GRAY, np.uint8)
    for index, (picture, label) in enumerate(((driver, "driver"), (avatar, _AVATAR_LABEL))):
        left = index * PANEL_PX
        panel[:PANEL_PX, left : left + PANEL_PX] = fitted(picture, PANEL_PX, PANEL_PX)
        _write_label(panel, label, left, PANEL_PX)
    return panel


def _write_label(picture: ByteArray, text: str, left: int, top: int) -> None:
    """Writes into the bar whose corner is there."""
    place, font = (left + 10, top + 19), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(picture, text, place, font, 0.45, (235, 235, 235), 1, cv2.LINE_AA)


class ContactSheet:
    """Keeps a few pairs of driver and avatar, to be seen at a glance."""

    def __init__(self, frame_count: int) -> None:
        self._step = max(1, frame_count // SHEET_COLUMNS)
        self._seen = 0
        self._columns: list[ByteArray] = []

    def add(self, driver: ByteArray, avatar: ByteArray) -> None:
        """Takes a pair now and then, spread evenly over the clip."""
        if self._seen % self._step == self._step // 2 and len(self._columns) < SHEET_COLUMNS:
            panel = side_by_side(driver, avatar)[:PANEL_PX]  # the sheet has one label for all
            upper, lower = panel[:, :PANEL_PX], panel[:, PANEL_PX:]
            column = np.concatenate([upper, lower])
            half = (PANEL_PX // 2, PANEL_PX)
            small = cv2.resize(column, half, interpolation=cv2.INTER_AREA)
            self._columns.append(np.asarray(small, np.uint8))
        self._seen += 1

    def write(self, path: Path) -> None:
        """Writes the drivers above the avatars, and which is which, as one JPEG."""
        if self._columns:
            rows = np.concatenate(self._columns, axis=1)
            bar = np.full((_LABEL_BAR_PX, rows.shape[1], 3), _BAR_GRAY, np.uint8)
            _write_label(bar, f"above: driver; below: {_AVATAR_LABEL}", 0, 0)
            path.write_bytes(encode_jpeg(np.concatenate([rows, bar])))


def write_demo_video(
    path: Path, pairs: Iterable[tuple[ByteArray, ByteArray]], fps: float, sheet: ContactSheet
) -> int:
    """Writes driver and avatar beside each other; returns the number of frames."""
    count = 0
    size = (2 * PANEL_PX, PANEL_PX + _LABEL_BAR_PX)
    with VideoWriter(path, fps, *size, note=SYNTHETIC_NOTE) as writer:
        for driver, avatar in pairs:
            writer.write(side_by_side(driver, avatar))
            sheet.add(driver, avatar)
            count += 1
    return count


def plot_training_curve(points: list[CurvePoint], path: Path) -> None:
    """Draws the loss terms and the watched frames' PSNR over time."""
    # matplotlib takes a second to import and only the demo draws.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name in sorted({name for point in points for name in point.losses}):
        known = [(p.minutes, p.losses[name]) for p in points if p.losses.get(name, 0.0) > 0.0]
        if known:
            axes.plot(*zip(*known, strict=True), ".-", label=name, linewidth=1.2, markersize=3)
    axes.set_xlabel("training time, minutes")
    axes.set_ylabel("weighted loss")
    if axes.lines:
        axes.set_yscale("log")
    # Events repeat the last measurement: only a new one is a point.
    pairs = zip([None, *[p.psnr_db for p in points]], points, strict=False)
    measured = [(p.minutes, p.psnr_db) for before, p in pairs if p.psnr_db not in (None, before)]
    if measured:
        right = axes.twinx()
        right.plot(*zip(*measured, strict=True), "k.-", label="watched frames")
        right.set_ylabel("PSNR, dB")
    if figure.axes[-1].lines:
        figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    axes.set_title("Training of this avatar")
    figure.savefig(path, dpi=110)


def write_markdown(report: dict[str, Any], path: Path, *, source: str, notes: list[str]) -> None:
    """Writes the report for people.

    Args:
        report: As built by ``styleavatar_core.evaluation.figures.build_report``.
        path: The Markdown file.
        source: What the avatar was made from, one sentence.
        notes: Further sentences, one per line: what was used, where things lie.
    """
    figures, machine = report["figures"], report["machine"]
    lines = [
        "# StyleAvatar demo",
        "",
        f"Made from: {source}.",
        "",
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"GPU: {machine['gpu'] or 'none'}. {report['date']}, commit {report['commit']}.",
        "",
        "| figure | value |",
        "|---|---:|",
        *[f"| {_FIGURE_NAMES.get(name, name)} | {value:.2f} |" for name, value in figures.items()],
        "",
        "![training curve](training_curve.png)",
        "",
        *[f"- {note}" for note in notes],
        "",
    ]
    path.write_text("\n".join(lines))


_FIGURE_NAMES = {
    "psnr_db": "PSNR on the held-out fifth, dB",
    "ssim": "SSIM on the held-out fifth",
    "nearest_sample_psnr_db": "PSNR of the nearest training frame, dB",
    "train_minutes": "training, minutes",
    "frames_per_second": "frames per second through gRPC (every frame)",
    "latency_ms_p50": "latency through gRPC, live, median, ms",
    "latency_ms_p95": "latency through gRPC, live, 95th percentile, ms",
    "latency_ms_p99": "latency through gRPC, live, 99th percentile, ms",
    "total_minutes": "whole demo, minutes",
}
