# SPDX-License-Identifier: Apache-2.0
"""Code for the processor's matrix unit (Intel's AMX), for numba functions to call.

The unit multiplies bf16, of eight bits, and adds in float32. A float32 number is two of them, its
rounded value and what is left of it: 16 bits. Of the four products of two such numbers the three
larger ones are added.

Arrays are one-dimensional and begin at a line of the cache: tiles that straddle lines are loaded
ten times slower. Nothing is checked.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import sys

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from styleavatar_core.engine.cpu.vector_code import INDEX, IS_WIDE, data_of

SIDE = 32  # rows and columns of a block, and its depth
PIECES = 2 * SIDE  # bf16 of SIDE numbers: those that are rounded, then those that are left
BLOCK = SIDE * PIECES  # bf16 of a block of kernels
TILE_ROWS = 16  # of a tile, each one line of the cache
_LINE_BYTES = 64
_BYTE = ir.IntType(8)
_SYS_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_DATA = 158, 0x1023, 18


@functools.cache
def has_matrix_unit() -> bool:
    """Whether this processor has the unit and the system lets this process use it."""
    features = get_host_cpu_features().split(",")
    if not (IS_WIDE and {"+amx-tile", "+amx-bf16"} <= set(features) and sys.platform == "linux"):
        return False
    # Threads have no room for the unit's eight kilobytes unless their process asks for it once.
    syscall = ctypes.CDLL(None).syscall
    return syscall(_SYS_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_DATA) == 0


def tile_shapes() -> np.ndarray:
    """Returns what :func:`begin` takes, (64,) uint8: eight tiles of 16 rows of 64 bytes."""
    shapes = np.zeros(_LINE_BYTES, np.uint8)
    shapes[0] = 1  # the one kind of table that there is
    shapes[16:32].view(np.uint16)[:] = _LINE_BYTES
    shapes[48:56] = TILE_ROWS
    return shapes


@intrinsic
def begin(typing, shapes):
    """Prepares the unit for this thread; ``shapes`` are :func:`tile_shapes`."""

    def generate(context, builder, signature, arguments):
        address = data_of(context, builder, signature, arguments, 0)
        _call(builder, "ldtilecfg", address)
        return context.get_dummy_value()

    return types.void(shapes), generate


@intrinsic
def end(typing):
    """Frees the unit, so that its state is not kept for this thread."""

    def generate(context, builder, signature, arguments):
        _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def clear_block(typing):
    """Sets the block of sums to zero: tiles 0 to 3, row by row."""

    def generate(context, builder, signature, arguments):
        for tile in range(4):
            _call(builder, "tilezero", tile)
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def add_products(typing, rows, at, kernels, place):
    """Adds the products of SIDE rows of SIDE numbers and a block of kernels to the sums.

    Args:
        typing: Numba's.
        rows: uint16: rows of PIECES bf16 from ``at`` on, one after the other.
        at: See ``rows``.
        kernels: uint16: BLOCK bf16 from ``place`` on, four tiles: the rounded numbers of the first
            16 columns, of the others, and what is left of both. Two numbers that follow each other
            in depth are side by side.
        place: See ``kernels``.
    """

    def generate(context, builder, signature, arguments):
        a, b = (
            builder.gep(
                data_of(context, builder, signature, arguments, index), [arguments[index + 1]]
            )
            for index in (0, 2)
        )
        # Pieces by tile: rows in 4 and 5, kernels in 6 and 7. In this order each is loaded once.
        loaded: dict[int, int] = {}
        for row_piece, kernel_piece in ((1, 0), (0, 0), (0, 1)):
            for total, (half, column) in enumerate(itertools.product(range(2), repeat=2)):
                row, kernel = 4 + half, 6 + column
                if loaded.get(row) != row_piece:
                    first = half * TILE_ROWS * PIECES + row_piece * SIDE
                    address = builder.gep(a, [ir.Constant(INDEX, first)])
                    _call(builder, "tileloadd64", row, address, 2 * _LINE_BYTES)
                if loaded.get(kernel) != kernel_piece:
                    first = (2 * kernel_piece + column) * TILE_ROWS * SIDE
                    address = builder.gep(b, [ir.Constant(INDEX, first)])
                    _call(builder, "tileloadd64", kernel, address, _LINE_BYTES)
                loaded |= {row: row_piece, kernel: kernel_piece}
                _call(builder, "tdpbf16ps", total, row, kernel)
        return context.get_dummy_value()

    number = types.int64
    return types.void(rows, number, kernels, number), generate


@intrinsic
def store_block(typing, sums):
    """Writes the sums, float32, SIDE rows of SIDE."""

    def generate(context, builder, signature, arguments):
        address = data_of(context, builder, signature, arguments, 0)
        for tile in range(4):
            at = tile // 2 * TILE_ROWS * SIDE + tile % 2 * TILE_ROWS
            target = builder.gep(address, [ir.Constant(INDEX, at)])
            _call(builder, "tilestored64", tile, target, 2 * _LINE_BYTES)
        return context.get_dummy_value()

    return types.void(sums), generate


def _call(builder: ir.IRBuilder, name: str, *arguments: int | ir.Value) -> None:
    """Calls an instruction of the unit: numbers are tiles, but a stride after an address."""
    values, is_stride = [], False
    for argument in arguments:
        if isinstance(argument, int):
            values.append(ir.Constant(INDEX if is_stride else _BYTE, argument))
        else:
            values.append(builder.bitcast(argument, _BYTE.as_pointer()))
            is_stride = True
    kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}")
    builder.call(function, values)
