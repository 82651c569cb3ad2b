# SPDX-License-Identifier: Apache-2.0
"""Bundles written by earlier versions load and give the picture that they gave then."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.avatar.statistics import ParameterStatistics
from styleavatar_core.data.picture import decode_jpeg
from styleavatar_core.engine.frozen.loading import load_frozen
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.errors import AssetError
from styleavatar_core.export.parity import random_input
from styleavatar_core.face3d.builtin import earlier_model
from styleavatar_core.types import ByteArray

DATA = Path(__file__).parents[3] / "data"
VERSIONS = (1, 2)
BUNDLE = DATA / f"avatar-schema-{VERSIONS[-1]}.zip"

# Every 18th pixel of the picture and of the mask, as the version that wrote the bundle drew them.
IMAGE = [
    [[108, 139, 99], [138, 138, 87], [127, 130, 95], [150, 152, 82]],
    [[75, 147, 113], [110, 147, 118], [130, 153, 105], [120, 141, 90]],
    [[134, 131, 102], [139, 104, 93], [98, 98, 126], [148, 138, 82]],
    [[123, 158, 97], [121, 154, 81], [122, 137, 102], [126, 148, 83]],
]
MASK = [[10, 102, 25, 162], [70, 21, 180, 63], [108, 132, 5, 199], [211, 78, 143, 173]]


def render(path: Path) -> tuple[ByteArray, ByteArray]:
    engine = TorchEngine(load_frozen(read_bundle(path)))
    output = engine.render(random_input(engine, seed=0))
    engine.close()
    return output.image[0], output.mask[0]


def committed(version: int) -> Path:
    return DATA / f"avatar-schema-{version}.zip"


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_small_and_says_what_it_is(version: int) -> None:
    path = committed(version)
    assert path.stat().st_size < 150_000
    manifest = read_bundle(path).manifest
    assert manifest.schema_version == version
    assert manifest.model_id == "builtin-2"  # its digest, where there is one, must be that one's
    assert manifest.face_model() is earlier_model()
    assert manifest.consent.subject == "nobody"
    assert manifest.image_size_px == 64
    assert ParameterStatistics.from_dict(manifest.statistics).model_id == manifest.model_id
    assert decode_jpeg(read_bundle(path).preview()).shape == (16, 16, 3)


@pytest.mark.parametrize("version", VERSIONS)
def test_it_gives_the_picture_that_it_gave(version: int) -> None:
    image, mask = render(committed(version))
    # One step of uint8: another processor may round a value the other way.
    assert np.abs(image[5::18, 7::18].astype(int) - IMAGE).max() <= 1
    assert np.abs(mask[5::18, 7::18].astype(int) - MASK).max() <= 1


def rewrite(path: Path, name: str, data: bytes) -> Path:
    """Copies the bundle with one file exchanged."""
    with zipfile.ZipFile(BUNDLE) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.namelist():
            target.writestr(member, data if member == name else source.read(member))
    return path


def member(name: str) -> bytes:
    with zipfile.ZipFile(BUNDLE) as archive:
        return archive.read(name)


@pytest.mark.parametrize("name", ["generator.safetensors", "features.safetensors", "preview.jpg"])
def test_a_changed_file_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    changed = bytearray(member(name))
    changed[len(changed) // 2] ^= 1
    with pytest.raises(AssetError, match=rf"{name}.*tampered") as caught:
        read_bundle(rewrite(tmp_path / "avatar.zip", name, bytes(changed)))
    assert caught.value.reason == "BUNDLE_TAMPERED"


def test_a_manifest_that_describes_other_networks_is_refused(tmp_path: Path) -> None:
    values = json.loads(member("avatar.json"))
    values["generator"]["synthesis"]["decoder_channels"][1] = [5, 5]
    data = json.dumps(values).encode()
    path = rewrite(tmp_path / "avatar.zip", "avatar.json", data)
    with pytest.raises(AssetError, match="do not fit its preset 'tiny'"):
        load_frozen(read_bundle(path))
    values["unheard_of"] = 1
    path = rewrite(tmp_path / "avatar.zip", "avatar.json", json.dumps(values).encode())
    with pytest.raises(AssetError, match=r"avatar\.json.*unheard_of"):
        read_bundle(path)


def test_as_a_folder_it_is_the_same_avatar(tmp_path: Path) -> None:
    shutil.unpack_archive(BUNDLE, tmp_path / "avatar")
    assert read_bundle(tmp_path / "avatar").digest == read_bundle(BUNDLE).digest
