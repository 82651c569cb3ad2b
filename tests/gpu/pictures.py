# SPDX-License-Identifier: Apache-2.0
"""What an engine on a GPU is compared with."""

from __future__ import annotations

import numpy as np

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine.base import RenderEngine, RenderInput, RenderOutput, joined
from styleavatar_core.engine.frozen.loading import load_frozen
from styleavatar_core.engine.reference import render_reference
from styleavatar_core.export.parity import random_input

TOLERANCES = {"fp32": 1, "fp16": 8}  # steps of uint8


def batch_of(engine: RenderEngine, count: int) -> RenderInput:
    """Returns inputs that differ."""
    return joined([random_input(engine, seed=seed) for seed in range(count)])


def truth_of(bundle: AvatarBundle, inputs: RenderInput) -> RenderOutput:
    """Returns a bundle's pictures."""
    return render_reference(load_frozen(bundle), None, inputs, thread_count=4).outputs


def assert_same(output: RenderOutput, truth: RenderOutput, precision: str) -> None:
    """Fails unless two engines give the same pictures."""
    for one, other in ((output.image, truth.image), (output.mask, truth.mask)):
        assert one.shape == other.shape
        assert np.abs(one.astype(int) - other).max() <= TOLERANCES[precision]
