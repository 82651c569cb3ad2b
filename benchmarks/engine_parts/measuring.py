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

from benchmarks.engine_parts.untrained import Untrained, tensors_of, to_bytes
from styleavatar_core.engine.base import EngineLabel, RenderEngine, RenderInput, feed_of
from styleavatar_core.engine.face_lookup import FaceLookup
from styleavatar_core.engine.memory import keep_freed_memory
from styleavatar_core.engine.onnx_engine import OnnxEngine
from styleavatar_core.engine.onnx_graph import onnx_model
from styleavatar_core.engine.precision import number_type, with_precision
from styleavatar_core.engine.quantizing import quantize
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.evaluation.metrics import psnr
from styleavatar_core.networks import FeatureMaps

Figures = dict[str, float | None]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_UNTIMED = 2
_LEAST_FRAMES = 7


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured.

    Attributes:
        preset: Name of the preset.
        backend: Name of the runtime, or of a baseline.
        precision: ``fp32``, ``fp16`` or ``int8``.
        batch_size: Samples per call.
        frames: Timed calls, at most.
        seconds: Time for them; some are made in any case.
        thread_count: Threads of a runtime.
    """

    preset: str
    backend: str
    precision: str
    batch_size: int
    frames: int
    seconds: float
    thread_count: int

    @property
    def name(self) -> str:
        """Prefix of its figures."""
        return f"{self.preset}.{self.backend}.{self.precision}.b{self.batch_size}"


def time_ms(render: Callable[[], object], case: Case) -> np.ndarray:
    """Returns the milliseconds of each timed call, after two that do not count."""
    times: list[float] = []
    for _ in range(case.frames + _UNTIMED):
        if len(times) >= _UNTIMED + _LEAST_FRAMES and sum(times) > 1e3 * case.seconds:
            break
        start = time.perf_counter()
        render()
        times.append((time.perf_counter() - start) * 1e3)
    return np.array(times[_UNTIMED:])


def measure(case: Case) -> Figures:
    """Measures one case; runs in a fresh process."""
    torch.set_num_threads(case.thread_count)
    untrained = Untrained(case.preset)
    sample = untrained.sample()
    figures: Figures = {}
    if case.backend.startswith("eager"):
        times = time_ms(_eager(untrained, sample, keeps=case.backend == "eager"), case)
    elif case.backend == "naive":
        times = time_ms(_naive(untrained, sample, case.thread_count), case)
    else:
        before_mb, engine = _open(case, untrained, figures)
        engine.warm_up()
        batch = _repeat(sample, case.batch_size)
        times = time_ms(lambda: engine.render(batch), case)
        figures["memory_mb"] = max(0.0, _resident_mb() - before_mb)
        with torch.inference_mode():
            truth = to_bytes(untrained(*tensors_of(sample)))
        # The same picture to the last bit counts as 99 dB.
        figures["psnr_db"] = min(99.0, float(psnr(engine.render(sample).image[0], truth)))
    figures["ms_p50"] = float(np.percentile(times, 50))
    figures["ms_p99"] = float(np.percentile(times, 99))
    return figures


def _open(case: Case, untrained: Untrained, figures: Figures) -> tuple[float, RenderEngine]:
    """Builds and loads an engine; returns the memory before loading, MB, and the engine."""
    start = time.perf_counter()
    lookup = untrained.lookup() if DEVICE == "cpu" else None
    frozen = untrained.freeze(samples_face=lookup is None)
    converted = with_precision(frozen, number_type(case.precision))
    if case.backend == "torch":
        before_mb = _resident_mb()
        engine: RenderEngine = TorchEngine(
            converted, device=DEVICE, thread_count=case.thread_count, lookup=lookup
        )
        figures["load_s"] = time.perf_counter() - start
        return before_mb, engine
    model = onnx_model(converted)
    if case.precision == "int8":
        model = quantize(model, [feed_of(untrained.sample(), lookup)])
    contents = _build(case, model.SerializeToString())
    figures["build_s"] = time.perf_counter() - start
    before_mb = _resident_mb()
    start = time.perf_counter()
    engine = _load(case, contents, lookup)
    figures["load_s"] = time.perf_counter() - start
    return before_mb, engine


def _build(case: Case, model: bytes) -> bytes:
    """Returns what a runtime makes of an ONNX model once and keeps."""
    if case.backend == "openvino":
        from styleavatar_core.engine.openvino_engine import OpenVinoEngine

        compiled = OpenVinoEngine.compile(model, thread_count=case.thread_count)
        model = compiled.export()
        compiled.close()
    elif case.backend == "tensorrt":
        from styleavatar_core.engine.tensorrt_build import build_plan

        model = build_plan(model).plan
    return model


def _load(case: Case, contents: bytes, lookup: FaceLookup | None) -> RenderEngine:
    """Loads what was built."""
    if case.backend == "openvino":
        from styleavatar_core.engine.openvino_engine import OpenVinoEngine

        return OpenVinoEngine.load(contents, thread_count=case.thread_count, lookup=lookup)
    if case.backend == "tensorrt":
        from styleavatar_core.engine.tensorrt_build import load_plan
        from styleavatar_core.engine.tensorrt_engine import TensorRtEngine

        return TensorRtEngine(load_plan(contents), EngineLabel(case.precision))
    return OnnxEngine(contents, thread_count=case.thread_count, lookup=lookup)


def _eager(untrained: Untrained, sample: RenderInput, *, keeps: bool) -> Callable[[], object]:
    """Returns a call of the unfrozen generator; ``keeps`` what it frees, or leaves that to libc."""
    if keeps:
        keep_freed_memory()
    moved = untrained.to(DEVICE)
    moved.style = moved.style.to(DEVICE)
    moved.face, moved.background = (
        FeatureMaps(maps.feature.to(DEVICE), maps.rgb_pack.to(DEVICE))
        for maps in (moved.face, moved.background)
    )
    inputs = [tensor.to(DEVICE) for tensor in tensors_of(sample)]

    def render() -> torch.Tensor:
        with torch.inference_mode():
            return moved(*inputs).cpu()

    return render


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
