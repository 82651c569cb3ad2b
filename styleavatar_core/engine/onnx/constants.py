# SPDX-License-Identifier: Apache-2.0
"""Inputs of a graph that never change, as constants of it. Does not import torch."""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np
from onnx import ModelProto, TensorProto


def with_constants(model: ModelProto, constants: Mapping[str, np.ndarray]) -> ModelProto:
    """Returns a model that holds what some of its inputs always are.

    Args:
        model: As ``onnx_with_inputs`` returns it, with its constants.
        constants: What those inputs are.
    """
    complete, lacking = with_empty_constants(model, constants)
    for name, proto in lacking.items():
        proto.raw_data = constants[name].tobytes()
    return complete


def with_empty_constants(
    model: ModelProto, names: Container[str]
) -> tuple[ModelProto, dict[str, TensorProto]]:
    """Returns a model with constants in the place of inputs, and these: they lack their values.

    Args:
        model: The model, which stays as it is.
        names: Of those inputs.
    """
    changed = ModelProto()
    changed.CopyFrom(model)
    del changed.graph.input[:]
    lacking = {}
    for info in model.graph.input:
        if info.name not in names:
            changed.graph.input.append(info)
            continue
        kind = info.type.tensor_type
        proto = lacking[info.name] = changed.graph.initializer.add()
        proto.name, proto.data_type = info.name, kind.elem_type
        proto.dims.extend(size.dim_value for size in kind.shape.dim)
    return changed, lacking
