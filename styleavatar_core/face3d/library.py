# SPDX-License-Identifier: Apache-2.0
"""Face models by id: the built-in ones, and those that users imported into their models folder.

Parameters, datasets and bundles name the model that their coefficients belong to; whoever needs it
finds it here. Other people's models never travel in a bundle: their terms may forbid it.
"""

from __future__ import annotations

import os
import re
import shutil
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from styleavatar_core.errors import AssetError, ConflictError
from styleavatar_core.face3d.builtin import (
    BUILTIN_MODEL_ID,
    EARLIER_MODEL_ID,
    builtin_model,
    earlier_model,
)
from styleavatar_core.face3d.model import FaceModel, load_face_model

_SUFFIX = ".safetensors"
_MODEL_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_BUILTIN_IDS = (BUILTIN_MODEL_ID, EARLIER_MODEL_ID)
_HELD_COUNT = 2  # a model of FaceVerse's size takes about 150 MB


def models_folder() -> Path:
    """Returns the folder of imported models, ``models`` of the data folder; it may not exist.

    The data folder is the services' too: ``STYLEAVATAR_DATA``, or the user's.
    """
    given = os.environ.get("STYLEAVATAR_DATA")
    if given:
        return Path(given) / "models"
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "styleavatar" / "models"


def find_face_model(model_id: str = "", digest: str = "") -> FaceModel:
    """Returns a model by id; it is shared, its arrays must not be written to.

    Args:
        model_id: Its id; empty for the built-in one.
        digest: ``FaceModel.digest`` that it must have; empty where that is not known.

    Raises:
        AssetError: It is not there, or its file is another one than was meant.
    """
    if model_id in ("", BUILTIN_MODEL_ID):
        model = builtin_model()
    elif model_id == EARLIER_MODEL_ID:
        model = earlier_model()
    else:
        model = _imported(model_id)
    if digest and model.digest != digest:
        raise AssetError(
            f"The face model '{model_id}' here is another file (sha256 {model.digest[:12]}...) "
            f"than the one that was used ({digest[:12]}...): import that one again",
            reason="FACE_MODEL_DIFFERS",
        )
    return model


def add_face_model(source: FaceModel | Path) -> FaceModel:
    """Puts a model into the models folder, where it is found by its id from then on.

    Args:
        source: The model, or a file that :meth:`FaceModel.save` wrote.

    Returns:
        The model as it is found.

    Raises:
        AssetError: The file is no face model, its id cannot be found again, or the folder cannot be
            written to.
        ConflictError: Another model of this id is there, or is built in.
    """
    folder = models_folder()
    incoming = folder / f".{uuid4().hex[:8]}{_SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(source, Path):
            shutil.copyfile(source, incoming)
        else:
            source.save(incoming)
        model = load_face_model(incoming)
        _check_id(model.model_id)
        path = folder / f"{model.model_id}{_SUFFIX}"
        is_builtin = model.model_id in _BUILTIN_IDS
        if not is_builtin and not path.exists():
            incoming.replace(path)
        elif find_face_model(model.model_id).digest != model.digest:
            raise ConflictError(
                f"Another model of the id '{model.model_id}' is built in; save this one under an "
                "id of its own"
                if is_builtin
                else f"{path} is another model of the same id, which avatars may need; remove it "
                "first if none does"
            )
    except OSError as error:
        raise AssetError(f"The face model cannot be put into {folder}: {error}") from error
    finally:
        incoming.unlink(missing_ok=True)
    return find_face_model(model.model_id)


def choose_face_model(name: str) -> FaceModel:
    """Returns what a person chose: nothing, the id of a model, or its file, which is added."""
    return add_face_model(Path(name)) if name.endswith(_SUFFIX) else find_face_model(name)


def _check_id(model_id: str) -> None:
    if not _MODEL_ID.fullmatch(model_id):
        raise AssetError(
            f"The face model cannot have the id '{model_id[:64]}': an id has 1 to 64 small "
            "letters, digits, dots and dashes, and begins with a letter or digit; save it under "
            "such an id"
        )


def _imported(model_id: str) -> FaceModel:
    path = models_folder() / f"{model_id}{_SUFFIX}"
    if not _MODEL_ID.fullmatch(model_id) or not path.is_file():
        raise AssetError(
            f"There is no face model '{model_id[:64]}' here: get its file and run "
            f"`styleavatar import-faceverse FILE`, which puts it into {models_folder()}",
            reason="FACE_MODEL_MISSING",
        )
    status = path.stat()
    return _load(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=_HELD_COUNT)
def _load(path: Path, mtime_ns: int, size: int) -> FaceModel:
    """Reads a model once for as long as its file stays what it is."""
    return load_face_model(path)
