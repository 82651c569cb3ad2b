# SPDX-License-Identifier: Apache-2.0
"""Which worker a stream goes to: pure, so that it can be read and tested alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A worker as a newcomer sees it.

    Attributes:
        is_ready: Whether a process is there now, or is being replaced.
        holds_avatar: Whether the newcomer's avatar is loaded there.
        utilization: Share of the worker's measured time that its streams have reserved.
        stream_count: Streams that have reserved time there.
        pinned_count: Streams and single frames that are served there.
        is_loading: Whether the newcomer's avatar is being loaded there, or waits for it.
        engine_bytes: Memory of the avatars that are loaded there.
        needed: Share of its time that the newcomer reserves, as measured on its device; None
            reserves none, and any place will do.
    """

    is_ready: bool
    holds_avatar: bool
    utilization: float
    stream_count: int
    pinned_count: int
    is_loading: bool = False
    engine_bytes: int = 0
    needed: float | None = None

    def has_room(self, limit: float) -> bool:
        """A worker without streams takes any one, at whatever rate it can hold."""
        if self.needed is None or self.stream_count == 0:
            return True
        return self.utilization + self.needed <= limit

    @property
    def would_be_late(self) -> bool:
        """Whether more than all of its time would be reserved, where the limit allows that."""
        return self.needed is not None and self.utilization + self.needed > 1


def choose_place(places: Sequence[Place], limit: float) -> int | None:
    """Chooses by what is ready, then by what has time, then by what is loaded, then by load.

    Args:
        places: All workers of the service.
        limit: Share of a worker's time that may be reserved.

    Returns:
        Index of the worker; None when there is no room at any.
    """
    roomy = [index for index, place in enumerate(places) if place.has_room(limit)]
    return min(roomy, key=lambda index: _preference(places[index]), default=None)


def choose_refuge(
    places: Sequence[Place], own: int, limit: float, *, someone_stands_by: bool
) -> int | None:
    """Chooses where a stream goes whose worker has died.

    To a worker that holds its avatar, at once; else to the one that stands by for its own, if there
    is one; else to any that need not be started first. Those who are there keep their rate.

    Args:
        places: All workers of the service.
        own: Index of the one that has died.
        limit: Share of a worker's time that may be reserved.
        someone_stands_by: Whether a warm process takes the place of the one that has died.

    Returns:
        Index of another worker; None when the stream does best to wait for its own.
    """
    others = [
        index
        for index, place in enumerate(places)
        if index != own
        and place.is_ready
        and place.has_room(limit)
        and (place.holds_avatar or not someone_stands_by)
    ]
    return min(others, key=lambda index: _preference(places[index]), default=None)


def _preference(place: Place) -> tuple[bool, bool, bool, bool, float, int, int]:
    return (
        not place.is_ready,
        place.would_be_late,
        not place.holds_avatar,
        not place.is_loading,
        place.utilization,
        place.pinned_count,
        place.engine_bytes,
    )
