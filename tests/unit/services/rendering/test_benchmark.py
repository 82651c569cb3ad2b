# SPDX-License-Identifier: Apache-2.0
"""The measures of ``python -m benchmarks.streaming``, on what is known."""

from __future__ import annotations

import random
import subprocess
import sys

import psutil
import pytest

from benchmarks.streaming import PARTS, read_options
from benchmarks.streaming_parts.capacity import capacity_table
from benchmarks.streaming_parts.malformed import KINDS
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
