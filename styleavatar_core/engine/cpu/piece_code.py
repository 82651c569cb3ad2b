# SPDX-License-Identifier: Apache-2.0
"""Code on float32 numbers as pieces, which the matrix unit takes, for numba functions to call.

Arrays are one-dimensional; nothing is checked. See ``matrix_code.py``.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from styleavatar_core.engine.cpu.matrix_code import SIDE, TILE_ROWS
from styleavatar_core.engine.cpu.vector_code import INDEX, LANES, VECTOR, VectorCode, data_of

_WORDS = ir.VectorType(ir.IntType(32), LANES)
_SHORTS = ir.VectorType(ir.IntType(16), LANES)


@intrinsic
def split(typing, numbers, at, pieces, to):
    """Writes SIDE float32 numbers from ``at`` on as PIECES bf16 from ``to`` on, uint16."""

    def generate(context, builder, signature, arguments):
        code = VectorCode(builder)
        source, target = (
            builder.gep(
                data_of(context, builder, signature, arguments, index), [arguments[index + 1]]
            )
            for index in (0, 2)
        )
        for start in range(0, SIDE, LANES):
            number = code.load(code.place(source, code.index(start)))
            _store_pieces(builder, number, target, start)
        return context.get_dummy_value()

    number = types.int64
    return types.void(numbers, number, pieces, number), generate


@intrinsic
def pack_rows(typing, numbers, kernels, to):
    """Writes two rows of SIDE float32 numbers as a row of each tile of a block of kernels.

    Args:
        typing: Numba's.
        numbers: (2 * SIDE,) that follow each other in depth.
        kernels: uint16, written as :func:`add_products` reads them.
        to: Place of the row in the block's first tile.
    """

    def generate(context, builder, signature, arguments):
        code = VectorCode(builder)
        source, target = (
            data_of(context, builder, signature, arguments, index) for index in (0, 1)
        )
        target = builder.gep(target, [arguments[2]])
        for half, start in enumerate(range(0, SIDE, LANES)):
            pairs = [
                _pieces(builder, code.load(code.place(source, code.index(row * SIDE + start))))
                for row in range(2)
            ]
            for piece, (even, odd) in enumerate(zip(*pairs, strict=True)):
                words = builder.or_(builder.lshr(even, _same(16)), odd)
                address = builder.gep(target, [code.index((2 * piece + half) * TILE_ROWS * SIDE)])
                builder.store(words, builder.bitcast(address, _WORDS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(numbers, kernels, types.int64), generate


@intrinsic
def finish_row(typing, sums, at, bias, channel, added, slope, target, to):
    """Adds SIDE numbers of the bias and one number to sums; a leaky ReLU follows; all float32."""

    def generate(context, builder, signature, arguments):
        code = VectorCode(builder)
        source, bias, target = (
            code.place(data_of(context, builder, signature, arguments, index), arguments[index + 1])
            for index in (0, 2, 6)
        )
        added, slope = code.broadcast(arguments[4]), code.broadcast(arguments[5])
        for start in range(0, SIDE, LANES):
            sums, offset = (
                code.load(code.place(place, code.index(start))) for place in (source, bias)
            )
            value = builder.fadd(sums, builder.fadd(offset, added))
            code.store(_leaky(builder, value, slope), code.place(target, code.index(start)))
        return context.get_dummy_value()

    number = types.int64
    ends = (types.float32, types.float32)
    return types.void(sums, number, bias, number, *ends, target, number), generate


@intrinsic
def filter_pixel(typing, line, at, step, taps, bias, channel, added, slope, pieces, to):
    """Filters SIDE numbers and writes them as PIECES bf16.

    Args:
        typing: Numba's.
        line: float32; the numbers from ``at`` on are those that the first tap sees.
        at: See ``line``.
        step: From there to what the next tap sees.
        taps: (4,) float32.
        bias: float32; SIDE numbers from ``channel`` on are added.
        channel: See ``bias``.
        added: Added to all of them; then follows a leaky ReLU.
        slope: Of it.
        pieces: uint16, written from ``to`` on.
        to: See ``pieces``.
    """

    def generate(context, builder, signature, arguments):
        code = VectorCode(builder)
        line, taps, bias, target = (
            data_of(context, builder, signature, arguments, index) for index in (0, 3, 4, 8)
        )
        line, bias = code.place(line, arguments[1]), code.place(bias, arguments[5])
        target = builder.gep(target, [arguments[9]])
        added, slope = code.broadcast(arguments[6]), code.broadcast(arguments[7])
        weights = [
            code.broadcast(builder.load(code.place(taps, code.index(tap)))) for tap in range(4)
        ]
        for start in range(0, SIDE, LANES):
            value = builder.fadd(code.load(code.place(bias, code.index(start))), added)
            place = code.place(line, code.index(start))
            for weight in weights:
                value = code.multiply_add(weight, code.load(place), value)
                place = code.place(place, arguments[2])
            value = _leaky(builder, value, slope)
            _store_pieces(builder, value, target, start)
        return context.get_dummy_value()

    number, one = types.int64, types.float32
    places = (line, number, number, taps, bias, number, one, one, pieces, number)
    return types.void(*places), generate


def _leaky(builder: ir.IRBuilder, value: ir.Value, slope: ir.Value) -> ir.Value:
    """Returns the larger one of numbers and their products with a slope."""
    steep = builder.fmul(value, slope)
    return builder.select(builder.fcmp_ordered(">", value, steep), value, steep)


def _store_pieces(builder: ir.IRBuilder, number: ir.Value, target: ir.Value, start: int) -> None:
    """Writes a vector of float32 as both pieces, from a place among SIDE numbers on."""
    for piece, bits in enumerate(_pieces(builder, number)):
        address = builder.gep(target, [ir.Constant(INDEX, piece * SIDE + start)])
        upper = builder.trunc(builder.lshr(bits, _same(16)), _SHORTS)
        builder.store(upper, builder.bitcast(address, _SHORTS.as_pointer()), align=2)


def _same(value: int) -> ir.Constant:
    """A vector of one whole number."""
    return ir.Constant(_WORDS, [value] * LANES)


def _pieces(builder: ir.IRBuilder, number: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Returns the two bf16 that float32 numbers are given as, each as bits of float32."""
    high = _rounded(builder, number)
    return high, _rounded(builder, builder.fsub(number, builder.bitcast(high, VECTOR)))


def _rounded(builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    """Rounds float32 to bf16, to the even one of two that are as near; returns bits of float32."""
    bits = builder.bitcast(number, _WORDS)
    is_odd = builder.and_(builder.lshr(bits, _same(16)), _same(1))
    return builder.and_(builder.add(bits, builder.add(is_odd, _same(0x7FFF))), _same(0xFFFF0000))
