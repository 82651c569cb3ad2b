# SPDX-License-Identifier: Apache-2.0
"""Holds loaded avatars and renders them into shared memory."""

from __future__ import annotations

import functools
import importlib
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol

from services.common.worker.arena import SharedArena
from services.common.worker.child import lacks_memory
from services.common.worker.parameters import unpack_parameters
from services.rendering.pool.frames import AVATAR_NOT_LOADED, FRAME_ABANDONED, frame_late
from services.rendering.worker.batches import batches
from styleavatar_core.errors import (
    EngineUnavailableError,
    NotFoundError,
    OverloadedError,
    RenderError,
    StyleAvatarError,
)
from styleavatar_core.types import ByteArray, FaceParameters

logger = logging.getLogger(__name__)

Body = dict[str, Any]

Finish = Callable[[], list[Body]]  # waits for frames and answers them

DEVICE_FAILED_CODE = 70
# As torch, ONNX Runtime and TensorRT say it.
_DEVICE_FAILURE = re.compile("CUDA error|CUDA failure|Cuda Runtime")


class Frame(Protocol):
    """What a renderer answers."""

    image: ByteArray
    mask: ByteArray
    timings_ms: dict[str, float]


class Renderer(Protocol):
    """One loaded avatar.

    Attributes:
        digest: Of the bundle that was opened, ``AvatarBundle.digest``.
        memory_bytes: What it takes, on whatever device it is.
        batch_limit: Frames that may be rendered at once with next to no delay for the first.
        renders_ahead: Whether it renders on a device, beside what this process does.
    """

    digest: str
    memory_bytes: int
    batch_limit: int
    renders_ahead: bool

    def begin_batch(self, batch: Sequence[FaceParameters]) -> Callable[[], Sequence[Frame]]:
        """Begins with parameters given in the coordinates of the avatar's window.

        Returns:
            Waits for the frames.
        """

    def close(self) -> None:
        """Frees what it holds."""


def renderer_opener(
    dotted_name: str, backend: str, precision: str | None, thread_count: int
) -> Callable[[Path], Renderer]:
    """Imports what opens bundles: the heavy libraries come with it.

    Args:
        dotted_name: ``module:name`` of a callable that takes a bundle's path and the others.
        backend: Name of the engine, passed on.
        precision: What the engine computes in, passed on.
        thread_count: Threads of the engine, passed on.

    Returns:
        Opens a bundle.
    """
    module, _, name = dotted_name.partition(":")
    opener = getattr(importlib.import_module(module), name)
    return functools.partial(
        opener, backend=backend, precision=precision, thread_count=thread_count
    )


@contextmanager
def ending_with_device() -> Iterator[None]:
    """Ends this process when its CUDA context has failed: nothing in it can render again."""
    try:
        yield
    except Exception as error:
        if lacks_memory(error) or not _DEVICE_FAILURE.search(str(error)):
            raise
        logger.critical("the device has failed, this worker ends", extra={"reason": str(error)})
        os._exit(DEVICE_FAILED_CODE)


def _fail(error: Exception) -> NoReturn:
    raise error


class Runner:
    """The engines of one worker; loading runs in another thread than rendering."""

    def __init__(self, arena: SharedArena, open_renderer: Callable[[Path], Renderer]) -> None:
        """Starts empty.

        Args:
            arena: Where faces come from and pictures go.
            open_renderer: Opens a bundle.
        """
        self._arena = arena
        self._open = open_renderer
        self._loaded: dict[tuple[str, ...], Renderer] = {}
        self._busy_until = 0.0  # ``time.perf_counter()`` when the last frames were done

    def load(self, body: Body) -> Body:
        """Loads an avatar, unless it is here; what may stay beside it is for the service to say.

        Args:
            body: ``engine``: key to call it by; ``path`` and ``digest`` of the bundle.

        Returns:
            ``load_s`` and ``size_bytes``.

        Raises:
            EngineUnavailableError: Another bundle has taken the place of that one.
            NotFoundError: It was deleted.
            StyleAvatarError: It cannot be opened.
        """
        started = time.perf_counter()
        key = tuple(body["engine"])
        if key not in self._loaded:
            renderer = self._opened(key[0], Path(body["path"]))
            if renderer.digest != body["digest"]:  # its caller goes by the manifest of the other
                renderer.close()
                raise EngineUnavailableError(
                    "The avatar was replaced; go on with a new stream, which shows the new one.",
                    reason="AVATAR_REPLACED",
                )
            self._loaded[key] = renderer
        load_s = time.perf_counter() - started
        logger.info("avatar loaded", extra={"avatar_id": key[0], "load_s": round(load_s, 3)})
        return {"load_s": load_s, "size_bytes": int(self._loaded[key].memory_bytes)}

    def _opened(self, avatar_id: str, path: Path) -> Renderer:
        try:
            with ending_with_device():
                return self._open(path)
        except StyleAvatarError as error:
            if path.exists():
                raise
            # Before it was opened or under its reader's hands; where it lay is nobody's affair.
            raise NotFoundError(f"'{avatar_id}' was deleted.", reason="AVATAR_NOT_FOUND") from error

    def unload(self, body: Body) -> Body:
        """Lets an avatar go, if it is there."""
        renderer = self._loaded.pop(tuple(body["engine"]), None)
        if renderer is not None:
            renderer.close()
        return {}

    def render(self, bodies: Sequence[Body]) -> Iterator[tuple[int, Body | Exception]]:
        """Renders all frames that wait, those of an avatar together where that delays nobody.

        While a device renders those of one avatar, those of the next are prepared.

        Args:
            bodies: Each with ``engine``; ``slot``, ``byte_count`` and ``model_id`` of a face;
                ``with_mask``: whether the mask is to lie behind the picture; ``give_up_s`` where
                there is a ``time.perf_counter()`` after which it is not begun.

        Yields:
            Position, and ``shape``, ``timings_ms``, ``busy_s``, ``batch_size`` of a picture that
            lies in the slot of its face now, or why there is none.
        """
        keys = [tuple(body["engine"]) for body in bodies]
        begun: tuple[list[int], Finish] | None = None
        for batch in batches(keys, self._batch_limit):
            positions = []
            for index in batch:
                refusal = self._refusal(bodies[index])
                if refusal is None:
                    positions.append(index)
                else:
                    yield index, refusal
            if not positions:
                continue
            before, begun = begun, (positions, self._begin([bodies[index] for index in positions]))
            if before is not None:
                yield from self._answers(bodies, *before)
            renderer = self._loaded.get(keys[positions[0]])
            if renderer is None or not renderer.renders_ahead:
                yield from self._answers(bodies, *begun)
                begun = None
        if begun is not None:
            yield from self._answers(bodies, *begun)

    def _answers(
        self, bodies: Sequence[Body], positions: list[int], finish: Finish
    ) -> Iterator[tuple[int, Body | Exception]]:
        """Waits for frames that were begun together; yields as ``render`` does."""
        try:
            answers: Sequence[Body | Exception] = finish()
        except Exception as error:
            if len(positions) > 1:  # each alone, so that none can harm the others
                for index in positions:
                    for _, answer in self.render([bodies[index]]):
                        yield index, answer
                return
            answers = [error]
        yield from zip(positions, answers, strict=True)

    def _refusal(self, body: Body) -> OverloadedError | None:
        """Says why a frame need not be rendered any more, now that its turn has come."""
        if self._arena.is_abandoned(body["slot"]):
            return OverloadedError("Nobody waits for the frame.", reason=FRAME_ABANDONED)
        if time.perf_counter() > body.get("give_up_s", math.inf):
            return frame_late()
        return None

    def _batch_limit(self, key: tuple[str, ...]) -> int:
        return self._loaded[key].batch_limit if key in self._loaded else 1

    def _begin(self, bodies: Sequence[Body]) -> Finish:
        """Begins frames of one avatar; what goes wrong is raised when they are waited for."""
        try:
            return self._begin_batch(bodies)
        except Exception as error:
            return functools.partial(_fail, error)

    def _begin_batch(self, bodies: Sequence[Body]) -> Finish:
        """Begins frames of one avatar at once."""
        started = time.perf_counter()
        renderer = self._loaded.get(tuple(bodies[0]["engine"]))
        if renderer is None:
            raise RenderError("The avatar is not loaded here.", reason=AVATAR_NOT_LOADED)
        faces = [
            unpack_parameters(body["model_id"], self._arena.read(body["slot"], body["byte_count"]))
            for body in bodies
        ]
        with ending_with_device():
            finish_batch = renderer.begin_batch(faces)
        return lambda: self._finish(bodies, finish_batch, started)

    def _finish(
        self,
        bodies: Sequence[Body],
        finish_batch: Callable[[], Sequence[Frame]],
        started: float,
    ) -> list[Body]:
        """Waits for frames of one avatar, and lays each into the slot of its face."""
        with ending_with_device():
            frames = finish_batch()
        for body, frame in zip(bodies, frames, strict=True):
            self._arena.write_array(body["slot"], frame.image)
            if body["with_mask"]:
                self._arena.write_array(body["slot"], frame.mask, frame.image.size)
        done = time.perf_counter()
        busy_s = (done - max(started, self._busy_until)) / len(bodies)
        self._busy_until = done
        return [
            {
                "shape": list(frame.image.shape),
                "timings_ms": {name: float(value) for name, value in frame.timings_ms.items()},
                "busy_s": busy_s,
                "batch_size": len(bodies),
            }
            for frame in frames
        ]
