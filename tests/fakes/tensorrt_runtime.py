# SPDX-License-Identifier: Apache-2.0
"""Stands for the module ``tensorrt`` where it is not installed and there is no GPU to start it on.

It has the classes that we call and keeps their contract: plans fit one machine, outputs are written
to addresses that stay the same, a refit takes an ONNX model's weights by name. The graph itself is
really computed, by ONNX Runtime on the CPU. What can go wrong with a real one is in ``faults``.
"""

from __future__ import annotations

import ctypes
import enum
import json
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, numpy_helper

__version__ = "11.4.0.106"


@dataclass
class Faults:
    """What goes wrong, and what was done.

    Attributes:
        machine: Plans that were built on another one are refused.
        refuses_graphs: Whether the parser takes no graph.
        refuses_refit: Whether weights do not fit a plan.
        misses_weights: Whether a refit leaves out the first of them.
        fails_to_refit: Whether what was given cannot be put in.
        spoils_refits: Whether a refit takes weights wrongly without saying so.
        spoils_plans: Whether plans are wrong as they are loaded.
        fails_to_build: Whether builds give nothing.
        lacks_memory: Whether there is no memory for what a plan computes.
        free_bytes: Memory that the device has for a plan.
        refused_timings: How a timing cache that is not empty is refused, None where it is taken.
        configs: Of each build.
    """

    machine: str = "first"
    refuses_graphs: bool = False
    refuses_refit: bool = False
    misses_weights: bool = False
    fails_to_refit: bool = False
    spoils_refits: bool = False
    spoils_plans: bool = False
    fails_to_build: bool = False
    lacks_memory: bool = False
    free_bytes: int = 2**37
    refused_timings: str | None = None
    configs: list[IBuilderConfig] = field(default_factory=list)


faults = Faults()


class Logger:
    WARNING = 2

    def __init__(self, level: int) -> None:
        self.level = level


ILogger = Logger


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.Enum):
    """Without ``REFIT``: it takes in weights that the parser makes itself, which no model has."""

    REFIT_INDIVIDUAL = 0
    TF32 = 1


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class ITimingCache:
    def __init__(self, contents: bytes) -> None:
        self.contents = contents

    def serialize(self) -> memoryview:
        return memoryview(self.contents + b"measured ")


class IBuilderConfig:
    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}
        self.timings: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        pass

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        if serialized_timing_cache and faults.refused_timings == "when created":
            return None
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache.contents and faults.refused_timings == "when set" and not ignore_mismatch:
            return False
        self.timings = cache
        return True


class INetworkDefinition:
    model = b""

    def __init__(self) -> None:
        self.refittable: set[str] = set()

    def mark_weights_refittable(self, name: str) -> bool:
        graph = onnx.load_from_string(self.model).graph
        is_used = any(name in node.input for node in graph.node)
        if is_used:
            self.refittable.add(name)
        return is_used


class Builder:
    def __init__(self, logger: ILogger) -> None:
        pass

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> memoryview | None:
        assert config.timings is not None
        faults.configs.append(config)
        if faults.fails_to_build:
            return None
        is_refittable = BuilderFlag.REFIT_INDIVIDUAL in config.flags
        refittable = sorted(network.refittable) if is_refittable else []
        kind = {"machine": faults.machine, "refittable": refittable}
        return memoryview(json.dumps(kind).encode() + b"\n" + network.model)


class OnnxParser:
    num_errors = 0

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network

    def parse(self, model: bytes) -> bool:
        if faults.refuses_graphs:
            self.num_errors = 1
            return False
        onnx.checker.check_model(model)
        self._network.model = model
        return True

    def get_error(self, index: int) -> str:
        return "no importer for an operator"


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        pass

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        head, _, model = serialized_engine.partition(b"\n")
        kind = json.loads(head)
        if kind["machine"] != faults.machine or len(serialized_engine) > faults.free_bytes:
            return None
        return ICudaEngine(onnx.load_from_string(model), kind["refittable"])


class ICudaEngine:
    def __init__(self, model: ModelProto, refittable: list[str]) -> None:
        self.model = model
        self.refittable = {
            tensor.name: tensor for tensor in model.graph.initializer if tensor.name in refittable
        }
        ends = (*model.graph.input, *model.graph.output)
        self._shapes = {
            end.name: tuple(d.dim_value for d in end.type.tensor_type.shape.dim) for end in ends
        }
        if faults.spoils_plans:
            spoil(model)

    @property
    def num_io_tensors(self) -> int:
        return len(self._shapes)

    def get_tensor_name(self, index: int) -> str:
        return list(self._shapes)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def create_execution_context(self) -> IExecutionContext | None:
        if faults.lacks_memory:
            return None
        return IExecutionContext(self.model)


class IExecutionContext:
    def __init__(self, model: ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        feed = {node.name: self._place(node) for node in self._session.get_inputs()}
        outputs = self._session.get_outputs()
        results = self._session.run([node.name for node in outputs], feed)
        for node, result in zip(outputs, results, strict=True):
            self._place(node)[:] = result
        return True

    def _place(self, node: onnxruntime.NodeArg) -> np.ndarray:
        """Returns the memory at the address that was given for an input or output."""
        kind = np.dtype({"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[node.type])
        size = int(np.prod(node.shape)) * kind.itemsize
        memory = (ctypes.c_char * size).from_address(self._addresses[node.name])
        return np.frombuffer(memory, kind).reshape(node.shape)


class Refitter:
    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
        self.engine = engine
        self.weights: dict[str, TensorProto] = {}

    def get_missing_weights(self) -> list[str]:
        return [name for name in self.engine.refittable if name not in self.weights]

    def refit_cuda_engine(self) -> bool:
        if faults.fails_to_refit:
            return False
        for name, tensor in self.engine.refittable.items():
            tensor.CopyFrom(self.weights[name])
        if faults.spoils_refits:
            spoil(self.engine.model)
        return True


class OnnxParserRefitter:
    num_errors = 0

    def __init__(self, refitter: Refitter, logger: ILogger) -> None:
        self._refitter = refitter

    def refit_from_bytes(self, model: bytes) -> bool:
        wanted = self._refitter.engine.refittable
        if faults.refuses_refit or not wanted:
            return False
        given = {tensor.name: tensor for tensor in onnx.load_from_string(model).graph.initializer}
        first = next(iter(wanted)) if faults.misses_weights else None
        self._refitter.weights = {
            name: given[name] for name in wanted if name in given and name != first
        }
        return all(name in given and given[name].dims == wanted[name].dims for name in wanted)

    def get_error(self, index: int) -> str:
        raise IndexError(index)


def spoil(model: ModelProto) -> None:
    """Changes weights, as a faulty version does."""
    for tensor in model.graph.initializer:
        if tensor.name.endswith("weight"):
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.roll(values, 1, axis=0), tensor.name))
