# SPDX-License-Identifier: Apache-2.0
"""Two pieces of machine code on vectors of eight floats, for numba functions to call.

Written as instructions for LLVM, as its vectorizer does neither: it keeps no block of a matrix
product in registers, and gives up on loops that write several results. Arrays are one-dimensional
float32, places are counted in floats, nothing is checked.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 8  # floats of a vector
BLOCK_ROWS = 6  # of a matrix product; with two vectors per row they fill 16 registers
BLOCK_COLUMNS = 2 * LANES

Matrix = npt.NDArray[np.float64]

_FLOAT, _INDEX, _BYTE = ir.FloatType(), ir.IntType(64), ir.IntType(8)
_VECTOR = ir.VectorType(_FLOAT, LANES)


class _Code:
    """Appends instructions on vectors.

    Args:
        builder: Where to.
    """

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        name = f"llvm.fma.v{LANES}f32"
        self._fma = cgutils.get_or_insert_function(builder.module, kind, name)

    def index(self, value: int) -> ir.Constant:
        """A constant place."""
        return ir.Constant(_INDEX, value)

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

    def broadcast(self, value: ir.Value) -> ir.Value:
        """A vector of one number."""
        empty, lane = ir.Constant(_VECTOR, ir.Undefined), ir.IntType(32)
        first = self.builder.insert_element(empty, value, ir.Constant(lane, 0))
        zeros = ir.Constant(ir.VectorType(lane, LANES), [0] * LANES)
        return self.builder.shuffle_vector(first, empty, zeros)

    def number(self, value: float) -> ir.Constant:
        """A constant vector of one number."""
        return ir.Constant(_VECTOR, [float(np.float32(value))] * LANES)

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """``a * b + c``, rounded once."""
        return self.builder.call(self._fma, [a, b, c])

    def prefetch(self, address: ir.Value) -> None:
        """Asks for what will be read soon, into the second cache."""
        pointer, flag = _BYTE.as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
        fetch = self.builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        how = [ir.Constant(flag, value) for value in (0, 2, 1)]
        self.builder.call(fetch, [self.builder.bitcast(address, pointer), *how])

    def _as_vector(self, address: ir.Value) -> ir.Value:
        return self.builder.bitcast(address, _VECTOR.as_pointer())


def _data(context, builder, signature, arguments, index):  # noqa: ANN001, ANN202
    """Returns the address of an array's first float."""
    return context.make_array(signature.args[index])(context, builder, arguments[index]).data


@intrinsic
def multiply_block(typing, a, a_at, a_step, b, b_at, c, c_at, c_step, depth, ahead, pace):  # noqa: ANN001, ANN201
    """Multiplies 6 rows of ``a`` by 16 columns of ``b`` into ``c``.

    Args:
        typing: Numba's.
        a: Rows of ``depth`` floats, ``a_step`` apart, from ``a_at`` on.
        a_at: See ``a``.
        a_step: See ``a``.
        b: ``depth`` rows of 16 floats from ``b_at`` on.
        b_at: See ``b``.
        c: Written: rows of 16 floats, ``c_step`` apart, from ``c_at`` on.
        c_at: See ``c``.
        c_step: See ``c``.
        depth: Products that are added.
        ahead: What of ``b`` is fetched from memory meanwhile begins there.
        pace: Floats of it per product that is added.
    """
    number = types.int64
    arguments = (a, number, number, b, number, c, number, number, number, number, number)
    return types.void(*arguments), _generate_block


def _generate_block(context, builder, signature, arguments):  # noqa: ANN001, ANN202
    """Generates one loop over the depth, with the block of ``c`` in registers."""
    code = _Code(builder)
    _, a_at, a_step, _, b_at, _, c_at, c_step, depth, ahead, pace = arguments
    a, b, c = (_data(context, builder, signature, arguments, index) for index in (0, 3, 5))
    rows = [builder.mul(code.index(row), a_step) for row in range(BLOCK_ROWS)]
    a, soon, b = code.place(a, a_at), code.place(b, ahead), code.place(b, b_at)
    before, loop = builder.block, builder.append_basic_block("depth")
    after = builder.append_basic_block("store")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(_INDEX)
    halves = range(BLOCK_COLUMNS // LANES)
    sums = [[builder.phi(_VECTOR) for _ in halves] for _ in rows]
    at = builder.mul(step, code.index(BLOCK_COLUMNS))
    code.prefetch(code.place(soon, builder.mul(step, pace)))
    columns = [code.load(code.place(b, at, code.index(half * LANES))) for half in halves]
    results = []
    for row, parts in zip(rows, sums, strict=True):
        value = code.broadcast(builder.load(code.place(a, row, step)))
        pairs = zip(columns, parts, strict=True)
        results.append([code.multiply_add(value, column, part) for column, part in pairs])
    following = builder.add(step, code.index(1))
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
    step.add_incoming(code.index(0), before)
    step.add_incoming(following, loop)
    for parts, values in zip(sums, results, strict=True):
        for part, value in zip(parts, values, strict=True):
            part.add_incoming(code.number(0), before)
            part.add_incoming(value, loop)
    builder.position_at_end(after)
    for row, values in enumerate(results):
        place = builder.add(c_at, builder.mul(code.index(row), c_step))
        for half, value in enumerate(values):
            code.store(value, code.place(c, place, code.index(half * LANES)))
    return context.get_dummy_value()


def linear_map(matrix: Matrix) -> Callable[..., None]:
    """Returns code that multiplies a small constant matrix by vectors.

    Args:
        matrix: (R, C).

    Returns:
        For numba functions, ``f(source, at, step, target, to, stride)``: reads C vectors ``step``
        apart from ``at`` on, writes R vectors ``stride`` apart from ``to`` on.
    """

    @intrinsic
    def apply(typing, source, at, step, target, to, stride):  # noqa: ANN001, ANN202
        def generate(context, builder, signature, arguments):  # noqa: ANN001, ANN202
            code = _Code(builder)
            _, at, step, _, to, stride = arguments
            source, target = (
                _data(context, builder, signature, arguments, index) for index in (0, 3)
            )
            values = _read(code, source, at, step, matrix.shape[1])
            for row, value in enumerate(_combine(code, matrix, values)):
                place = code.place(target, to, builder.mul(code.index(row), stride))
                code.store(value, place)
            return context.get_dummy_value()

        number = types.int64
        return types.void(source, number, number, target, number, number), generate

    return apply  # type: ignore[no-any-return]


def finishing_map(matrix: Matrix) -> Callable[..., None]:
    """Returns code as :func:`linear_map` does, with bias, noise and a leaky ReLU after it.

    Args:
        matrix: (R, C).

    Returns:
        ``f(source, at, step, target, to, stride, bias, channel, noise, first, slope)``: adds the
        vector of ``bias`` at ``channel`` and, to result r, the number of ``noise`` at
        ``first + r``; ``slope`` is the leaky ReLU's, 1 for none.
    """

    @intrinsic
    def apply(typing, source, at, step, target, to, stride, bias, channel, noise, first, slope):  # noqa: ANN001, ANN202
        def generate(context, builder, signature, arguments):  # noqa: ANN001, ANN202
            code = _Code(builder)
            _, at, step, _, to, stride, _, channel, _, first, slope = arguments
            source, target, bias, noise = (
                _data(context, builder, signature, arguments, index) for index in (0, 3, 6, 8)
            )
            values = _read(code, source, at, step, matrix.shape[1])
            offset, factor = code.load(code.place(bias, channel)), code.broadcast(slope)
            for row, value in enumerate(_combine(code, matrix, values)):
                added = builder.load(code.place(noise, first, code.index(row)))
                sum_ = builder.fadd(value, builder.fadd(offset, code.broadcast(added)))
                steep = builder.fmul(sum_, factor)
                above = builder.fcmp_ordered(">", sum_, steep)
                place = code.place(target, to, builder.mul(code.index(row), stride))
                code.store(builder.select(above, sum_, steep), place)
            return context.get_dummy_value()

        number = types.int64
        ends = (bias, number, noise, number, types.float32)
        return types.void(source, number, number, target, number, number, *ends), generate

    return apply  # type: ignore[no-any-return]


def _read(code: _Code, source: ir.Value, at: ir.Value, step: ir.Value, count: int) -> list:
    """Reads vectors."""
    base = code.place(source, at)
    places = [code.builder.mul(code.index(index), step) for index in range(count)]
    return [code.load(code.place(base, place)) for place in places]


def _combine(code: _Code, matrix: Matrix, values: list) -> list:
    """Multiplies a matrix by vectors; what two rows, or columns, have in common is done once."""
    pair = _equal_but_for_signs(matrix.T)
    if pair is not None:  # columns: their sum and their difference instead
        first, second = pair
        a, b = values[first], values[second]
        values = [*values, code.builder.fadd(a, b), code.builder.fsub(a, b)]
        same = (matrix[:, first] == matrix[:, second])[:, None]
        more = np.where(np.hstack([same, ~same]), matrix[:, [first]], 0)
        matrix = np.hstack([matrix, more])
        matrix[:, [first, second]] = 0
        return _combine(code, matrix, values)
    pair = _equal_but_for_signs(matrix)
    if pair is not None:  # rows: what they share plus, and minus, what they do not
        first, second = pair
        same = matrix[first] == matrix[second]
        halves = np.where([same, ~same], matrix[first], 0)
        results = _combine(code, np.vstack([np.delete(matrix, pair, 0), halves]), values)
        even, odd = results[-2:]
        results = results[:-2]
        results.insert(first, code.builder.fadd(even, odd))
        results.insert(second, code.builder.fsub(even, odd))
        return results
    return [_sum(code, row, values) for row in matrix]


def _equal_but_for_signs(rows: Matrix) -> tuple[int, int] | None:
    """Returns two rows of the same values, of which some, not all, differ in sign."""
    for second in range(len(rows)):
        for first in range(second):
            a, b = rows[first], rows[second]
            signs = set(np.sign(a * b)) - {0.0}
            if np.array_equal(np.abs(a), np.abs(b)) and signs == {-1.0, 1.0}:
                return first, second
    return None


def _sum(code: _Code, factors: Matrix, values: list) -> ir.Value:
    """Adds what is left of a row, one product after the other."""
    result = None
    for factor, value in zip(factors, values, strict=True):
        if factor == 0:
            continue
        if result is None:
            one = factor == 1
            result = value if one else code.builder.fmul(value, code.number(factor))
        else:
            result = code.multiply_add(value, code.number(factor), result)
    return code.number(0) if result is None else result
