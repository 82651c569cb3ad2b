# SPDX-License-Identifier: Apache-2.0
"""The engines that one worker holds, and who leaves for a newcomer: those longest unused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterator

from styleavatar_core.errors import OverloadedError

# Avatar id and revision of its bundle.
EngineKey = tuple[str, str]


class EngineShelf:
    """Bytes by engine, in the order of their last use. Pure bookkeeping; it loads nothing."""

    def __init__(self, limit_bytes: int) -> None:
        """Starts empty.

        Args:
            limit_bytes: What all engines together may take; one alone may take more.
        """
        self._limit_bytes = limit_bytes
        self._bytes: OrderedDict[EngineKey, int] = OrderedDict()

    def __contains__(self, key: object) -> bool:
        return key in self._bytes

    def __iter__(self) -> Iterator[EngineKey]:
        return iter(tuple(self._bytes))

    def __len__(self) -> int:
        return len(self._bytes)

    @property
    def total_bytes(self) -> int:
        """What all engines take together."""
        return sum(self._bytes.values())

    def put(self, key: EngineKey, size_bytes: int) -> None:
        """Notes an engine as used just now."""
        self._bytes[key] = size_bytes
        self._bytes.move_to_end(key)

    def touch(self, key: EngineKey) -> None:
        """Notes that an engine was used."""
        if key in self._bytes:
            self._bytes.move_to_end(key)

    def discard(self, key: EngineKey) -> None:
        """Forgets an engine, if it is there."""
        self._bytes.pop(key, None)

    def making_room(self, coming_bytes: int, pinned: Container[EngineKey]) -> list[EngineKey]:
        """Chooses who leaves before a newcomer is loaded, so that there is room for so much.

        Args:
            coming_bytes: What the newcomer will take at least.
            pinned: What streams use; it stays, though there be no room then.

        Returns:
            Those longest unused, as few as will do.
        """
        return self._longest_unused(self.total_bytes + coming_bytes - self._limit_bytes, pinned)[0]

    def leaving(self, newcomer: EngineKey, pinned: Container[EngineKey]) -> list[EngineKey]:
        """Chooses who leaves, so that the rest fits.

        Args:
            newcomer: Stays.
            pinned: What streams use; it stays too.

        Returns:
            Those longest unused, as few as will do.

        Raises:
            OverloadedError: When those that must stay do not fit together.
        """
        stays = {key for key in self._bytes if key == newcomer or key in pinned}
        chosen, surplus = self._longest_unused(self.total_bytes - self._limit_bytes, stays)
        if surplus > 0 and len(chosen) + 1 < len(self._bytes):
            raise OverloadedError(
                f"The avatars in use and this one take more than the {self._limit_bytes / 1e6:.0f} "
                "MB that a worker may fill; try again later.",
                retry_delay_s=5.0,
                reason="NO_MEMORY",
            )
        return chosen

    def _longest_unused(
        self, surplus: int, stays: Container[EngineKey]
    ) -> tuple[list[EngineKey], int]:
        """Returns as few as make up for a surplus of bytes, and what of it is left over."""
        chosen = []
        for key, size_bytes in self._bytes.items():
            if surplus <= 0:
                break
            if key not in stays:
                chosen.append(key)
                surplus -= size_bytes
        return chosen, surplus
