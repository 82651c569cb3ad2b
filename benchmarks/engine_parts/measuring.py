# SPDX-License-Identifier: Apache-2.0
"""One engine, measured in a process of its own, so that its memory is its own."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.engine_parts.case import DEVICE, Case, Figures, Held
from benchmarks.engine_parts.opening import Opening
from benchmarks.engine_parts.side_by_side import more_avatars
from benchmarks.engine_parts.untrained import Untrained, tensors_of, to_bytes
from styleavatar_core.engine.base import RenderInput, feed_of
from styleavatar_core.engine.cuda.graph import compute_exactly
from styleavatar_core.engine.memory import keep_freed_memory
from styleavatar_core.evaluation.metrics import psnr
from styleavatar_core.networks import FeatureMaps

_UNTIMED = 2
_LEAST_FRAMES = 7


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
    elif case.backend == "compiled":
        render = _compiled(untrained, sample)
        start = time.perf_counter()
        render()
        figures["build_s"] = time.perf_counter() - start
        times = time_ms(render, case)
    else:
        times = _measure_engine(case, untrained, sample, figures)
    figures["ms_p50"] = float(np.percentile(times, 50))
    figures["ms_p99"] = float(np.percentile(times, 99))
    return figures


def _measure_engine(
    case: Case, untrained: Untrained, sample: RenderInput, figures: Figures
) -> np.ndarray:
    """Measures an engine, and what comes beside it; returns the milliseconds of each call."""
    keep_freed_memory()  # as the service does
    opening = Opening(case, untrained, sample)
    before = Held.now()
    start = time.perf_counter()
    engine = opening.load()
    figures["load_s"] = time.perf_counter() - start
    engine.warm_up()
    batch = _repeat(sample, case.batch_size)
    times = time_ms(lambda: engine.render(batch), case)
    figures |= Held.now().growth_since(before, "memory")
    with torch.inference_mode():
        truth = to_bytes(untrained(*tensors_of(sample)))
    # The same picture to the last bit counts as 99 dB.
    figures["psnr_db"] = min(99.0, float(psnr(engine.render(sample).image[0], truth)))
    figures |= more_avatars(case, opening, engine, batch)
    figures |= opening.figures
    return times


def _eager(untrained: Untrained, sample: RenderInput, *, keeps: bool) -> Callable[[], object]:
    """Returns a call of the unfrozen generator; ``keeps`` what it frees, or leaves that to libc."""
    compute_exactly()
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
            untrained,
            inputs,
            buffer,  # type: ignore[arg-type]  # which the tracing exporter takes
            input_names=names,
            opset_version=17,
            dynamo=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count
    session = onnxruntime.InferenceSession(
        buffer.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    return lambda: session.run(None, feed)


def _compiled(untrained: Untrained, sample: RenderInput) -> Callable[[], object]:
    """Returns a call of the frozen generator, no layer of which is replaced, by torch.compile."""
    compute_exactly()
    keep_freed_memory()
    lookup = untrained.lookup() if DEVICE == "cpu" else None
    frozen = untrained.freeze(samples_face=lookup is None).to(DEVICE)
    frozen = frozen.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = torch.compile(frozen)

    def render() -> list[np.ndarray]:
        feed = feed_of(sample, lookup)
        with torch.inference_mode():
            outputs = compiled(*(torch.from_numpy(part).to(DEVICE) for part in feed.values()))
        return [output.cpu().numpy() for output in outputs]

    return render


def _repeat(sample: RenderInput, count: int) -> RenderInput:
    """Returns a batch of the same sample."""
    return RenderInput(
        np.repeat(sample.texture_rendering, count, axis=0),
        np.repeat(sample.uv_rendering, count, axis=0),
        np.repeat(sample.face_mask, count, axis=0),
    )
