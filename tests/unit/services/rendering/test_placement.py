# SPDX-License-Identifier: Apache-2.0
"""Streams go where their avatar is, else where there is least to do, if there is room."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from services.common.worker.options import WorkerOptions
from services.rendering.pool.devices import (
    CPU_ENGINE_BYTES,
    device_loads,
    device_names,
    device_workers,
    engine_bytes,
)
from services.rendering.pool.placement import Place, choose_place, choose_refuge
from styleavatar_core.errors import InvalidInputError

IDLE = Place(True, False, 0.0, 0, 0)
BUSY = Place(True, False, 0.6, 3, 3)


def choose(places: list[Place], needed: float | None, limit: float = 1.0) -> int | None:
    """Where a newcomer goes who needs the same everywhere."""
    return choose_place([replace(place, needed=needed) for place in places], limit)


def test_an_avatar_draws_its_streams_until_its_worker_is_full() -> None:
    holder = replace(BUSY, holds_avatar=True)
    assert choose([IDLE, holder, BUSY], 0.3, 1.0) == 1
    assert choose([IDLE, holder, BUSY], 0.5, 1.0) == 0
    assert choose([BUSY, holder], 0.5, 1.0) is None


def test_an_avatar_that_is_being_loaded_is_waited_for_there() -> None:
    loading = replace(BUSY, is_loading=True)
    assert choose([IDLE, loading], 0.3, 1.0) == 1
    assert choose([loading, replace(BUSY, holds_avatar=True)], 0.3, 1.0) == 1
    assert choose([loading, IDLE], 0.5, 1.0) == 1


def test_where_nobody_holds_it_the_least_busy_is_chosen() -> None:
    assert choose([BUSY, replace(BUSY, utilization=0.2), BUSY], 0.1, 1.0) == 1
    assert choose([BUSY, replace(BUSY, pinned_count=1)], 0.1, 1.0) == 1
    assert choose([replace(IDLE, engine_bytes=5), IDLE], 0.1, 1.0) == 1
    assert choose([BUSY, BUSY], 0.1, 1.0) == 0


def test_who_is_too_much_for_a_slow_device_may_not_be_for_a_fast_one() -> None:
    slow, fast = replace(BUSY, needed=0.5), replace(BUSY, needed=0.1)
    assert choose_place([slow, fast], 1.0) == 1
    assert choose_place([slow, replace(fast, utilization=0.95)], 1.0) is None


def test_one_that_is_being_replaced_is_the_last_choice_but_one() -> None:
    dead = replace(IDLE, is_ready=False, holds_avatar=True)
    assert choose([dead, BUSY], 0.1, 1.0) == 1
    assert choose([dead], 0.1, 1.0) == 0


def test_a_worker_without_streams_takes_any_and_single_frames_go_anywhere() -> None:
    assert choose([BUSY, IDLE], 7.0, 1.0) == 1
    assert choose([replace(BUSY, utilization=5.0)], None) == 0


def test_who_lost_his_worker_goes_where_his_avatar_is_then_to_who_stands_by() -> None:
    dead = replace(IDLE, is_ready=False, holds_avatar=True)
    holder = replace(BUSY, holds_avatar=True)

    def refuge(*others: Place, needed: float = 0.3, stands_by: bool = True) -> int | None:
        places = [replace(place, needed=needed) for place in (dead, *others)]
        return choose_refuge(places, 0, 1.0, someone_stands_by=stands_by)

    assert refuge(IDLE, holder) == 2
    assert refuge(IDLE, BUSY) is None
    assert refuge(BUSY, IDLE, stands_by=False) == 2
    assert (
        refuge(holder, needed=0.5, stands_by=False) is None
    )  # those who are there keep their rate
    assert refuge(dead, dead, stands_by=False) is None
    assert refuge() is None


def test_where_more_than_all_time_may_be_reserved_workers_are_filled_evenly() -> None:
    full = replace(BUSY, utilization=0.9, holds_avatar=True)
    assert choose([full, IDLE], 0.7, 1000.0) == 1
    assert choose([full, BUSY], 0.7, 1000.0) == 0  # late at either: there at least it is loaded


def test_each_worker_sees_the_device_that_it_was_given() -> None:
    options = WorkerOptions("module", environment={"A": "1"}, options={"B": 2})
    devices = device_workers(options, ["0", "MIG-2", "cpu"], core_count=8)
    seen = [device.options.environment for device in devices]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in seen] == ["0", "MIG-2", ""]
    assert all(environment["A"] == "1" for environment in seen)
    assert all(device.options.options["B"] == 2 for device in devices)


@pytest.mark.parametrize(
    ("names", "cores", "workers", "threads", "expected"),
    [
        (["cpu"], 2, None, None, [(2, 1)]),
        (["cpu"], 20, None, None, [(8, 2)]),
        (["cpu"], 4, 1, None, [(1, 4)]),
        (["cpu"], 4, 3, 2, [(3, 2)]),
        (["0", "1"], 16, None, None, [(1, 8), (1, 8)]),
        (["0", "1"], 1, 3, None, [(3, 1), (3, 1)]),
    ],
)
def test_cores_are_shared_among_the_workers(
    names: list[str],
    cores: int,
    workers: int | None,
    threads: int | None,
    expected: list[tuple[int, int]],
) -> None:
    devices = device_workers(WorkerOptions("module"), names, cores, workers, threads)
    counts = [(device.count, device.options.options["thread_count"]) for device in devices]
    assert counts == expected


def test_devices_are_those_of_the_setting_or_all_that_the_machine_shows() -> None:
    assert device_names("0, GPU-5a,cpu", [], {}) == ["0", "GPU-5a", "cpu"]
    assert device_names("", [0, 2], {}) == ["0", "2"]
    assert device_names("", [], {}) == ["cpu"]
    assert device_names("", [0, 1], {"CUDA_VISIBLE_DEVICES": "1"}) == ["1"]
    assert device_names("", [0, 1], {"CUDA_VISIBLE_DEVICES": "-1"}) == ["cpu"]
    assert device_names("", [0, 1], {"CUDA_VISIBLE_DEVICES": ""}) == ["cpu"]
    for wrong in ("cuda:0", "0,,1", "-1"):
        with pytest.raises(InvalidInputError, match="must be indices of GPUs"):
            device_names(wrong, [0, 1], {})


class NvmlOfTwo:
    """NVIDIA's library on a machine whose first GPU has fallen off the bus."""

    class NVMLError(Exception):
        pass

    gpu = 25
    used = 3_000

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 0:
            raise self.NVMLError("lost")
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> NvmlOfTwo:
        return self

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> NvmlOfTwo:
        return self


def test_the_load_of_gpus_is_told_for_those_that_answer() -> None:
    assert list(device_loads(NvmlOfTwo())) == [(1, 3_000, 0.25)]


class NvmlOfThree:
    """Two GPUs, one of them divided; a third does not answer."""

    class NVMLError(Exception):
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 2:
            raise self.NVMLError("gone")
        return (80, 40)[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return {"MIG-1": 10}[uuid]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=handle * 10**9)


@pytest.mark.parametrize(
    ("names", "per_device", "expected_gb"),
    [
        (["0"], None, 56),
        (["0", "1"], None, 28),
        (["0"], 4, 14),
        (["MIG-1"], None, 7),
        (["0", "2"], None, 56),
        (["2"], None, 2),
        (["cpu"], None, 2),
        (["cpu"], 4, 2),
    ],
)
def test_avatars_may_fill_most_of_a_gpu(
    names: list[str], per_device: int | None, expected_gb: float
) -> None:
    assert engine_bytes(NvmlOfThree(), names, per_device) == expected_gb * 10**9
    assert engine_bytes(None, names, per_device) == CPU_ENGINE_BYTES


class NvmlOfDivided(NvmlOfTwo):
    """The library on a machine whose GPU is divided: it tells its memory, not how busy it is."""

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> NvmlOfTwo:
        raise self.NVMLError("Not Supported")


class NvmlOfNone(NvmlOfTwo):
    """The library after the driver was unloaded."""

    def nvmlDeviceGetCount(self) -> int:
        raise self.NVMLError("Driver Not Loaded")


def test_what_a_gpu_does_not_tell_takes_nothing_else_with_it() -> None:
    assert list(device_loads(NvmlOfDivided())) == [(1, 3_000, None)]
    assert list(device_loads(NvmlOfNone())) == []
