# SPDX-License-Identifier: Apache-2.0
"""The runtimes that can run an avatar: which are here, and how each opens one."""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import ModelProto

from styleavatar_core.cores import processor_kind
from styleavatar_core.engine.base import RenderEngine
from styleavatar_core.engine.cache_key import CacheKey
from styleavatar_core.engine.calibration import CalibrationMemory, open_faster_form
from styleavatar_core.engine.cuda.compiled import code_folder
from styleavatar_core.engine.cuda.stream import gpu_name
from styleavatar_core.engine.keeping import keep_beside
from styleavatar_core.engine.onnx.constants import with_constants
from styleavatar_core.engine.opening import OpeningAvatar
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.errors import EngineUnavailableError, InvalidInputError

# An engine of more constants is built again sooner than it is read: ``hd`` with OpenVINO in 0.28 s
# instead of 0.35, ``paper`` in 0.37 instead of 0.66. Graphs in eight bits, which take long to make,
# hold all of theirs.
_KEPT_BYTES = 2**25

Constants = dict[str, np.ndarray]


def _open_torch(avatar: OpeningAvatar) -> RenderEngine:
    frozen = avatar.frozen
    if torch.cuda.is_available():
        # A copy moves to the device: what it is judged by is computed on the CPU.
        generator = copy.deepcopy(avatar.with_number_type(frozen.generator, None, is_for_gpu=True))

        def open_form(is_compiled: bool) -> TorchEngine:
            folder = code_folder(avatar.cache) if is_compiled else None
            return TorchEngine(generator, device="cuda", stream=avatar.stream, code_folder=folder)

        if avatar.has_own_plan:
            return open_form(False)
        preset, version = avatar.bundle.manifest.preset, backend_version("torch")
        memory = CalibrationMemory(avatar.cache.folder / "calibration.json")
        return open_faster_form(open_form, f"{preset}/torch{version}/{avatar.precision}", memory)
    generator = avatar.with_number_type(
        frozen.take_host_generator(), frozen.lookup, is_for_gpu=False
    )
    return TorchEngine(generator, thread_count=avatar.thread_count, lookup=frozen.lookup)


def _on_host(avatar: OpeningAvatar) -> dict[str, Any]:
    """Returns what engines on the CPU take beside their graph."""
    return {
        "thread_count": avatar.thread_count,
        "precision": avatar.precision,
        "lookup": avatar.frozen.lookup,
    }


def _open_kept(
    avatar: OpeningAvatar,
    backend: str,
    build: Callable[[ModelProto, Constants], tuple[RenderEngine, Callable[[], bytes]]],
    load: Callable[[bytes], RenderEngine],
) -> RenderEngine:
    """Loads an engine from the cache; one that is not there is built, and kept a little later.

    Args:
        avatar: What is opened.
        backend: Name of the runtime.
        build: Makes the engine of a graph and its constants, and what gives the contents of its
            entry.
        load: Makes the engine from the contents.
    """
    key = engine_key(avatar, backend)
    engine = avatar.cache.load(key, load)
    if engine is None:
        model, constants = avatar.onnx_with_inputs()
        engine, contents = build(model, constants)
        if sum(array.nbytes for array in constants.values()) <= _KEPT_BYTES:
            keep_beside(avatar.cache, key, contents, avatar.bundle.is_there)
    return engine


def _open_onnxruntime(avatar: OpeningAvatar) -> RenderEngine:
    from styleavatar_core.engine.onnx.onnx_engine import OnnxEngine

    def load(contents: bytes) -> OnnxEngine:
        return OnnxEngine(contents, **_on_host(avatar))

    def build(model: ModelProto, constants: Constants) -> tuple[OnnxEngine, Callable[[], bytes]]:
        engine = OnnxEngine.compile(model, constants, **_on_host(avatar))
        return engine, lambda: with_constants(model, constants).SerializeToString()

    return _open_kept(avatar, "onnxruntime", build, load)


def _open_openvino(avatar: OpeningAvatar) -> RenderEngine:
    from styleavatar_core.engine.onnx.openvino_engine import OpenVinoEngine

    def load(contents: bytes) -> OpenVinoEngine:
        return OpenVinoEngine.load(contents, **_on_host(avatar))

    def build(
        model: ModelProto, constants: Constants
    ) -> tuple[OpenVinoEngine, Callable[[], bytes]]:
        engine = OpenVinoEngine.compile(model, constants, **_on_host(avatar))
        return engine, engine.exporter()

    return _open_kept(avatar, "openvino", build, load)


def _open_tensorrt(avatar: OpeningAvatar) -> RenderEngine:
    from styleavatar_core.engine.tensorrt.backend import open_tensorrt

    return open_tensorrt(avatar)


@dataclass(frozen=True, slots=True)
class Backend:
    """One runtime.

    Attributes:
        package: What must be installed.
        open: Opens an avatar; the runtime is imported only then.
        is_on_gpu: Whether it runs on a GPU here.
        shares_plans: Whether avatars may share what it builds or compiles in a precision, and are
            put into it.
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
        shares_plans=lambda precision: torch.cuda.is_available(),
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


def engine_key(avatar: OpeningAvatar, backend: str) -> CacheKey:
    """Returns the key of an engine of this avatar alone."""
    version, precision = backend_version(backend), avatar.precision
    if BACKENDS[backend].shares_plans(precision) and not avatar.has_own_plan:
        version += "-refitted"
    if not BACKENDS[backend].is_on_gpu():  # what it compiles, and how well it computes in 8 bits
        version += f"-{processor_kind()}"
    return CacheKey(avatar.bundle.digest, backend, version, precision)


def backend_version(name: str) -> str:
    """Returns the version of a backend's runtime, for a GPU with its architecture.

    "0" if it is not installed.

    Raises:
        EngineUnavailableError: It runs on a GPU only, and there is none; or its libraries are not
            here.
    """
    if name == "tensorrt":  # installed under names that depend on the version of CUDA
        gpu = gpu_name()
        try:
            return f"{importlib.import_module('tensorrt').__version__}-{gpu}"
        except ImportError as error:
            raise EngineUnavailableError(
                f"TensorRT is installed but cannot be loaded: {error}; its libraries come with the "
                "package tensorrt (its bindings alone are not enough), or choose auto"
            ) from error
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
