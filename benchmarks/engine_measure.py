# SPDX-License-Identifier: Apache-2.0
"""One engine, measured in a process of its own, so that its memory is its own."""

from __future__ import annotations

import ctypes
import gc
import io
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from torch import nn

from styleavatar_core.engine.base import RenderEngine, RenderInput
from styleavatar_core.engine.freeze import FrozenGenerator, freeze, with_precision
from styleavatar_core.engine.onnx_engine import OnnxEngine
from styleavatar_core.engine.onnx_graph import onnx_model
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.evaluation.metrics import psnr
from styleavatar_core.export.parity import random_input
from styleavatar_core.networks import FeatureGenerator, PortraitGenerator, get_preset
from styleavatar_core.training.memory import keep_freed_memory

Figures = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured.

    Attributes:
        preset: Name of the preset.
        backend: Name of the runtime; ``eager`` is the unfrozen generator, ``naive`` its export.
        precision: ``fp32`` or ``fp16``.
        batch_size: Samples per call.
        frames: Timed calls.
        thread_count: Threads of a runtime.
    """

    preset: str
    backend: str
    precision: str
    batch_size: int
    frames: int
    thread_count: int

    @property
    def name(self) -> str:
        """Prefix of its figures."""
        return f"{self.preset}.{self.backend}.{self.precision}.b{self.batch_size}"


class Untrained(nn.Module):
    """A generator that was never trained, with the arguments that are constant in use.

    Untrained weights cost the same as trained ones.
    """

    def __init__(self, preset: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = get_preset(preset)
        self.generator = PortraitGenerator(config).eval()
        self.style = torch.randn(1, config.style.style_dim)
        with torch.no_grad():
            self.face = FeatureGenerator(config.face).eval()(self.style)
            self.background = FeatureGenerator(config.background).eval()(self.style)

    def forward(
        self, rendering: torch.Tensor, uv: torch.Tensor, face_mask: torch.Tensor
    ) -> torch.Tensor:
        """Renders with nothing folded: (1, 3, H, W)."""
        window = torch.zeros(1, 2, dtype=torch.int64)
        output = self.generator(
            self.style, rendering, uv, face_mask, self.face, self.background, window
        )
        image: torch.Tensor = output.image
        return image

    def freeze(self) -> FrozenGenerator:
        """Returns it frozen."""
        return freeze(self.generator, self.style, self.face, self.background)


def tensors_of(sample: RenderInput) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns an input as the unfrozen generator takes it."""
    return (
        torch.from_numpy(sample.texture_rendering).permute(0, 3, 1, 2) / 127.5 - 1,
        torch.from_numpy(sample.uv_rendering).permute(0, 3, 1, 2),
        torch.from_numpy(sample.face_mask)[:, None].float(),
    )


def to_bytes(image: torch.Tensor) -> np.ndarray:
    """Returns (1, 3, H, W) in [-1, 1] as (H, W, 3) uint8."""
    pixels = ((image[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round()
    return pixels.to(torch.uint8).numpy()


def time_ms(render: Callable[[], object], count: int) -> np.ndarray:
    """Returns the milliseconds of each of ``count`` calls, after two that do not count."""
    times = []
    for _ in range(count + 2):
        start = time.perf_counter()
        render()
        times.append((time.perf_counter() - start) * 1e3)
    return np.array(times[2:])


def measure(case: Case) -> Figures:
    """Measures one case; runs in a fresh process."""
    if case.backend in ("eager", "torch"):
        keep_freed_memory()
    torch.set_num_threads(case.thread_count)
    untrained = Untrained(case.preset)
    frozen = untrained.freeze()
    sample = random_input(TorchEngine(untrained.freeze()))
    inputs = tensors_of(sample)
    figures: Figures = {}
    if case.backend == "eager":
        with torch.inference_mode():
            times = time_ms(lambda: untrained(*inputs), case.frames)
    elif case.backend == "naive":
        times = time_ms(_naive(untrained, sample, case.thread_count), case.frames)
    else:
        before_mb, engine = _open(case, frozen, figures)
        batch = _repeat(sample, case.batch_size)
        times = time_ms(lambda: engine.render(batch), case.frames)
        figures["memory_mb"] = max(0.0, _resident_mb() - before_mb)
        with torch.inference_mode():
            truth = to_bytes(untrained(*inputs))
        # The same picture to the last bit counts as 99 dB.
        figures["psnr_db"] = min(99.0, float(psnr(engine.render(sample).image[0], truth)))
    figures["ms_p50"] = float(np.percentile(times, 50))
    figures["ms_p99"] = float(np.percentile(times, 99))
    return figures


def frozen_error(preset: str) -> float:
    """Returns the largest difference of frozen and trained image, in spreads of the image."""
    untrained = Untrained(preset)
    frozen = untrained.freeze()
    inputs = tensors_of(random_input(TorchEngine(untrained.freeze())))
    with torch.inference_mode():
        trained = untrained(*inputs)
        output = frozen.generator(
            frozen.style, *inputs, untrained.face, untrained.background, frozen.window
        ).image
    return float((output - trained).abs().max() / trained.std())


def _open(case: Case, frozen: FrozenGenerator, figures: Figures) -> tuple[float, RenderEngine]:
    """Builds and loads an engine; returns the memory before loading, MB, and the engine."""
    start = time.perf_counter()
    converted = with_precision(frozen, case.precision)
    if case.backend == "torch":
        before_mb = _resident_mb()
        engine: RenderEngine = TorchEngine(converted)
        figures["load_s"] = time.perf_counter() - start
        return before_mb, engine
    contents = onnx_model(converted).SerializeToString()
    if case.backend == "openvino":
        from styleavatar_core.engine.openvino_engine import OpenVinoEngine

        compiled = OpenVinoEngine.compile(contents, thread_count=case.thread_count)
        contents = compiled.export()
        compiled.close()
    figures["build_s"] = time.perf_counter() - start
    before_mb = _resident_mb()
    start = time.perf_counter()
    if case.backend == "openvino":
        engine = OpenVinoEngine.load(contents, thread_count=case.thread_count)
    else:
        engine = OnnxEngine(contents, thread_count=case.thread_count)
    figures["load_s"] = time.perf_counter() - start
    return before_mb, engine


def _naive(untrained: Untrained, sample: RenderInput, thread_count: int) -> Callable[[], object]:
    """Returns a call of the unfrozen generator's plain export in ONNX Runtime."""
    import onnxruntime

    buffer = io.BytesIO()
    inputs = tensors_of(sample)
    names = ["rendering", "uv", "face_mask"]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracing exporter is deprecated: no news
        torch.onnx.export(
            untrained, inputs, buffer, input_names=names, opset_version=17, dynamo=False
        )  # type: ignore[call-overload]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count
    session = onnxruntime.InferenceSession(
        buffer.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    return lambda: session.run(None, feed)


def _repeat(sample: RenderInput, count: int) -> RenderInput:
    """Returns a batch of the same sample."""
    return RenderInput(
        np.repeat(sample.texture_rendering, count, axis=0),
        np.repeat(sample.uv_rendering, count, axis=0),
        np.repeat(sample.face_mask, count, axis=0),
    )


def _resident_mb() -> float:
    """Returns the memory that this process holds now, without what it has freed."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / 2**20
