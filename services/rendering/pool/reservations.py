# SPDX-License-Identifier: Apache-2.0
"""What a worker has set aside for the streams that it serves."""

from __future__ import annotations

from typing import NamedTuple

from services.rendering.catalog import AvatarEntry
from services.rendering.pool.capacity import FrameCosts


class Reservation(NamedTuple):
    """What was set aside for a stream.

    Attributes:
        entry: Its avatar.
        frames_per_second: How many frames of it.
        is_live: Whether its frames come as a camera takes them.
    """

    entry: AvatarEntry
    frames_per_second: float
    is_live: bool


class Reservations(dict[object, Reservation]):
    """Stream -> what was set aside for it."""

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

    def live(self) -> Reservations:
        """Returns a copy with live streams only."""
        live = Reservations(self._costs)
        live.update((key, what) for key, what in self.items() if what.is_live)
        return live

    def frame_s(self, entry: AvatarEntry) -> float:
        """Returns what a frame of an avatar takes, in seconds; 0 before it was measured."""
        return self._costs.frame_s(entry) or 0.0

    def utilization(self) -> float:
        """Returns the share of the worker's time that the streams need."""
        reserved = list(self.values())  # metrics are read by another thread
        return sum(what.frames_per_second * self.frame_s(what.entry) for what in reserved)
