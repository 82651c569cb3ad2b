# SPDX-License-Identifier: Apache-2.0
"""What a worker has set aside for the streams that it serves."""

from __future__ import annotations

from services.rendering.catalog import AvatarEntry
from services.rendering.pool.capacity import FrameCosts


class Reservations(dict[object, tuple[AvatarEntry, float]]):
    """Stream -> avatar and frames per second that were set aside for it."""

    def __init__(self, costs: FrameCosts) -> None:
        """Starts empty.

        Args:
            costs: What frames cost on the device.
        """
        super().__init__()
        self._costs = costs

    def without(self, stream: object) -> Reservations:
        """Returns a copy in which a stream does not count."""
        others = Reservations(self._costs)
        others.update((key, what) for key, what in self.items() if key != stream)
        return others

    def frame_s(self, entry: AvatarEntry) -> float:
        """Returns what a frame of an avatar takes, in seconds; 0 before it was measured."""
        return self._costs.frame_s(entry) or 0.0

    def utilization(self) -> float:
        """Returns the share of the worker's time that the streams need."""
        reserved = list(self.values())  # metrics are read by another thread
        return sum(frames_per_second * self.frame_s(entry) for entry, frames_per_second in reserved)
