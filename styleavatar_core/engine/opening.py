# SPDX-License-Identifier: Apache-2.0
"""An avatar on its way into an engine: what backends are given, and make their graphs of."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine.base import feed_of
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.face_lookup import FaceLookup
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.frozen.parts import FrozenParts
from styleavatar_core.engine.frozen.precision import number_type, with_precision
from styleavatar_core.engine.onnx.graph import onnx_model, onnx_with_inputs
from styleavatar_core.engine.onnx.quantizing import quantize
from styleavatar_core.engine.typical_inputs import typical_inputs

if TYPE_CHECKING:
    from styleavatar_core.engine.cuda.stream import CudaStream

_CALIBRATION_FRAMES = 8
_RANGE_FRAMES = 4  # that show how large numbers become
_CALIBRATION_SEED = 1  # other frames than the quality gate looks at


@dataclass
class OpeningAvatar:
    """What backends open.

    Attributes:
        frozen: What is made of its bundle, for all backends that are tried.
        cache: Where derived engines are kept.
        thread_count: Threads of a CPU runtime.
        precision: What the network computes in.
        has_own_plan: Whether nothing is shared with others: TensorRT builds a plan for it, torch
            runs it without compiled code.
        stream: Where torch launches its frames on a GPU; one of its own if None.
    """

    frozen: FrozenParts
    cache: EngineCache
    thread_count: int
    precision: str = "fp32"
    has_own_plan: bool = False
    stream: CudaStream | None = None

    @property
    def bundle(self) -> AvatarBundle:
        """The avatar."""
        return self.frozen.bundle

    def with_number_type(
        self, generator: FrozenGenerator, lookup: FaceLookup | None, *, is_for_gpu: bool
    ) -> FrozenGenerator:
        """Returns a generator that computes in what is asked for.

        Args:
            generator: In fp32.
            lookup: Samples the face for one that takes it sampled.
            is_for_gpu: Whether a GPU computes it.
        """
        precision = number_type(self.precision, is_for_gpu=is_for_gpu)
        seen = self._seen(_RANGE_FRAMES, lookup) if precision == "fp16" else []
        return with_precision(generator, precision, [list(feed.values()) for feed in seen])

    def onnx(self) -> ModelProto:
        """Returns the frozen generator as ONNX, for a CPU."""
        lookup = self.frozen.lookup
        generator = self.with_number_type(self.frozen.host_generator, lookup, is_for_gpu=False)
        return self._graph(generator, lookup)

    def onnx_with_inputs(self) -> tuple[ModelProto, dict[str, np.ndarray]]:
        """Returns the frozen generator as ONNX, for a CPU, and what some of its inputs always are.

        Where those are the generator's own it is taken for them.
        """
        if self.precision == "int8":
            return self.onnx(), {}  # of other constants than the generator's
        frozen = self.frozen
        typed = self.with_number_type(frozen.host_generator, frozen.lookup, is_for_gpu=False)
        if typed is frozen.host_generator:
            frozen.take_host_generator()
        return onnx_with_inputs(typed)

    def device_onnx(self) -> ModelProto:
        """Returns the frozen generator as ONNX, for a GPU."""
        generator = self.with_number_type(self.frozen.generator, None, is_for_gpu=True)
        return self._graph(generator, None)

    def _graph(self, generator: FrozenGenerator, lookup: FaceLookup | None) -> ModelProto:
        """Returns the graph of a generator, in eight bits if that is asked for."""
        model = onnx_model(generator)
        if self.precision != "int8":
            return model
        return quantize(model, self._seen(_CALIBRATION_FRAMES, lookup))

    def _seen(self, count: int, lookup: FaceLookup | None) -> list[dict[str, np.ndarray]]:
        """Returns what a graph takes of frames as the avatar meets them."""
        manifest, info = self.bundle.manifest, self.frozen.info
        frames = typical_inputs(manifest, info, count, seed=_CALIBRATION_SEED)
        # Copies: what is sampled lasts until the next call.
        return [copy.deepcopy(feed_of(frame, lookup)) for frame in frames]
