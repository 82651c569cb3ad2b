# SPDX-License-Identifier: Apache-2.0
"""A tracking worker keeps streams apart and decodes what it is given."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.image_codec import encode_image
from services.common.worker.arena import SharedArena
from services.common.worker.parameters import identity_to_body, unpack_parameters
from services.tracking.worker.runner import Runner, open_tracker
from styleavatar_core.errors import AssetError, InvalidInputError, RenderError
from styleavatar_core.types import FaceIdentity
from tests.fakes.tracker import FakeTracker


class Opened:
    """Remembers how trackers were asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, FaceIdentity | None, bool]] = []

    def __call__(self, model_id: str, identity: FaceIdentity | None, filtered: bool) -> FakeTracker:
        self.calls.append((model_id, identity, filtered))
        return FakeTracker()


def track(runner: Runner, arena: SharedArena, stream_id: str, data: bytes, name: str) -> dict:
    arena.write(0, data)
    body = {
        "stream_id": stream_id,
        "slot": 0,
        "byte_counts": [len(data)],
        "image_format": name,
        "width_px": 32,
        "height_px": 32,
        "capture_time_s": 0.5,
        "frame_index": 3,
    }
    return runner.track(body)


def test_frames_are_tracked_by_the_streams_own_tracker() -> None:
    arena = SharedArena.create(1, 10_000)
    opened = Opened()
    runner = Runner(arena, opened)
    identity = FaceIdentity("m", np.ones(2, np.float32), np.zeros(1, np.float32))
    runner.open({"stream_id": "a", "model_id": "", "identity": None, "filtered": True})
    known = {"identity": identity_to_body(identity), "filtered": False}
    runner.open({"stream_id": "b", "model_id": "m", **known})
    assert opened.calls[0] == ("", None, True)
    assert opened.calls[1][0] == "m"
    assert opened.calls[1][1].identity.tolist() == [1, 1]
    frame = np.full((32, 32, 3), 51, np.uint8)
    for name in ("raw_rgb", "png"):
        answer = track(runner, arena, "a", encode_image(frame, name), name)
        found = unpack_parameters(answer["model_id"], arena.read(0, answer["byte_count"]))
        assert (found.model_id, found.frame_index) == ("builtin-3", 3)
        assert found.expression[0] == pytest.approx(0.2)
        assert set(answer["timings_s"]) == {"decoding", "tracking"}
    assert track(runner, arena, "b", bytes(32 * 32 * 3), "raw_rgb")["byte_count"] == 0
    with pytest.raises(InvalidInputError):
        track(runner, arena, "a", b"short", "raw_rgb")
    runner.close({"stream_id": "a"})
    runner.close({"stream_id": "a"})
    with pytest.raises(RenderError):
        track(runner, arena, "a", frame.tobytes(), "raw_rgb")
    arena.close()


def test_a_face_model_that_is_not_here_is_missing_and_no_folder_is_told() -> None:
    with pytest.raises(AssetError, match="no face model 'nobody'") as caught:
        open_tracker("nobody", None, True)
    assert caught.value.reason == "FACE_MODEL_MISSING"
    assert "/" not in str(caught.value)
