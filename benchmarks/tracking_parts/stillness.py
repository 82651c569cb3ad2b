# SPDX-License-Identifier: Apache-2.0
"""What the filter of live tracking takes away, and what it costs in delay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import minimum_filter1d, uniform_filter1d

from styleavatar_core.face3d.camera import rotation_vector_from_quaternion
from styleavatar_core.tracking.filtering import ParameterFilter
from styleavatar_core.tracking.video import TrackedVideo
from styleavatar_core.types import FloatArray

_SLOW_FRAMES = 15  # what moves more slowly than this is motion, the rest is jitter
_STILL_DEG_PER_FRAME = 0.08
_DELAYS_FRAMES = np.arange(0.0, 6.0, 0.05)


def filter_figures(videos: Sequence[TrackedVideo]) -> dict[str, float | None]:
    """Jitter of still heads with and without the filter, and the filter's delay in motion."""
    raw_squares: list[FloatArray] = []
    filtered_squares: list[FloatArray] = []
    delays: list[float] = []
    for video in videos:
        found = [params for params in video.parameters if params is not None]
        live = ParameterFilter()
        raw, filtered = (
            np.degrees([rotation_vector_from_quaternion(p.rotation) for p in series])
            for series in (found, [live.apply(p) for p in found])
        )
        if len(raw) < 3 * _SLOW_FRAMES:
            continue
        slow = uniform_filter1d(raw, _SLOW_FRAMES, axis=0)
        is_slow = np.abs(np.gradient(slow, axis=0)).max(axis=1) < _STILL_DEG_PER_FRAME
        # The turning point of a nod is slow too; stillness lasts.
        still = minimum_filter1d(is_slow.astype(np.uint8), 2 * _SLOW_FRAMES + 1) > 0
        for series, squares in ((raw, raw_squares), (filtered, filtered_squares)):
            fast = series - uniform_filter1d(series, _SLOW_FRAMES, axis=0)
            squares.append((fast[still] ** 2).ravel())
        if not still.all():
            delays.append(_delay_frames(raw, filtered, ~still))
    still_count = sum(map(len, raw_squares))
    return {
        "still.jitter_deg_raw": _root_mean(raw_squares) if still_count else None,
        "still.jitter_deg_filtered": _root_mean(filtered_squares) if still_count else None,
        "filter.delay_frames": float(np.median(delays)) if delays else None,
    }


def _delay_frames(raw: FloatArray, filtered: FloatArray, moving: FloatArray) -> float:
    """By how many frames the raw course must be moved to lie best on the filtered one."""
    times = np.arange(len(raw), dtype=float)
    errors = []
    for delay in _DELAYS_FRAMES:
        moved = [np.interp(times - delay, times, raw[:, axis]) for axis in range(raw.shape[1])]
        errors.append(((np.stack(moved, axis=1) - filtered)[moving] ** 2).sum())
    return float(_DELAYS_FRAMES[int(np.argmin(errors))])


def _root_mean(squares: list[FloatArray]) -> float:
    return float(np.sqrt(np.concatenate(squares).mean()))
