# SPDX-License-Identifier: Apache-2.0
"""The quality gate: an engine is used only if its pictures are those of torch in fp32."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from styleavatar_core.engine.base import RenderEngine
from styleavatar_core.engine.cache_key import CacheKey
from styleavatar_core.engine.reference import Reference
from styleavatar_core.engine.verdicts import LEAST_PSNR_DB, Verdict, VerdictMemory
from styleavatar_core.errors import AssetError, EngineUnavailableError, RenderError

logger = logging.getLogger(__name__)

PRECISIONS = tuple(LEAST_PSNR_DB)
SAFER = {"int8": "fp16", "fp16": "fp32", "bf16": "fp32"}
# The same picture up to rounding; what is closer is not told apart.
_EQUAL_DB = 99.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run an avatar.

    Attributes:
        precision: What its network computes in.
        open: Opens the engine; an ``AssetError`` says that it cannot be had in this way.
        key: Under which its verdict is kept.
        is_judged: Whether it has to pass the gate.
        is_judged_anew: Whether that is so each time it is opened: a plan that others share may
            take an avatar's weights wrongly without saying so.
    """

    precision: str
    open: Callable[[], RenderEngine]
    key: CacheKey
    is_judged: bool = True
    is_judged_anew: bool = False


def judge(engine: RenderEngine, reference: Reference) -> Verdict:
    """Compares an engine with fp32.

    What is not finite turns into arbitrary bytes, so that it fails by its PSNR.

    Args:
        engine: What is judged.
        reference: The same avatar's pictures.

    Raises:
        RenderError: It cannot render, which says nothing of its pictures.
    """
    try:
        engine.warm_up()  # on a device what takes long is done beside other avatars' frames
    except RuntimeError as error:  # torch's
        raise RenderError(f"{engine.runtime} could not be made ready: {error}") from error
    count = len(reference.inputs.face_mask)
    worst = min(_psnr_db(engine, reference, index) for index in range(count))
    return Verdict(engine.info.precision, worst)


def _psnr_db(engine: RenderEngine, reference: Reference, index: int) -> float:
    """Returns the lower PSNR of image and mask of a sample, in decibels."""
    output, truth = engine.render(reference.inputs.part(index)), reference.outputs
    errors = [
        np.mean(np.square(a.astype(np.float32) - b.astype(np.float32)))
        for a, b in ((output.image[0], truth.image[index]), (output.mask[0], truth.mask[index]))
    ]
    worst = float(max(errors))
    return _EQUAL_DB if worst == 0 else min(_EQUAL_DB, float(10 * np.log10(255.0**2 / worst)))


def open_gated(
    candidates: Iterable[Candidate], make_reference: Callable[[], Reference], memory: VerdictMemory
) -> RenderEngine:
    """Opens the first engine that passes.

    Args:
        candidates: From the one that is wanted to the safest.
        make_reference: Gives what they are judged by; called only if one is.
        memory: Where verdicts are kept, so that an engine is judged once.

    Returns:
        The engine; its ``info`` says why it is this one.

    Raises:
        AssetError: None can be opened, for the last one's reason.
        RenderError: None can render just now, for the last one's reason.
        EngineUnavailableError: None passes.
    """
    reasons: list[str] = []
    failure: AssetError | RenderError | None = None
    for candidate in candidates:
        verdict = memory.recall(candidate.key) if _is_recalled(candidate) else None
        if verdict is None or verdict.is_accepted:
            try:
                engine = candidate.open()
            except AssetError as error:
                failure = error
                reasons.append(f"{candidate.precision} could not be opened: {error}")
                logger.warning("engine could not be opened", extra={"why": str(error)})
                continue
            if candidate.is_judged and verdict is None:
                try:
                    verdict = judge(engine, make_reference())
                except RenderError as error:  # short of memory, perhaps: it is judged next time
                    failure = error
                    reasons.append(f"{candidate.precision} could not render: {error}")
                    logger.warning("engine failed at the gate", extra={"why": str(error)})
                    engine.close()
                    continue
                except BaseException:
                    engine.close()
                    raise
                memory.remember(candidate.key, verdict)
            if verdict is None or verdict.is_accepted:
                engine.explain("; ".join([*reasons, verdict.reason] if verdict else reasons))
                return engine
            engine.close()
        failure = None
        reasons.append(verdict.reason)
        logger.warning("engine refused by the quality gate", extra={"why": verdict.reason})
    if failure is not None:
        raise failure
    raise EngineUnavailableError(
        f"no engine gives the avatar's pictures here ({'; '.join(reasons)}); choose another backend"
    )


def _is_recalled(candidate: Candidate) -> bool:
    """Whether an earlier verdict stands."""
    return candidate.is_judged and not candidate.is_judged_anew
