# SPDX-License-Identifier: Apache-2.0
"""The artifact store and job folders: all or nothing, and deletion really deletes."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.common.storage import AvatarStore, JobFolders, is_valid_id, new_id, safe_file_name
from styleavatar_core.errors import NotFoundError
from tests.fakes.dying import DEAD, run_until
from tests.unit.core.data.test_room import nearly_full_disk

PUBLISHING = """
from services.common.storage import AvatarStore
AvatarStore(first).publish(second, "anna")
"""


def bundle(folder: Path, text: str = "{}") -> Path:
    folder.mkdir(parents=True)
    (folder / "avatar.json").write_text(text)
    return folder


def make_old(folder: Path, hours: float) -> None:
    then = time.time() - 3600 * hours
    os.utime(folder, (then, then))


def test_publish_list_and_delete(tmp_path: Path) -> None:
    store = AvatarStore(tmp_path / "avatars")
    assert store.list() == []
    path = store.publish(bundle(tmp_path / "work"), "anna")
    assert (path, store.list(), store.exists("anna")) == (store.path("anna"), ["anna"], True)
    assert not (tmp_path / "work").exists()
    assert store.delete("anna")
    assert not store.delete("anna")
    assert list(store.root.iterdir()) == []


def test_publishing_again_replaces(tmp_path: Path) -> None:
    store = AvatarStore(tmp_path / "avatars")
    store.publish(bundle(tmp_path / "first", "1"), "anna")
    store.publish(bundle(tmp_path / "second", "2"), "anna")
    assert (store.path("anna") / "avatar.json").read_text() == "2"
    assert [entry.name for entry in store.root.iterdir()] == ["anna"]


def test_half_a_copy_does_not_stay_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_elsewhere(*_: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    store, work = AvatarStore(tmp_path / "avatars"), bundle(tmp_path / "work")
    (work / "generator.safetensors").write_bytes(bytes(20_000))
    monkeypatch.setattr("os.rename", be_elsewhere)
    with nearly_full_disk(), pytest.raises(OSError, match="too large"):
        store.publish(work, "anna")
    assert list(store.root.iterdir()) == []
    assert len(list(work.iterdir())) == 2


def test_a_replaced_avatar_is_there_before_the_old_one_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AvatarStore(tmp_path / "avatars")
    store.publish(bundle(tmp_path / "first"), "anna")
    was_there: list[bool] = []
    monkeypatch.setattr(shutil, "rmtree", lambda path: was_there.append(store.exists("anna")))
    store.publish(bundle(tmp_path / "second"), "anna")
    assert was_there == [True]


def test_a_republished_avatar_is_there_whenever_the_publisher_dies(tmp_path: Path) -> None:
    store = AvatarStore(tmp_path / "avatars")
    store.publish(bundle(tmp_path / "first", "1"), "anna")
    code, step, found = DEAD, 0, []
    while code == DEAD:
        step += 1
        new = bundle(tmp_path / f"second-{step}", "2")
        code = run_until(step, PUBLISHING, store.root, new)
        found.append((store.path("anna") / "avatar.json").read_text())
    assert code == 0
    assert found == sorted(found)
    assert {*found} == {"1", "2"}
    store.sweep()
    assert any(entry.name != "anna" for entry in store.root.iterdir()), "may be another's work"
    for entry in store.root.iterdir():
        make_old(entry, hours=2)
    store.sweep()
    assert [entry.name for entry in store.root.iterdir()] == ["anna"]


@pytest.mark.parametrize("name", ["", "..", "../anna", ".trash", "Anna", "a/b", "a" * 64])
def test_names_from_outside_cannot_leave_the_store(tmp_path: Path, name: str) -> None:
    store = AvatarStore(tmp_path / "avatars")
    bundle(tmp_path / "anna")
    store.publish(bundle(tmp_path / "work"), "ben")
    assert not store.exists(name)
    assert not store.delete(name)
    with pytest.raises(NotFoundError):
        store.path(name)
    with pytest.raises(ValueError):
        JobFolders(tmp_path).folder(name)
    assert (tmp_path / "anna" / "avatar.json").exists()


def test_a_half_written_bundle_is_no_avatar_and_is_swept(tmp_path: Path) -> None:
    store = AvatarStore(tmp_path)
    make_old(bundle(tmp_path / ".incoming-1"), hours=2)
    (tmp_path / "anna").mkdir()
    assert store.list() == []
    store.sweep()
    assert [entry.name for entry in tmp_path.iterdir()] == ["anna"]


def test_an_upload_becomes_a_job_and_is_deleted(tmp_path: Path) -> None:
    folders = JobFolders(tmp_path / "jobs")
    upload = folders.new_upload_folder()
    (upload / "a.mp4").write_text("video")
    assert folders.list() == []
    folders.accept_upload(upload, "job-1")
    assert folders.list() == ["job-1"]
    assert folders.upload("job-1", "a.mp4").read_text() == "video"
    folders.delete("job-1")
    folders.delete("job-1")
    assert list(folders.root.iterdir()) == []


def test_an_accepted_upload_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, synced = JobFolders(tmp_path / "jobs"), set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    upload = folders.new_upload_folder()
    (upload / "a.mp4").write_text("video")
    folders.accept_upload(upload, "job-1")
    there = [folders.root, *folders.root.rglob("*")]
    assert len(there) == 4
    assert {path.stat().st_ino for path in there} == synced


def test_what_is_deleted_goes_though_others_remove_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmtree, folders = shutil.rmtree, JobFolders(tmp_path)

    def find_one_gone(path: Path) -> None:
        monkeypatch.setattr(shutil, "rmtree", rmtree)
        raise FileNotFoundError(path / "what another has just removed")

    bundle(folders.folder("job-1"))
    monkeypatch.setattr(shutil, "rmtree", find_one_gone)
    folders.delete("job-1")
    assert list(tmp_path.iterdir()) == []
    bundle(tmp_path / ".trash-1")
    monkeypatch.setattr(shutil, "rmtree", find_one_gone)
    folders.sweep()
    assert list(tmp_path.iterdir()) == []


def test_only_old_broken_uploads_are_swept(tmp_path: Path) -> None:
    folders = JobFolders(tmp_path)
    fresh, old = folders.new_upload_folder(), folders.new_upload_folder()
    (tmp_path / ".trash-1").mkdir()
    make_old(old, hours=48)
    folders.sweep()
    assert list(tmp_path.iterdir()) == [fresh]


def test_only_zips_that_a_killed_process_has_left_are_swept(tmp_path: Path) -> None:
    store = AvatarStore(tmp_path)
    with store.room_to_pack() as sent, store.room_to_pack() as left:
        make_old(Path(left), hours=48)
        store.sweep()
        assert [str(path) for path in tmp_path.iterdir()] == [sent]
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_swept_is_named_and_keeps_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        (tmp_path / f".trash-{number}").mkdir()
    (tmp_path / ".trash-link").symlink_to(tmp_path)  # a folder, but none to be emptied
    JobFolders(tmp_path).sweep()
    assert [path.name for path in tmp_path.iterdir()] == [".trash-link"]
    (record,) = caplog.records
    assert (record.levelname, vars(record)["folder"]) == ("ERROR", str(tmp_path / ".trash-link"))


def test_uploads_are_accepted_while_others_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # 1,200 of them take a disk minutes
    folders = JobFolders(tmp_path)
    is_done = threading.Event()

    def sweep() -> int:
        count = 0
        while not is_done.is_set():
            folders.sweep()
            count += 1
        return count

    with ThreadPoolExecutor(2) as threads:
        sweeps = [threads.submit(sweep) for _ in range(2)]
        for number in range(300):
            folders.accept_upload(folders.new_upload_folder(), f"job-{number}")
        is_done.set()
        assert all(sweep.result() > 1 for sweep in sweeps)
    assert len(folders.list()) == 300


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [("a.mp4", "a.mp4"), ("../../etc/passwd", "passwd"), ("C:\\me\\my film.mp4", "my_film.mp4"),
     ("...", "video"), ("", "video"), ("x" * 300 + ".mp4", "x" * 236 + ".mp4"),
     ("𠀀" * 80 + ".mp4", "𠀀" * 59 + ".mp4"), ("a𠀀" * 80 + ".mp4", "a𠀀" * 47 + ".mp4")],
)  # fmt: skip
def test_file_names_are_cleaned(name: str, cleaned: str) -> None:
    assert safe_file_name(name) == cleaned


def test_new_ids_are_valid_and_differ() -> None:
    ids = {new_id("avatar") for _ in range(100)}
    assert len(ids) == 100
    assert all(is_valid_id(name) for name in ids)
