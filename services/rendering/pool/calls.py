# SPDX-License-Identifier: Apache-2.0
"""What a rendering worker can be asked for."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from typing import Any

from services.common.worker.messages import PING
from services.common.worker.parameters import pack_parameters
from services.common.worker.process import WorkerProcess
from services.common.worker.slots import SlotCall
from services.rendering.catalog import AvatarEntry
from services.rendering.pool.frames import RenderedPicture, frame_late
from services.rendering.pool.shelf import EngineKey
from styleavatar_core.avatar.reenactment import ParameterStatistics, Retargeter
from styleavatar_core.errors import StyleAvatarError
from styleavatar_core.types import FaceParameters

CALIBRATION_FRAMES = 3
# A frame beside a load may have to wait for the interpreter, the first of an engine for its making.
PATIENCE_S = 20.0
UNLOAD_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine that a worker holds now.

    Attributes:
        load_s: What loading took.
        size_bytes: Memory that it takes.
        frame_s: What one frame takes: the shortest of a few.
    """

    load_s: float
    size_bytes: int
    frame_s: float


async def load_engine(
    worker: WorkerProcess, entry: AvatarEntry, *, load_timeout_s: float, ping_timeout_s: float
) -> LoadedEngine:
    """Loads an avatar and measures its frames; others' frames have their turns between.

    Raises:
        StyleAvatarError: What the worker reported.
    """
    # Loading may take long, so that nobody would notice for long that the worker hangs.
    await worker.call(PING, {}, timeout_s=ping_timeout_s)
    body = {"engine": entry.key, "path": str(entry.path), "digest": entry.digest}
    answer = await worker.call("load", body, timeout_s=load_timeout_s)
    at_rest = Retargeter(ParameterStatistics.from_dict(entry.manifest.statistics))
    parameters = at_rest.hold(0.0).parameters
    frames_s = []
    try:
        for _ in range(CALIBRATION_FRAMES):
            picture = await render_frame(worker, entry.key, parameters, timeout_s=PATIENCE_S)
            frames_s.append(picture.busy_s)
    except StyleAvatarError:
        with contextlib.suppress(StyleAvatarError):  # a worker that is lost holds nothing
            await unload_engine(worker, entry.key)
        raise
    return LoadedEngine(answer["load_s"], answer["size_bytes"], min(frames_s))


async def unload_engine(worker: WorkerProcess, key: EngineKey) -> None:
    """Lets an avatar go, if it is there."""
    await worker.call("unload", {"engine": key}, timeout_s=UNLOAD_TIMEOUT_S)


def render_frame(
    worker: WorkerProcess,
    key: EngineKey,
    parameters: FaceParameters,
    *,
    with_mask: bool = False,
    give_up_s: float = math.inf,
    timeout_s: float,
) -> SlotCall[RenderedPicture]:
    """Has one picture rendered.

    Args:
        worker: Holds the engine.
        key: Of the engine.
        parameters: In the coordinates of the avatar's window.
        with_mask: Whether the mask is wanted too.
        give_up_s: ``time.perf_counter()`` after which a frame that still waits is not begun.
        timeout_s: A worker that takes longer counts as hung.

    Returns:
        The picture, to be awaited; then raises ``OverloadedError`` with the reason FRAME_LATE when
        the frame had to wait too long, ``WorkerLostError`` when the worker died on the way, and
        what the worker reported.

    Raises:
        WorkerLostError: When the worker is gone already.
    """
    data = pack_parameters(parameters)

    def write(slot: int) -> None:
        if time.perf_counter() > give_up_s:
            raise frame_late()
        worker.arena.write(slot, data)

    def read(slot: int, answer: dict[str, Any]) -> RenderedPicture:
        image = worker.arena.read_array(slot, tuple(answer["shape"]))
        mask = None
        if with_mask:
            mask = worker.arena.read_array(slot, image.shape[:2], image.size)
        return RenderedPicture(
            image,
            answer["timings_ms"],
            mask,
            answer["busy_s"],
            answer["batch_size"],
            time.perf_counter(),
        )

    body: dict[str, Any] = {
        "engine": key,
        "model_id": parameters.model_id,
        "byte_count": len(data),
        "with_mask": with_mask,
    }
    if math.isfinite(give_up_s):
        body["give_up_s"] = give_up_s  # processes of a machine share this clock
    return worker.call_with_slot("render", body, write=write, read=read, timeout_s=timeout_s)
