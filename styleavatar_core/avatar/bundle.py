# SPDX-License-Identifier: Apache-2.0
"""The avatar bundle: a directory, or one zip of it, that is all rendering needs and nothing else.

``avatar.json`` (see :mod:`styleavatar_core.avatar.manifest`) names the sha256 of every other file:
``generator.safetensors``, ``features.safetensors`` (the two static maps), ``preview.jpg`` and, if
it was trained by us, ``held_out.safetensors`` (faces of frames that training never saw). No file is
ever executed or unpickled. Imports neither torch nor OpenCV.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import numpy as np
from pydantic import ValidationError
from safetensors.numpy import save

from styleavatar_core.avatar.bundle_files import (
    Tensors,
    check_digest,
    parse_tensors,
    read_beside,
    read_member,
)
from styleavatar_core.avatar.held_out import pack_held_out, unpack_held_out
from styleavatar_core.avatar.manifest import SCHEMA_VERSION, AvatarManifest, BundleFile
from styleavatar_core.avatar.placing import put_in_place, sync
from styleavatar_core.data.room import cannot_write
from styleavatar_core.errors import AssetError, NotFoundError
from styleavatar_core.types import FaceParameters

MANIFEST_NAME = "avatar.json"
GENERATOR_NAME = "generator.safetensors"
FEATURES_NAME = "features.safetensors"
PREVIEW_NAME = "preview.jpg"
HELD_OUT_NAME = "held_out.safetensors"

Made = TypeVar("Made")

# Waits for tensors by name, and for what waits for their comparison: it raises ``AssetError``, and
# must have returned before anything made of them is used.
UnverifiedTensors = Callable[[], tuple[Tensors, Callable[[], None]]]


@dataclass(frozen=True)
class AvatarBundle:
    """A bundle read and verified.

    Attributes:
        path: Directory or zip file.
        manifest: What it says about itself.
        digest: sha256 of ``avatar.json``, which covers every file: the key of derived caches.
    """

    path: Path
    manifest: AvatarManifest
    digest: str

    def is_there(self) -> bool:
        """Whether it is still at its path: neither deleted nor replaced by another."""
        try:
            data = read_member(self.path, MANIFEST_NAME)
        except AssetError:
            return False
        return hashlib.sha256(data).hexdigest() == self.digest

    def generator(self) -> Tensors:
        """Reads the generator's weights by parameter name."""
        return self._tensors(GENERATOR_NAME)

    def unverified_generator(self) -> UnverifiedTensors:
        """Reads the generator's weights, and compares them with their sha256, beside other work."""
        return self._unverified(GENERATOR_NAME)

    def unverified_features(self) -> UnverifiedTensors:
        """Reads the static maps, and compares them with their sha256, beside other work."""
        return self._unverified(FEATURES_NAME)

    def features(self) -> Tensors:
        """Reads the static maps: ``face.feature``, ``face.rgb_pack`` and the same of background."""
        return self._tensors(FEATURES_NAME)

    def preview(self) -> bytes:
        """Reads the preview picture, JPEG."""
        return self._read(PREVIEW_NAME)

    def held_out(self) -> list[FaceParameters]:
        """Reads faces of frames that training never saw, in window coordinates.

        None are in bundles of older versions and in imported ones.
        """
        if HELD_OUT_NAME not in self.manifest.files:
            return []
        expressions = self.manifest.face_model().expression_basis.shape[2]
        return unpack_held_out(self._tensors(HELD_OUT_NAME), self.manifest.model_id, expressions)

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """Reads all files, one after the other, each with its name and compared with its sha256."""
        for name in sorted([MANIFEST_NAME, *self.manifest.files]):
            yield name, self._read(name)

    def _read(self, name: str) -> bytes:
        sha256 = self.digest if name == MANIFEST_NAME else self._entry(name).sha256
        data = read_member(self.path, name)
        check_digest(self.path, name, hashlib.sha256(data).hexdigest(), sha256)
        return data

    def _entry(self, name: str) -> BundleFile:
        if name not in self.manifest.files:
            raise AssetError(f"{self.path.name} lacks {name}; create the avatar again")
        return self.manifest.files[name]

    def _tensors(self, name: str) -> Tensors:
        tensors, check = self._unverified(name)()
        check()
        return tensors

    def _unverified(self, name: str) -> UnverifiedTensors:
        reading = read_beside(self.path, name, self._entry(name))

        def tensors() -> tuple[Tensors, Callable[[], None]]:
            contents, checking = reading.result()
            try:
                return parse_tensors(self.path, name, contents), checking.result
            except AssetError:
                checking.result()  # says more, if that is why
                raise

        return tensors


def write_bundle(
    path: Path,
    manifest: AvatarManifest,
    *,
    generator: Tensors,
    features: Tensors,
    preview_jpeg: bytes,
    held_out: Sequence[FaceParameters] = (),
) -> Path:
    """Writes a bundle; it appears under its name only when it is complete.

    Args:
        path: Directory to write, or a file name ending in ``.zip``. An older one is replaced.
        manifest: Its ``files`` are filled in here.
        generator: Weights by parameter name.
        features: Static maps, as :meth:`AvatarBundle.features` gives them.
        preview_jpeg: A picture of the avatar.
        held_out: Frames that training never saw, in window coordinates; some of them are kept.

    Returns:
        ``path``.

    Raises:
        TrainingError: It cannot be written; an older one is still there.
    """
    contents = {
        GENERATOR_NAME: save(_contiguous(generator)),
        FEATURES_NAME: save(_contiguous(features)),
        PREVIEW_NAME: preview_jpeg,
    }
    if held_out:
        contents[HELD_OUT_NAME] = save(_contiguous(pack_held_out(held_out)))
    files = {
        name: BundleFile(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        for name, data in contents.items()
    }
    complete = manifest.model_copy(update={"files": files})
    contents[MANIFEST_NAME] = (complete.model_dump_json(indent=2) + "\n").encode()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        _write(contents, incoming, path)
    except OSError as error:
        if incoming.is_dir():
            shutil.rmtree(incoming, ignore_errors=True)
        else:
            incoming.unlink(missing_ok=True)
        raise cannot_write(f"the avatar {path.name}", path.parent, error) from error
    return path


def _write(contents: dict[str, bytes], incoming: Path, path: Path) -> None:
    """Writes the files of a bundle under one name, and gives them another when all are there."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(incoming, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(contents):
                archive.writestr(name, contents[name])
        sync(incoming)
        incoming.replace(path)
        sync(path.parent)
        return
    incoming.mkdir()
    for name, data in contents.items():
        (incoming / name).write_bytes(data)
    put_in_place(incoming, path)


def read_bundle(path: Path | str, *, verify: bool = True) -> AvatarBundle:
    """Opens a bundle.

    Args:
        path: Directory or zip file.
        verify: Whether every file is compared with its sha256 now; a file is in any case compared
            when it is read.

    Raises:
        NotFoundError: There is no such bundle.
        AssetError: It is damaged, tampered with, or of a newer version.
    """
    path = Path(path)
    if verify:
        return use_bundle(path, _verified)
    if not path.exists():
        raise NotFoundError(f"there is no avatar bundle at {path}")
    data = read_member(path, MANIFEST_NAME)
    return AvatarBundle(path, _parse_manifest(path, data), hashlib.sha256(data).hexdigest())


def use_bundle(path: Path, use: Callable[[AvatarBundle], Made]) -> Made:
    """Makes something of a bundle; once more if another has taken its place meanwhile.

    Args:
        path: Directory or zip file.
        use: Makes it of a bundle whose files have not been compared yet.

    Raises:
        NotFoundError: There is no such bundle.
        AssetError: It is damaged, tampered with, or of a newer version.
    """
    bundle = read_bundle(path, verify=False)
    try:
        return use(bundle)
    except AssetError:
        if bundle.is_there():
            raise
    return use(read_bundle(path, verify=False))


def pack_bundle(folder: Path, zip_path: Path) -> Path:
    """Writes the one-file form of a bundle directory: just what was compared with its sha256."""

    def pack(bundle: AvatarBundle) -> Path:
        with zipfile.ZipFile(zip_path, "w", zipfile.ZIP_STORED) as archive:
            for name, data in bundle.contents():
                archive.writestr(name, data)
        return zip_path

    return use_bundle(Path(folder), pack)


def _verified(bundle: AvatarBundle) -> AvatarBundle:
    """Returns a bundle, all of whose files have been compared with their sha256."""
    for _ in bundle.contents():
        pass
    return bundle


def _parse_manifest(path: Path, data: bytes) -> AvatarManifest:
    try:
        values = json.loads(data, parse_constant=_refuse_constant)
        version = values["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise AssetError(
            f"{MANIFEST_NAME} in {path.name} is not readable; it is damaged"
        ) from error
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise AssetError(
            f"{path.name} has bundle version {version}; this program reads up to {SCHEMA_VERSION}."
            " Install a newer version of styleavatar",
            reason="BUNDLE_TOO_NEW",
        )
    try:
        manifest = AvatarManifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise AssetError(f"{MANIFEST_NAME} in {path.name}: {where}: {first['msg']}") from error
    for name in manifest.files:
        if Path(name).name != name:
            raise AssetError(f"{MANIFEST_NAME} in {path.name} names a file outside it: {name}")
    return manifest


def _refuse_constant(name: str) -> None:
    """Refuses NaN and Infinity, which JSON does not have and no manifest of ours."""
    raise ValueError(f"{name} is no number")


def _contiguous(tensors: Tensors) -> Tensors:
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}
