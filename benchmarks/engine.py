# SPDX-License-Identifier: Apache-2.0
"""How fast each engine renders: ``python -m benchmarks.engine --presets nano lite hd paper``.

Weights are untrained: they cost the same as trained ones. The generator run eagerly, not frozen, is
the baseline of the speed-up and the truth of the PSNR, once with the memory that it frees kept
(``eager``), once with the allocator as it comes (``eager_malloc``); ``naive`` is its plain export
in ONNX Runtime on the CPU. Those two are left out where engines have a GPU. ``--baselines
compiled`` is the frozen generator by torch.compile, which takes a minute and needs a C++ compiler.
Each engine runs in a process of its own, on the GPU where there is one, and so do the avatars that
render beside it (``--streams``) and the way from parameters to JPEG; what fails costs its own
figures, and is told at the end. Shares of the peak count the frozen graph's convolutions as if each
were computed directly: an engine that does with less can exceed what the machine can compute.

``--only live`` drives an avatar end to end instead: frames to tracking to rendering through gRPC,
side by side on this machine.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.engine_parts.apart import Result, apart, failed_steps
from benchmarks.engine_parts.case import DEVICE, Case, Figures
from benchmarks.engine_parts.first_frame import first_frame_s
from benchmarks.engine_parts.measuring import measure
from benchmarks.engine_parts.peak import peak_gflops
from benchmarks.engine_parts.to_jpeg import jpeg_figures, nvjpeg_figures, to_jpeg_figures
from benchmarks.engine_parts.untrained import Untrained, frozen_errors
from benchmarks.engine_parts.work import frozen_work, roofline_figures, rule_ms, trained_gflop
from benchmarks.report import build_report, print_report, refuse_repeats, write_report
from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.cores import usable_core_count
from styleavatar_core.engine.backends import BACKENDS, automatic_backends, available_backends
from styleavatar_core.engine.gate import PRECISIONS
from styleavatar_core.networks import PRESETS, get_preset

# By name: what the speed-up over them is called.
BASELINES = {
    "eager": "eager_fp32",
    "eager_malloc": "eager_malloc_fp32",
    "naive": "naive_onnx",
    "compiled": "torch_compile",
}

GPU_BACKENDS = ("torch", "tensorrt")


def measure_preset(
    preset: str, options: argparse.Namespace, peaks: dict[str, float]
) -> Iterator[Figures]:
    """Measures one preset: work, baselines, engines, first frames; gives figures as they come."""
    work, config = frozen_work(Untrained(preset).freeze()), get_preset(preset)
    figures: Figures = {"trained_gflop": trained_gflop(config), "frozen_gflop": work.gflop}
    figures |= roofline_figures(work)
    if DEVICE == "cpu":  # the layers that it looks at are those of CPUs
        figures |= apart(frozen_errors, preset) or {}
    yield named(preset, figures | held_out_figures(preset, options.avatar))
    baselines: dict[str, float] = {}
    engines: dict[str, float] = {}
    for case in cases(preset, options):
        measured = apart(measure, case)
        if measured is None:
            continue
        milliseconds = measured["ms_p50"]
        assert milliseconds is not None
        if case.backend in BASELINES:
            baselines[case.backend] = milliseconds
        else:
            rate = work.gflop * case.batch_size / milliseconds * 1e3
            measured["frames_per_s"] = 1e3 * case.batch_size / milliseconds
            if peaks:
                measured["peak_flops_percent"] = 100 * rate / peak_of(case.precision, peaks)
            if case.batch_size == 1 and (DEVICE == "cuda" or case.precision == "fp32"):
                engines[case.backend] = min(milliseconds, engines.get(case.backend, math.inf))
                if DEVICE == "cpu":
                    measured["rule_ms"] = rule_ms(work, config.image_size_px)
        yield named(case.name, measured)
    first = {name: in_folder(first_frame_s, preset, name, options) for name in engines}
    yield {f"{preset}.{name}.first_frame_s": seconds for name, seconds in first.items()}
    for name in engines:
        limits = (options.frames, options.seconds)
        yield in_folder(to_jpeg_figures, preset, name, options, *limits) or {}
    if engines:
        best = min(engines, key=lambda name: engines[name])
        ratios = {
            f"{preset}.speedup_over_{BASELINES[name]}": baseline_ms / engines[best]
            for name, baseline_ms in baselines.items()
        }
        yield {**ratios, f"{preset}.first_frame_s": first[best]}


def named(prefix: str, figures: Figures) -> Figures:
    """Puts a prefix before the names of figures."""
    return {f"{prefix}.{name}": value for name, value in figures.items()}


def held_out_figures(preset: str, avatars: list[Path]) -> Figures:
    """Returns what trained avatars of a preset reach on the held-out frames of their clips."""
    manifests = [read_bundle(path, verify=False).manifest for path in avatars]
    return {
        f"{path.stem}.held_out_psnr_db": manifest.metrics.get("psnr_db")
        for path, manifest in zip(avatars, manifests, strict=True)
        if manifest.preset == preset
    }


def measure_peaks(*, is_quick: bool) -> dict[str, float]:
    """Returns the peak of the device that renders, by precision; a CPU computes in fp32."""
    precisions = ("fp32", "fp16") if DEVICE == "cuda" else ("fp32",)
    return {name: peak_gflops(DEVICE, name, is_quick=is_quick) for name in precisions}


def peak_of(precision: str, peaks: dict[str, float]) -> float:
    """Returns what an engine's rate is a share of; eight bits count as what is beside them."""
    return peaks["fp32"] if precision == "fp32" else peaks.get("fp16", peaks["fp32"])


def in_folder(
    function: Callable[..., Result],
    preset: str,
    backend: str,
    options: argparse.Namespace,
    *rest: object,
) -> Result | None:
    """Measures an avatar's renderer in a process of its own, with an engine cache of its own."""
    with TemporaryDirectory() as folder:
        return apart(function, preset, backend, folder, options.threads, *rest)


def cases(preset: str, options: argparse.Namespace) -> list[Case]:
    """Returns what is measured of a preset, baselines first."""
    rest = (options.frames, options.seconds, options.threads)
    engines = [
        Case(preset, backend, precision, batch_size, *rest, options.streams)
        for backend in options.backends
        for precision in options.precisions
        for batch_size in options.batches
        if precision in computed_precisions(backend)
        # On a CPU torch's fp16 is far slower than its fp32.
        and (DEVICE, backend, precision) != ("cpu", "torch", "fp16")
    ]
    return [Case(preset, name, "fp32", 1, *rest) for name in options.baselines] + engines


def computed_precisions(backend: str) -> Sequence[str]:
    """Returns what a backend computes in on this machine."""
    precisions = BACKENDS[backend].precisions
    if "bf16" in precisions:
        from styleavatar_core.engine.onnx.openvino_engine import computes_in_bf16

        if not computes_in_bf16():
            return [name for name in precisions if name != "bf16"]
    return precisions


def measure_all(options: argparse.Namespace) -> Iterator[Figures]:
    """Measures all that is asked for; gives figures as they come."""
    if "engines" in options.only:
        peaks = apart(measure_peaks, is_quick=options.quick) or {}
        yield {
            "peak_gflops" if name == "fp32" else f"peak_{name}_gflops": peaks[name]
            for name in peaks
        }
        yield apart(jpeg_figures) or {}
        if DEVICE == "cuda":
            yield apart(nvjpeg_figures) or {}
        for preset in options.presets:
            yield from measure_preset(preset, options, peaks)
    if "live" in options.only:
        from benchmarks.engine_parts.live import live_figures  # services, and what they need

        backend = options.backends[0] if len(options.backends) == 1 else "auto"
        for preset in options.presets:
            yield live_figures(preset, options.seconds, options.clip, backend)


def plain(value: object) -> object:
    """Returns an option as a report holds it: of files their names."""
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.name if isinstance(value, Path) else value


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; ``--quick`` makes everything cheap."""
    parser = argparse.ArgumentParser(description=__doc__)
    backends = automatic_backends()
    if DEVICE == "cuda":
        backends = [name for name in GPU_BACKENDS if name in available_backends()]
    parts = ("engines", "live")
    parser.add_argument("--only", nargs="+", choices=parts, default=["engines"], help="parts")
    parser.add_argument("--clip", type=Path, help="driver of the live part; else the sample clip")
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=["nano", "lite"])
    parser.add_argument("--backends", nargs="+", choices=backends, default=backends)
    only_on_cpus = ("naive", "eager_malloc")
    baselines = [name for name in BASELINES if DEVICE == "cpu" or name not in only_on_cpus]
    usual = [name for name in baselines if name != "compiled"]  # that one needs a compiler
    parser.add_argument("--baselines", nargs="*", choices=baselines, default=usual)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--frames", type=int, default=100, help="at most; seven at least")
    parser.add_argument("--seconds", type=float, default=10.0, help="at most, for the frames")
    parser.add_argument("--streams", type=int, default=1, help="avatars that render side by side")
    parser.add_argument("--avatar", nargs="+", type=Path, default=[], help="trained bundles")
    parser.add_argument("--threads", type=int, default=usable_core_count())
    parser.add_argument("--quick", action="store_true", help="a few frames of the smallest preset")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    presets = [read_bundle(path, verify=False).manifest.preset for path in options.avatar]
    names = [f"{name}.{path.stem}" for name, path in zip(presets, options.avatar, strict=True)]
    refuse_repeats(parser, "--avatar", names)
    if options.quick:
        options.presets, options.frames, options.seconds = ["nano"], 3, 1.0
    return options


def main() -> None:
    """Measures step after step."""
    options = read_options()
    figures: Figures = {}
    used = {name: plain(value) for name, value in vars(options).items() if name != "json"}
    for step in measure_all(options):
        figures |= step
        print_report(build_report("engine", step))
        if options.json:
            write_report(build_report("engine", figures, used), options.json)
    if failed_steps:
        sys.exit("could not be measured:\n" + "\n".join(failed_steps))


if __name__ == "__main__":
    main()
