# SPDX-License-Identifier: Apache-2.0
"""Frames that can wait begin in turns that leave other streams their rate."""

from __future__ import annotations

import time
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.common.metrics import RenderingMetrics
from services.common.storage import AvatarStore
from services.common.worker.options import WorkerOptions
from services.common.worker.standby import StandBy
from services.rendering.catalog import AvatarCatalog
from services.rendering.pool.capacity import FrameCosts
from services.rendering.pool.lane import Lane
from services.rendering.pool.limits import PoolLimits
from services.rendering.pool.reservations import Reservation
from services.rendering.pool.worker import PoolWorker
from tests.fakes.bundle import write_fake_bundle

FRAME_S = 4.0  # long: what passes while a test runs is nothing beside it


def lanes(folder: Path, *are_live: bool) -> list[Lane]:
    """Streams of one avatar at one worker, whose live ones leave half of its time."""
    write_fake_bundle(folder / "anna", 1)
    anna = AvatarCatalog(AvatarStore(folder)).get("anna")
    costs = FrameCosts()
    costs.calibrate(anna, FRAME_S)
    options = WorkerOptions("tests.fakes.echo_worker")
    metrics = RenderingMetrics(CollectorRegistry())
    worker = PoolWorker(
        options, StandBy(options), PoolLimits(1), metrics, costs, lambda avatar_id: None
    )
    return [
        Lane(worker, anna, Reservation(anna, 0.01, is_live), film_share=lambda live: 0.5)
        for is_live in are_live
    ]


def turns(lane: Lane, count: int) -> list[float]:
    """When the next frames begin, counted from now, to a second."""
    now_s = time.perf_counter()
    return [round(lane.turn_s() - now_s) for _ in range(count)]


def test_films_do_not_wait_for_each_other(tmp_path: Path) -> None:
    first, second = lanes(tmp_path, False, False)
    with first.held(), second.held():
        assert turns(first, 4) == turns(second, 4) == [0, 0, 0, 0]


def test_beside_a_live_stream_films_share_what_it_leaves(tmp_path: Path) -> None:
    live, first, second = lanes(tmp_path, True, False, False)
    with first.held(), second.held():
        with live.held():
            assert turns(first, 2) == [0, 2 * FRAME_S]
            assert turns(second, 2) == [4 * FRAME_S, 6 * FRAME_S]
            assert turns(live, 3) == [0, 0, 0]
        assert turns(first, 2) == [0, 0]  # it has left


def test_a_single_frame_has_had_its_turn(tmp_path: Path) -> None:
    live, film = lanes(tmp_path, True, False)
    with live.held(), Lane(film.worker, film.entry).held() as single:
        assert turns(single, 3) == [0, 0, 0]
