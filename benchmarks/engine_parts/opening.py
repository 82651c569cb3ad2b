# SPDX-License-Identifier: Apache-2.0
"""Builds what an engine is loaded from, once, and loads it for one avatar after the other."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from onnx import ModelProto

from benchmarks.engine_parts.case import DEVICE, Case, Figures
from benchmarks.engine_parts.untrained import Untrained
from styleavatar_core.engine.base import RenderEngine, RenderInput, feed_of
from styleavatar_core.engine.calibration import CalibrationMemory, open_faster_form
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.frozen.precision import number_type, with_precision
from styleavatar_core.engine.onnx.graph import onnx_model, onnx_with_inputs
from styleavatar_core.engine.onnx.onnx_engine import OnnxEngine
from styleavatar_core.engine.onnx.quantizing import quantize
from styleavatar_core.engine.tensorrt.shared_graph import weight_names
from styleavatar_core.engine.torch_engine import TorchEngine


class Opening:
    """An avatar that is opened again and again.

    Args:
        case: What is measured.
        untrained: The avatar.
        sample: What it sees.

    Attributes:
        figures: What building took.
    """

    def __init__(self, case: Case, untrained: Untrained, sample: RenderInput) -> None:
        self._case, self._untrained, self._sample = case, untrained, sample
        self._lookup = untrained.lookup() if DEVICE == "cpu" else None
        self.figures: Figures = {}
        if case.backend == "torch" and DEVICE == "cpu":
            return
        start = time.perf_counter()
        if case.backend == "torch":
            self._folder = TemporaryDirectory()
            self._faster_form().close()
        else:
            self._built = self._build()
        self.figures["build_s"] = time.perf_counter() - start

    def load(self) -> RenderEngine:
        """Loads an engine; torch, which builds nothing on a CPU, freezes the avatar for it."""
        case, lookup = self._case, self._lookup
        if case.backend == "torch" and DEVICE == "cpu":
            return TorchEngine(self._frozen(), thread_count=case.thread_count, lookup=lookup)
        if case.backend == "torch":
            return self._faster_form()
        if case.backend == "openvino":
            from styleavatar_core.engine.onnx.openvino_engine import OpenVinoEngine

            return OpenVinoEngine.load(
                self._built,
                thread_count=case.thread_count,
                precision=case.precision,
                lookup=lookup,
            )
        if case.backend == "tensorrt":
            return self._refitted()
        return OnnxEngine(self._built, thread_count=case.thread_count, lookup=lookup)

    def _faster_form(self) -> RenderEngine:
        """Opens torch on the GPU, compiled where that is faster, and says which it is."""
        frozen, folder = self._frozen(), Path(self._folder.name)

        def open_form(is_compiled: bool) -> TorchEngine:
            code_folder = folder / "code" if is_compiled else None
            return TorchEngine(frozen, device=DEVICE, code_folder=code_folder)

        memory = CalibrationMemory(folder / "calibration.json")
        engine = open_faster_form(open_form, self._case.preset, memory)
        engine.warm_up()  # compiled code is read then
        self.figures["is_compiled"] = float(engine.is_compiled)
        return engine

    def _refitted(self) -> RenderEngine:
        """Loads the plan and puts weights in, as for each avatar of a preset."""
        from styleavatar_core.engine.tensorrt.build import load_plan, refit_plan
        from styleavatar_core.engine.tensorrt.engine import TensorRtEngine

        engine = load_plan(self._built)
        if self._case.precision != "int8":
            start = time.perf_counter()
            refit_plan(engine, self._model)
            self.figures["refit_s"] = time.perf_counter() - start
        return TensorRtEngine(engine, self._case.precision)

    def _frozen(self) -> FrozenGenerator:
        """Returns the frozen avatar in the precision that is asked for."""
        frozen = self._untrained.freeze(samples_face=self._lookup is None)
        kind = number_type(self._case.precision, is_for_gpu=DEVICE == "cuda")
        return with_precision(frozen, kind, [list(self._feed().values())])

    def _onnx(self) -> ModelProto:
        """Returns the graph that a runtime builds from."""
        model = onnx_model(self._frozen())
        return quantize(model, [self._feed()]) if self._case.precision == "int8" else model

    def _feed(self) -> dict[str, np.ndarray]:
        return feed_of(self._sample, self._lookup)

    def _build(self) -> bytes:
        """Returns what a runtime makes of the avatar once and keeps."""
        case = self._case
        if case.backend == "openvino":
            from styleavatar_core.engine.onnx.openvino_engine import OpenVinoEngine

            is_int8 = case.precision == "int8"
            parts = (self._onnx(), {}) if is_int8 else onnx_with_inputs(self._frozen())
            compiled = OpenVinoEngine.compile(
                *parts, thread_count=case.thread_count, precision=case.precision
            )
            return compiled.exporter()()
        model = self._onnx()
        self._model = model.SerializeToString()
        if case.backend == "tensorrt":
            from styleavatar_core.engine.tensorrt.build import build_plan

            refitted = () if case.precision == "int8" else weight_names(model)
            return build_plan(self._model, refitted=refitted).plan
        return self._model
