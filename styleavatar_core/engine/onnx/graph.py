# SPDX-License-Identifier: Apache-2.0
"""Writes the frozen generator as an ONNX graph: static shapes, bytes in and out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from styleavatar_core.engine.base import OUTPUT_NAMES
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.onnx.constants import with_constants
from styleavatar_core.engine.onnx.operators import OPERATORS
from styleavatar_core.engine.onnx.tracing import TracedGraph, Tracer

OPSET = 17
BATCH_SIZES = (1, 2, 4, 8)  # that graphs are exported for
_IR_VERSION = 8
_FEW_VALUES = 1024  # a constant of no more is written into the graph in any case
_ELEMENT_TYPES = {
    torch.uint8: TensorProto.UINT8,
    torch.int64: TensorProto.INT64,
    torch.float16: TensorProto.FLOAT16,
    torch.float32: TensorProto.FLOAT,
}


def trace_generator(
    generator: FrozenGenerator, *, batch_size: int = 1
) -> tuple[TracedGraph, dict[str, torch.Tensor]]:
    """Writes down what a frozen generator computes.

    Args:
        generator: The frozen generator, on the CPU.
        batch_size: Samples per call.

    Returns:
        The graph, and its inputs and outputs by name.
    """
    names = {tensor.data_ptr(): name for name, tensor in generator.state_dict().items()}
    graph = Tracer(OPERATORS, names)
    # Without autograd whole operators arrive at the tracer, not the parts they consist of.
    with torch.inference_mode(), graph:
        inputs = {
            name: graph.value(name, (batch_size, *shape), dtype)
            for name, (shape, dtype) in generator.input_types().items()
        }
        image, mask = generator(*inputs.values())
    graph.prune([graph.name_of(image), graph.name_of(mask)])
    return graph, inputs | dict(zip(OUTPUT_NAMES, (image, mask), strict=True))


def onnx_model(generator: FrozenGenerator, *, batch_size: int = 1) -> onnx.ModelProto:
    """Returns a frozen generator as an ONNX model.

    Parameters keep their names, so that graphs of one preset differ in their constants only.

    Args:
        generator: The frozen generator, on the CPU.
        batch_size: Samples per call.
    """
    return with_constants(*onnx_with_inputs(generator, batch_size=batch_size))


def onnx_with_inputs(
    generator: FrozenGenerator, *, batch_size: int = 1
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Returns a frozen generator as an ONNX model whose large constants are inputs.

    For a runtime that takes them where they are: they are not copied.

    Args:
        generator: The frozen generator, on the CPU.
        batch_size: Samples per call.

    Returns:
        The model, and what each of those inputs is.
    """
    model, constants = _nodes_and_constants(generator, batch_size)
    given = {}
    for name, tensor in constants.items():
        if tensor.is_floating_point() and tensor.numel() > _FEW_VALUES:
            model.graph.input.append(_value_info(name, tensor))
            given[name] = _array(tensor)
        else:
            _set_tensor(model.graph.initializer.add(), name, tensor)
    return model, given


def _nodes_and_constants(
    generator: FrozenGenerator, batch_size: int
) -> tuple[onnx.ModelProto, dict[str, torch.Tensor]]:
    """Returns a model of a generator that still lacks its constants, and these."""
    graph, ends = trace_generator(generator, batch_size=batch_size)
    renamed = {graph.name_of(ends[name]): name for name in OUTPUT_NAMES}
    nodes = [
        helper.make_node(
            node.operator,
            list(node.inputs),
            [renamed.get(node.output, node.output)],
            name=f"{node.operator}.{node.output}",
            **{name: _attribute(value) for name, value in node.attributes.items()},
        )
        for node in graph.nodes
    ]
    infos = {name: _value_info(name, end) for name, end in ends.items()}
    proto = helper.make_graph(
        nodes,
        f"styleavatar-{generator.config.name}",
        [info for name, info in infos.items() if name not in OUTPUT_NAMES],
        [infos[name] for name in OUTPUT_NAMES],
    )
    model = helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="styleavatar",
    )
    return model, graph.constants


def _attribute(value: Any) -> Any:
    """Returns an attribute's value as ONNX takes it."""
    return _ELEMENT_TYPES[value] if isinstance(value, torch.dtype) else value


def _value_info(name: str, tensor: torch.Tensor) -> onnx.ValueInfoProto:
    """Says what an input or output is."""
    return helper.make_tensor_value_info(name, _ELEMENT_TYPES[tensor.dtype], list(tensor.shape))


def _set_tensor(proto: TensorProto, name: str, tensor: torch.Tensor) -> None:
    """Writes a constant, as raw bytes."""
    proto.name, proto.data_type = name, _ELEMENT_TYPES[tensor.dtype]
    proto.dims.extend(tensor.shape)
    proto.raw_data = _array(tensor).tobytes()


def _array(tensor: torch.Tensor) -> np.ndarray:
    """Returns a constant's values, row by row."""
    return tensor.detach().contiguous().numpy()
