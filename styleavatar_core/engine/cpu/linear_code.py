# SPDX-License-Identifier: Apache-2.0
"""Code for a small constant matrix times vectors; what rows or columns share is computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from styleavatar_core.engine.cpu.vector_code import VectorCode, data_of

Matrix = npt.NDArray[np.float64]


def linear_maps(
    matrices: Sequence[Matrix], *, fetches: bool = False, fetches_to_write: bool = False
) -> Callable[..., None]:
    """Returns code that multiplies one of some small constant matrices by vectors.

    Args:
        matrices: Each (R, C).
        fetches: Whether what comes after each vector that is read is fetched from memory meanwhile,
            into the second cache.
        fetches_to_write: Likewise after each vector that is written, into the first.

    Returns:
        For numba functions, ``f(kind, source, at, step, target, to, stride, ahead)``: ``kind``, a
        constant, is the matrix's place in ``matrices``; reads C vectors ``step`` apart from ``at``
        on, writes R vectors ``stride`` apart from ``to`` on; what is fetched is ``ahead`` floats
        after them.
    """

    @intrinsic(prefer_literal=True)
    def apply(typing, kind, source, at, step, target, to, stride, ahead):
        matrix = matrices[kind.literal_value]

        def generate(context, builder, signature, arguments):
            code = VectorCode(builder)
            _, _, at, step, _, to, stride, ahead = arguments
            source, target = (
                data_of(context, builder, signature, arguments, index) for index in (1, 4)
            )
            values = _read(code, source, at, step, matrix.shape[1], ahead if fetches else None)
            for row, value in enumerate(_combine(code, matrix, values)):
                place = code.place(target, to, builder.mul(code.index(row), stride))
                code.store(value, place)
                if fetches_to_write:
                    code.prefetch(code.place(place, ahead), is_written=True)
            return context.get_dummy_value()

        number = types.int64
        return types.void(kind, source, number, number, target, *[number] * 3), generate

    return apply


def finishing_maps(matrices: Sequence[Matrix]) -> Callable[..., None]:
    """Returns code as :func:`linear_maps` does, with bias, noise and a leaky ReLU after it.

    Args:
        matrices: Each (R, C).

    Returns:
        ``f(kind, source, at, step, target, to, stride, ahead, is_past, bias, k, noise, first,
        slope)``: if ``is_past``, results go past the caches, and each has to begin at a multiple of
        its size; else what is written next is fetched. Adds the vector of ``bias`` at ``k`` and, to
        result r, the number of ``noise`` at ``first + r``; ``slope`` is the leaky ReLU's, 1 for
        none.
    """

    @intrinsic(prefer_literal=True)
    def apply(
        typing,
        kind,
        source,
        at,
        step,
        target,
        to,
        stride,
        ahead,
        is_past,
        bias,
        k,
        noise,
        first,
        slope,
    ):
        matrix = matrices[kind.literal_value]

        def generate(context, builder, signature, arguments):
            code = VectorCode(builder)
            _, _, at, step, _, to, stride, ahead, is_past, _, channel, _, first, slope = arguments
            source, target, bias, noise = (
                data_of(context, builder, signature, arguments, index) for index in (1, 4, 9, 11)
            )
            values = _read(code, source, at, step, matrix.shape[1])
            offset, factor = code.load(code.place(bias, channel)), code.broadcast(slope)
            results = []
            for row, value in enumerate(_combine(code, matrix, values)):
                added = builder.load(code.place(noise, first, code.index(row)))
                sum_ = builder.fadd(value, builder.fadd(offset, code.broadcast(added)))
                steep = builder.fmul(sum_, factor)
                above = builder.fcmp_ordered(">", sum_, steep)
                place = code.place(target, to, builder.mul(code.index(row), stride))
                results.append((builder.select(above, sum_, steep), place))
            with builder.if_else(is_past) as (past, through):
                with past:
                    for value, place in results:
                        code.stream(value, place)
                with through:
                    for value, place in results:
                        code.store(value, place)
                        code.prefetch(code.place(place, ahead), is_written=True)
            return context.get_dummy_value()

        number = types.int64
        ends = (types.boolean, bias, number, noise, number, types.float32)
        return types.void(kind, source, number, number, target, *[number] * 3, *ends), generate

    return apply


def _read(
    code: VectorCode,
    source: ir.Value,
    at: ir.Value,
    step: ir.Value,
    count: int,
    ahead: ir.Value | None = None,
) -> list:
    """Reads vectors, and asks for what comes so many floats after each."""
    base = code.place(source, at)
    places = [code.place(base, code.builder.mul(code.index(index), step)) for index in range(count)]
    for place in places if ahead is not None else []:
        code.prefetch(code.place(place, ahead), level=2)
    return [code.load(place) for place in places]


def _combine(code: VectorCode, matrix: Matrix, values: list) -> list:
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


def _sum(code: VectorCode, factors: Matrix, values: list) -> ir.Value:
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
