# SPDX-License-Identifier: Apache-2.0
"""Code for a block of a matrix product that stays in registers."""

from __future__ import annotations

from numba.core import types
from numba.extending import intrinsic

from styleavatar_core.engine.vector_code import INDEX, IS_WIDE, LANES, VECTOR, VectorCode, data_of

# With two vectors per row they fill 16 registers, or 32 where vectors are wide.
BLOCK_ROWS = 12 if IS_WIDE else 6
BLOCK_COLUMNS = 2 * LANES
_LINE = 16  # floats of a line of the cache


@intrinsic
def multiply_block(typing, a, a_at, a_step, b, b_at, c, c_at, c_step, depth, a_next, ahead, pace):  # noqa: ANN001, ANN201
    """Multiplies BLOCK_ROWS of ``a`` by BLOCK_COLUMNS of ``b`` into ``c``.

    Args:
        typing: Numba's.
        a: Rows of ``depth`` floats, ``a_step`` apart, from ``a_at`` on.
        a_at: See ``a``.
        a_step: See ``a``.
        b: ``depth`` rows of BLOCK_COLUMNS floats from ``b_at`` on.
        b_at: See ``b``.
        c: Written: rows of BLOCK_COLUMNS floats, ``c_step`` apart, from ``c_at`` on.
        c_at: See ``c``.
        c_step: See ``c``.
        depth: Products that are added.
        a_next: Rows of ``a`` that are fetched meanwhile, of one piece.
        ahead: What of ``b`` is fetched from memory meanwhile begins there.
        pace: Floats of it per product that is added.
    """
    number = types.int64
    arguments = (a, number, number, b, number, c, *[number] * 6)
    return types.void(*arguments), _generate_block


def _generate_block(context, builder, signature, arguments):  # noqa: ANN001, ANN202
    """Generates one loop over the depth, with the block of ``c`` in registers."""
    code = VectorCode(builder)
    _, a_at, a_step, _, b_at, _, c_at, c_step, depth, a_next, ahead, pace = arguments
    a, b, c = (data_of(context, builder, signature, arguments, index) for index in (0, 3, 5))
    rows = [builder.mul(code.index(row), a_step) for row in range(BLOCK_ROWS)]
    following_a, soon = code.place(a, a_next), code.place(b, ahead)
    a, b, c = code.place(a, a_at), code.place(b, b_at), code.place(c, c_at)
    targets = [code.place(c, builder.mul(code.index(row), c_step)) for row in range(BLOCK_ROWS)]
    for target in targets:
        for line in range(0, BLOCK_COLUMNS, _LINE):
            code.prefetch(code.place(target, code.index(line)), is_written=True)
    before, loop = builder.block, builder.append_basic_block("depth")
    after = builder.append_basic_block("store")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(INDEX)
    halves = range(BLOCK_COLUMNS // LANES)
    sums = [[builder.phi(VECTOR) for _ in halves] for _ in rows]
    at = builder.mul(step, code.index(BLOCK_COLUMNS))
    code.prefetch(code.place(following_a, builder.mul(step, code.index(BLOCK_ROWS))))
    code.prefetch(code.place(soon, builder.mul(step, pace)), level=2)
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
    for target, values in zip(targets, results, strict=True):
        for half, value in enumerate(values):
            code.store(value, code.place(target, code.index(half * LANES)))
    return context.get_dummy_value()
