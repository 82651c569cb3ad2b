# SPDX-License-Identifier: Apache-2.0
"""Where derived engines are kept. Losing the cache costs time, never data."""

from __future__ import annotations

import os
from pathlib import Path

import onnxruntime

# Raised whenever the frozen graph changes, so that older cached graphs are not used.
GRAPH_VERSION = 1


def cache_folder() -> Path:
    """Returns the folder of derived engines; it may not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME")
    base = Path(root) if root else Path.home() / ".cache"
    return base / "styleavatar" / "engines"


def onnx_path(digest: str) -> Path:
    """Returns where an avatar's ONNX graph is cached.

    Args:
        digest: ``AvatarBundle.digest``.
    """
    name = f"{digest[:32]}-v{GRAPH_VERSION}-ort{onnxruntime.__version__}-fp32.onnx"
    return cache_folder() / name
