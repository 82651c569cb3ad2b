# SPDX-License-Identifier: Apache-2.0
"""From a convolution's taps to the kernels of tiles, compiled as ``tile_kernels.py`` is."""

# Compiled from block_code.py linear_code.py tile_forms.py vector_code.py: e53a3083

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from styleavatar_core.engine.cpu.block_code import BLOCK_COLUMNS
from styleavatar_core.engine.cpu.linear_code import linear_maps
from styleavatar_core.engine.cpu.tile_forms import FORMS, TileForm
from styleavatar_core.engine.cpu.vector_code import LANES

_RUN = 4  # inputs whose kernels are written at a time, in one piece

_to_classes = linear_maps([form.kernel for form in FORMS])


def _tap_transform(kind: int, form: TileForm) -> Callable[..., None]:
    """Returns what transforms the taps of one form."""
    classes, width = len(form.kernel), BLOCK_COLUMNS

    @njit(cache=True, nogil=True)
    def transform_taps(taps, first, most, kernels):  # noqa: ANN001, ANN202
        """Transforms taps along both axes and puts them where the product reads them.

        Args:
            taps: (O, I, 9); I a multiple of four, O of W, which is BLOCK_COLUMNS.
            first: First panel of W outputs.
            most: Panels.
            kernels: (classes * classes * O / W, I, W), written.
        """
        inputs, panels = taps.shape[1], len(taps) // width
        by_tap = np.empty(9 * width, np.float32)
        lines = np.empty(3 * classes * LANES, np.float32)
        staged = np.empty(classes * classes * _RUN * width, np.float32)
        flat, run_size = kernels.reshape(-1), np.uint64(_RUN * width)
        for panel in range(first, first + most):
            for start in range(0, inputs, _RUN):
                for run in range(_RUN):
                    for output in range(width):
                        values = taps[panel * width + output, start + run]
                        for tap in range(9):
                            by_tap[tap * width + output] = values[tap]
                    for half in range(0, width, LANES):
                        for x in range(3):
                            at, to = x * width + half, x * LANES
                            _to_classes(kind, by_tap, at, 3 * width, lines, to, 3 * LANES, 0)
                        for row in range(classes):
                            to = (row * classes * _RUN + run) * width + half
                            at = 3 * row * LANES
                            _to_classes(kind, lines, at, LANES, staged, to, _RUN * width, 0)
                for index in range(classes * classes):
                    source = np.uint64(index) * run_size  # unsigned: the loop is vectorized then
                    target = np.uint64(((index * panels + panel) * inputs + start) * width)
                    for k in range(run_size):
                        flat[target + k] = staged[source + k]

    return transform_taps


TAP_TRANSFORMS = {form: _tap_transform(kind, form) for kind, form in enumerate(FORMS)}
