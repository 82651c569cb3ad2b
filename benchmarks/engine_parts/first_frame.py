# SPDX-License-Identifier: Apache-2.0
"""From a new avatar on disk to its first picture, in a worker that has shown another one before."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.engine.keeping import wait_until_kept
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.types import FaceParameters
from tests.fakes.nano_bundle import write_nano_bundle

_NEW_AVATARS = 3


def first_frame_s(preset: str, backend: str, folder: str, thread_count: int) -> float:
    """Returns the seconds until an avatar shows its first picture: the median of some.

    One that is not counted has been shown by the process before.

    Args:
        preset: Name of the preset.
        backend: What renders.
        folder: For bundles and for an engine cache that starts empty.
        thread_count: Threads of a runtime.
    """
    os.environ["XDG_CACHE_HOME"] = folder
    torch.set_num_threads(thread_count)
    face, elapsed_s = frontal_face(), []
    for seed in range(1 + _NEW_AVATARS):
        path = write_nano_bundle(Path(folder) / f"avatar-{seed}", seed=seed, preset=preset)
        wait_until_kept()  # the avatar before: its worker is at rest again
        start = time.perf_counter()
        renderer = AvatarRenderer(path, backend=backend, thread_count=thread_count)
        renderer.render(face)
        elapsed_s.append(time.perf_counter() - start)
        renderer.close()
    return statistics.median(elapsed_s[1:])


def frontal_face() -> FaceParameters:
    """Returns a face at rest in the middle of the window."""
    model = builtin_model()
    return FaceParameters(
        model.model_id,
        np.array([1, 0, 0, 0], np.float32),
        np.zeros(3, np.float32),
        0.4,
        np.zeros(model.expression_basis.shape[2], np.float32),
        np.zeros((2, 2), np.float32),
    )
