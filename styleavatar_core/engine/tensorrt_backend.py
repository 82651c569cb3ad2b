# SPDX-License-Identifier: Apache-2.0
"""Opening an avatar in TensorRT: one plan per architecture and GPU, refitted for each avatar."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING

import torch

from styleavatar_core.engine.cache import EngineKey
from styleavatar_core.errors import AssetError, EngineUnavailableError

if TYPE_CHECKING:
    from styleavatar_core.engine.backends import OpeningAvatar
    from styleavatar_core.engine.base import RenderEngine

logger = logging.getLogger(__name__)


def plan_key(avatar: OpeningAvatar, version: str) -> EngineKey:
    """Returns the key of the plan that all avatars of one architecture share.

    Not in eight bits: what is rounded how is the avatar's own.

    Args:
        avatar: The avatar.
        version: Of TensorRT.

    Raises:
        EngineUnavailableError: There is no CUDA device.
    """
    architecture = json.dumps(avatar.bundle.manifest.generator, sort_keys=True)
    digest = hashlib.sha256(architecture.encode()).hexdigest()
    if _is_own(avatar):
        digest = avatar.bundle.digest
    return EngineKey(digest, "tensorrt", f"{version}-{_gpu()}", avatar.label.precision)


def _is_own(avatar: OpeningAvatar) -> bool:
    """Whether an avatar has a plan of its own, which is never refitted."""
    return avatar.label.precision == "int8"


def open_tensorrt(avatar: OpeningAvatar) -> RenderEngine:
    """Opens an avatar: loads or builds its architecture's plan, then puts its weights in.

    Args:
        avatar: What is opened.

    Raises:
        EngineUnavailableError: There is no CUDA device.
        AssetError: TensorRT refuses the graph.
    """
    gpu = _gpu()
    import tensorrt

    from styleavatar_core.engine.tensorrt_build import build_plan, load_plan, refit_plan
    from styleavatar_core.engine.tensorrt_engine import TensorRtEngine
    from styleavatar_core.engine.tensorrt_support import unsupported_parts

    model = avatar.device_onnx()
    problems = unsupported_parts(model)
    if problems:
        raise AssetError(f"TensorRT does not take this generator: {problems[0]}")
    contents = model.SerializeToString()
    timing_key = EngineKey("timing" * 6, "tensorrt", f"{tensorrt.__version__}-{gpu}", "all")

    def build() -> tuple[tensorrt.ICudaEngine, bytes]:
        timings = avatar.cache.open(timing_key, lambda: (b"", b""), bytes)
        built = build_plan(contents, timings, is_refitted=not _is_own(avatar))
        avatar.cache.replace(timing_key, built.timing_cache)
        return load_plan(built.plan), built.plan

    engine = avatar.cache.open(plan_key(avatar, tensorrt.__version__), build, load_plan)
    if not _is_own(avatar):
        refit_plan(engine, contents)
    return TensorRtEngine(engine, avatar.label)


def _gpu() -> str:
    """Returns the architecture of the current GPU, such as ``sm90-NVIDIA H200``."""
    if not torch.cuda.is_available():
        raise EngineUnavailableError(
            "the rendering backend 'tensorrt' needs a CUDA device, and none is visible here; "
            "choose auto"
        )
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}-{torch.cuda.get_device_name()}"
