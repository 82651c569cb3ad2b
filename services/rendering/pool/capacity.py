# SPDX-License-Identifier: Apache-2.0
"""What frames cost, by measurement: the ground on which streams are admitted or refused."""

from __future__ import annotations

from services.rendering.catalog import AvatarEntry

# A cost is the mean of the last frames: what they wait for others is part of it, or one stream too
# many would be admitted. One frame that was held up for long says little.
LAST_SHARE = 0.05
LONGEST = 2.0


class FrameCosts:
    """Seconds of a worker's time that one frame of each avatar takes.

    Attributes:
        longest_s: Of the slowest avatar that was measured.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._by_avatar: dict[tuple[str, str], float] = {}
        self._by_preset: dict[str, float] = {}

    def calibrate(self, entry: AvatarEntry, frame_s: float) -> None:
        """Takes what a worker measured when it loaded an avatar."""
        for key in [key for key in self._by_avatar if key[0] == entry.avatar_id]:
            del self._by_avatar[key]
        self._by_avatar[entry.avatar_id, entry.revision] = frame_s
        self._by_preset[entry.manifest.preset] = frame_s
        self.longest_s = max(self.longest_s, frame_s)

    def observe(self, entry: AvatarEntry, frame_s: float) -> None:
        """Takes what a frame of a stream took."""
        key = (entry.avatar_id, entry.revision)
        known_s = self._by_avatar.get(key)
        if known_s is not None:
            self._by_avatar[key] = known_s + LAST_SHARE * (
                min(frame_s, LONGEST * known_s) - known_s
            )

    def frame_s(self, entry: AvatarEntry) -> float | None:
        """Returns the seconds of a frame; None when nothing of the kind was measured yet.

        An avatar that was never loaded is taken to cost what the last one of its preset did.
        """
        by_preset = self._by_preset.get(entry.manifest.preset)
        return self._by_avatar.get((entry.avatar_id, entry.revision), by_preset)
