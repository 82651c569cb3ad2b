# SPDX-License-Identifier: Apache-2.0
"""The quality gate: an engine of low precision is used only if it gives the pictures of fp32."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from styleavatar_core.engine.base import RenderEngine, RenderInput
from styleavatar_core.engine.calibration import CalibrationMemory
from styleavatar_core.errors import InvalidInputError, RenderError

logger = logging.getLogger(__name__)

LEAST_PSNR_DB = {"fp16": 45.0, "int8": 40.0}
# The same picture up to rounding; what is closer is not told apart.
_EQUAL_DB = 99.0
_SAFER = {"int8": "fp16", "fp16": "fp32"}
PRECISIONS = ("fp32", *LEAST_PSNR_DB)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate found.

    Attributes:
        precision: Of the engine.
        psnr_db: Of its worst picture against fp32; 0 if it could not render.
    """

    precision: str
    psnr_db: float

    @property
    def is_accepted(self) -> bool:
        """Whether the engine may be used."""
        return self.psnr_db >= LEAST_PSNR_DB[self.precision]

    @property
    def reason(self) -> str:
        """The verdict in words."""
        relation = "at least" if self.is_accepted else "less than"
        return (
            f"{self.precision} gives {self.psnr_db:.1f} dB against fp32, "
            f"{relation} the {LEAST_PSNR_DB[self.precision]:.0f} dB asked for"
        )


def judge(engine: RenderEngine, reference: RenderEngine, inputs: Sequence[RenderInput]) -> Verdict:
    """Compares an engine with fp32.

    What is not finite turns into arbitrary bytes, so that it fails by its PSNR.

    Args:
        engine: The engine of low precision.
        reference: The same avatar in fp32.
        inputs: What both render.
    """
    try:
        worst = min(_psnr_db(engine, reference, sample) for sample in inputs)
    except RenderError as error:
        logger.warning("engine failed at the gate", extra={"why": str(error)})
        worst = 0.0
    return Verdict(engine.info.precision, worst)


def _psnr_db(engine: RenderEngine, reference: RenderEngine, sample: RenderInput) -> float:
    """Returns the lower PSNR of image and mask, in decibels."""
    output, truth = engine.render(sample), reference.render(sample)
    errors = [
        np.mean(np.square(a.astype(np.float32) - b.astype(np.float32)))
        for a, b in ((output.image, truth.image), (output.mask, truth.mask))
    ]
    worst = float(max(errors))
    return _EQUAL_DB if worst == 0 else min(_EQUAL_DB, float(10 * np.log10(255.0**2 / worst)))


def open_gated(
    precision: str,
    open_at: Callable[[str, str], RenderEngine],
    make_inputs: Callable[[RenderEngine], Sequence[RenderInput]],
    *,
    memory: CalibrationMemory,
    memory_key: Callable[[str], str],
) -> RenderEngine:
    """Opens an engine of the wanted precision, or of the next safer one that passes.

    Args:
        precision: ``fp32``, ``fp16`` or ``int8``.
        open_at: Opens the engine in a precision, with a note for ``EngineInfo``.
        make_inputs: Gives what the gate renders; takes the fp32 engine.
        memory: Where verdicts are kept, so that an avatar is judged once.
        memory_key: Names the engine of a precision there.

    Returns:
        The engine; its ``info`` says the precision and why.

    Raises:
        InvalidInputError: There is no such precision.
    """
    if precision not in PRECISIONS:
        raise InvalidInputError(
            f"there is no precision '{precision}'; choose one of {', '.join(PRECISIONS)}"
        )
    reasons: list[str] = []
    while precision != "fp32":
        known = memory.recall(memory_key(precision))
        verdict = Verdict(precision, known["psnr_db"]) if known else None
        if verdict is None:
            verdict = _judge_once(precision, open_at, make_inputs)
            memory.remember(memory_key(precision), {"psnr_db": verdict.psnr_db})
        reasons.append(verdict.reason)
        if verdict.is_accepted:
            break
        logger.warning("engine refused by the quality gate", extra={"why": verdict.reason})
        precision = _SAFER[precision]
    return open_at(precision, "; ".join(reasons))


def _judge_once(
    precision: str,
    open_at: Callable[[str, str], RenderEngine],
    make_inputs: Callable[[RenderEngine], Sequence[RenderInput]],
) -> Verdict:
    """Opens both engines for the comparison only."""
    reference, engine = open_at("fp32", ""), open_at(precision, "")
    try:
        return judge(engine, reference, make_inputs(reference))
    finally:
        reference.close()
        engine.close()
