# SPDX-License-Identifier: Apache-2.0
"""The measures of ``python -m benchmarks.streaming``, on what is known."""

from __future__ import annotations

import random
import subprocess
import sys
from types import SimpleNamespace

import grpc
import psutil
import pytest

from benchmarks.streaming import PARTS, read_options
from benchmarks.streaming_parts.callers import LiveResult
from benchmarks.streaming_parts.capacity import (
    capacity_table,
    holds,
    interval_ms_p99,
    slowest_rate,
)
from benchmarks.streaming_parts.malformed import KINDS
from benchmarks.streaming_parts.overhead import measure_first_frames
from benchmarks.streaming_parts.soak import Watched

# Takes a megabyte for every line that it is told; ten for the first five.
_GROWING = """
import sys
kept = []
for number, _ in enumerate(sys.stdin):
    kept.append(bytearray(b"x") * (10_000_000 if number < 5 else 1_000_000))
    print("taken", flush=True)
"""


def test_parts_run_by_name_and_all_by_default() -> None:
    assert read_options([]).only == list(PARTS)
    assert read_options(["--only", "soak", "identity"]).only == ["soak", "identity"]
    with pytest.raises(SystemExit):
        read_options(["--only", "soap"])


def test_a_stream_that_stops_early_has_neither_its_rate_nor_small_gaps() -> None:
    def seen(count: int) -> LiveResult:
        """So many pictures of the 150 that five seconds ask for, each 20 ms after its face."""
        arrivals_s = [index / 30 + 0.02 for index in range(count)]
        return LiveResult(arrivals_s, began_s=0.0, ended_s=149 / 30)

    whole = seen(150)
    assert slowest_rate([whole]) == pytest.approx(30)
    assert interval_ms_p99([whole]) == pytest.approx(1000 / 30)
    assert holds(slowest_rate([whole]), interval_ms_p99([whole]), 30)
    for count, longest_ms, rate in ((148, 47, 29.7), (10, 4647, 0.84), (2, 4913, 0), (0, 4967, 0)):
        short = seen(count)
        assert max(short.intervals_ms()) == pytest.approx(longest_ms, abs=1)
        assert slowest_rate([whole, short]) == pytest.approx(rate, abs=0.01)


def test_a_stream_that_is_refused_midway_is_not_served() -> None:
    arrivals_s = [index / 30 for index in range(30)]
    assert slowest_rate([LiveResult(arrivals_s, began_s=0.0, ended_s=1.0, refused_s=1.0)]) == 0
    assert slowest_rate([LiveResult(refused_s=0.1)]) == 0
    assert LiveResult(refused_s=0.1).intervals_ms() == []


def test_the_time_to_the_first_frame_does_not_have_that_of_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock_s = 0.0

    class SlowToEnd:
        """Takes 10 ms to begin, 20 for a frame and a second to end."""

        def __init__(self, *_: object) -> None:
            self._pass(0.01)

        def send(self, _: int) -> None:
            pass

        def receive(self) -> None:
            self._pass(0.02)

        def close(self) -> None:
            self._pass(1.0)

        def _pass(self, seconds: float) -> None:
            nonlocal clock_s
            clock_s += seconds

    overhead = "benchmarks.streaming_parts.overhead"
    monkeypatch.setattr(f"{overhead}.Stream", SlowToEnd)
    monkeypatch.setattr(f"{overhead}.time", SimpleNamespace(perf_counter=lambda: clock_s))
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        assert measure_first_frames(channel, "anna", 5) == pytest.approx(30)


def test_the_table_of_capacity_says_who_holds() -> None:
    figures = {
        "capacity.nano.same_avatar.1.frames_per_second_min": 30.0,
        "capacity.nano.same_avatar.1.interframe_ms_p99": 40.0,
        "capacity.nano.same_avatar.2.frames_per_second_min": 29.9,
        "capacity.nano.same_avatar.2.interframe_ms_p99": 51.0,
        "capacity.nano.same_avatar.4.frames_per_second_min": 0.0,
        "streams_at_30fps.nano.same_avatar": 1.0,
    }
    columns = [list(column.cells) for column in capacity_table(figures, 30).columns]
    assert columns[2] == ["1", "2", "4"]
    assert columns[-1] == ["yes", "no", "no"]


def test_memory_that_grows_has_a_slope_and_what_the_warm_up_took_has_none() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _GROWING], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as grown:
        assert grown.stdin is not None
        assert grown.stdout is not None
        watched = Watched({"grown": psutil.Process(grown.pid)})
        for done in range(0, 20_000, 1000):
            grown.stdin.write(b"more\n")
            grown.stdin.flush()
            grown.stdout.readline()
            watched.look(done)
        assert "grown" in watched.words()
        grown.stdin.close()
    assert watched.figures()["soak.grown_mb_per_10000_frames"] == pytest.approx(10.0, rel=0.2)


def test_malformed_streams_are_the_same_every_time_and_say_what_is_right() -> None:
    for kind in KINDS:
        first, second = (kind(random.Random(3), "anna") for _ in range(2))
        assert first == second
        assert first.messages
        assert first.right
