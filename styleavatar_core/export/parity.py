# SPDX-License-Identifier: Apache-2.0
"""Comparing two expressions of one avatar on the same inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from styleavatar_core.engine.base import RenderEngine, RenderInput, joined


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest differences between two engines.

    Attributes:
        image_error: Largest difference of the images, in steps of uint8.
        image_mean_error: Mean difference of the images, in steps of uint8.
        mask_error: Largest difference of the masks, in steps of uint8.
    """

    image_error: int
    image_mean_error: float
    mask_error: int


def random_input(engine: RenderEngine, *, seed: int = 0) -> RenderInput:
    """Returns inputs that reach every path: random pixels, a disc of face with smooth UV.

    Args:
        engine: Gives the sizes.
        seed: Of the random pixels.

    Returns:
        One sample.
    """
    rng = np.random.default_rng(seed)
    size, uv_size = engine.info.rendering_size_px, engine.info.uv_size
    axis = (np.arange(uv_size, dtype=np.float32) + 0.5) / uv_size
    u, v = np.meshgrid(axis, axis)
    face_mask = ((u - 0.5) ** 2 + (v - 0.5) ** 2 < 0.1).astype(np.uint8)
    uv = np.stack([u, v], axis=2) * face_mask[..., None]
    return RenderInput(
        texture_rendering=rng.integers(0, 256, (1, size, size, 3), dtype=np.uint8),
        uv_rendering=uv[None].astype(np.float32),
        face_mask=face_mask[None],
    )


def compare_engines(
    first: RenderEngine, second: RenderEngine, *, seed: int = 0, count: int = 1
) -> Parity:
    """Renders the same random inputs with both.

    Args:
        first: One engine.
        second: The other, of the same avatar.
        seed: Of the first input.
        count: Samples that are rendered at once.

    Returns:
        Their differences.
    """
    sample = joined([random_input(first, seed=seed + index) for index in range(count)])
    one, other = first.render(sample), second.render(sample)
    image = np.abs(one.image.astype(np.int16) - other.image.astype(np.int16))
    mask = np.abs(one.mask.astype(np.int16) - other.mask.astype(np.int16))
    return Parity(int(image.max()), float(image.mean()), int(mask.max()))
