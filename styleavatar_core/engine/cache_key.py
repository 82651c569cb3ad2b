# SPDX-License-Identifier: Apache-2.0
"""What names a derived engine: everything that would make another one of it."""

from __future__ import annotations

from dataclasses import dataclass

# Raised whenever the frozen graph changes, so that older cached engines are not used.
GRAPH_VERSION = 10
ENTRY_SUFFIX = ".engine"


@dataclass(frozen=True, slots=True)
class CacheKey:
    """What makes two derived engines the same.

    Attributes:
        digest: ``AvatarBundle.digest``.
        backend: Name of the runtime.
        backend_version: Its version, and what computes: the GPU, or the kind of processor.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        batch_size: Samples per call.
    """

    digest: str
    backend: str
    backend_version: str
    precision: str = "fp32"
    batch_size: int = 1

    @property
    def file_name(self) -> str:
        """Name of the entry."""
        version = "".join(c if c.isalnum() or c in ".+" else "_" for c in self.backend_version)
        return (
            f"{self.digest[:32]}-v{GRAPH_VERSION}-{self.backend}{version}"
            f"-{self.precision}-b{self.batch_size}{ENTRY_SUFFIX}"
        )
