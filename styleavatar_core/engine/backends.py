# SPDX-License-Identifier: Apache-2.0
"""The runtimes that can run an avatar: which are here, and how each opens one."""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from onnx import ModelProto

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine.base import FP32, EngineLabel, RenderEngine, feed_of
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cache_key import CacheKey
from styleavatar_core.engine.cuda_stream import gpu_name
from styleavatar_core.engine.face_lookup import FaceLookup
from styleavatar_core.engine.freeze import FrozenGenerator
from styleavatar_core.engine.frozen_parts import FrozenParts
from styleavatar_core.engine.keeping import keep_beside
from styleavatar_core.engine.onnx_graph import onnx_model, onnx_with_inputs
from styleavatar_core.engine.precision import number_type, with_precision
from styleavatar_core.engine.quantizing import quantize
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.engine.typical_inputs import typical_inputs
from styleavatar_core.errors import EngineUnavailableError, InvalidInputError

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
        label: What the engine says of itself; its precision is what the network computes in.
        has_own_plan: Whether TensorRT builds a plan for it, instead of one that others share.
    """

    frozen: FrozenParts
    cache: EngineCache
    thread_count: int
    label: EngineLabel = FP32
    has_own_plan: bool = False

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
        precision = number_type(self.label.precision, is_for_gpu=is_for_gpu)
        seen = self._seen(_RANGE_FRAMES, lookup) if precision == "fp16" else []
        return with_precision(generator, precision, [list(feed.values()) for feed in seen])

    def onnx(self) -> ModelProto:
        """Returns the frozen generator as ONNX, for a CPU."""
        lookup = self.frozen.lookup
        generator = self.with_number_type(self.frozen.host_generator, lookup, is_for_gpu=False)
        return self._graph(generator, lookup)

    def onnx_with_inputs(self) -> tuple[ModelProto, dict[str, np.ndarray]]:
        """Returns the frozen generator as ONNX, for a CPU, and what some of its inputs always are.

        Those are the generator's own, which is taken for it.
        """
        if self.label.precision == "int8":
            return self.onnx(), {}  # of other constants than the generator's
        generator, lookup = self.frozen.take_host_generator(), self.frozen.lookup
        return onnx_with_inputs(self.with_number_type(generator, lookup, is_for_gpu=False))

    def device_onnx(self) -> ModelProto:
        """Returns the frozen generator as ONNX, for a GPU."""
        generator = self.with_number_type(self.frozen.generator, None, is_for_gpu=True)
        return self._graph(generator, None)

    def _graph(self, generator: FrozenGenerator, lookup: FaceLookup | None) -> ModelProto:
        """Returns the graph of a generator, in eight bits if that is asked for."""
        model = onnx_model(generator)
        if self.label.precision != "int8":
            return model
        return quantize(model, self._seen(_CALIBRATION_FRAMES, lookup))

    def _seen(self, count: int, lookup: FaceLookup | None) -> list[dict[str, np.ndarray]]:
        """Returns what a graph takes of frames as the avatar meets them."""
        manifest, info = self.bundle.manifest, self.frozen.info
        frames = typical_inputs(manifest, info, count, seed=_CALIBRATION_SEED)
        # Copies: what is sampled lasts until the next call.
        return [copy.deepcopy(feed_of(frame, lookup)) for frame in frames]

    def key(self, backend: str) -> CacheKey:
        """Returns the key of an engine of this avatar alone."""
        version = backend_version(backend)
        if BACKENDS[backend].shares_plans(self.label.precision) and not self.has_own_plan:
            version += "-refitted"
        return CacheKey(self.bundle.digest, backend, version, self.label.precision)


def _open_torch(avatar: OpeningAvatar) -> RenderEngine:
    frozen = avatar.frozen
    if torch.cuda.is_available():
        # A copy moves to the device: what it is judged by is computed on the CPU.
        generator = avatar.with_number_type(frozen.generator, None, is_for_gpu=True)
        return TorchEngine(copy.deepcopy(generator), device="cuda")
    generator = avatar.with_number_type(
        frozen.take_host_generator(), frozen.lookup, is_for_gpu=False
    )
    return TorchEngine(generator, thread_count=avatar.thread_count, lookup=frozen.lookup)


def _on_host(avatar: OpeningAvatar) -> dict[str, Any]:
    """Returns what engines on the CPU take beside their graph."""
    return {
        "thread_count": avatar.thread_count,
        "label": avatar.label,
        "lookup": avatar.frozen.lookup,
    }


def _open_onnxruntime(avatar: OpeningAvatar) -> RenderEngine:
    from styleavatar_core.engine.onnx_engine import OnnxEngine

    load = partial(OnnxEngine, **_on_host(avatar))

    def build() -> tuple[OnnxEngine, bytes]:
        contents = avatar.onnx().SerializeToString()
        return load(contents), contents

    return avatar.cache.open(avatar.key("onnxruntime"), build, load)


def _open_openvino(avatar: OpeningAvatar) -> RenderEngine:
    from styleavatar_core.engine.openvino_engine import OpenVinoEngine

    given, key = _on_host(avatar), avatar.key("openvino")
    engine = avatar.cache.load(key, partial(OpenVinoEngine.load, **given))
    if engine is None:
        engine = OpenVinoEngine.compile(*avatar.onnx_with_inputs(), **given)
        keep_beside(avatar.cache, key, engine.exporter(), avatar.bundle.is_there)
    return engine


def _open_tensorrt(avatar: OpeningAvatar) -> RenderEngine:
    from styleavatar_core.engine.tensorrt_backend import open_tensorrt

    return open_tensorrt(avatar)


@dataclass(frozen=True, slots=True)
class Backend:
    """One runtime.

    Attributes:
        package: What must be installed.
        open: Opens an avatar; the runtime is imported only then.
        is_on_gpu: Whether it runs on a GPU here.
        shares_plans: Whether avatars share what it builds in a precision, and are put into it.
        is_chosen_by_auto: Whether ``auto`` may take it; not before it has run where we measure.
        precisions: What it computes in.
    """

    package: str
    open: Callable[[OpeningAvatar], RenderEngine]
    is_on_gpu: Callable[[], bool] = lambda: False
    shares_plans: Callable[[str], bool] = lambda precision: False
    is_chosen_by_auto: bool = True
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")


BACKENDS = {
    "torch": Backend(
        "torch",
        _open_torch,
        is_on_gpu=lambda: torch.cuda.is_available(),
        precisions=("fp32", "fp16"),
    ),
    "onnxruntime": Backend("onnxruntime", _open_onnxruntime),
    "openvino": Backend("openvino", _open_openvino, precisions=("fp32", "fp16", "bf16", "int8")),
    "tensorrt": Backend(
        "tensorrt",
        _open_tensorrt,
        is_on_gpu=lambda: True,
        # Not in eight bits: what is rounded how is the avatar's own.
        shares_plans=lambda precision: precision != "int8",
        is_chosen_by_auto=False,
    ),
}


def backend_version(name: str) -> str:
    """Returns the version of a backend's runtime, for a GPU with its architecture.

    "0" if it is not installed.

    Raises:
        EngineUnavailableError: It runs on a GPU only, and there is none.
    """
    if name == "tensorrt":  # installed under names that depend on the version of CUDA
        gpu = gpu_name()
        return f"{importlib.import_module('tensorrt').__version__}-{gpu}"
    try:
        version = importlib.metadata.version(BACKENDS[name].package)
    except importlib.metadata.PackageNotFoundError:
        return "0"
    return f"{version}-{gpu_name()}" if BACKENDS[name].is_on_gpu() else version


def available_backends() -> list[str]:
    """Returns the names of the backends whose runtime is installed."""
    return [name for name, entry in BACKENDS.items() if importlib.util.find_spec(entry.package)]


def automatic_backends() -> list[str]:
    """Returns the names of the backends among which ``auto`` chooses."""
    return [name for name in available_backends() if BACKENDS[name].is_chosen_by_auto]


def get_backend(name: str) -> Backend:
    """Returns a backend by name.

    Raises:
        InvalidInputError: There is no such backend.
        EngineUnavailableError: Its runtime is not installed.
    """
    if name not in BACKENDS:
        names = ", ".join(("auto", *BACKENDS))
        raise InvalidInputError(f"there is no rendering backend '{name}'; choose one of {names}")
    if name not in available_backends():
        package = BACKENDS[name].package
        raise EngineUnavailableError(
            f"the rendering backend '{name}' needs {package}, which is not installed; "
            f"install it (pip install {package}) or choose one of: auto, "
            + ", ".join(available_backends())
        )
    return BACKENDS[name]
