# SPDX-License-Identifier: Apache-2.0
"""Holds loaded avatars and renders them into shared memory."""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from services.common.worker.arena import SharedArena
from services.common.worker.parameters import parameters_from_body
from services.rendering.pool.frames import AVATAR_NOT_LOADED
from styleavatar_core.errors import OverloadedError, RenderError
from styleavatar_core.types import ByteArray, FaceParameters

logger = logging.getLogger(__name__)

Body = dict[str, Any]

CALIBRATION_FRAMES = 3
DEVICE_FAILED_CODE = 70


class Frame(Protocol):
    """What a renderer answers."""

    image: ByteArray
    mask: ByteArray
    clamped: bool
    timings_ms: dict[str, float]


class Renderer(Protocol):
    """One loaded avatar."""

    def render(self, parameters: FaceParameters) -> Frame:
        """Renders parameters given in the coordinates of the avatar's window."""

    def close(self) -> None:
        """Frees what it holds."""


def renderer_opener(
    dotted_name: str, backend: str, thread_count: int
) -> Callable[[Path], Renderer]:
    """Imports what opens bundles: the heavy libraries come with it.

    Args:
        dotted_name: ``module:name`` of a callable that takes a bundle's path and the others.
        backend: Name of the engine, passed on.
        thread_count: Threads of the engine, passed on.

    Returns:
        Opens a bundle.
    """
    module, _, name = dotted_name.partition(":")
    opener = getattr(importlib.import_module(module), name)
    return lambda path: opener(path, backend=backend, thread_count=thread_count)


def end_with_device(error: RenderError) -> None:
    """Ends this process when its CUDA context has failed: nothing in it can render again."""
    if "CUDA error" in str(error):
        logger.critical("the device has failed, this worker ends", extra={"reason": str(error)})
        os._exit(DEVICE_FAILED_CODE)


class Runner:
    """The avatars of one worker; loading runs in another thread than rendering."""

    def __init__(
        self, arena: SharedArena, open_renderer: Callable[[Path], Renderer], avatar_limit: int
    ) -> None:
        """Starts empty.

        Args:
            arena: Where pictures go.
            open_renderer: Opens a bundle.
            avatar_limit: Avatars held at the same time.
        """
        self._arena = arena
        self._open = open_renderer
        self._avatar_limit = avatar_limit
        self._loaded: OrderedDict[str, Renderer] = OrderedDict()
        self._lock = threading.Lock()  # guards the table and, while rendering, its entries

    def load(self, body: Body) -> Body:
        """Loads an avatar, and puts out the ones longest unused that nobody needs.

        Args:
            body: ``avatar_id``, ``path``, ``pinned``: ids that streams use, and ``parameters`` of a
                frame to measure.

        Returns:
            ``evicted`` ids, ``load_s``, and ``frame_s``: what one frame takes here.
        """
        started = time.perf_counter()
        avatar_id = body["avatar_id"]
        leaving = self._make_room(avatar_id, set(body["pinned"]))
        renderer = self._open(Path(body["path"]))  # may fail: nothing has left yet
        frame_s = self._measure(renderer, parameters_from_body(body["parameters"]))
        for name in (avatar_id, *leaving):
            self._drop(name)
        with self._lock:
            self._loaded[avatar_id] = renderer
        load_s = time.perf_counter() - started
        logger.info("avatar loaded", extra={"avatar_id": avatar_id, "load_s": load_s})
        return {"evicted": leaving, "load_s": load_s, "frame_s": frame_s}

    def unload(self, body: Body) -> Body:
        """Lets an avatar go, if it is there."""
        self._drop(body["avatar_id"])
        return {}

    def render(self, body: Body) -> Body:
        """Renders one picture into a slot.

        Args:
            body: ``avatar_id``, ``slot``, ``parameters``, ``with_mask``: whether the mask is to lie
                behind the picture.

        Returns:
            ``shape``, ``clamped``, ``timings_ms``.
        """
        avatar_id = body["avatar_id"]
        with self._lock:
            renderer = self._loaded.get(avatar_id)
            if renderer is None:
                raise RenderError("The avatar is not loaded here.", reason=AVATAR_NOT_LOADED)
            self._loaded.move_to_end(avatar_id)
            try:
                frame = renderer.render(parameters_from_body(body["parameters"]))
            except RenderError as error:
                end_with_device(error)
                raise
        self._arena.write_array(body["slot"], frame.image)
        if body["with_mask"]:
            self._arena.write_array(body["slot"], frame.mask, frame.image.size)
        return {
            "shape": list(frame.image.shape),
            "clamped": bool(frame.clamped),
            "timings_ms": {name: float(value) for name, value in frame.timings_ms.items()},
        }

    def _measure(self, renderer: Renderer, parameters: FaceParameters) -> float:
        """Returns the shortest of a few frames; the others' frames have their turns between."""
        times_s = []
        for _ in range(CALIBRATION_FRAMES):
            with self._lock:
                started = time.perf_counter()
                renderer.render(parameters)
                times_s.append(time.perf_counter() - started)
        return min(times_s)

    def _make_room(self, wanted_id: str, pinned: set[str]) -> list[str]:
        """Chooses who leaves for a newcomer: those longest unused that no stream needs."""
        staying = [name for name in self._loaded if name != wanted_id]
        surplus = len(staying) + 1 - self._avatar_limit
        idle = [name for name in staying if name not in pinned]
        if surplus > len(idle):
            raise OverloadedError(
                f"All {self._avatar_limit} avatars that fit are in use; try again later.",
                retry_delay_s=5.0,
            )
        return idle[: max(0, surplus)]

    def _drop(self, avatar_id: str) -> None:
        with self._lock:
            renderer = self._loaded.pop(avatar_id, None)
            if renderer is not None:
                renderer.close()
