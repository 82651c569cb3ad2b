# SPDX-License-Identifier: Apache-2.0
"""Code for a block of a matrix product that stays in registers."""

from __future__ import annotations

import functools
from collections.abc import Callable

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from styleavatar_core.engine.cpu.vector_code import (
    INDEX,
    IS_WIDE,
    LANES,
    VECTOR,
    VectorCode,
    data_of,
)

# With two vectors per row they fill 16 registers, or 32 where vectors are wide.
BLOCK_ROWS = 12 if IS_WIDE else 6
FEW_ROWS = BLOCK_ROWS // 3  # of a block for what is left
BLOCK_COLUMNS = 2 * LANES
NARROW_COLUMNS = 16
_LINE = 16  # floats of a line of the cache


def _block_product(row_count: int) -> Callable[..., None]:
    """Returns code that multiplies so many rows of ``a`` by BLOCK_COLUMNS of ``b`` into ``c``.

    Args:
        row_count: Rows; with their sums they must fit the registers.

    Returns:
        For numba functions, ``f(a, a_at, a_step, b, b_at, c, c_at, c_step, depth, a_next, ahead,
        pace)``: reads rows of ``depth`` floats of ``a``, ``a_step`` apart, from ``a_at`` on, and
        ``depth`` rows of BLOCK_COLUMNS floats of ``b`` from ``b_at`` on; writes rows of
        BLOCK_COLUMNS floats of ``c``, ``c_step`` apart, from ``c_at`` on. Meanwhile it fetches as
        many rows of ``a``, of one piece, from ``a_next`` on, and of ``b`` from ``ahead`` on
        ``pace`` floats for each of ``depth``.
    """

    @intrinsic
    def multiply(typing, a, a_at, a_step, b, b_at, c, c_at, c_step, depth, a_next, ahead, pace):
        number = types.int64
        arguments = (a, number, number, b, number, c, *[number] * 6)
        return types.void(*arguments), functools.partial(_generate_block, row_count)

    return multiply


@intrinsic
def multiply_narrow(typing, a, a_at, b, b_at, bias, bias_at, c, c_at, c_step, depth, width):
    """Multiplies BLOCK_ROWS of ``a`` by NARROW_COLUMNS of ``b``; adds a bias; into ``c``.

    The rows of ``a`` after these are fetched meanwhile.

    Args:
        typing: Numba's.
        a: Rows of ``depth`` floats from ``a_at`` on.
        a_at: See ``a``.
        b: ``depth`` rows of NARROW_COLUMNS floats from ``b_at`` on.
        b_at: See ``b``.
        bias: NARROW_COLUMNS floats from ``bias_at`` on.
        bias_at: See ``bias``.
        c: Rows, ``c_step`` apart, from ``c_at`` on, of which so many floats are written.
        c_at: See ``c``.
        c_step: See ``c``.
        depth: Products that are added.
        width: See ``c``.
    """
    number = types.int64
    return types.void(a, number, b, number, bias, number, c, *[number] * 4), _generate_narrow


def _generate_block(row_count, context, builder, signature, arguments):
    """Generates one loop over the depth, with the block of ``c`` in registers."""
    code = VectorCode(builder)
    _, a_at, a_step, _, b_at, _, c_at, c_step, depth, a_next, ahead, pace = arguments
    a, b, c = (data_of(context, builder, signature, arguments, index) for index in (0, 3, 5))
    following_a, soon = code.place(a, a_next), code.place(b, ahead)
    a, b, c = code.place(a, a_at), code.place(b, b_at), code.place(c, c_at)
    rows = [code.place(a, builder.mul(code.index(row), a_step)) for row in range(row_count)]
    targets = [code.place(c, builder.mul(code.index(row), c_step)) for row in range(row_count)]
    for target in targets:
        for line in range(0, BLOCK_COLUMNS, _LINE):
            code.prefetch(code.place(target, code.index(line)), is_written=True)

    def fetch(step: ir.Value) -> None:
        code.prefetch(code.place(following_a, builder.mul(step, code.index(row_count))))
        code.prefetch(code.place(soon, builder.mul(step, pace)), level=2)

    start = [code.number(0)] * (BLOCK_COLUMNS // LANES)
    for target, values in zip(targets, _sums(code, rows, b, start, depth, fetch), strict=True):
        for half, value in enumerate(values):
            code.store(value, code.place(target, code.index(half * LANES)))
    return context.get_dummy_value()


def _generate_narrow(context, builder, signature, arguments):
    """Generates one loop over the depth, with the sums in registers."""
    code = VectorCode(builder)
    _, a_at, _, b_at, _, bias_at, _, c_at, c_step, depth, width = arguments
    a, b, bias, c = (
        code.place(data_of(context, builder, signature, arguments, index), place)
        for index, place in ((0, a_at), (2, b_at), (4, bias_at), (6, c_at))
    )
    rows = [code.place(a, builder.mul(code.index(row), depth)) for row in range(BLOCK_ROWS)]
    lanes = range(0, NARROW_COLUMNS, LANES)
    start = [code.load(code.place(bias, code.index(lane))) for lane in lanes]
    following = code.place(a, builder.mul(depth, code.index(BLOCK_ROWS)))

    def fetch(step: ir.Value) -> None:
        code.prefetch(code.place(following, builder.mul(step, code.index(BLOCK_ROWS))))

    sums = _sums(code, rows, b, start, depth, fetch)
    for row, values in enumerate(sums):
        target = code.place(c, builder.mul(code.index(row), c_step))
        for lane, value in zip(lanes, values, strict=True):
            count = builder.sub(width, code.index(lane))
            code.store_some(value, code.place(target, code.index(lane)), count)
    return context.get_dummy_value()


multiply_block, multiply_few = _block_product(BLOCK_ROWS), _block_product(FEW_ROWS)


def _sums(
    code: VectorCode,
    rows: list[ir.Value],
    b: ir.Value,
    start: list[ir.Value],
    depth: ir.Value,
    fetch: Callable[[ir.Value], None],
) -> list[list[ir.Value]]:
    """Generates the loop: rows of ``a`` times rows of ``b``, which has as many vectors as start.

    Args:
        code: Where to.
        rows: Addresses of the rows of ``a``.
        b: Address of ``b``.
        start: What the products are added to.
        depth: Products that are added.
        fetch: Generates what is fetched beside each.

    Returns:
        The sums of each row, where the code goes on.
    """
    builder = code.builder
    before, loop = builder.block, builder.append_basic_block("depth")
    after = builder.append_basic_block("store")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(INDEX)
    sums = [[builder.phi(VECTOR) for _ in start] for _ in rows]
    at = builder.mul(step, code.index(len(start) * LANES))
    fetch(step)
    columns = [code.load(code.place(b, at, code.index(half * LANES))) for half in range(len(start))]
    results = []
    for row, parts in zip(rows, sums, strict=True):
        value = code.broadcast(builder.load(code.place(row, step)))
        pairs = zip(columns, parts, strict=True)
        results.append([code.multiply_add(value, column, part) for column, part in pairs])
    following = builder.add(step, code.index(1))
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)
    step.add_incoming(code.index(0), before)
    step.add_incoming(following, loop)
    for parts, values in zip(sums, results, strict=True):
        for part, first, value in zip(parts, start, values, strict=True):
            part.add_incoming(first, before)
            part.add_incoming(value, loop)
    builder.position_at_end(after)
    return results
