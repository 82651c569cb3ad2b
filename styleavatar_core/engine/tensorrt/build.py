# SPDX-License-Identifier: Apache-2.0
"""TensorRT plans from ONNX: built once per architecture and GPU, refitted for each avatar.

Strongly typed: the types are those of the graph. Works with TensorRT 10 and 11. Written against the
published bindings; has not run on a GPU yet.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection
from dataclasses import dataclass

import tensorrt
import torch

from styleavatar_core.errors import AssetError

logger = logging.getLogger(__name__)

_WORKSPACE_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """What a build gives.

    Attributes:
        plan: The serialized engine, for this version and GPU only; its weights can be refitted.
        timing_cache: Measurements of kernels, which make later builds on this GPU fast.
    """

    plan: bytes
    timing_cache: bytes


@functools.cache
def process_logger() -> tensorrt.ILogger:
    """Returns the logger of this process, which only speaks of warnings.

    TensorRT keeps a pointer to the first one that it gets, for all that it makes.
    """
    return tensorrt.Logger(tensorrt.Logger.WARNING)


def build_plan(
    model: bytes, timing_cache: bytes = b"", refitted: Collection[str] = ()
) -> BuiltPlan:
    """Builds a plan on the GPU that will run it.

    Args:
        model: The ONNX model.
        timing_cache: What an earlier build on this GPU gave, or nothing.
        refitted: Names of the weights that :func:`refit_plan` will put others in for. Of those
            that TensorRT makes itself no model could give others.

    Raises:
        AssetError: TensorRT refuses the model.
        MemoryError: It gives none, and the device has less memory left than a build may take.
    """
    builder = tensorrt.Builder(process_logger())
    typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = tensorrt.OnnxParser(network, process_logger())
    if not parser.parse(model):
        reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise AssetError(f"TensorRT {tensorrt.__version__} cannot read the graph: {reasons}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # on by default; what is fp32 in a graph is meant
    if refitted:
        config.set_flag(tensorrt.BuilderFlag.REFIT_INDIVIDUAL)
        for name in refitted:
            network.mark_weights_refittable(name)  # False for one that no layer uses
    timings = _attach_timings(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        # TensorRT does not say why: what it finds out while building it only logs.
        free_bytes, _ = torch.cuda.mem_get_info()
        most_bytes = len(model) + _WORKSPACE_BYTES
        if free_bytes < most_bytes:
            raise MemoryError(
                "TensorRT failed to build the engine, for want of memory perhaps: it may take "
                f"{most_bytes} bytes, and the device has {free_bytes} left; make room there, or "
                "choose torch as the rendering backend"
            )
        raise AssetError(
            f"TensorRT {tensorrt.__version__} could not build an engine from the graph; "
            "its log says why"
        )
    return BuiltPlan(bytes(plan), bytes(timings.serialize()))


def _attach_timings(config: tensorrt.IBuilderConfig, timing_cache: bytes) -> tensorrt.ITimingCache:
    """Gives a build what an earlier one measured, or nothing if TensorRT refuses that.

    It does so after another driver was installed, for example.

    Raises:
        AssetError: It does not even take an empty one.
    """
    for contents in (timing_cache, b""):
        timings = config.create_timing_cache(contents)
        if timings is not None and config.set_timing_cache(timings, ignore_mismatch=False):
            return timings
        logger.warning("TensorRT refuses its timing cache; kernels are measured anew")
    raise AssetError(f"TensorRT {tensorrt.__version__} takes no timing cache; its log says why")


def load_plan(plan: bytes) -> tensorrt.ICudaEngine:
    """Loads a plan.

    Raises:
        AssetError: It was built by another version, for another GPU, or is damaged.
        MemoryError: The device has less memory left than it takes.
    """
    runtime = tensorrt.Runtime(process_logger())
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        # TensorRT does not say why. With less than this no plan could be loaded, a new one neither.
        free_bytes, _ = torch.cuda.mem_get_info()
        if free_bytes < len(plan):
            raise MemoryError(
                f"TensorRT failed to allocate memory for the engine: it takes {len(plan)} bytes "
                f"at least, and the device has {free_bytes} left"
            )
        raise AssetError(
            f"the engine does not fit TensorRT {tensorrt.__version__} on this GPU; "
            "it will be built anew"
        )
    return engine


def refit_plan(engine: tensorrt.ICudaEngine, model: bytes) -> None:
    """Puts another avatar's weights into an engine of the same architecture.

    The result must pass the quality gate: a refit can be wrong without failing.

    Args:
        engine: A loaded engine; changed.
        model: The avatar's ONNX model.

    Raises:
        AssetError: The architectures differ.
    """
    refitter = tensorrt.Refitter(engine, process_logger())
    parser_refitter = tensorrt.OnnxParserRefitter(refitter, process_logger())
    if not parser_refitter.refit_from_bytes(model):
        errors = [parser_refitter.get_error(index) for index in range(parser_refitter.num_errors)]
        reasons = "; ".join(map(str, errors))
        raise AssetError(f"the avatar's weights do not fit the engine of its preset: {reasons}")
    missing = refitter.get_missing_weights()
    if missing:
        raise AssetError(
            f"the engine lacks {len(missing)} weights after its refit, {missing[0]} first"
        )
    if not refitter.refit_cuda_engine():
        raise AssetError("TensorRT could not refit the engine; its log says why")
