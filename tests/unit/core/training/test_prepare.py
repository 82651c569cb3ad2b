# SPDX-License-Identifier: Apache-2.0
"""What is held out has no say in what is trained on."""

import numpy as np

from styleavatar_core.data.portrait import choose_window
from styleavatar_core.tracking.video import TrackedVideo
from styleavatar_core.training.prepare import _choose_window
from styleavatar_core.types import FaceIdentity


def test_the_window_is_where_the_training_frames_have_the_face() -> None:
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(-30, 30, (100, 478, 3)).astype(np.float32) + [200, 180, 0]
    nobody = np.zeros(1, np.float32)
    identity = FaceIdentity("builtin-3", nobody, nobody)

    def chosen() -> object:
        tracked = TrackedVideo([None] * 100, identity, 25.0, 640, 360, landmarks)
        return _choose_window(tracked, list(range(80)))

    wanted = choose_window(landmarks[:80], 640, 360)
    assert chosen() == wanted
    landmarks[80:] += [150, 40, 0]  # the person moves aside once training is over
    assert chosen() == wanted
    assert choose_window(landmarks, 640, 360) != wanted
