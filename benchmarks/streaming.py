# SPDX-License-Identifier: Apache-2.0
"""What streaming costs: the rendering service beside its bare engine, in one run.

Each part prints its figures as soon as it is done, and ``--json`` is written anew then.

python -m benchmarks.streaming --preset lite --json streaming.json
python -m benchmarks.streaming --only capacity --capacity-presets nano lite
python -m benchmarks.streaming --only soak identity --soak-frames 100000 --identity-frames 108000
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.report import build_report, print_report, write_report
from benchmarks.streaming_parts.bench import AVATARS, TINY, Bench
from benchmarks.streaming_parts.capacity import capacity_table, measure_capacity
from benchmarks.streaming_parts.identity import measure_identity
from benchmarks.streaming_parts.loading import PRESET, measure_loading, write_new_avatars
from benchmarks.streaming_parts.malformed import send_garbage
from benchmarks.streaming_parts.overhead import (
    measure_asyncio_latency,
    measure_first_frames,
    measure_latency,
    measure_throughput,
)
from benchmarks.streaming_parts.overload import measure_overload
from benchmarks.streaming_parts.recovery import measure_memory, measure_recovery
from benchmarks.streaming_parts.soak import measure_soak

MAIN = AVATARS[0]


def overhead(bench: Bench) -> dict[str, float]:
    """One stream beside the bare engine, then as many as there are workers."""
    options = bench.options
    bundle = bench.data_folder(options.preset) / "avatars" / MAIN
    with bench.service() as service:
        service.wait_for_standby()  # its start would take time from the frames
        figures = measure_latency(service.channel, MAIN, options.frames)
        figures |= asyncio.run(measure_asyncio_latency(service.address, MAIN, options.frames))
        figures |= measure_throughput(service, AVATARS, bundle, options.backend, options.frames)
        first_ms = measure_first_frames(service.channel, MAIN, max(5, options.frames // 10))
    return {**figures, "time_to_first_frame_ms_p50": first_ms}


def overload(bench: Bench) -> dict[str, float]:
    """Three times the streams that are admitted."""
    options = bench.options
    with bench.service(stream_limit=options.most_streams) as service:
        service.wait_for_standby()
        return measure_overload(
            service.address, MAIN, options.seconds, options.fps, options.most_streams
        )


def malformed(bench: Bench) -> dict[str, float]:
    """Messages that no client would send."""
    with bench.service() as service:
        return send_garbage(service, MAIN, bench.options.malformed)


def recovery(bench: Bench) -> dict[str, float]:
    """A lone worker killed under a stream, with one that stands by and without; their memory."""
    kills = bench.options.kills
    with bench.service(worker_count=1) as service:
        figures = measure_memory(service, MAIN)
        figures["recovery_s_max"] = measure_recovery(service, MAIN, kills)
    with bench.service(worker_count=1, stand_by=False) as service:
        figures["recovery.cold_s_max"] = measure_recovery(service, MAIN, kills)
    return figures


def capacity(bench: Bench) -> dict[str, float]:
    """How many streams hold their rate."""
    options = bench.options
    figures: dict[str, float] = {}
    for preset in options.capacity_presets or [options.preset]:
        with bench.crowded_service(preset) as service:
            for name, avatars in (("same_avatar", AVATARS[:1]), ("different_avatars", AVATARS)):
                figures |= measure_capacity(
                    service.address,
                    avatars,
                    options.seconds,
                    options.fps,
                    options.most_streams,
                    f"{preset}.{name}",
                )
    Console().print(capacity_table(figures, options.fps))
    return figures


def loading(bench: Bench) -> dict[str, float]:
    """A stream while its worker loads other avatars."""
    options = bench.options
    new_ids = write_new_avatars(bench.data_folder(PRESET) / "avatars")
    # Of its own accord the service would load the newest at start, and others on an idle worker.
    settings = {"worker_count": 1, "warm_avatars": 0, "stand_by": False}
    with bench.service(PRESET, **settings) as service:
        return measure_loading(service, MAIN, new_ids, options.seconds, options.fps)


def soak(bench: Bench) -> dict[str, float]:
    """Many frames: is memory flat, is anything left behind?"""
    options = bench.options
    return measure_soak(bench.service(options.soak_preset), MAIN, options.soak_frames)


def identity(bench: Bench) -> dict[str, float]:
    """Marked pictures of many streams."""
    return measure_identity(bench.folder / "marked", bench.options.identity_frames)


PARTS: dict[str, Callable[[Bench], dict[str, float]]] = {
    part.__name__: part
    for part in (overhead, overload, capacity, loading, recovery, malformed, soak, identity)
}


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; ``--quick`` makes everything cheap."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts")
    parser.add_argument("--preset", default="lite", help="networks of the avatars (untrained)")
    parser.add_argument(
        "--backend", default="auto", choices=("auto", "torch", "onnxruntime", "openvino")
    )
    parser.add_argument("--frames", type=int, default=300, help="frames of latency and throughput")
    parser.add_argument("--fps", type=int, default=30, help="frames per second of live streams")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each live measurement")
    parser.add_argument("--most-streams", type=int, default=32)
    parser.add_argument(
        "--capacity-presets", nargs="*", default=[], help="of the capacity table; else --preset"
    )
    parser.add_argument("--kills", type=int, default=3, help="workers killed under a stream")
    parser.add_argument("--malformed", type=int, default=5000, help="malformed streams")
    parser.add_argument("--soak-frames", type=int, default=20_000)
    parser.add_argument("--soak-preset", default=TINY, help="networks of the soak's avatar")
    parser.add_argument("--identity-frames", type=int, default=10_000, help="of 32 marked streams")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="cheap values, for tests")
    options = parser.parse_args(arguments)
    if options.quick:
        options.preset, options.frames, options.fps, options.seconds = TINY, 10, 10, 1.0
        options.most_streams, options.malformed, options.soak_frames, options.kills = 2, 50, 400, 1
        options.identity_frames, options.capacity_presets = 64, []
    return options


def main() -> None:
    """Measures part after part."""
    options = read_options()
    stated = {name: value for name, value in vars(options).items() if name != "json"}
    figures: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        for name in options.only:
            measured = dict[str, float | None](PARTS[name](bench))
            figures |= measured
            print_report(build_report(f"streaming, {name}", measured))
            if options.json:
                write_report(build_report("streaming", figures, stated), options.json)


if __name__ == "__main__":
    main()
