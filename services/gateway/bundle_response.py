# SPDX-License-Identifier: Apache-2.0
"""An avatar's bundle as the answer to a request: one zip, there only while it is sent."""

from __future__ import annotations

from pathlib import Path

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from services.common.storage import AvatarStore
from styleavatar_core.avatar.bundle import pack_bundle


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
        """
        with self._store.room_to_pack() as folder:
            self.path = Path(folder) / "bundle.zip"
            await run_in_threadpool(pack_bundle, self._bundle, self.path)
            await super().__call__(scope, receive, send)
