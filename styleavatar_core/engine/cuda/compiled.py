# SPDX-License-Identifier: Apache-2.0
"""A module as code of torch's compiler: one kernel where torch alone launches several.

Weights, maps and noise are arguments of the code and not in it, so that the avatars of a preset
share what lies on disk, and nothing of a person is in it. Tests compile for a CPU; this file has
not run on a GPU yet.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cuda.stream import Tensors
from styleavatar_core.errors import EngineError

if TYPE_CHECKING:
    from torch import fx

logger = logging.getLogger(__name__)

_MOST_ERROR = 2.0  # mean square, in steps of a byte, against the module itself: the gate's 45 dB
_MOST_LETTERS = 500  # of a compiler's reason, which may hold all its code
_CODE_SHARE = 4  # code takes no more on disk than the cache may, divided by this

_compiling = threading.Lock()  # avatars are opened beside each other

Compute = Callable[..., Tensors]


class CompiledModule:
    """Computes a module by compiled code, made for a batch size when it is first asked for.

    What cannot be compiled, or gives other pictures then, the module computes itself, and what is
    asked for after it. Not thread-safe.

    Args:
        module: From tensors to a tuple of uint8 tensors, always by the same operators.
        folder: Where code is kept, for other avatars and processes.

    Attributes:
        is_compiled: Whether all was compiled so far.
    """

    def __init__(self, module: nn.Module, folder: Path) -> None:
        self._module, self._folder = module, folder
        self._codes: dict[int, Compute] = {}
        self.is_compiled = True

    @torch.inference_mode()
    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        """Computes a batch."""
        count = len(inputs[0])
        if count not in self._codes:
            self._codes[count] = self._code([_filled(part) for part in inputs])
        return self._codes[count](*inputs)

    def _code(self, inputs: Sequence[torch.Tensor]) -> Compute:
        """Returns what computes batches like this one."""
        if not self.is_compiled:
            return self._module
        expected = self._module(*inputs)  # what is made once is made now, and not in the code
        try:
            with _compiling:
                code = _compile(self._module, inputs, self._folder)
            errors = [
                float((one.float() - other.float()).square().mean())
                for one, other in zip(code(*inputs), expected, strict=True)
            ]
            if max(errors) > _MOST_ERROR:
                raise EngineError(f"it gives other pictures, by {max(errors):.1f} in mean square")
        except Exception as error:  # the compilers' exceptions have no common base
            self.is_compiled = False
            logger.warning(
                "the avatar's network cannot be compiled and takes more launches, which is slower",
                extra={"why": " ".join(str(error).split())[:_MOST_LETTERS]},
            )
            return self._module
        return code


def code_folder(cache: EngineCache) -> Path:
    """Returns the folder of compiled code, nobody's own; emptied here when it takes too much.

    A process that reads it meanwhile compiles again, or does without.
    """
    folder = cache.folder / "code"
    try:
        size_bytes = sum(path.stat().st_size for path in folder.rglob("*"))
    except OSError:  # another process writes there: it is looked at next time
        return folder
    if size_bytes > cache.limit_bytes // _CODE_SHARE:
        shutil.rmtree(folder, ignore_errors=True)
    return folder


def _filled(like: torch.Tensor) -> torch.Tensor:
    """Returns numbers for an input that all code sees: coordinates, pictures' bytes, or a mask."""
    if like.is_floating_point():
        return torch.rand_like(like)
    return torch.randint_like(like, 256 if like.dim() == 4 else 2)


def _compile(module: nn.Module, inputs: Sequence[torch.Tensor], folder: Path) -> Compute:
    """Compiles a module for inputs like these; raises whatever the compilers raise."""
    from torch.fx.experimental.proxy_tensor import make_fx  # brings sympy: takes a second

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no processes beside this one
    graph = make_fx(module)(*inputs)
    constants = _take_constants(graph)
    # The method, whose code is this graph's alone: what all graphs share is compiled a few times
    # only in a process.
    compiled = torch.compile(graph.forward, fullgraph=True, dynamic=False)

    def compute(*given: torch.Tensor) -> Tensors:
        results: Tensors = compiled(*given, *constants)
        return results

    compute(*inputs)
    return compute


def _take_constants(graph: fx.GraphModule) -> list[torch.Tensor]:
    """Makes a graph take its constants behind its inputs, in place, and returns them."""
    nodes = graph.graph
    nodes.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    last = [node for node in nodes.nodes if node.op == "placeholder"][-1]
    places: dict[str, fx.Node] = {}
    for node in [node for node in nodes.nodes if node.op == "get_attr"]:
        name = str(node.target)
        if name not in places:
            with nodes.inserting_after(last):
                last = places[name] = nodes.placeholder(f"constant_{len(places)}")
        node.replace_all_uses_with(places[name])
        nodes.erase_node(node)
    graph.recompile()
    constants: list[torch.Tensor] = [getattr(graph, name) for name in places]
    for name in places:
        delattr(graph, name)
    return constants
