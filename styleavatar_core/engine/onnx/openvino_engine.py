# SPDX-License-Identifier: Apache-2.0
"""The exported generator in OpenVINO on the CPU. Does not import torch."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
import openvino
import openvino.opset13 as opset
from onnx import ModelProto

from styleavatar_core.engine.face_lookup import FaceLookup
from styleavatar_core.engine.onnx.sample_engine import SampleEngine
from styleavatar_core.errors import AssetError

_DEVICE = "CPU"


def computes_in_bf16() -> bool:
    """Whether this processor has instructions for bf16."""
    return "BF16" in openvino.Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")


def _properties(thread_count: int, precision: str) -> dict[str, object]:
    """Returns how models are compiled: for latency, on cores that others use too.

    Exactly, unless bf16 is asked for: by itself OpenVINO takes bf16 where a processor has it.

    Raises:
        AssetError: bf16 is asked for, and this processor has no instructions for it.
    """
    is_rounded = precision == "bf16"
    if is_rounded and not computes_in_bf16():
        raise AssetError("this processor does not compute in bf16")
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if is_rounded else "f32",
        "INFERENCE_NUM_THREADS": thread_count,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }


class OpenVinoEngine(SampleEngine):
    """Runs a compiled avatar, one sample at a time; made by ``compile`` or ``load``.

    Args:
        model: The compiled model.
        precision: What the network computes in.
        lookup: Samples the face, if the model takes it sampled.
    """

    runtime = "OpenVINO"

    def __init__(
        self,
        model: openvino.CompiledModel,
        precision: str = "fp32",
        lookup: FaceLookup | None = None,
    ) -> None:
        ends = (*model.inputs, *model.outputs)
        shapes = {port.any_name: port.shape for port in ends}
        version = str(openvino.__version__)
        super().__init__("openvino", shapes, precision, lookup, version=version)
        self._model = model
        self._request = model.create_infer_request()

    @classmethod
    def compile(
        cls,
        model: ModelProto,
        constants: Mapping[str, np.ndarray],
        *,
        thread_count: int = 2,
        precision: str = "fp32",
        lookup: FaceLookup | None = None,
    ) -> OpenVinoEngine:
        """Compiles an ONNX model for this machine.

        Args:
            model: The ONNX model.
            constants: What inputs are that never change; not copied.
            thread_count: Threads within an operator.
            precision: In ``bf16`` it computes all but its inputs and outputs.
            lookup: Samples the face, if the model takes it sampled.

        Raises:
            AssetError: OpenVINO refuses the model, or this processor the precision.
        """
        core = openvino.Core()
        properties = _properties(thread_count, precision)
        try:
            graph = core.read_model(model=model.SerializeToString())
            _fix_inputs(graph, constants)
            compiled = core.compile_model(graph, _DEVICE, properties)
            return cls(compiled, precision, lookup)
        except RuntimeError as error:
            raise AssetError(f"OpenVINO cannot compile the graph: {error}") from error

    @classmethod
    def load(
        cls,
        compiled: bytes,
        *,
        thread_count: int = 2,
        precision: str = "fp32",
        lookup: FaceLookup | None = None,
    ) -> OpenVinoEngine:
        """Loads what :meth:`exporter` gave; arguments as those of :meth:`compile`.

        Raises:
            AssetError: The model was compiled by another version or is damaged.
        """
        core = openvino.Core()
        properties = _properties(thread_count, precision)
        try:
            model = core.import_model(io.BytesIO(compiled), _DEVICE, properties)
            return cls(model, precision, lookup)
        except RuntimeError as error:
            raise AssetError(f"the graph cannot be loaded by OpenVINO: {error}") from error

    def exporter(self) -> Callable[[], bytes]:
        """Returns what gives the compiled model, also when the engine is closed by then.

        Only the same version on this kind of CPU takes it.
        """
        model = self._model
        return lambda: model.export_model().getvalue()

    def _run(self, feed: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        results = self._request.infer(feed)
        return results["image"], results["mask"]

    def close(self) -> None:
        """Frees the model."""
        del self._request, self._model


def _fix_inputs(graph: openvino.Model, constants: Mapping[str, np.ndarray]) -> None:
    """Makes constants of inputs; the graph refers to the arrays and keeps them."""
    for name, array in constants.items():
        given = graph.input(name)
        given.replace(opset.constant(array, shared_memory=True).output(0))
        graph.remove_parameter(given.get_node())
