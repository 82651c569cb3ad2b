# SPDX-License-Identifier: Apache-2.0
"""The face model that ships with the code, so that everything works on a fresh machine.

MediaPipe's 468-point topology with two eyeballs; ``python -m tools.builtin_model`` makes the file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from styleavatar_core.face3d.model import FaceModel, load_face_model

BUILTIN_MODEL_ID = "builtin-2"
BUILTIN_MODEL_PATH = Path(__file__).with_name("builtin_model.safetensors")


@cache
def builtin_model() -> FaceModel:
    """Returns the built-in model; read once per process, its arrays must not be written to."""
    return load_face_model(BUILTIN_MODEL_PATH)
