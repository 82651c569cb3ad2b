# SPDX-License-Identifier: Apache-2.0
"""An avatar's bundle as the answer to a request: one zip, there only while it is sent."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from services.common.storage import AvatarStore
from styleavatar_core.avatar.bundle import pack_bundle
from styleavatar_core.errors import ConflictError, StyleAvatarError

logger = logging.getLogger(__name__)


class BundleResponse(FileResponse):
    """Packs a bundle, sends it or the asked ranges of it, and deletes what it packed.

    A background task would not do: it is not run when a range is refused, or when packing fails.
    """

    media_type = "application/zip"

    def __init__(self, store: AvatarStore, bundle: Path, headers: dict[str, str]) -> None:
        """Prepares the answer.

        Args:
            store: Where the zip lies for as long as it is sent.
            bundle: Folder of the avatar; names the zip where it arrives.
            headers: Further headers.
        """
        name = f"{bundle.name}.zip"
        super().__init__(name, media_type=self.media_type, filename=name, headers=headers)
        self._store = store
        self._bundle = bundle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers.

        Raises:
            AssetError: The bundle is damaged.
            ConflictError: It cannot be packed here.
            NotFoundError: It was deleted.
        """
        with ExitStack() as stack:
            self.path = await run_in_threadpool(self._pack, stack)
            await super().__call__(scope, receive, send)

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
