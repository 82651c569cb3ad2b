# SPDX-License-Identifier: Apache-2.0
"""What a frozen generator computes in."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from styleavatar_core.engine.frozen.composition import ExactSampler
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.frozen.half_range import fit_half_range
from styleavatar_core.engine.frozen.peaks import seen_peaks
from styleavatar_core.errors import InvalidInputError
from styleavatar_core.networks.composition import TextureSampler


def number_type(precision: str, *, is_for_gpu: bool) -> str:
    """Returns what a generator is frozen in.

    What is not rounded to eight bits is fp16 on a GPU; to bf16 a runtime rounds by itself.
    """
    if precision == "int8":
        return "fp16" if is_for_gpu else "fp32"
    return "fp32" if precision == "bf16" else precision


def with_precision(
    generator: FrozenGenerator, precision: str, frames: Sequence[Sequence[np.ndarray]] = ()
) -> FrozenGenerator:
    """Returns a frozen generator that computes in a precision; strongly typed where it is traced.

    UV coordinates and the last step to bytes stay fp32: half a texel and half a step of uint8 are
    lost otherwise. For fp16, layers whose numbers come near its end on some frames are scaled.

    Args:
        generator: A frozen generator in fp32; not changed.
        precision: ``fp32`` or ``fp16``.
        frames: What it takes, in its order, of each of these frames; looked at for fp16 only.

    Raises:
        InvalidInputError: There is no such precision.
    """
    if precision == "fp32":
        return generator
    if precision != "fp16":
        raise InvalidInputError(
            f"the generator cannot be frozen in precision '{precision}'; choose fp32 or fp16"
        )
    converted = copy.deepcopy(generator)
    if frames:
        fit_half_range(converted, seen_peaks(generator, frames))
    converted = converted.half()
    parts = converted.generator
    for name, sampler in list(parts.named_modules()):
        if isinstance(sampler, TextureSampler):
            parts.set_submodule(name, ExactSampler(sampler))
    return converted
