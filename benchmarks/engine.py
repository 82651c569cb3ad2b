# SPDX-License-Identifier: Apache-2.0
"""How fast each engine renders: ``python -m benchmarks.engine --presets nano lite``.

Weights are untrained: they cost the same as trained ones. The eager generator, not frozen, is the
baseline of the speed-up and the truth of the PSNR.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import build_report, print_report, write_report
from styleavatar_core.engine.base import RenderEngine
from styleavatar_core.engine.freeze import freeze
from styleavatar_core.engine.onnx_engine import OnnxEngine
from styleavatar_core.engine.onnx_graph import write_onnx
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.evaluation.metrics import psnr
from styleavatar_core.export.parity import random_input
from styleavatar_core.networks import PRESETS, FeatureGenerator, PortraitGenerator, get_preset


def time_ms(render: Callable[[], object], count: int) -> np.ndarray:
    """Returns the milliseconds of each of ``count`` calls, after two that do not count."""
    times = []
    for _ in range(count + 2):
        start = time.perf_counter()
        render()
        times.append((time.perf_counter() - start) * 1e3)
    return np.array(times[2:])


@torch.no_grad()
def measure_preset(name: str, backends: list[str], count: int) -> dict[str, float | None]:
    """Measures one preset: eager generator first, then each engine."""
    torch.manual_seed(0)
    config = get_preset(name)
    generator = PortraitGenerator(config).eval()
    style = torch.randn(1, config.style.style_dim)
    face = FeatureGenerator(config.face).eval()(style)
    background = FeatureGenerator(config.background).eval()(style)
    frozen = freeze(generator, style, face, background)
    sample = random_input(TorchEngine(freeze(generator, style, face, background)))
    inputs = (
        torch.from_numpy(sample.texture_rendering).permute(0, 3, 1, 2) / 127.5 - 1,
        torch.from_numpy(sample.uv_rendering).permute(0, 3, 1, 2),
        torch.from_numpy(sample.face_mask)[:, None].float(),
    )
    window = torch.zeros(1, 2, dtype=torch.int64)

    def eager() -> torch.Tensor:
        return generator(style, *inputs, face, background, window).image

    eager_ms = float(np.median(time_ms(eager, count)))
    truth = ((eager()[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    figures: dict[str, float | None] = {f"{name}.eager.fp32.b1.ms_p50": eager_ms}
    fastest = eager_ms
    with tempfile.TemporaryDirectory() as folder:
        for backend in backends:
            prefix = f"{name}.{backend}.fp32.b1"
            start = time.perf_counter()
            engine: RenderEngine
            if backend == "torch":
                engine = TorchEngine(frozen)
            else:
                path = write_onnx(frozen, Path(folder) / f"{name}.onnx")
                figures[f"{prefix}.build_s"] = time.perf_counter() - start
                start = time.perf_counter()
                engine = OnnxEngine(path)
            figures[f"{prefix}.load_s"] = time.perf_counter() - start
            times = time_ms(lambda engine=engine: engine.render(sample), count)
            figures[f"{prefix}.ms_p50"] = float(np.percentile(times, 50))
            figures[f"{prefix}.ms_p99"] = float(np.percentile(times, 99))
            figures[f"{prefix}.psnr_db"] = float(
                psnr(engine.render(sample).image[0], truth.numpy())
            )
            fastest = min(fastest, figures[f"{prefix}.ms_p50"] or fastest)
            engine.close()
    figures[f"{name}.speedup_over_eager_fp32"] = eager_ms / fastest
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=["nano", "lite"])
    backends = ["onnxruntime", "torch"]  # torch re-lays the frozen weights, so it comes last
    parser.add_argument("--backends", nargs="+", choices=backends, default=backends)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="a few frames of the smallest preset")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    presets, count = (["nano"], 3) if options.quick else (options.presets, options.frames)
    figures: dict[str, float | None] = {}
    for name in presets:
        figures |= measure_preset(name, options.backends, count)
    report = build_report("engine", figures, {"presets": presets, "frames": count})
    print_report(report)
    if options.json:
        write_report(report, options.json)


if __name__ == "__main__":
    main()
