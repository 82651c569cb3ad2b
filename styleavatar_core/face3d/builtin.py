# SPDX-License-Identifier: Apache-2.0
"""The face model that ships with the code, so that everything works on a fresh machine.

MediaPipe's 468-point topology with two eyeballs, a shell of hair and neck, and the mouth's inside;
``python -m tools.builtin_model`` makes the file. Its predecessor, the same without the mouth, is
still there for what was made with it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from styleavatar_core.face3d.model import FaceModel, load_face_model

BUILTIN_MODEL_ID = "builtin-3"
BUILTIN_MODEL_PATH = Path(__file__).with_name("builtin_model.safetensors")
EARLIER_MODEL_ID = "builtin-2"


@cache
def builtin_model() -> FaceModel:
    """Returns the built-in model; read once per process, its arrays must not be written to."""
    return load_face_model(BUILTIN_MODEL_PATH)


@cache
def earlier_model() -> FaceModel:
    """Returns ``builtin-2``, to the bit, for avatars and datasets that were made with it."""
    return builtin_model().without_mouth(EARLIER_MODEL_ID)
