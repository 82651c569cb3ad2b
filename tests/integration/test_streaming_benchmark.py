# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.streaming --only loading``: loads fall on the worker of the stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.streaming import loading, read_options
from benchmarks.streaming_parts.bench import Bench
from benchmarks.streaming_parts.loading import measure_loading
from benchmarks.streaming_parts.service import rendering_service
from tests.fakes.bundle import write_fake_bundle


def test_a_stream_is_measured_while_its_own_worker_loads(tmp_path: Path) -> None:
    options = read_options(["--quick", "--backend", "torch"])
    figures = loading(Bench(options, tmp_path))
    assert set(figures) == {
        "loading.interframe_alone_ms_p99",
        "loading.interframe_alone_ms_max",
        "loading.interframe_beside_ms_p99",
        "loading.interframe_beside_ms_max",
        "loading.load_s_max",
    }
    assert all(value > 0 for value in figures.values())


@pytest.mark.parametrize(
    ("worker_count", "warm_avatars", "message"),
    [(2, 0, "with one worker, not 2"), (1, 1, "loaded before they were asked for: new-0")],
)
def test_loads_elsewhere_or_before_are_not_taken_for_loads_beside_a_stream(
    tmp_path: Path, worker_count: int, warm_avatars: int, message: str
) -> None:
    for mark, name in enumerate(("anna", "new-0")):
        write_fake_bundle(tmp_path / "avatars" / name, mark)
    settings = {"renderer": "tests.fakes.renderer:FakeRenderer", "stand_by": False}
    counts = {"worker_count": worker_count, "warm_avatars": warm_avatars}
    with (
        rendering_service(tmp_path, **settings, **counts) as service,
        pytest.raises(RuntimeError, match=message),
    ):
        measure_loading(service, "anna", ["new-0"], seconds=0.5, frames_per_second=10)
