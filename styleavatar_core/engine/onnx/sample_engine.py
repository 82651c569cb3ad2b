# SPDX-License-Identifier: Apache-2.0
"""Engines whose graph takes a fixed number of samples: a batch goes through it in parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from styleavatar_core.engine.base import (
    EngineInfo,
    RenderEngine,
    RenderInput,
    RenderOutput,
    feed_of,
)

if TYPE_CHECKING:
    from styleavatar_core.engine.face_lookup import FaceLookup


class SampleEngine(RenderEngine):
    """An engine whose graph takes a fixed number of samples at a time, most often one.

    Args:
        backend: Name of the backend.
        shapes: Of the graph's inputs and outputs, by name.
        precision: What the network computes in.
        lookup: Samples the face for a graph that takes it sampled.
        version: Of the runtime.
    """

    def __init__(
        self,
        backend: str,
        shapes: Mapping[str, Sequence[int]],
        precision: str,
        lookup: FaceLookup | None = None,
        *,
        version: str = "",
    ) -> None:
        is_sampled = "face_pixels" in shapes  # one of the graph's inputs
        uv_size = 2 * shapes["face_pixels"][1] if is_sampled else shapes["uv_rendering"][1]
        super().__init__(
            EngineInfo(
                backend,
                precision,
                int(shapes["image"][1]),
                int(shapes["texture_rendering"][1]),
                int(uv_size),
                version,
            )
        )
        self._lookup = lookup
        self._batch_size = int(shapes["image"][0])

    def _render(self, inputs: RenderInput) -> RenderOutput:
        """Renders as many as the graph takes, until all are rendered."""
        count = len(inputs.face_mask)
        size = self._info.image_size_px
        image = np.empty((count, size, size, 3), np.uint8)
        mask = np.empty((count, size, size), np.uint8)
        for start in range(0, count, self._batch_size):
            # Copied at once: the next ones may be written to the same place.
            rows = slice(start, min(count, start + self._batch_size))
            results = self._run(feed_of(inputs.part(start, self._batch_size), self._lookup))
            image[rows], mask[rows] = (part[: rows.stop - start] for part in results)
        return RenderOutput(image, mask)

    @abstractmethod
    def _run(self, feed: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Renders what the graph takes: (N, H, W, 3) and (N, H, W), valid until the next call."""
