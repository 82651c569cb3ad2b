# SPDX-License-Identifier: Apache-2.0
"""Line charts for the report, as SVG pictures that stay sharp."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

_WIDTH_IN, _HEIGHT_IN = 5.6, 2.3


def line_chart(
    places: Sequence[float], lines: Mapping[str, npt.ArrayLike], *, x_label: str
) -> bytes:
    """Draws lines over common axes.

    Args:
        places: Places from left to right.
        lines: Values at them by the line's name; a line is broken where one is not finite.
        x_label: What the horizontal axis shows.

    Returns:
        An SVG file; nothing where there is nothing to draw.
    """
    if sum(np.isfinite(values).sum() for values in lines.values()) < 2:
        return b""
    figure = Figure((_WIDTH_IN, _HEIGHT_IN), layout="constrained")
    axes = figure.subplots()
    for order, (name, values) in enumerate(lines.items()):
        axes.plot(places, values, label=name, zorder=3 - order / len(lines))  # the first on top
    axes.set_xlabel(x_label)
    axes.margins(x=0)
    axes.grid(axis="y", alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="svg", transparent=True)
    return picture.getvalue()
