# SPDX-License-Identifier: Apache-2.0
"""Matrix products of tiles and of pixels, compiled by numba.

Numba compiles anew when this file's text changes; the line below changes with the code's other
sources. Arrays are float32 and C-contiguous, channels last.
"""

# Compiled from block_code.py vector_code.py: 2410b487

from __future__ import annotations

from numba import njit

from styleavatar_core.engine.cpu.block_code import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    FEW_ROWS,
    NARROW_COLUMNS,
    multiply_block,
    multiply_few,
    multiply_narrow,
)


@njit(cache=True, nogil=True)
def multiply(tiles, kernels, products, count, order, begins, first, most):
    """Multiplies planes by the kernels of their classes.

    Args:
        tiles: Planes of (N, I); N a multiple of FEW_ROWS.
        kernels: (classes * O / W, I, W), W being BLOCK_COLUMNS.
        products: Planes of (N, O), written.
        count: N.
        order: Planes sorted by class.
        begins: (classes + 1,) where each class begins in ``order``.
        first: First panel of W channels O that is computed.
        most: Panels.
    """
    _, depth, width = kernels.shape
    classes, planes, flat = len(begins) - 1, len(order), kernels.reshape(-1)
    panels = len(kernels) // classes
    outputs = panels * width
    plane, result = tiles.size // planes, products.size // planes
    panel = depth * width
    last, whole = flat.size - panel, count - count % BLOCK_ROWS
    blocks = whole // BLOCK_ROWS + (count - whole) // FEW_ROWS
    for number in range(classes):
        for column in range(first, first + most):
            at = (number * panels + column) * panel
            places = order[begins[number] : begins[number + 1]]
            # The next panel is fetched little by little: memory is slower than the products.
            pace = -(-width // max(1, len(places) * blocks))
            is_last = column + 1 == first + most
            ahead = min(at + (panels - most + 1 if is_last else 1) * panel, last)
            end = ahead + panel
            for place in places:
                for row in range(0, whole, BLOCK_ROWS):
                    a, c = place * plane + row * depth, place * result + row * outputs
                    soon, to = a + BLOCK_ROWS * depth, c + column * BLOCK_COLUMNS
                    multiply_block(
                        tiles, a, depth, flat, at, products, to, outputs, depth, soon, ahead, pace
                    )
                    ahead = min(ahead + pace * depth, end)
                for row in range(whole, count, FEW_ROWS):
                    a, c = place * plane + row * depth, place * result + row * outputs
                    soon, to = a + FEW_ROWS * depth, c + column * BLOCK_COLUMNS
                    multiply_few(
                        tiles, a, depth, flat, at, products, to, outputs, depth, soon, ahead, pace
                    )
                    ahead = min(ahead + pace * depth, end)


@njit(cache=True, nogil=True)
def multiply_pixels(image, first, count, kernels, bias, result):
    """Multiplies some pixels by one matrix and adds a bias.

    Args:
        image: (N, I), N at least BLOCK_ROWS.
        first: First pixel.
        count: Pixels.
        kernels: (ceil(O / W), I, W), W being NARROW_COLUMNS.
        bias: (ceil(O / W) * W,), zeros beyond O.
        result: (N, O), written.
    """
    depth, outputs = image.shape[1], result.shape[1]
    flat, pixels, panel = kernels.reshape(-1), image.reshape(-1), depth * NARROW_COLUMNS
    values = result.reshape(-1)
    for start in range(first, first + count, BLOCK_ROWS):
        row = min(start, len(image) - BLOCK_ROWS)  # the last block may begin within another
        for column in range(len(kernels)):
            at, to = column * panel, column * NARROW_COLUMNS
            a, c, width = row * depth, row * outputs + to, outputs - to
            multiply_narrow(pixels, a, flat, at, bias, to, values, c, outputs, depth, width)
