# SPDX-License-Identifier: Apache-2.0
"""Many streams of few avatars, each picture marked: is every one its own avatar's and its own?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from styleavatar.v1 import image_pb2, rendering_service_pb2

from benchmarks.streaming_parts.bench import Progress
from benchmarks.streaming_parts.callers import Stream
from benchmarks.streaming_parts.service import rendering_service
from tests.fakes.bundle import write_fake_bundle
from tests.fakes.renderer import read_mark

MARKS = (10, 20, 30, 40)
STREAM_COUNT = 32
# Streams of an avatar are apart by so many frames, so that a swapped picture is seen.
STEP = 7


def measure_identity(folder: Path, count: int) -> dict[str, float]:
    """Renders frames of 32 streams in turn and looks at each.

    Args:
        folder: Where the avatars are written; their renderer draws marks instead of faces.
        count: Frames of all streams together.

    Returns:
        How many were looked at, and how many showed another avatar or another frame.
    """
    for mark in MARKS:
        write_fake_bundle(folder / "avatars" / f"mark-{mark}", mark, {"batch_limit": 4})
    settings = {
        "renderer": "tests.fakes.renderer:FakeRenderer",
        "stand_by": False,
        "worker_count": 2,
        "stream_limit": STREAM_COUNT,
        "utilization_limit": 1000,
    }
    wrong = 0
    rounds = -(-count // STREAM_COUNT)
    with rendering_service(folder, **settings) as service:
        marks = [MARKS[index % len(MARKS)] for index in range(STREAM_COUNT)]
        raw = image_pb2.IMAGE_FORMAT_RAW_RGB
        streams = [Stream(service.channel, f"mark-{mark}", image_format=raw) for mark in marks]
        progress = Progress("identity", count)
        for step in range(rounds):
            progress.tell(step * STREAM_COUNT)
            for place, stream in enumerate(streams):
                stream.send(step + STEP * place)
            for place, (stream, mark) in enumerate(zip(streams, marks, strict=True)):
                wrong += not _is_own(stream.receive(), mark, step + STEP * place)
        for stream in streams:
            stream.close()
    return {"identity.frames": float(rounds * STREAM_COUNT), "identity.wrong": float(wrong)}


def _is_own(frame: rendering_service_pb2.RenderedFrame, mark: int, frame_index: int) -> bool:
    shape = (frame.image.height_px, frame.image.width_px, 3)
    seen, index, _ = read_mark(np.frombuffer(frame.image.data, np.uint8).reshape(shape))
    return (frame.frame_index, seen, index) == (frame_index, mark, frame_index % 256)
