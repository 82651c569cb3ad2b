# SPDX-License-Identifier: Apache-2.0
"""The runtimes that can run an avatar: which are here, and how each opens one."""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from onnx import ModelProto

from styleavatar_core.avatar.bundle import AvatarBundle
from styleavatar_core.engine.base import FP32, EngineInfo, EngineLabel, RenderEngine, feed_of
from styleavatar_core.engine.cache import EngineCache, EngineKey
from styleavatar_core.engine.face_lookup import FaceLookup
from styleavatar_core.engine.freeze import FrozenGenerator, can_take_samples
from styleavatar_core.engine.loading import StaticMaps, load_frozen, load_maps, make_lookup
from styleavatar_core.engine.onnx_graph import onnx_model
from styleavatar_core.engine.precision import number_type, with_precision
from styleavatar_core.engine.quantizing import quantize
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.engine.typical_inputs import typical_inputs
from styleavatar_core.errors import EngineUnavailableError, InvalidInputError
from styleavatar_core.networks.config import GeneratorConfig

_CALIBRATION_FRAMES = 8
_CALIBRATION_SEED = 1  # other frames than the quality gate looks at


@dataclass
class OpeningAvatar:
    """What backends open; the generator is frozen when the first of them needs it.

    For a CPU the face is sampled on the host, before the graph, where the networks allow it.

    Attributes:
        bundle: The avatar.
        cache: Where derived engines are kept.
        thread_count: Threads of a CPU runtime.
        label: What the engine says of itself; its precision is what the network computes in.
    """

    bundle: AvatarBundle
    cache: EngineCache
    thread_count: int
    label: EngineLabel = FP32

    @cached_property
    def generator(self) -> FrozenGenerator:
        """The frozen generator; it samples the face itself."""
        return with_precision(
            load_frozen(self.bundle, self._maps), number_type(self.label.precision)
        )

    @cached_property
    def lookup(self) -> FaceLookup | None:
        """What samples the face for ``host_generator``; None if it does so itself."""
        if not can_take_samples(self._config):
            return None  # its maps need not be read for it
        return make_lookup(self._maps.face)

    @cached_property
    def host_generator(self) -> FrozenGenerator:
        """The frozen generator, which takes the face sampled if it can."""
        maps = None if self.lookup is None else self._maps  # else read beside the weights
        frozen = load_frozen(self.bundle, maps, samples_face=self.lookup is None)
        return with_precision(frozen, number_type(self.label.precision))

    @cached_property
    def _maps(self) -> StaticMaps:
        return load_maps(self.bundle)

    @cached_property
    def _config(self) -> GeneratorConfig:
        return GeneratorConfig.from_dict(self.bundle.manifest.generator)

    def onnx(self) -> bytes:
        """Writes the frozen generator as ONNX, for a CPU."""
        return self._rounded(self.host_generator, self.lookup).SerializeToString()

    def device_onnx(self) -> ModelProto:
        """Returns the frozen generator as ONNX, for a GPU."""
        return self._rounded(self.generator, None)

    def _rounded(self, generator: FrozenGenerator, lookup: FaceLookup | None) -> ModelProto:
        """Returns the graph of a generator, in eight bits if that is asked for."""
        model = onnx_model(generator)
        if self.label.precision != "int8":
            return model
        config, manifest = self._config, self.bundle.manifest
        sizes = (config.image_size_px, config.rendering_size_px, config.uv_size)
        info = EngineInfo("", self.label.precision, *sizes)
        seen = typical_inputs(manifest, info, _CALIBRATION_FRAMES, seed=_CALIBRATION_SEED)
        # Copies: what is sampled lasts until the next call.
        return quantize(model, [copy.deepcopy(feed_of(sample, lookup)) for sample in seen])

    def key(self, backend: str) -> EngineKey:
        """Returns the key of a derived engine."""
        return EngineKey(
            self.bundle.digest, backend, backend_version(backend), self.label.precision
        )


def _open_torch(avatar: OpeningAvatar) -> RenderEngine:
    note = avatar.label.note
    if avatar.label.precision == "int8":
        raise InvalidInputError(
            "the rendering backend 'torch' does not compute in precision 'int8'; choose fp16 or "
            "fp32, or another backend"
        )
    if torch.cuda.is_available():
        return TorchEngine(avatar.generator, device="cuda", note=note)
    return TorchEngine(
        avatar.host_generator, thread_count=avatar.thread_count, note=note, lookup=avatar.lookup
    )


def _open_onnxruntime(avatar: OpeningAvatar) -> RenderEngine:
    from styleavatar_core.engine.onnx_engine import OnnxEngine

    def load(contents: bytes) -> OnnxEngine:
        return OnnxEngine(
            contents, thread_count=avatar.thread_count, label=avatar.label, lookup=avatar.lookup
        )

    def build() -> tuple[OnnxEngine, bytes]:
        contents = avatar.onnx()
        return load(contents), contents

    return avatar.cache.open(avatar.key("onnxruntime"), build, load)


def _open_openvino(avatar: OpeningAvatar) -> RenderEngine:
    from styleavatar_core.engine.openvino_engine import OpenVinoEngine

    def load(contents: bytes) -> OpenVinoEngine:
        return OpenVinoEngine.load(
            contents, thread_count=avatar.thread_count, label=avatar.label, lookup=avatar.lookup
        )

    def build() -> tuple[OpenVinoEngine, bytes]:
        engine = OpenVinoEngine.compile(
            avatar.onnx(),
            thread_count=avatar.thread_count,
            label=avatar.label,
            lookup=avatar.lookup,
        )
        return engine, engine.export()

    return avatar.cache.open(avatar.key("openvino"), build, load)


def _open_tensorrt(avatar: OpeningAvatar) -> RenderEngine:
    from styleavatar_core.engine.tensorrt_backend import open_tensorrt

    return open_tensorrt(avatar)


@dataclass(frozen=True, slots=True)
class Backend:
    """One runtime.

    Attributes:
        package: What must be installed.
        open: Opens an avatar; the runtime is imported only then.
        is_chosen_by_auto: Whether ``auto`` may take it; not before it has run where we measure.
    """

    package: str
    open: Callable[[OpeningAvatar], RenderEngine]
    is_chosen_by_auto: bool = True


BACKENDS = {
    "torch": Backend("torch", _open_torch),
    "onnxruntime": Backend("onnxruntime", _open_onnxruntime),
    "openvino": Backend("openvino", _open_openvino),
    "tensorrt": Backend("tensorrt", _open_tensorrt, is_chosen_by_auto=False),
}


def backend_version(name: str) -> str:
    """Returns the version of a backend's runtime, "0" if it is not installed."""
    try:
        return importlib.metadata.version(BACKENDS[name].package)
    except importlib.metadata.PackageNotFoundError:
        return "0"


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
