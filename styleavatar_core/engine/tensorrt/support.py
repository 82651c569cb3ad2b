# SPDX-License-Identifier: Apache-2.0
"""Whether TensorRT's parser takes a graph: every operator, type and attribute is on its list.

The list is NVIDIA's documentation of its ONNX parser, for the operators that we emit; there is no
need of TensorRT or a GPU to check against it.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
NUMBERS = FLOATS | {TensorProto.INT32, TensorProto.INT64}
CASTS = NUMBERS | {TensorProto.UINT8}

# By operator: the types of its output.
OPERATOR_TYPES: dict[str, frozenset[int]] = {
    "Add": NUMBERS,
    "AveragePool": FLOATS,
    "Cast": CASTS,
    "Clip": FLOATS,
    "Concat": NUMBERS,
    "Conv": FLOATS,
    "ConvTranspose": FLOATS,
    "DepthToSpace": FLOATS,
    "DequantizeLinear": FLOATS,
    "Div": NUMBERS,
    "Expand": NUMBERS,
    "Floor": FLOATS,
    "Gather": NUMBERS,
    "GridSample": FLOATS,
    "LeakyRelu": FLOATS,
    "Mul": NUMBERS,
    "Pad": NUMBERS,
    "QuantizeLinear": frozenset({TensorProto.INT8}),
    "Reshape": NUMBERS,
    "Resize": FLOATS,
    "Round": FLOATS,
    "Slice": NUMBERS,
    "Sub": NUMBERS,
    "Tanh": FLOATS,
    "Transpose": NUMBERS,
    "Unsqueeze": NUMBERS,
}
_WINDOW: dict[str, frozenset[object] | None] = {"kernel_shape": None, "pads": None, "strides": None}
# By operator: its attributes, and the values of each that the parser takes, None where all.
# An attribute that is not here is refused: nobody has looked it up.
ATTRIBUTES: dict[str, dict[str, frozenset[object] | None]] = {
    "AveragePool": _WINDOW,
    "Cast": {"to": frozenset(CASTS)},
    "Concat": {"axis": None},
    "Conv": {**_WINDOW, "group": None},
    "ConvTranspose": _WINDOW,
    "DepthToSpace": {"blocksize": None, "mode": frozenset({"CRD", "DCR"})},
    "DequantizeLinear": {"axis": None},
    "Gather": {"axis": None},
    "GridSample": {
        "mode": frozenset({"bilinear", "nearest"}),
        "padding_mode": frozenset({"zeros", "border"}),
        "align_corners": frozenset({0, 1}),
    },
    "LeakyRelu": {"alpha": None},
    "Pad": {"mode": frozenset({"constant"})},
    "Resize": {
        "mode": frozenset({"linear", "nearest"}),
        "coordinate_transformation_mode": frozenset({"half_pixel", "asymmetric"}),
    },
    "Transpose": {"perm": None},
}
# By operator: the inputs that must be constants.
CONSTANT_INPUTS = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DequantizeLinear": (1, 2),
    "Pad": (1, 2),
    "QuantizeLinear": (1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Unsqueeze": (1,),
}


def unsupported_parts(model: ModelProto) -> list[str]:
    """Returns what TensorRT's parser would refuse, in words; nothing if it takes the graph.

    Args:
        model: The ONNX model; static shapes.
    """
    inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for info in (*inferred.input, *inferred.value_info, *inferred.output):
        types[info.name] = info.type.tensor_type.elem_type
    constants = {tensor.name for tensor in inferred.initializer}
    constants |= {  # of eight bits
        node.output[0]
        for node in inferred.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    problems: list[str] = []
    for node in inferred.node:
        problems += _problems(node, types, constants)
    return problems


def _problems(node: NodeProto, types: dict[str, int], constants: set[str]) -> list[str]:
    """Returns what is wrong with a node."""
    if node.op_type not in OPERATOR_TYPES:
        return [f"{node.name}: {node.op_type} is not supported"]
    problems = _problems_of_types(node, types)
    known = ATTRIBUTES.get(node.op_type, {})
    for attribute in node.attribute:
        if attribute.name not in known:
            problems.append(f"{node.name}: {attribute.name} of {node.op_type} is not supported")
            continue
        allowed, value = known[attribute.name], helper.get_attribute_value(attribute)
        value = value.decode() if isinstance(value, bytes) else value
        if allowed is not None and value not in allowed:
            problems.append(f"{node.name}: {attribute.name} may not be {value}")
    for position in CONSTANT_INPUTS.get(node.op_type, ()):
        if position < len(node.input) and node.input[position]:
            source = node.input[position]
            if source not in constants:
                problems.append(f"{node.name}: input {position} must be a constant")
    return problems


def _problems_of_types(node: NodeProto, types: dict[str, int]) -> list[str]:
    """Returns what is wrong with the types that a node takes and gives."""
    given = types[node.output[0]]
    taken = [types[source] for source in node.input if source]
    problems = []
    if given not in OPERATOR_TYPES[node.op_type]:
        name = TensorProto.DataType.Name(given)
        problems.append(f"{node.name}: {node.op_type} cannot give {name}")
    # Bytes exist at the ends of a network only, and nothing but floats becomes of them.
    if TensorProto.UINT8 in taken and node.op_type != "Cast":
        problems.append(f"{node.name}: {node.op_type} cannot take UINT8")
    kinds = {given, *taken}
    if node.op_type == "Cast" and TensorProto.UINT8 in kinds and not kinds & FLOATS:
        problems.append(f"{node.name}: Cast turns UINT8 into floats only, and floats into it")
    if len(FLOATS.intersection(taken)) > 1 and node.op_type != "Resize":
        problems.append(f"{node.name}: {node.op_type} mixes types, which strong typing forbids")
    return problems
