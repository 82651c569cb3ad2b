# SPDX-License-Identifier: Apache-2.0
"""Opening an avatar in TensorRT: one plan per structure and GPU, refitted for each avatar.

What is shared is built from drawn weights: it outlives the avatars that use it, and holds nothing
of any of them. A refit can fail, or be wrong without failing: the quality gate judges each, and an
avatar that does not pass gets a plan of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnx import ModelProto

from styleavatar_core.engine.backends import backend_version, engine_key
from styleavatar_core.engine.cache_key import CacheKey
from styleavatar_core.engine.tensorrt.shared_graph import impersonal, structure_digest, weight_names
from styleavatar_core.errors import AssetError

if TYPE_CHECKING:
    from styleavatar_core.engine.base import RenderEngine
    from styleavatar_core.engine.opening import OpeningAvatar

_TIMINGS_DIGEST = "timing" * 6  # of kernels, measured while building: all plans of a GPU share them


def plan_key(own_key: CacheKey, model: ModelProto, *, is_shared: bool) -> CacheKey:
    """Returns the key of a plan.

    Args:
        own_key: The avatar's.
        model: Its graph.
        is_shared: Whether all avatars whose graphs differ in their weights only share it.
    """
    return replace(own_key, digest=structure_digest(model)) if is_shared else own_key


def open_tensorrt(avatar: OpeningAvatar) -> RenderEngine:
    """Opens an avatar: loads or builds a plan, then puts its weights in if others share it.

    Args:
        avatar: What is opened.

    Raises:
        EngineUnavailableError: There is no CUDA device.
        AssetError: TensorRT refuses the graph or the weights.
    """
    own_key = engine_key(avatar, "tensorrt")
    from styleavatar_core.engine.tensorrt.build import build_plan, load_plan, refit_plan
    from styleavatar_core.engine.tensorrt.engine import TensorRtEngine
    from styleavatar_core.engine.tensorrt.support import unsupported_parts

    model = avatar.device_onnx()
    problems = unsupported_parts(model)
    if problems:
        raise AssetError(f"TensorRT does not take this generator: {problems[0]}")
    is_shared = not avatar.has_own_plan
    timing_key = CacheKey(_TIMINGS_DIGEST, "tensorrt", backend_version("tensorrt"), "all")

    def build() -> bytes:
        timings = avatar.cache.load(timing_key, bytes) or b""
        graph = impersonal(model) if is_shared else model
        refitted = weight_names(model) if is_shared else ()
        built = build_plan(graph.SerializeToString(), timings, refitted)
        avatar.cache.replace(timing_key, built.timing_cache)
        return built.plan

    key = plan_key(own_key, model, is_shared=is_shared)
    engine = avatar.cache.open(key, build, load_plan)
    if is_shared:
        refit_plan(engine, model.SerializeToString())
    return TensorRtEngine(engine, avatar.precision)
