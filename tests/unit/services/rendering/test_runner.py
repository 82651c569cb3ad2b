# SPDX-License-Identifier: Apache-2.0
"""What a rendering worker holds, draws, lets go and refuses."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from services.common.worker.arena import SharedArena
from services.common.worker.parameters import pack_parameters
from services.rendering.pool.frames import FRAME_ABANDONED, FRAME_LATE
from services.rendering.worker.runner import Runner, renderer_opener
from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.errors import AssetError, NotFoundError, RenderError
from tests.fakes.bundle import write_fake_bundle
from tests.fakes.renderer import MEMORY_BYTES, FakeRenderer, half_mask, read_mark
from tests.fakes.tracker import FakeTracker

NAMES = ("anna", "ben")


@pytest.fixture
def arena() -> Iterator[SharedArena]:
    arena = SharedArena.create(2, 64 * 64 * 4)
    yield arena
    arena.close()


@pytest.fixture
def runner(arena: SharedArena, tmp_path: Path) -> Runner:
    for mark, name in enumerate(NAMES):
        write_fake_bundle(tmp_path / name, mark)
    write_fake_bundle(tmp_path / "damaged", 9, {"refuse_to_load": True})
    opener = renderer_opener("tests.fakes.renderer:FakeRenderer", "auto", None, 1)
    return Runner(arena, opener)


def load(runner: Runner, folder: Path, name: str, revision: str = "1") -> dict:
    digest = read_bundle(folder / name).digest
    return runner.load({"engine": [name, revision], "path": str(folder / name), "digest": digest})


def ask(arena: SharedArena, name: str, slot: int = 0, revision: str = "1", index: int = 7) -> dict:
    parameters = FakeTracker().track(np.full((16, 16, 3), 102, np.uint8), 0.0, index)
    assert parameters is not None
    data = pack_parameters(parameters)
    arena.write(slot, data)
    face = {"model_id": parameters.model_id, "byte_count": len(data)}
    return {**face, "engine": [name, revision], "slot": slot, "with_mask": slot == 0}


def render(runner: Runner, arena: SharedArena, name: str, slot: int = 0, revision: str = "1"):
    ((_, answer),) = runner.render([ask(arena, name, slot, revision)])
    if isinstance(answer, Exception):
        raise answer
    return answer


def test_the_log_tells_a_load_in_milliseconds_and_no_finer(
    runner: Runner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="services.rendering.worker.runner")
    for name in NAMES:
        load(runner, tmp_path, name)
    told = [vars(record)["load_s"] for record in caplog.records]
    assert len(told) == len(NAMES)
    assert told == [round(seconds, 3) for seconds in told]


def test_a_picture_lands_in_the_slot_of_its_face(
    runner: Runner, arena: SharedArena, tmp_path: Path
) -> None:
    assert load(runner, tmp_path, "anna")["size_bytes"] == MEMORY_BYTES
    load(runner, tmp_path, "ben")
    answer = render(runner, arena, "ben", slot=1)
    assert answer["shape"] == [64, 64, 3]
    assert read_mark(arena.read_array(1, (64, 64, 3))) == (1, 7, 40)
    assert not arena.read_array(0, (64, 64, 3)).any()
    render(runner, arena, "anna")
    assert read_mark(arena.read_array(0, (64, 64, 3))) == (0, 7, 40)
    assert (arena.read_array(0, (64, 64), 64 * 64 * 3) == half_mask()).all()


def test_what_is_deleted_before_or_while_it_is_opened_is_not_found(
    arena: SharedArena, tmp_path: Path
) -> None:
    def open_and_lose(bundle: Path) -> FakeRenderer:
        shutil.rmtree(bundle)
        raise AssetError("A file is not there: the bundle is damaged.")

    for opener in (FakeRenderer, open_and_lose):
        write_fake_bundle(tmp_path / "anna", 1)
        body = {"engine": ["anna", "1"], "path": str(tmp_path / "anna"), "digest": ""}
        if opener is FakeRenderer:
            shutil.rmtree(tmp_path / "anna")
        with pytest.raises(NotFoundError) as caught:
            Runner(arena, opener).load(body)
        assert caught.value.reason == "AVATAR_NOT_FOUND"
        assert str(tmp_path) not in str(caught.value)


def test_what_is_not_loaded_is_refused_and_nothing_else_harmed(
    runner: Runner, arena: SharedArena, tmp_path: Path
) -> None:
    load(runner, tmp_path, "anna")
    with pytest.raises(AssetError):
        load(runner, tmp_path, "damaged")
    with pytest.raises(RenderError) as caught:
        render(runner, arena, "ben")
    assert caught.value.reason == "AVATAR_NOT_LOADED"
    render(runner, arena, "anna")


def test_frames_that_nobody_waits_for_are_not_rendered(
    runner: Runner, arena: SharedArena, tmp_path: Path
) -> None:
    load(runner, tmp_path, "anna")
    now_s = time.perf_counter()
    late, in_time = ask(arena, "anna"), ask(arena, "anna", slot=1)
    answers = dict(
        runner.render([{**late, "give_up_s": now_s - 1}, {**in_time, "give_up_s": now_s + 1000}])
    )
    assert answers[0].reason == FRAME_LATE
    assert answers[1]["shape"] == [64, 64, 3]
    arena.set_abandoned(1, True)
    answers = dict(runner.render([ask(arena, "anna"), ask(arena, "anna", slot=1)]))
    assert answers[1].reason == FRAME_ABANDONED
    assert answers[0]["shape"] == [64, 64, 3]


def test_two_bundles_of_an_avatar_live_side_by_side_until_one_is_let_go(
    runner: Runner, arena: SharedArena, tmp_path: Path
) -> None:
    load(runner, tmp_path, "anna")
    write_fake_bundle(tmp_path / "anna", 77)
    load(runner, tmp_path, "anna")  # the same bundle, as its key says: not read again
    load(runner, tmp_path, "anna", revision="2")
    for revision, mark in (("1", 0), ("2", 77)):
        render(runner, arena, "anna", revision=revision)
        assert read_mark(arena.read_array(0, (64, 64, 3)))[0] == mark
    for _ in range(2):
        runner.unload({"engine": ["anna", "1"]})
    with pytest.raises(RenderError):
        render(runner, arena, "anna")
    render(runner, arena, "anna", revision="2")


def test_frames_of_an_avatar_are_rendered_together_and_none_harms_another(tmp_path: Path) -> None:
    for mark, name in enumerate(NAMES):
        write_fake_bundle(tmp_path / name, mark, {"batch_limit": 2, "fail_at": 3})
    arena = SharedArena.create(5, 64 * 64 * 4)
    runner = Runner(arena, renderer_opener("tests.fakes.renderer:FakeRenderer", "auto", None, 1))
    for name in NAMES:
        load(runner, tmp_path, name)
    wanted = [("anna", 1), ("ben", 2), ("anna", 4), ("anna", 5), ("anna", 3)]
    bodies = [ask(arena, name, slot, index=index) for slot, (name, index) in enumerate(wanted)]
    answers = list(runner.render(bodies))
    assert [position for position, _ in answers] == [0, 2, 1, 3, 4]
    failure = dict(answers).pop(4)
    assert isinstance(failure, RenderError)
    good = {position: answer for position, answer in answers if position != 4}
    # Frame 5 was to go with the one that fails: both were tried again, each alone.
    assert [answer["batch_size"] for answer in good.values()] == [2, 2, 1, 1]
    for position in good:
        name, index = wanted[position]
        assert read_mark(arena.read_array(position, (64, 64, 3))) == (NAMES.index(name), index, 40)
    arena.close()


def test_the_next_avatar_is_begun_while_a_device_renders_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mark, name in enumerate(NAMES):
        behavior = {"batch_limit": 2, "renders_ahead": True, "fail_at": 3, "begin_fails_at": 6}
        write_fake_bundle(tmp_path / name, mark, behavior)
    turns: list[tuple[object, ...]] = []
    monkeypatch.setattr(FakeRenderer, "turns", turns)
    arena = SharedArena.create(7, 64 * 64 * 4)
    runner = Runner(arena, renderer_opener("tests.fakes.renderer:FakeRenderer", "auto", None, 1))
    for name in NAMES:
        load(runner, tmp_path, name)
    wanted = [("anna", 1), ("ben", 2), ("anna", 4), ("ben", 3), ("anna", 6), ("ben", 5)]
    bodies = [ask(arena, name, slot, index=index) for slot, (name, index) in enumerate(wanted)]
    answers = list(runner.render(bodies))
    assert turns[:4] == [("begins", 1, 4), ("begins", 2, 3), ("ends", 1, 4), ("ends", 2, 3)]
    assert [position for position, _ in answers] == [0, 2, 1, 3, 4, 5]
    failed = [position for position, answer in answers if isinstance(answer, Exception)]
    assert failed == [3, 4]  # one while it was rendered, one when it was begun
    for position, answer in answers:
        if position not in failed:
            name, index = wanted[position]
            mark = read_mark(arena.read_array(position, (64, 64, 3)))
            assert mark == (NAMES.index(name), index, 40)
            assert answer["busy_s"] >= 0
    arena.close()
