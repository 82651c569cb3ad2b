# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a training goes back to when something goes wrong: not simply the last one.

What goes wrong has begun before running means tell it, so that the last checkpoint may hold it
already. One is *good* when as many steps as those means look back went well after it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from styleavatar_core.data.room import cannot_write
from styleavatar_core.ops.ranks import own_rank
from styleavatar_core.training.recovery import MEAN_STEPS

GOOD_NAME = "checkpoint-good.safetensors"
_CANDIDATE_NAME = "checkpoint-candidate.safetensors"


class GoodCheckpoint:
    """Keeps a good checkpoint beside the last one, and one that may become the next good one.

    Args:
        latest: Where checkpoints are written.
        is_new: Whether the training starts: what another left in the folder is removed then.
    """

    def __init__(self, latest: Path, *, is_new: bool) -> None:
        self._latest = latest
        self._good = latest.with_name(GOOD_NAME)
        self._candidate = latest.with_name(_CANDIDATE_NAME)
        self._candidate_step: int | None = None
        if own_rank() == 0:
            self._candidate.unlink(missing_ok=True)
            if is_new:
                self._good.unlink(missing_ok=True)

    @property
    def path(self) -> Path:
        """Where to go back to: until one is good, to the oldest that there is."""
        kept = (self._good, self._candidate)
        return next((path for path in kept if path.exists()), self._latest)

    def after_save(self, step: int) -> None:
        """Takes note of a checkpoint that was just written, while all is well."""
        if self._candidate_step is not None and step - self._candidate_step < MEAN_STEPS:
            return
        if own_rank() == 0:
            if self._candidate_step is not None:
                self._candidate.replace(self._good)
            _link(self._latest, self._candidate)
        self._candidate_step = step

    def remove(self) -> None:
        """Removes both: a training that ended well goes back to nothing but its end."""
        if own_rank() == 0:
            self._good.unlink(missing_ok=True)
            self._candidate.unlink(missing_ok=True)

    def after_recovery(self, step: int) -> None:
        """Takes the state gone back to for the candidate: what went wrong may be in the other."""
        self._candidate_step = None
        self.after_save(step)


def _link(source: Path, target: Path) -> None:
    """Gives a file a second name, or copies it where the file system knows no such names.

    Raises:
        TrainingError: The disk has no room for the copy.
    """
    target.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise cannot_write(f"checkpoint {target.name}", target.parent, error) from error
