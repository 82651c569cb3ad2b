# SPDX-License-Identifier: Apache-2.0
"""One picture of a capture report: where the head and the eyes have been, and when."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from styleavatar_core.tracking.capture import CaptureReport
from styleavatar_core.types import ByteArray, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

_WIDTH_PX, _HEIGHT_PX, _DPI = 1200, 760, 100
_POINT, _WARN, _FAINT = "#266eb4", "#be3c28", "#cdd2d8"
# What an avatar should have seen, as half sides of the boxes, degrees.
_HEAD_TARGET, _GAZE_TARGET = (15.0, 8.0), (8.0, 5.0)
_REACH_DEG = 45.0  # of the maps' axes, to either side
_ROWS = (
    ("mouth opening,\neye distances", "mouth"),
    ("lid opening,\neye distances", "lids"),
    ("brightness,\n0 to 255", "brightness"),
    ("sharpness", "sharpness"),
)


def draw_capture_report(report: CaptureReport) -> ByteArray:
    """Draws coverage maps of head and gaze and the course of mouth, lids, light and sharpness.

    Returns:
        (760, 1200, 3) uint8 RGB.
    """
    # Half a second to import, for a picture that few processes draw.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((_WIDTH_PX / _DPI, _HEIGHT_PX / _DPI), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(report.name, x=0.01, horizontalalignment="left", parse_math=False)
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.15))[:, 0]
    _draw_coverage(top, report)
    _draw_courses(bottom, report.series)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_coverage(figure: SubFigure, report: CaptureReport) -> None:
    head, gaze, advice = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    series = report.series
    _draw_map(head, "head", -series["yaw_deg"], series["pitch_deg"], _HEAD_TARGET)
    _draw_map(gaze, "gaze", series["gaze_yaw_deg"], series["gaze_pitch_deg"], _GAZE_TARGET)
    advice.axis("off")
    advice.set_title("Film again" if report.findings else "Nothing is missing", loc="left")
    lines = [
        textwrap.fill(finding.advice, 54, initial_indent="- ", subsequent_indent="  ")
        for finding in report.findings
    ]
    advice.text(0, 1, "\n".join(lines), color=_WARN, fontsize=9, verticalalignment="top")


def _draw_map(
    axes: Axes, title: str, x: FloatArray, y: FloatArray, target: tuple[float, float]
) -> None:
    """Draws where something pointed, about its usual direction; image left is left."""
    wide, high = target
    axes.plot(x - np.nanmedian(x), y - np.nanmedian(y), ".", color=_POINT, markersize=3)
    box = [(-wide, -high), (wide, -high), (wide, high), (-wide, high), (-wide, -high)]
    axes.plot(*zip(*box, strict=True), color="black", linewidth=1)
    axes.set_title(f"{title} (should fill ±{wide:g}° by ±{high:g}°)", loc="left", fontsize=9)
    axes.set(xlim=(-_REACH_DEG, _REACH_DEG), ylim=(_REACH_DEG, -_REACH_DEG), aspect="equal")
    axes.set_xlabel("to image left and right, degrees", fontsize=8)
    axes.set_ylabel("up and down, degrees", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color=_FAINT, linewidth=0.5)


def _draw_courses(figure: SubFigure, series: dict[str, FloatArray]) -> None:
    """Draws values over time; frames without a face are marked."""
    times = series["time_s"]
    rows = figure.subplots(len(_ROWS), 1, sharex=True)
    for axes, (title, name) in zip(rows, _ROWS, strict=True):
        values = series[name]
        for time in times[~np.isfinite(values)]:
            axes.axvline(time, color=_WARN, linewidth=0.5)
        axes.plot(times, values, color=_POINT, linewidth=1)
        axes.set_ylabel(title, rotation=0, horizontalalignment="right", fontsize=8)
        axes.set_ylim(0, None)
        axes.margins(x=0)
        axes.tick_params(labelsize=8)
    rows[-1].set_xlabel("seconds (red: no face)", fontsize=8)
