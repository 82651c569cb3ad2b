# SPDX-License-Identifier: Apache-2.0
"""One picture of a capture report: where the head and the eyes have been, and when."""

from __future__ import annotations

import cv2
import numpy as np

from styleavatar_core.tracking.capture import CaptureReport
from styleavatar_core.types import ByteArray, FloatArray

_WIDTH, _HEIGHT, _MARGIN = 1200, 760, 24
_INK, _FAINT, _POINT, _WARN = (30, 34, 40), (205, 210, 216), (38, 110, 180), (190, 60, 40)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# What an avatar should have seen, as half sizes of the dashed boxes, degrees.
_HEAD_TARGET, _GAZE_TARGET = (15.0, 8.0), (8.0, 5.0)
_ROWS = (
    ("mouth opening", "mouth"),
    ("lid opening", "lids"),
    ("brightness", "brightness"),
    ("sharpness", "sharpness"),
)


def draw_capture_report(report: CaptureReport) -> ByteArray:
    """Draws coverage maps of head and gaze and the course of mouth, lids, light and sharpness.

    Returns:
        (760, 1200, 3) uint8 RGB.
    """
    canvas = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    _write(canvas, report.name, (_MARGIN, 34), 0.7)
    series, side = report.series, 270
    for column, (title, x, y, target) in enumerate(
        (
            ("head: yaw, pitch", -series["yaw_deg"], series["pitch_deg"], _HEAD_TARGET),
            ("gaze: yaw, pitch", series["gaze_yaw_deg"], series["gaze_pitch_deg"], _GAZE_TARGET),
        )
    ):
        corner = (_MARGIN + column * (side + 40), 78)
        _map(canvas, corner, side, title, x - np.nanmedian(x), y - np.nanmedian(y), target)
    for row, (title, name) in enumerate(_ROWS):
        _course(canvas, 420 + row * 82, title, series["time_s"], series[name])
    left = _MARGIN + 2 * (side + 40) + 10
    _write(canvas, "film again" if report.findings else "nothing is missing", (left, 72), 0.6)
    lines = [line for finding in report.findings for line in _wrapped("- " + finding.advice)]
    for index, line in enumerate(lines[:14]):
        _write(canvas, line, (left, 98 + 21 * index), 0.47, _WARN)
    return canvas


def _map(
    canvas: ByteArray,
    corner: tuple[int, int],
    side: int,
    title: str,
    x: FloatArray,
    y: FloatArray,
    target: tuple[float, float],
) -> None:
    reach = 3.0 * max(target)
    left, top = corner
    middle = np.array([left + side / 2, top + side / 2])
    scale = side / 2 / reach
    cv2.rectangle(canvas, corner, (left + side, top + side), _FAINT, 1)
    low, high = (middle + s * scale * np.array(target) for s in (-1, 1))
    cv2.rectangle(canvas, _pixel(low), _pixel(high), _INK, 1, cv2.LINE_AA)
    for point in np.stack([x, y], axis=1)[np.isfinite(x)]:
        place = np.clip(middle + scale * point, corner, np.array(corner) + side)
        cv2.circle(canvas, _pixel(place), 2, _POINT, -1, cv2.LINE_AA)
    _write(canvas, title, (left, top - 8), 0.5)
    _write(canvas, f"box: {target[0]:g} x {target[1]:g} deg", (left, top + side + 18), 0.42)


def _course(canvas: ByteArray, top: int, title: str, times: FloatArray, values: FloatArray) -> None:
    left, right, height = _MARGIN + 130, _WIDTH - _MARGIN, 66
    cv2.rectangle(canvas, (left, top), (right, top + height), _FAINT, 1)
    _write(canvas, title, (_MARGIN, top + 38), 0.48)
    columns = left + (right - left) * times / max(times[-1], 1e-9)
    for column in columns[~np.isfinite(values)]:
        cv2.line(canvas, _pixel((column, top)), _pixel((column, top + height)), _WARN, 1)
    reach = max(float(np.nanmax(values)), 1e-9)
    rows = top + height - height * np.nan_to_num(values) / reach
    seen = np.isfinite(values)
    for index in np.flatnonzero(seen[1:] & seen[:-1]):
        ends = [_pixel((columns[k], rows[k])) for k in (index, index + 1)]
        cv2.line(canvas, ends[0], ends[1], _POINT, 1, cv2.LINE_AA)
    _write(canvas, f"{reach:.3g}", (left - 44, top + 12), 0.38)


def _pixel(point: FloatArray | tuple[float, float]) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _write(
    canvas: ByteArray,
    text: str,
    place: tuple[int, int],
    size: float,
    color: tuple[int, int, int] = _INK,
) -> None:
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(canvas, plain, place, _FONT, size, color, 1, cv2.LINE_AA)


def _wrapped(text: str, width: int = 62) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) >= width:
            lines.append(line)
            line = "  "
        line = f"{line} {word}" if line.strip() else line + word
    return [*lines, line]
