# SPDX-License-Identifier: Apache-2.0
"""What the front allows its workers."""

from __future__ import annotations

from dataclasses import dataclass

# Frames wait for those of others at their worker, and a busy machine takes its time.
HUNG_FRAMES = 20


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What the front allows its workers.

    Attributes:
        engine_bytes: What the engines of one worker may take.
        replace_s: Time for a new worker after one died.
        load_s: Time for an avatar to load once its turn has come, its engine built included.
        render_s: Time for a picture; a worker that takes longer, and longer than ``HUNG_FRAMES`` of
            its slowest avatar take, counts as hung.
    """

    engine_bytes: int
    replace_s: float = 60.0
    load_s: float = 1800.0
    render_s: float = 2.0
