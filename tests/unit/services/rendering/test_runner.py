# SPDX-License-Identifier: Apache-2.0
"""What a rendering worker holds, lets go and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from services.common.worker.arena import SharedArena
from services.common.worker.parameters import parameters_to_body
from services.rendering.worker.runner import Runner, renderer_opener
from styleavatar_core.avatar.reenactment import Retargeter
from styleavatar_core.errors import AssetError, OverloadedError, RenderError
from tests.fakes.bundle import wide_statistics, write_fake_bundle
from tests.fakes.renderer import read_mark
from tests.fakes.tracker import FakeTracker

NAMES = ("anna", "ben", "carla")


@pytest.fixture
def arena() -> Iterator[SharedArena]:
    arena = SharedArena.create(2, 64 * 64 * 3)
    yield arena
    arena.close()


@pytest.fixture
def runner(arena: SharedArena, tmp_path: Path) -> Runner:
    for mark, name in enumerate(NAMES):
        write_fake_bundle(tmp_path / name, mark)
    write_fake_bundle(tmp_path / "damaged", 9, {"refuse_to_load": True})
    opener = renderer_opener("tests.fakes.renderer:FakeRenderer", "auto", 1)
    return Runner(arena, opener, avatar_limit=2)


def load(runner: Runner, folder: Path, name: str, *pinned: str) -> list[str]:
    body = {"avatar_id": name, "path": str(folder / name), "pinned": list(pinned)}
    answer = runner.load(body | {"parameters": at_rest()})
    assert 0 < answer["frame_s"] <= answer["load_s"]
    return answer["evicted"]


def at_rest() -> dict:
    return parameters_to_body(Retargeter(wide_statistics()).retarget(None).parameters)


def render(runner: Runner, name: str, slot: int = 0) -> dict:
    parameters = FakeTracker().track(np.full((16, 16, 3), 102, np.uint8), 0.0, 7)
    assert parameters is not None
    body = {"avatar_id": name, "slot": slot, "with_mask": False}
    body["parameters"] = parameters_to_body(parameters)
    return runner.render(body)


def test_a_picture_lands_in_its_slot(runner: Runner, arena: SharedArena, tmp_path: Path) -> None:
    load(runner, tmp_path, "anna")
    load(runner, tmp_path, "ben")
    answer = render(runner, "ben", slot=1)
    assert answer["shape"] == [64, 64, 3]
    assert read_mark(arena.read_array(1, (64, 64, 3))) == (1, 7, 40)
    assert not arena.read_array(0, (64, 64, 3)).any()


def test_the_longest_unused_leaves_unless_pinned(runner: Runner, tmp_path: Path) -> None:
    load(runner, tmp_path, "anna")
    load(runner, tmp_path, "ben")
    render(runner, "anna")
    assert load(runner, tmp_path, "carla") == ["ben"]
    with pytest.raises(RenderError) as caught:
        render(runner, "ben")
    assert caught.value.reason == "AVATAR_NOT_LOADED"
    assert load(runner, tmp_path, "ben", "anna") == ["carla"]
    with pytest.raises(OverloadedError):
        load(runner, tmp_path, "carla", "anna", "ben")


def test_a_load_that_fails_puts_nobody_out(runner: Runner, tmp_path: Path) -> None:
    load(runner, tmp_path, "anna")
    load(runner, tmp_path, "ben")
    with pytest.raises(AssetError):
        load(runner, tmp_path, "damaged")
    render(runner, "anna")
    render(runner, "ben")


def test_loading_again_replaces_and_unloading_is_idempotent(
    runner: Runner, arena: SharedArena, tmp_path: Path
) -> None:
    load(runner, tmp_path, "anna")
    write_fake_bundle(tmp_path / "anna", 77)
    assert load(runner, tmp_path, "anna") == []
    render(runner, "anna")
    assert read_mark(arena.read_array(0, (64, 64, 3)))[0] == 77
    runner.unload({"avatar_id": "anna"})
    runner.unload({"avatar_id": "anna"})
    with pytest.raises(RenderError):
        render(runner, "anna")
