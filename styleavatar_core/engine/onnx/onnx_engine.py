# SPDX-License-Identifier: Apache-2.0
"""The exported generator in ONNX Runtime on the CPU. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto

from styleavatar_core.engine.base import OUTPUT_NAMES
from styleavatar_core.engine.face_lookup import FaceLookup
from styleavatar_core.engine.onnx.constants import with_empty_constants
from styleavatar_core.engine.onnx.sample_engine import SampleEngine
from styleavatar_core.errors import AssetError


class OnnxEngine(SampleEngine):
    """Runs an exported avatar, as many samples at a time as it was exported for.

    Args:
        model: ONNX file, as ``export_onnx`` writes it, or its contents.
        thread_count: Threads within an operator.
        precision: What the network computes in.
        lookup: Samples the face, if the model takes it sampled.
        constants: Values of constants that the model lacks; used where they are.

    Raises:
        AssetError: The model cannot be loaded.
    """

    runtime = "ONNX Runtime"

    def __init__(
        self,
        model: Path | bytes,
        *,
        thread_count: int = 2,
        precision: str = "fp32",
        lookup: FaceLookup | None = None,
        constants: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Its own store of memory grows to twice what a frame needs; libc keeps what it frees.
        options.enable_cpu_mem_arena = False
        # Spinning threads would starve tracking and encoding, which share the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._constants = dict(constants or {})  # the session refers to them
        if self._constants:
            values = map(onnxruntime.OrtValue.ortvalue_from_numpy, self._constants.values())
            options.add_external_initializers(list(self._constants), list(values))
        try:
            self._session = onnxruntime.InferenceSession(
                str(model) if isinstance(model, Path) else model,
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:  # the runtime's exceptions have no common base
            name = model.name if isinstance(model, Path) else "the graph"
            raise AssetError(f"{name} cannot be loaded by ONNX Runtime: {error}") from error
        ends = (*self._session.get_inputs(), *self._session.get_outputs())
        shapes = {node.name: node.shape for node in ends}
        version = str(onnxruntime.__version__)
        super().__init__("onnxruntime", shapes, precision, lookup, version=version)

    @classmethod
    def compile(
        cls,
        model: ModelProto,
        constants: Mapping[str, np.ndarray],
        *,
        thread_count: int = 2,
        precision: str = "fp32",
        lookup: FaceLookup | None = None,
    ) -> OnnxEngine:
        """Loads an ONNX model.

        Args:
            model: The ONNX model.
            constants: What inputs are that never change; not copied.
            thread_count: Threads within an operator.
            precision: What the network computes in.
            lookup: Samples the face, if the model takes it sampled.

        Raises:
            AssetError: The model cannot be loaded.
        """
        lacking_model, lacking = with_empty_constants(model, constants)
        for proto in lacking.values():
            proto.data_location = TensorProto.EXTERNAL
            proto.external_data.add(key="location", value="the options of the session")
        return cls(
            lacking_model.SerializeToString(),
            thread_count=thread_count,
            precision=precision,
            lookup=lookup,
            constants=constants,
        )

    def _run(self, feed: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self._session.run(list(OUTPUT_NAMES), feed)
        return image, mask

    def close(self) -> None:
        """Frees the session."""
        del self._session, self._constants
