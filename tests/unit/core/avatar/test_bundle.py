# SPDX-License-Identifier: Apache-2.0
import json
import shutil
import zipfile

import numpy as np
import pytest

from styleavatar_core.avatar import bundle
from styleavatar_core.avatar.bundle import pack_bundle, read_bundle, write_bundle
from styleavatar_core.avatar.bundle_files import parse_tensors
from styleavatar_core.avatar.manifest import AvatarManifest, AvatarMethods, AvatarSource
from styleavatar_core.errors import AssetError, NotFoundError, TrainingError
from styleavatar_core.provenance.consent import make_consent
from tests.unit.core.data.test_room import nearly_full_disk

GENERATOR = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
FEATURES = {"face.feature": np.ones((1, 2, 4, 4), np.float32)}


@pytest.fixture
def manifest():
    return AvatarManifest(
        preset="nano",
        generator={"image_size_px": 128},
        style_time=0.5,
        model_id="builtin-3",
        identity=[0.5, 0.0],
        texture=[0.1],
        window=(0.1, 0.2, 0.9),
        statistics={},
        consent=make_consent("I agree to an avatar of me"),
        source=AvatarSource(
            file_name="a.mp4",
            sha256="0" * 64,
            width=4,
            height=4,
            fps=25.0,
            train_frame_count=8,
            held_out_frame_count=2,
        ),
        methods=AvatarMethods(landmarks="l", matting="m", perceptual_loss="p"),
    )


@pytest.fixture(params=["avatar", "avatar.zip"])
def path(request, tmp_path, manifest):
    return write_bundle(
        tmp_path / request.param,
        manifest,
        generator=GENERATOR,
        features=FEATURES,
        preview_jpeg=b"\xff\xd8preview",
    )


def test_round_trip(path, manifest):
    bundle = read_bundle(path)
    np.testing.assert_array_equal(bundle.generator()["a.weight"], GENERATOR["a.weight"])
    np.testing.assert_array_equal(bundle.features()["face.feature"], FEATURES["face.feature"])
    assert bundle.preview() == b"\xff\xd8preview"
    assert bundle.manifest.consent == manifest.consent
    assert bundle.manifest.crop.half_size == 0.9
    assert bundle.manifest.image_size_px == 128
    assert not [entry for entry in path.parent.iterdir() if entry.name.startswith(".")]


def test_replacing_an_avatar_changes_its_digest(tmp_path, manifest):
    parts = {"features": FEATURES, "preview_jpeg": b"p"}
    write_bundle(tmp_path / "a", manifest, generator=GENERATOR, **parts)
    before = read_bundle(tmp_path / "a").digest
    changed = {"a.weight": GENERATOR["a.weight"] + 1}
    write_bundle(tmp_path / "a", manifest, generator=changed, **parts)
    after = read_bundle(tmp_path / "a")
    assert after.digest != before
    assert after.generator()["a.weight"][0, 0] == 1


@pytest.fixture
def folder(tmp_path, manifest):
    parts = {"generator": GENERATOR, "features": FEATURES, "preview_jpeg": b"p"}
    return write_bundle(tmp_path / "avatar", manifest, **parts)


def test_a_bundle_knows_whether_it_is_still_there(folder, tmp_path, manifest):
    older = read_bundle(folder)
    assert older.is_there()
    changed = manifest.model_copy(update={"preset": "lite"})
    write_bundle(folder, changed, generator=GENERATOR, features=FEATURES, preview_jpeg=b"p")
    assert not older.is_there()
    newer = read_bundle(folder)
    assert newer.is_there()
    shutil.rmtree(folder)
    assert not newer.is_there()


@pytest.mark.parametrize("use", [read_bundle, lambda folder: pack_and_read(folder)])
def test_a_bundle_that_is_replaced_while_it_is_read_is_read_again(
    folder, manifest, monkeypatch, use
):
    check = bundle.check_digest

    def check_and_replace(*arguments):
        check(*arguments)
        monkeypatch.setattr(bundle, "check_digest", check)  # once
        parts = {"features": {"b": GENERATOR["a.weight"]}, "preview_jpeg": b"another"}
        write_bundle(folder, manifest, generator={"a.weight": np.ones((9, 9))}, **parts)

    monkeypatch.setattr(bundle, "check_digest", check_and_replace)
    found = use(folder)
    assert found.digest == read_bundle(folder).digest
    assert found.preview() == b"another"


def pack_and_read(folder):
    return read_bundle(pack_bundle(folder, folder.with_suffix(".zip")))


def test_one_changed_byte_is_refused_with_the_reason(folder):
    file = folder / "generator.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(AssetError, match=r"generator\.safetensors.*tampered"):
        read_bundle(folder)
    with pytest.raises(AssetError, match="tampered"):
        read_bundle(folder, verify=False).generator()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_one_changed_byte_of_a_zip_is_refused_likewise(folder, tmp_path, method):
    path = tmp_path / "avatar.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
        start = archive.getinfo("generator.safetensors").header_offset
    data = bytearray(path.read_bytes())
    data[start + 120] ^= 0xFF  # behind the header of the member
    path.write_bytes(bytes(data))
    with pytest.raises(AssetError, match=r"generator\.safetensors.*tampered") as refusal:
        read_bundle(path)
    assert refusal.value.reason == "BUNDLE_TAMPERED"


@pytest.mark.parametrize("name", ["avatar", "avatar.zip"])
def test_without_room_the_bundle_before_stays(tmp_path, manifest, name):
    path = tmp_path / name
    write_bundle(path, manifest, generator=GENERATOR, features=FEATURES, preview_jpeg=b"p")
    large = {"generator": GENERATOR, "features": {"map": np.zeros((100, 100), np.float32)}}
    with nearly_full_disk(), pytest.raises(TrainingError, match=r"avatar.*make room"):
        write_bundle(path, manifest, **large, preview_jpeg=b"q")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert read_bundle(path).manifest.preset == manifest.preset


def test_a_missing_file_is_named(folder):
    (folder / "features.safetensors").unlink()
    with pytest.raises(AssetError, match=r"features\.safetensors is missing"):
        read_bundle(folder)


def test_a_newer_version_is_refused_with_advice(folder):
    change(folder, schema_version=99)
    with pytest.raises(AssetError, match=r"version 99.*Install a newer"):
        read_bundle(folder)


def test_a_file_outside_the_bundle_is_refused(folder):
    entry = {"sha256": "0" * 64, "size_bytes": 1}
    change(folder, files={"../secret": entry})
    with pytest.raises(AssetError, match="outside"):
        read_bundle(folder)


def test_garbage_and_absence(tmp_path):
    (tmp_path / "not.zip").write_bytes(b"PK no")
    with pytest.raises(AssetError):
        read_bundle(tmp_path / "not.zip")
    with pytest.raises(NotFoundError):
        read_bundle(tmp_path / "none")


def test_pack(folder, tmp_path):
    packed = read_bundle(pack_bundle(folder, tmp_path / "one.zip"))
    assert packed.digest == read_bundle(folder).digest


def change(folder, **values):
    file = folder / "avatar.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_weights_are_not_copied_out_of_what_was_read(folder):
    weights, check = read_bundle(folder, verify=False).unverified_generator()()
    check()
    whole = weights["a.weight"]
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    assert whole.nbytes == (folder / "generator.safetensors").stat().st_size
    np.testing.assert_array_equal(weights["a.weight"], GENERATOR["a.weight"])


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"no",
        b"[" * 100_000,
        b'{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}',  # not its size
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}',  # beyond the end
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}',
        b'{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[2]}}',
    ],
)
def test_files_that_hold_no_tensors_are_refused(folder, header):
    data = len(header).to_bytes(8, "little") + header + bytes(8)
    with pytest.raises(AssetError, match="cannot be read"):
        parse_tensors(folder, "generator.safetensors", np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("data", [b"", b"1234", b"\xff" * 8, b"\x10" + bytes(7)])
def test_files_that_end_early_are_refused(folder, data):
    with pytest.raises(AssetError, match="cannot be read"):
        parse_tensors(folder, "generator.safetensors", np.frombuffer(data, np.uint8))


def test_a_manifest_with_what_is_no_number_is_refused(tmp_path, manifest):
    path = tmp_path / "avatar"
    write_bundle(path, manifest, generator=GENERATOR, features=FEATURES, preview_jpeg=b"")
    text = (path / "avatar.json").read_text()
    assert text.count('"style_time": 0.5') == 1
    (path / "avatar.json").write_text(text.replace('"style_time": 0.5', '"style_time": NaN'))
    with pytest.raises(AssetError, match="damaged"):
        read_bundle(path)
