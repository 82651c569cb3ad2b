# SPDX-License-Identifier: Apache-2.0
"""Shared memory between a service and one of its workers, cut into slots of equal size."""

from __future__ import annotations

import math
import mmap
import os

import numpy as np

from styleavatar_core.errors import InvalidInputError
from styleavatar_core.types import ByteArray


class SharedArena:
    """An anonymous file mapped by two processes; nothing of it has a name in the file system."""

    def __init__(self, descriptor: int, slot_count: int, slot_bytes: int) -> None:
        """Maps an arena.

        Args:
            descriptor: File descriptor of the memory; owned by this object from now on.
            slot_count: Number of slots.
            slot_bytes: Bytes of each.
        """
        self.descriptor = descriptor
        self.slot_count = slot_count
        self.slot_bytes = slot_bytes
        self._memory = mmap.mmap(descriptor, _total_bytes(slot_count, slot_bytes))

    @classmethod
    def create(cls, slot_count: int, slot_bytes: int) -> SharedArena:
        """Allocates an arena; pages cost memory only once they are written."""
        descriptor = os.memfd_create("styleavatar-frames", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _total_bytes(slot_count, slot_bytes))
        return cls(descriptor, slot_count, slot_bytes)

    def set_abandoned(self, slot: int, is_abandoned: bool) -> None:
        """Says whether nobody waits any more for what is to be made of a slot."""
        self._memory[self.slot_count * self.slot_bytes + slot] = is_abandoned

    def is_abandoned(self, slot: int) -> bool:
        """Whether nobody waits any more for what is to be made of a slot."""
        return bool(self._memory[self.slot_count * self.slot_bytes + slot])

    def write(self, slot: int, data: bytes | memoryview, offset: int = 0) -> None:
        """Copies bytes into a slot.

        Raises:
            InvalidInputError: When they do not fit.
        """
        if offset + len(data) > self.slot_bytes:
            raise InvalidInputError(
                f"An image of {len(data)} bytes is too large; the limit is {self.slot_bytes}.",
                reason="IMAGE_TOO_LARGE",
            )
        start = slot * self.slot_bytes + offset
        self._memory[start : start + len(data)] = data

    def read(self, slot: int, byte_count: int, offset: int = 0) -> bytes:
        """Copies bytes out of a slot."""
        start = slot * self.slot_bytes + offset
        return self._memory[start : start + byte_count]

    def write_array(self, slot: int, array: ByteArray, offset: int = 0) -> None:
        """Copies a uint8 array into a slot, row after row."""
        self.write(slot, np.ascontiguousarray(array).data.cast("B"), offset)

    def read_array(self, slot: int, shape: tuple[int, ...], offset: int = 0) -> ByteArray:
        """Copies a uint8 array of that shape out of a slot."""
        data = self.read(slot, math.prod(shape), offset)
        return np.frombuffer(data, np.uint8).reshape(shape)

    def close(self) -> None:
        """Unmaps the memory; the kernel frees it when the other process has done so too."""
        if not self._memory.closed:
            self._memory.close()
            os.close(self.descriptor)


def _total_bytes(slot_count: int, slot_bytes: int) -> int:
    return slot_count * (slot_bytes + 1)  # behind the slots, a mark for each
