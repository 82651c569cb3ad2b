# SPDX-License-Identifier: Apache-2.0
"""The avatar bundle: a directory, or one zip of it, that is all rendering needs and nothing else.

``avatar.json`` (see :mod:`styleavatar_core.avatar.manifest`) names the sha256 of every other file:
``generator.safetensors``, ``features.safetensors`` (the two static maps) and ``preview.jpg``. No
file is ever executed or unpickled. Imports neither torch nor OpenCV.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from styleavatar_core.avatar.manifest import SCHEMA_VERSION, AvatarManifest, BundleFile
from styleavatar_core.errors import AssetError, NotFoundError

MANIFEST_NAME = "avatar.json"
GENERATOR_NAME = "generator.safetensors"
FEATURES_NAME = "features.safetensors"
PREVIEW_NAME = "preview.jpg"
_MAX_FILE_BYTES = 2 * 2**30

Tensors = dict[str, npt.NDArray[np.generic]]


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

    def generator(self) -> Tensors:
        """Reads the generator's weights by parameter name."""
        return self._tensors(GENERATOR_NAME)

    def unverified_generator(self) -> tuple[Tensors, Callable[[], None]]:
        """Reads the generator's weights, and compares them with their sha256 beside other work.

        Returns:
            The weights by parameter name, and what waits for the comparison: it raises
            ``AssetError``, and must have returned before anything made of the weights is used.
        """
        data = self._read_unverified(GENERATOR_NAME)
        checker = ThreadPoolExecutor(1, "checking")
        checking = checker.submit(self._check, GENERATOR_NAME, data)
        checker.shutdown(wait=False)  # when it is done
        try:
            return self._parsed(GENERATOR_NAME, data), checking.result
        except AssetError:
            checking.result()  # says more, if that is why
            raise

    def features(self) -> Tensors:
        """Reads the static maps: ``face.feature``, ``face.rgb_pack`` and the same of background."""
        return self._tensors(FEATURES_NAME)

    def preview(self) -> bytes:
        """Reads the preview picture, JPEG."""
        return self._read(PREVIEW_NAME)

    def _read(self, name: str) -> bytes:
        data = self._read_unverified(name)
        self._check(name, data)
        return data

    def _read_unverified(self, name: str) -> bytes:
        if name not in self.manifest.files:
            raise AssetError(f"{self.path.name} lacks {name}; create the avatar again")
        return _read_member(self.path, name)

    def _check(self, name: str, data: bytes) -> None:
        _check_digest(self.path, name, data, self.manifest.files[name])

    def _tensors(self, name: str) -> Tensors:
        return self._parsed(name, self._read(name))

    def _parsed(self, name: str, data: bytes) -> Tensors:
        try:
            return load(data)
        except SafetensorError as error:
            raise AssetError(f"{name} in {self.path.name} cannot be read: {error}") from error


def write_bundle(
    path: Path,
    manifest: AvatarManifest,
    *,
    generator: Tensors,
    features: Tensors,
    preview_jpeg: bytes,
) -> Path:
    """Writes a bundle; it appears under its name only when it is complete.

    Args:
        path: Directory to write, or a file name ending in ``.zip``. An older one is replaced.
        manifest: Its ``files`` are filled in here.
        generator: Weights by parameter name.
        features: Static maps, as :meth:`AvatarBundle.features` gives them.
        preview_jpeg: A picture of the avatar.

    Returns:
        ``path``.
    """
    contents = {
        GENERATOR_NAME: save(_contiguous(generator)),
        FEATURES_NAME: save(_contiguous(features)),
        PREVIEW_NAME: preview_jpeg,
    }
    files = {
        name: BundleFile(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        for name, data in contents.items()
    }
    complete = manifest.model_copy(update={"files": files})
    contents[MANIFEST_NAME] = (complete.model_dump_json(indent=2) + "\n").encode()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    if path.suffix == ".zip":
        with zipfile.ZipFile(incoming, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(contents):
                archive.writestr(name, contents[name])
        incoming.replace(path)
        return path
    incoming.mkdir()
    for name, data in contents.items():
        (incoming / name).write_bytes(data)
    if path.exists():
        shutil.rmtree(path)
    incoming.rename(path)
    return path


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
    if not path.exists():
        raise NotFoundError(f"there is no avatar bundle at {path}")
    data = _read_member(path, MANIFEST_NAME)
    bundle = AvatarBundle(path, _parse_manifest(path, data), hashlib.sha256(data).hexdigest())
    if verify:
        for name, entry in bundle.manifest.files.items():
            _check_digest(path, name, _read_member(path, name), entry)
    return bundle


def pack_bundle(folder: Path, zip_path: Path) -> Path:
    """Writes the one-file form of a bundle directory."""
    bundle = read_bundle(folder)
    with zipfile.ZipFile(zip_path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted([MANIFEST_NAME, *bundle.manifest.files]):
            archive.write(Path(folder) / name, name)
    return zip_path


def _parse_manifest(path: Path, data: bytes) -> AvatarManifest:
    try:
        values = json.loads(data)
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


def _read_member(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            return (path / name).read_bytes()
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(name).file_size > _MAX_FILE_BYTES:
                raise AssetError(f"{name} in {path.name} is larger than any avatar's")
            return archive.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise AssetError(f"{path.name} is not a whole avatar bundle: {name} is missing") from error


def _check_digest(path: Path, name: str, data: bytes, entry: BundleFile) -> None:
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise AssetError(
            f"{name} in {path.name} is not what was written (its sha256 differs); the bundle is "
            "damaged or was tampered with: fetch it again",
            reason="BUNDLE_TAMPERED",
        )


def _contiguous(tensors: Tensors) -> Tensors:
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}
