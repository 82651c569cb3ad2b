# SPDX-License-Identifier: Apache-2.0
"""Conditioning on the host, for engines that take it from there."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.avatar.manifest import AvatarManifest
from styleavatar_core.engine.base import (
    HOME,
    Pictures,
    RenderEngine,
    RenderInput,
    blank_input,
    joined,
)
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cuda.stream import CudaStream
from styleavatar_core.engine.frozen.parts import FrozenParts
from styleavatar_core.engine.opening import OpeningAvatar
from styleavatar_core.engine.selection import open_judged
from styleavatar_core.engine.typical_inputs import to_render_input
from styleavatar_core.errors import RenderError, StyleAvatarError
from styleavatar_core.types import FaceParameters

logger = logging.getLogger(__name__)

# One avatar at a time, whoever opens them: what runs on a stream gets into what is captured there.
_WARMING_UP = threading.Lock()


class HostRenderer:
    """Renders frames whose window is in the middle, as one batch. Not thread-safe.

    Args:
        engine: The engine.
        manifest: The avatar's.
        conditioning: Draws what the networks see.
    """

    def __init__(
        self, engine: RenderEngine, manifest: AvatarManifest, conditioning: ConditioningRenderer
    ) -> None:
        self._engine, self._manifest, self._conditioning = engine, manifest, conditioning

    def warm_up(self, batch_limit: int) -> None:
        """Makes the engine ready for batches of up to so many frames."""
        self._engine.warm_up(batch_limit)

    def prepare(self, batch: Sequence[FaceParameters]) -> RenderInput:
        """Draws what the networks see.

        Raises:
            InvalidInputError: Parameters belong to another face model.
        """
        info = self._engine.info
        drawn = [self._conditioning.render(parameters) for parameters in batch]
        return joined([to_render_input(one, info, self._manifest) for one in drawn])

    def begin(self, prepared: RenderInput) -> Callable[[], list[Pictures]]:
        """Begins nothing: what is returned renders what was prepared.

        Returns:
            Gives image (H, W, 3) and mask (H, W) uint8 of each frame; raises a ``RenderError`` if
            these frames failed.
        """

        def finish() -> list[Pictures]:
            output = self._engine.render(prepared)
            return list(zip(output.image, output.mask, strict=True))

        return finish

    def close(self) -> None:
        """Nothing is held here."""


@functools.cache
def stream_beside() -> CudaStream:
    """Returns where torch renders moved windows beside other engines on a GPU: one for all avatars.

    Torch keeps what a frame is computed in for the next one of its stream: with a stream of its
    own each avatar would hold that, for frames that are rare.
    """
    return CudaStream()


class MovedRenderer:
    """Renders frames whose window is not in the middle, one by one. Not thread-safe.

    They are rare, and no graph has their window: they come from the host, and where the avatar's
    engine cannot move its window torch renders them beside it, opened when it is warmed up or at
    the first of them. Where that fails, as when another avatar has taken the bundle's place
    meanwhile, heads stay where training had them, in the avatar's own engine.

    Args:
        engine: The avatar's.
        bundle: The avatar.
        conditioning: Draws what the networks see.
    """

    def __init__(
        self, engine: RenderEngine, bundle: AvatarBundle, conditioning: ConditioningRenderer
    ) -> None:
        self._engine, self._bundle, self._conditioning = engine, bundle, conditioning
        self._beside: RenderEngine | None = None
        self._has_failed = False

    def warm_up(self) -> None:
        """Renders once with another window, so that no live frame waits for what that needs."""
        with _WARMING_UP:
            if not self._can_move():
                return
            engine = self._beside or self._engine
            try:
                engine.warm_up()  # what takes long is done beside other avatars' frames
                engine.render(replace(blank_input(engine.info), window=(1, 0)))
            except (RenderError, RuntimeError) as error:  # short of memory, perhaps: others go on
                logger.warning("a moved window was not rendered", extra={"why": str(error)})

    def prepare(
        self, shown: FaceParameters, still: FaceParameters, window: tuple[int, int]
    ) -> RenderInput:
        """Draws what the networks see.

        Args:
            shown: The face where it will be seen.
            still: Where the networks have it.
            window: (x, y) of the foreground's window, texels.

        Raises:
            InvalidInputError: Parameters belong to another face model.
        """
        drawn = self._conditioning.render(still)
        if self._can_move():
            texture = drawn.texture_rendering
            drawn = replace(self._conditioning.render(shown), texture_rendering=texture)
        else:
            window = HOME
        prepared = to_render_input(drawn, self._engine.info, self._bundle.manifest)
        return replace(prepared, window=window)

    def render(self, prepared: RenderInput) -> Pictures:
        """Renders what was prepared.

        Returns:
            Image (H, W, 3) and mask (H, W) uint8.

        Raises:
            RenderError: This frame failed; the renderer lives.
        """
        output = (self._beside or self._engine).render(prepared)
        return output.image[0], output.mask[0]

    def _can_move(self) -> bool:
        """Returns whether windows can be moved; opens what does so when it is first asked."""
        if not (self._engine.moves_windows or self._beside or self._has_failed):
            try:
                self._beside = self._open()
            except (StyleAvatarError, OSError, RuntimeError) as error:  # torch's are RuntimeErrors
                self._has_failed = True
                logger.warning(
                    "heads beyond the trained range stay within it: torch cannot be opened",
                    extra={"bundle": str(self._bundle.path), "why": str(error)},
                )
        return not self._has_failed

    def _open(self) -> RenderEngine:
        # One thread: threads of two runtimes that wait for each other take ten times as long.
        opening = OpeningAvatar(FrozenParts(self._bundle), EngineCache(), thread_count=1)
        if self._engine.stream is None:
            return open_judged(opening, "torch", "fp32")
        # Not compiled: no compiled code has a window that moves.
        opening.stream, opening.has_own_plan = stream_beside(), True
        is_exact = self._engine.info.precision == "fp32"
        return open_judged(opening, "torch", "fp32" if is_exact else "fp16")

    def close(self) -> None:
        """Frees what was opened beside the avatar's engine."""
        if self._beside is not None:
            self._beside.close()
