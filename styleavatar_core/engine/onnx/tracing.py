# SPDX-License-Identifier: Apache-2.0
"""Writing down what a torch module computes, operator by operator, without computing it.

A traced tensor has a shape and a type but no values. Whatever touches one becomes a node of the
graph; what touches only ordinary tensors is computed as usual and becomes a constant. So everything
that does not depend on the inputs is folded by itself, and tracing costs no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from styleavatar_core.errors import EngineError

NUMBER_PREFIX = "number"  # of the names of small constants, which are the same for all avatars

Scalar = float | int
Operand = torch.Tensor | Scalar | None


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a graph.

    Attributes:
        operator: Name of the ONNX operator.
        inputs: Names of values and constants; an empty name leaves an optional input out.
        output: Name of the value that it gives.
        attributes: Attributes of the operator.
        shape: Shape of the output.
        dtype: Type of the output.
    """

    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]
    shape: tuple[int, ...]
    dtype: torch.dtype


# Gives the nodes of one torch operator: (graph, *its arguments) to its result.
Translation = Callable[..., Any]


class TranslationTable(dict[Any, Translation]):
    """Translations by torch operator."""

    def translates(self, *operators: Any) -> Callable[[Translation], Translation]:
        """Registers the function below as the translation of these operators."""

        def register(translation: Translation) -> Translation:
            self.update(dict.fromkeys(operators, translation))
            return translation

        return register


class TracedGraph:
    """The graph under construction.

    Args:
        translations: By torch operator.
        names: Names for constants that are parameters, by ``data_ptr``; others are numbered.

    Attributes:
        nodes: In order of computation.
        constants: By name.
    """

    def __init__(
        self, translations: Mapping[Any, Translation], names: Mapping[int, str] | None = None
    ) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, torch.Tensor] = {}
        self._translations = translations
        self._names = names or {}
        self._known: dict[tuple[Any, ...], str] = {}
        # By identity; the tensor is kept, so that no other takes its place in memory.
        self._values: dict[int, tuple[str, torch.Tensor]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Adds the nodes of an operator that touches a traced value; computes any other.

        Raises:
            EngineError: The operator has no translation.
        """
        if not self._touches_value(args):
            return func(*args, **(kwargs or {}))
        translation = self._translations.get(func)
        if translation is None:
            raise EngineError(
                f"the network uses {func}, which the exporter does not know; "
                "add it to engine/onnx/operators.py or a module that it joins"
            )
        return translation(self, *args, **(kwargs or {}))

    def value(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Returns a traced value: shape and type of a tensor, one number of memory."""
        tensor = torch.zeros((), dtype=dtype).expand(tuple(shape))
        self._values[id(tensor)] = (name, tensor)
        return tensor

    def _touches_value(self, args: Sequence[Any]) -> bool:
        """Whether a traced value is among arguments, lists included."""
        return any(
            self._touches_value(entry)
            if isinstance(entry, list | tuple)
            else id(entry) in self._values
            for entry in args
        )

    def node(
        self,
        operator: str,
        inputs: Sequence[Operand | str],
        shape: Sequence[int],
        dtype: torch.dtype,
        **attributes: Any,
    ) -> torch.Tensor:
        """Adds a node.

        Args:
            operator: Name of the ONNX operator.
            inputs: Values, constants, numbers (as ``dtype``), names, or None for one left out.
            shape: Of the output.
            dtype: Of the output.
            attributes: Of the operator.

        Returns:
            The output.
        """
        names = tuple(self.name_of(entry, dtype) for entry in inputs)
        while names and not names[-1]:
            names = names[:-1]
        output = f"v{len(self.nodes)}"
        self.nodes.append(Node(operator, names, output, attributes, tuple(shape), dtype))
        return self.value(output, shape, dtype)

    def name_of(self, entry: Operand | str, dtype: torch.dtype = torch.float32) -> str:
        """Returns the name under which a node may use a value, constant or number."""
        if entry is None:
            return ""
        if isinstance(entry, str):
            return entry
        if id(entry) in self._values:
            return self._values[id(entry)][0]
        if isinstance(entry, torch.Tensor):
            return self._constant(entry)
        return self.number([entry], dtype, is_scalar=True)

    def number(
        self, values: Sequence[Scalar], dtype: torch.dtype, *, is_scalar: bool = False
    ) -> str:
        """Returns the name of a small constant, written once per value."""
        key = (tuple(values), dtype, is_scalar)
        if key not in self._known:
            tensor = torch.tensor(values[0] if is_scalar else list(values), dtype=dtype)
            self._known[key] = f"{NUMBER_PREFIX}{len(self._known)}"
            self.constants[self._known[key]] = tensor
        return self._known[key]

    def _constant(self, tensor: torch.Tensor) -> str:
        """Returns the name of a constant tensor, written once per memory and shape."""
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if key not in self._known:
            known = self._names.get(tensor.data_ptr())
            name = known if known and known not in self.constants else f"constant{len(self._known)}"
            self._known[key] = name
            self.constants[name] = tensor  # kept alive: its memory names it
        return self._known[key]

    def prune(self, outputs: Sequence[str]) -> None:
        """Drops nodes and constants that no output needs."""
        needed = set(outputs)
        kept = []
        for node in reversed(self.nodes):
            if node.output in needed:
                needed.update(node.inputs)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {name: value for name, value in self.constants.items() if name in needed}


class Tracer(TracedGraph, TorchDispatchMode):
    """A graph as a context, in which torch operators are traced.

    That ``__torch_dispatch__`` comes from a base class matters: torch would wrap one of this class
    and import its compiler, which takes a second.
    """

    def __init__(
        self, translations: Mapping[Any, Translation], names: Mapping[int, str] | None = None
    ) -> None:
        TracedGraph.__init__(self, translations, names)
        TorchDispatchMode.__init__(self)


def broadcast(*operands: Operand) -> tuple[int, ...]:
    """Returns the shape that tensors and numbers give together."""
    shapes = [tuple(entry.shape) for entry in operands if isinstance(entry, torch.Tensor)]
    return np.broadcast_shapes(*shapes)
