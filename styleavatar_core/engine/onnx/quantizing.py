# SPDX-License-Identifier: Apache-2.0
"""An 8-bit graph from another: what convolutions take and multiply by is rounded, explicitly.

``QuantizeLinear`` and ``DequantizeLinear`` say in the graph itself what is rounded and how, as
strongly typed runtimes need it; scales come from the avatar's own frames. Only wide convolutions
are rounded: they are nearly all of the work, and what makes pixels stays exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from styleavatar_core.types import FloatArray

Feed = Mapping[str, np.ndarray]

# How the names of weights begin that stay exact: what the foreground's mask is made of, a third of
# the work at most, and what sees the face first.
EXACT_PARTS = ("generator.foreground.", "generator.synthesis.encoder.0.")
_LEAST_CHANNELS = 16  # in and out; narrower ones make masks and pixels, and take little time
_STEPS = 127  # of eight bits, symmetric about zero
_HALF_SCALES = 19, 9  # from this opset on, and its format, scales may be fp16
_SHARE = 0.99999  # of the values seen; the rest is cut off


def quantize(
    model: ModelProto, feeds: Sequence[Feed], exact: Sequence[str] = EXACT_PARTS
) -> ModelProto:
    """Returns a graph that computes its wide convolutions in eight bits.

    Args:
        model: The graph in fp32 or fp16, which all that is not rounded stays in; not changed.
        feeds: Inputs by name, as the avatar meets them in use; at least one.
        exact: How the names of weights begin that are not rounded.

    Returns:
        A new model with the same inputs and outputs.
    """
    quantized = ModelProto()
    quantized.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in quantized.graph.initializer}
    wide = [
        node
        for node in quantized.graph.node
        if _is_wide(node, weights) and not node.input[1].startswith(tuple(exact))
    ]
    if any(weights[node.input[1]].data_type == TensorProto.FLOAT16 for node in wide):
        quantized.opset_import[0].version, quantized.ir_version = _HALF_SCALES
    limits = _limits(model, sorted({node.input[0] for node in wide}), feeds)
    made_by = {output: node.op_type for node in quantized.graph.node for output in node.output}
    added: dict[str, list[NodeProto]] = {}
    for node in wide:
        source = node.input[0]
        weight = weights[node.input[1]]
        if source not in added:
            scale = _scale(np.array(limits[source]), weight)
            is_joined = made_by.get(source) == "Concat"
            added[source] = _rounded_value(quantized, source, scale, is_joined=is_joined)
        node.input[0] = added[source][-1].output[0]
        added[weight.name] = [_rounded_weight(quantized, weight, node.op_type)]
        node.input[1] = added[weight.name][0].output[0]
    nodes = _in_order(quantized, added)
    del quantized.graph.node[:]
    quantized.graph.node.extend(nodes)
    _drop_unused(quantized)
    return quantized


def _is_wide(node: NodeProto, weights: Mapping[str, TensorProto]) -> bool:
    """Whether a node is a convolution that is worth it."""
    if node.op_type not in ("Conv", "ConvTranspose") or node.input[1] not in weights:
        return False
    outputs, inputs, *sides = weights[node.input[1]].dims
    return min(outputs, inputs) >= _LEAST_CHANNELS and max(sides) > 1


def _limits(model: ModelProto, names: Sequence[str], feeds: Sequence[Feed]) -> dict[str, float]:
    """Returns below which size nearly all of a value's numbers are, by its name."""
    shown = ModelProto()
    shown.CopyFrom(model)
    known = {info.name for info in shown.graph.input}
    asked = [name for name in names if name not in known]
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in asked)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with TemporaryDirectory() as folder:  # a model may be larger than one message
        path = Path(folder) / "calibration.onnx"
        onnx.save(shown, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = dict.fromkeys(names, 0.0)
    for feed in feeds if asked else ():
        values = {**feed, **dict(zip(asked, session.run(asked, dict(feed)), strict=True))}
        for name in names:
            found[name] = max(found[name], _limit(values[name]))
    return found


def _limit(values: FloatArray) -> float:
    """Returns the size that all but a few numbers stay below."""
    sizes = np.abs(values).ravel()
    place = min(len(sizes) - 1, int(_SHARE * len(sizes)))
    return float(np.partition(sizes, place)[place])


def _scale(limits: np.ndarray, weight: TensorProto) -> np.ndarray:
    """Returns what a step is for numbers up to some limits, in the type of a weight."""
    kind = helper.tensor_dtype_to_np_dtype(weight.data_type)
    return np.maximum(limits / _STEPS, np.finfo(kind).tiny).astype(kind)


def _rounded_value(
    model: ModelProto, name: str, scale: np.ndarray, *, is_joined: bool
) -> list[NodeProto]:
    """Returns the nodes that round a value.

    OpenVINO draws the rounding of what is joined into its parts, wrongly on processors that have
    8-bit dot products of vectors only (36 dB instead of 56). A step that changes nothing is between
    the two therefore.
    """
    apart: list[NodeProto] = []
    if is_joined:
        apart = [helper.make_node("LeakyRelu", [name], [f"{name}.whole"], alpha=1.0)]
        name = f"{name}.whole"
    how = [f"{name}.scale", f"{name}.zero"]
    tensors = (
        numpy_helper.from_array(scale, how[0]),
        numpy_helper.from_array(np.array(0, np.int8), how[1]),
    )
    model.graph.initializer.extend(tensors)
    return [
        *apart,
        helper.make_node("QuantizeLinear", [name, *how], [f"{name}.int8"], f"Round.{name}"),
        helper.make_node(
            "DequantizeLinear", [f"{name}.int8", *how], [f"{name}.rounded"], f"Widen.{name}"
        ),
    ]


def _rounded_weight(model: ModelProto, weight: TensorProto, operator: str) -> NodeProto:
    """Returns the node that gives a rounded weight, with a scale for each output channel."""
    axis = 0 if operator == "Conv" else 1
    values = numpy_helper.to_array(weight).astype(np.float32)
    others = tuple(index for index in range(values.ndim) if index != axis)
    scales = _scale(np.abs(values).max(others, keepdims=True), weight)
    rounded = np.rint(values / scales.astype(np.float32)).clip(-_STEPS, _STEPS).astype(np.int8)
    flat = scales.ravel()
    name = weight.name
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(rounded, f"{name}.int8"),
            numpy_helper.from_array(flat, f"{name}.scales"),
            numpy_helper.from_array(np.zeros(len(flat), np.int8), f"{name}.zeros"),
        ]
    )
    inputs = [f"{name}.int8", f"{name}.scales", f"{name}.zeros"]
    return helper.make_node(
        "DequantizeLinear", inputs, [f"{name}.rounded"], f"Widen.{name}", axis=axis
    )


def _in_order(model: ModelProto, added: Mapping[str, Sequence[NodeProto]]) -> list[NodeProto]:
    """Returns all nodes, those that were added right after what they take."""
    made = {output for node in model.graph.node for output in node.output}
    nodes = [node for name, new in added.items() if name not in made for node in new]
    for node in model.graph.node:
        nodes.append(node)
        for output in node.output:
            nodes.extend(added.get(output, ()))
    return nodes


def _drop_unused(model: ModelProto) -> None:
    """Removes the constants that no node takes any more."""
    used = {source for node in model.graph.node for source in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
