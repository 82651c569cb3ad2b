# SPDX-License-Identifier: Apache-2.0
"""Line charts as SVG text: they stand inside a page, need no library and stay sharp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 34
_MOST_TICKS = 6


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        label: Its name in the legend.
        x: Places from left to right.
        y: Values; the line is broken where one is not finite.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(lines: Sequence[Line], *, x_label: str, y_label: str) -> str:
    """Draws lines over common axes.

    Args:
        lines: The lines; classes ``line-0``, ``line-1`` ... colour them by the page's style.
        x_label: What the horizontal axis shows.
        y_label: What the vertical axis shows.

    Returns:
        An ``<svg>`` element, or an empty text when there is nothing to draw.
    """
    points = [
        (x, y) for line in lines for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)
    ]
    if len(points) < 2:
        return ""
    across = _Axis([x for x, _ in points], _LEFT, WIDTH - _RIGHT, snaps=False)
    up = _Axis([y for _, y in points], HEIGHT - _BOTTOM, _TOP, snaps=True)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(y_label)} over {escape(x_label)}">'
    ]
    for value in up.ticks():
        y = up.place(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick end" x="{_LEFT - 6}" y="{y + 4}">{value:g}</text>')
    for value in across.ticks():
        x = across.place(value)
        parts.append(f'<text class="tick mid" x="{x}" y="{HEIGHT - _BOTTOM + 16}">{value:g}</text>')
    parts.append(
        f'<text class="mid" x="{(WIDTH + _LEFT) / 2}" y="{HEIGHT - 3}">{escape(x_label)}</text>'
    )
    for index, line in reversed(list(enumerate(lines))):  # the first line lies on top
        path = _path(line, across, up)
        parts.append(f'<path class="line line-{index}" d="{path}"/>')
    parts.append("</svg>")
    return "".join(parts)


class _Axis:
    """Maps values to pixels, with round ticks.

    Args:
        values: What must fit.
        start: Pixel of the smallest.
        end: Pixel of the largest.
        snaps: Whether the axis grows to whole ticks.
    """

    def __init__(self, values: Sequence[float], start: float, end: float, *, snaps: bool) -> None:
        low, high = min(values), max(values)
        if high - low < 1e-9:
            low, high = low - 0.5, high + 0.5
        rough = (high - low) / _MOST_TICKS
        magnitude = 10.0 ** math.floor(math.log10(rough))
        self._step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough)
        if snaps:
            low = math.floor(low / self._step) * self._step
            high = math.ceil(high / self._step) * self._step
        self._low, self._high, self._start, self._end = low, high, start, end

    def place(self, value: float) -> float:
        """Returns the pixel of a value."""
        share = (value - self._low) / (self._high - self._low)
        return round(self._start + share * (self._end - self._start), 1)

    def ticks(self) -> list[float]:
        """Returns round values within the axis."""
        first = math.ceil(self._low / self._step - 1e-9)
        last = math.floor(self._high / self._step + 1e-9)
        return [round(index * self._step, 9) for index in range(first, last + 1)]


def _path(line: Line, across: _Axis, up: _Axis) -> str:
    """Returns the path of a line, lifted where a value is missing."""
    commands: list[str] = []
    is_down = False
    for x, y in zip(line.x, line.y, strict=True):
        if math.isfinite(y):
            commands.append(f"{'L' if is_down else 'M'}{across.place(x)} {up.place(y)}")
        is_down = math.isfinite(y)
    return "".join(commands)
