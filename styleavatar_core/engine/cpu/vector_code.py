# SPDX-License-Identifier: Apache-2.0
"""Machine code on vectors, as wide as the processor's, for numba functions to call.

Written as instructions for LLVM where its vectorizer does not do what is wanted: it keeps no block
of a matrix product in registers (``block_code.py``), and gives up on loops that write several
results (``linear_code.py``). Arrays are one-dimensional float32, places are counted in floats,
nothing is checked.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features

# As numba sees the processor: what it compiles is what is asked about.
IS_WIDE = "+avx512f" in get_host_cpu_features().split(",")
LANES = 16 if IS_WIDE else 8  # floats of a vector
INDEX = ir.IntType(64)
VECTOR = ir.VectorType(ir.FloatType(), LANES)

_BYTE = ir.IntType(8)
_STREAMED = 2**23  # floats of an image that stays in no cache until it is read


@njit(inline="always")
def goes_past_caches(image):
    """Whether an image, C-contiguous float32, is to be written past the caches, and can be."""
    return image.size >= _STREAMED and image.ctypes.data % (4 * LANES) == 0


class VectorCode:
    """Appends instructions on vectors.

    Args:
        builder: Where to.
    """

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder
        kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
        name = f"llvm.fma.v{LANES}f32"
        self._fma = cgutils.get_or_insert_function(builder.module, kind, name)

    def index(self, value: int) -> ir.Constant:
        """A constant place."""
        return ir.Constant(INDEX, value)

    def place(self, base: ir.Value, *parts: ir.Value) -> ir.Value:
        """The address so many floats after a base."""
        for part in parts:
            base = self.builder.gep(base, [part])
        return base

    def load(self, address: ir.Value) -> ir.Value:
        """Reads a vector."""
        return self.builder.load(self._as_vector(address), align=4)

    def store(self, value: ir.Value, address: ir.Value) -> None:
        """Writes a vector."""
        self.builder.store(value, self._as_vector(address), align=4)

    def stream(self, value: ir.Value, address: ir.Value) -> None:
        """Writes a vector past the caches, to an address that is a multiple of its size."""
        written = self.builder.store(value, self._as_vector(address), align=4 * LANES)
        one = ir.Constant(ir.IntType(32), 1)
        written.set_metadata("nontemporal", self.builder.module.add_metadata([one]))

    def store_some(self, value: ir.Value, address: ir.Value, count: ir.Value) -> None:
        """Writes the first so many floats of a vector; all of them, or none, if out of range."""
        lanes = ir.Constant(ir.VectorType(INDEX, LANES), list(range(LANES)))
        none = ir.Constant(ir.VectorType(INDEX, LANES), ir.Undefined)
        counts = self._spread(none, count)
        mask = self.builder.icmp_signed("<", lanes, counts)
        pointer = self._as_vector(address)
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [VECTOR, pointer.type, flag, mask.type])
        name = f"llvm.masked.store.v{LANES}f32.p0v{LANES}f32"
        write = cgutils.get_or_insert_function(self.builder.module, kind, name)
        self.builder.call(write, [value, pointer, ir.Constant(flag, 4), mask])

    def broadcast(self, value: ir.Value) -> ir.Value:
        """A vector of one number."""
        return self._spread(ir.Constant(VECTOR, ir.Undefined), value)

    def number(self, value: float) -> ir.Constant:
        """A constant vector of one number."""
        return ir.Constant(VECTOR, [float(np.float32(value))] * LANES)

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """``a * b + c``, rounded once."""
        return self.builder.call(self._fma, [a, b, c])

    def prefetch(self, address: ir.Value, *, level: int = 1, is_written: bool = False) -> None:
        """Asks for what will be read, or written, soon, into the first or second cache."""
        pointer, flag = _BYTE.as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
        fetch = self.builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        how = [ir.Constant(flag, value) for value in (int(is_written), 4 - level, 1)]
        self.builder.call(fetch, [self.builder.bitcast(address, pointer), *how])

    def _spread(self, empty: ir.Constant, value: ir.Value) -> ir.Value:
        """Puts a value into each lane."""
        lane = ir.IntType(32)
        first = self.builder.insert_element(empty, value, ir.Constant(lane, 0))
        zeros = ir.Constant(ir.VectorType(lane, LANES), [0] * LANES)
        return self.builder.shuffle_vector(first, empty, zeros)

    def _as_vector(self, address: ir.Value) -> ir.Value:
        return self.builder.bitcast(address, VECTOR.as_pointer())


def data_of(context, builder, signature, arguments, index):
    """Returns the address of an array's first float."""
    return context.make_array(signature.args[index])(context, builder, arguments[index]).data
