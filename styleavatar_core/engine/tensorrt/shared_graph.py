# SPDX-License-Identifier: Apache-2.0
"""What the graphs of several avatars have in common: all but the values of their weights."""

from __future__ import annotations

import hashlib

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from styleavatar_core.engine.onnx.tracing import NUMBER_PREFIX

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_SPREAD = 0.05  # about that of trained weights


def structure_digest(model: ModelProto) -> str:
    """Returns a digest of everything in a graph but the values of its weights.

    Graphs with the same digest differ in what a refit puts in, and in nothing else. Two avatars of
    one preset may differ in more: a layer whose noise has no strength has no noise at all.

    Args:
        model: The avatar's.
    """
    digest = hashlib.sha256()
    for tensor in model.graph.initializer:
        kind = f"{tensor.name} {tensor.data_type} {tuple(tensor.dims)}\n"
        digest.update(kind.encode())
        if not _is_weight(tensor):
            digest.update(tensor.raw_data)
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.opset_import):
        digest.update(part.SerializeToString(deterministic=True))
    return digest.hexdigest()


def impersonal(model: ModelProto) -> ModelProto:
    """Returns the same graph with drawn weights, for what outlives the avatar that it came from.

    Args:
        model: The avatar's; not changed.
    """
    rng = np.random.default_rng(0)
    tensors = []
    for tensor in model.graph.initializer:
        if _is_weight(tensor):
            drawn = _SPREAD * rng.standard_normal(tuple(tensor.dims), np.float32)
            kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor = numpy_helper.from_array(np.asarray(drawn, kind), tensor.name)
        tensors.append(tensor)
    graph = helper.make_graph(
        model.graph.node, model.graph.name, model.graph.input, model.graph.output, tensors
    )
    return helper.make_model(
        graph,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
    )


def weight_names(model: ModelProto) -> list[str]:
    """Returns the names of the initializers that differ between avatars: what a refit puts in."""
    return [tensor.name for tensor in model.graph.initializer if _is_weight(tensor)]


def _is_weight(tensor: TensorProto) -> bool:
    """Whether a constant is the avatar's, and not a number that its preset's graph has anyway."""
    return tensor.data_type in _FLOATS and not tensor.name.startswith(NUMBER_PREFIX)
