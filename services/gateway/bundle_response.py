# SPDX-License-Identifier: Apache-2.0
"""An avatar's bundle as the answer to a request: one zip, there only while it is sent."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from pathlib import Path

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from services.common.storage import AvatarStore
from services.gateway.places import Places
from styleavatar_core.avatar.bundle import pack_bundle
from styleavatar_core.errors import ConflictError, StyleAvatarError

logger = logging.getLogger(__name__)

# A download of which nothing is read for so long is ended.
IDLE_TIMEOUT_S = 60.0


class BundleResponse(FileResponse):
    """Packs a bundle, sends it or the asked ranges of it, and deletes what it packed.

    A background task would not do: it is not run when a range is refused, or when packing fails.
    """

    media_type = "application/zip"

    def __init__(
        self, store: AvatarStore, bundle: Path, headers: dict[str, str], places: Places
    ) -> None:
        """Prepares the answer.

        Args:
            store: Where the zip lies for as long as it is sent.
            bundle: Folder of the avatar; names the zip where it arrives.
            headers: Further headers.
            places: For as many as may be packed and sent at once.
        """
        name = f"{bundle.name}.zip"
        super().__init__(name, media_type=self.media_type, filename=name, headers=headers)
        self._store = store
        self._bundle = bundle
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers.

        Raises:
            AssetError: The bundle is damaged.
            ConflictError: It cannot be packed here.
            NotFoundError: It was deleted.
            OverloadedError: As many as may be under way are.
        """

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(IDLE_TIMEOUT_S):  # else who reads nothing keeps his place
                await send(message)

        with self._places.one(), ExitStack() as stack:
            self.path = await run_in_threadpool(self._pack, stack)
            try:
                await super().__call__(scope, receive, send_in_time)
            except TimeoutError:  # the server closes what is not sent to its end
                logger.warning("nobody reads a bundle", extra={"avatar_id": self._bundle.name})

    def _pack(self, stack: ExitStack) -> Path:
        """Returns the zip, which goes with the stack."""
        try:
            folder = stack.enter_context(self._store.room_to_pack())
            return pack_bundle(self._bundle, Path(folder) / "bundle.zip")
        except (StyleAvatarError, OSError) as error:
            self._store.path(self._bundle.name)  # what was deleted meanwhile is not found
            if isinstance(error, StyleAvatarError):
                raise
            logger.error("an avatar cannot be packed", extra={"reason": str(error)})
            raise ConflictError(
                f"this server cannot pack the avatar now: {error.strerror}; whoever runs it must"
                " see to its disk, then fetch it again",
                reason="NOT_WRITTEN",
            ) from error
