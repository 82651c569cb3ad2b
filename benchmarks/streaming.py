# SPDX-License-Identifier: Apache-2.0
"""What streaming costs: the rendering service beside its bare engine, in one run.

python -m benchmarks.streaming --preset lite --json streaming.json
python -m benchmarks.streaming --preset nano --soak-frames 100000 --identity-frames 108000
python -m benchmarks.streaming --preset lite --capacity-presets nano lite
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import build_report, print_report, write_report
from benchmarks.streaming_parts.capacity import measure_capacity, measure_overload
from benchmarks.streaming_parts.identity import measure_identity
from benchmarks.streaming_parts.overhead import measure_bare, measure_first_frames, measure_stream
from benchmarks.streaming_parts.robustness import (
    STANDBY_TIMEOUT_S,
    measure_memory,
    measure_recovery,
    measure_soak,
    send_garbage,
)
from benchmarks.streaming_parts.service import rendering_service
from tests.fakes.nano_bundle import write_nano_bundle

AVATARS = ("bench", "bench-2", "bench-3", "bench-4")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Measures everything that was asked for.

    Args:
        options: Of the command line.
        folder: With a data folder of the avatars for each preset.

    Returns:
        The figures.
    """
    main, count, seconds = AVATARS[0], options.frames, options.seconds
    own = folder / options.preset
    figures = measure_bare(own / "avatars" / main, options.backend, count)
    with rendering_service(own, backend=options.backend) as service:
        service.wait_for_standby(STANDBY_TIMEOUT_S)  # its start would take time from the frames
        figures |= measure_stream(service.channel, main, count)
        ratio = figures["frames_per_second"] / figures["bare_frames_per_second"]
        figures["throughput_ratio"] = ratio
        first_ms = measure_first_frames(service.channel, main, max(5, count // 10))
        figures["time_to_first_frame_ms_p50"] = first_ms
        figures |= measure_overload(
            service.address, main, seconds, options.fps, options.most_streams
        )
        figures |= send_garbage(service, main, options.malformed)
        figures |= measure_soak(service, main, options.soak_frames)
        figures |= measure_memory(service)
        figures["recovery_s_max"] = measure_recovery(service, main, options.kills)
    # Admission stands aside, to see how many streams really hold; and nobody stands by.
    unlimited = {"utilization_limit": 1000, "stream_limit": 4 * options.most_streams}
    with rendering_service(own, backend=options.backend, stand_by=False, **unlimited) as service:
        figures["recovery.cold_s_max"] = measure_recovery(service, main, options.kills)
    for preset in options.capacity_presets or [options.preset]:
        with rendering_service(
            folder / preset, backend=options.backend, stand_by=False, **unlimited
        ) as service:
            for name, avatars in (("same_avatar", AVATARS[:1]), ("different_avatars", AVATARS)):
                kind = f"{preset}.{name}"
                figures |= measure_capacity(
                    service.address, avatars, seconds, options.fps, options.most_streams, kind
                )
    rate = f"streams_at_{options.fps}fps"
    if f"{rate}.{options.preset}.same_avatar" in figures:
        figures[rate] = figures[f"{rate}.{options.preset}.same_avatar"]
    return figures | measure_identity(folder / "marked", options.identity_frames)


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; ``--quick`` makes everything cheap."""
    parser = argparse.ArgumentParser(description=__doc__)
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
    parser.add_argument("--identity-frames", type=int, default=10_000, help="of 32 marked streams")
    parser.add_argument("--malformed", type=int, default=5000, help="malformed streams")
    parser.add_argument("--soak-frames", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=3, help="workers killed under a stream")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="cheap values, for tests")
    options = parser.parse_args(arguments)
    if options.quick:
        options.preset, options.frames, options.fps, options.seconds = "nano", 10, 10, 1.0
        options.most_streams, options.malformed, options.soak_frames, options.kills = 2, 50, 60, 1
        options.identity_frames, options.capacity_presets = 64, []
    return options


def main() -> None:
    """Measures, prints, and writes JSON if asked."""
    options = read_options()
    with tempfile.TemporaryDirectory() as folder:
        for preset in {options.preset, *options.capacity_presets}:
            for seed, avatar_id in enumerate(AVATARS):
                path = Path(folder) / preset / "avatars" / avatar_id
                write_nano_bundle(path, seed=seed, preset=preset)
        figures = measure(options, Path(folder))
    stated = {name: value for name, value in vars(options).items() if name != "json"}
    report = build_report("streaming", figures, stated)
    print_report(report)
    if options.json:
        write_report(report, options.json)


if __name__ == "__main__":
    main()
