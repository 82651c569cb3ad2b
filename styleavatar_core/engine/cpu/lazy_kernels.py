# SPDX-License-Identifier: Apache-2.0
"""Kernels of tiles, transformed from a convolution's taps when they are first needed."""

from __future__ import annotations

import torch

from styleavatar_core.engine.cpu.block_code import BLOCK_COLUMNS
from styleavatar_core.engine.cpu.kernel_transforms import TAP_TRANSFORMS
from styleavatar_core.engine.cpu.strips import plan_strips, share_strips
from styleavatar_core.engine.cpu.tile_forms import TileForm
from styleavatar_core.types import FloatArray


class LazyKernels:
    """Kernels of one convolution. The first picture needs all of them, but one layer's at a time.

    Args:
        form: Of the tiles.
        taps: (O, I, 3, 3) float32; kept until all kernels are there.

    Attributes:
        panels: Groups of W = BLOCK_COLUMNS channels O, which are transformed together.
        values: (classes * panels, I, W) float32; not all of it may be there yet.
    """

    def __init__(self, form: TileForm, taps: torch.Tensor) -> None:
        outputs, inputs = taps.shape[:2]
        self.panels = outputs // BLOCK_COLUMNS
        shape = (len(form.kernel) ** 2 * self.panels, inputs, BLOCK_COLUMNS)
        self.values: FloatArray = torch.empty(shape).numpy()  # from a line of the cache on
        self._transform = TAP_TRANSFORMS[form]
        self._taps: FloatArray | None = taps.reshape(outputs, inputs, 9).numpy()

    @property
    def size(self) -> int:
        """How many numbers they are."""
        return self.values.size

    @property
    def missing_bytes(self) -> int:
        """Memory that they will take beside what they take now."""
        return 0 if self._taps is None else self.values.nbytes - self._taps.nbytes

    def transformed(self, first: int, count: int) -> FloatArray:
        """Returns ``values``, in which some panels are there."""
        if self._taps is not None:
            self._transform(self._taps, first, count, self.values)
        return self.values

    def transform_all(self) -> None:
        """Lets all threads transform what is not there yet."""
        if self._taps is not None:

            def compute(thread: int, first: int, count: int) -> None:
                self.transformed(first, count)

            share_strips(plan_strips(self.panels, 1, 1), compute)
            self.forget_taps()

    def forget_taps(self) -> None:
        """Frees the taps; every panel is there."""
        self._taps = None
