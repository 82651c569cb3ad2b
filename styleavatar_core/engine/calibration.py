# SPDX-License-Identifier: Apache-2.0
"""What is fastest for a preset on this machine: measured once, then remembered on disk."""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from styleavatar_core.cores import processor_kind, usable_core_count
from styleavatar_core.engine.base import RenderEngine, blank_input
from styleavatar_core.engine.cache import cache_folder
from styleavatar_core.engine.cache_key import GRAPH_VERSION
from styleavatar_core.engine.cpu.matrix_code import has_matrix_unit
from styleavatar_core.engine.keeping import wait_until_kept
from styleavatar_core.errors import RenderError

if TYPE_CHECKING:
    from styleavatar_core.engine.torch_engine import TorchEngine

logger = logging.getLogger(__name__)

_FRAMES = 3
_MEASURING_S = 0.1  # at least; more of small networks' frames, so that one has been undisturbed
_BATCH_LIMIT = 4
_BATCH_DELAY_S = 0.002  # nobody waits longer than this for those rendered with him
_BATCH_SHARE = 0.9  # of the time of two smaller batches; else its memory is not worth it
_COMPILED_SHARE = 0.9  # of the time of a frame as it is; else opening is not worth waiting longer
# Times per second on a core that it is taken away: hundreds where others want it too, else a few.
_CALM_RATE = 50.0
# What was measured beside others' work says little about the machine when they are gone.
_BUSY_VALID_S = 600.0
_VALID_UNTIL = "valid_until"
_METHOD = 3  # raised when times are measured in another way, so that older ones are not used


def measure_frame_s(engine: RenderEngine, frame_count: int = _FRAMES, batch_size: int = 1) -> float:
    """Returns the shortest of some render times, in seconds, after a warm-up.

    Args:
        engine: What is measured.
        frame_count: Renders, at least.
        batch_size: Frames of each.
    """
    wait_until_kept()  # it would take its share of the cores
    sample = blank_input(engine.info, batch_size)
    engine.render(sample)
    times_s: list[float] = []
    while len(times_s) < frame_count or sum(times_s) < _MEASURING_S:
        start = time.perf_counter()
        engine.render(sample)
        times_s.append(time.perf_counter() - start)
    return min(times_s)


class Disturbance:
    """How often others took the cores from this process while it measured."""

    def __init__(self) -> None:
        self._taken_count = 0
        self._busy_s = 0.0

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Notes what happens during the block."""
        taken_count, busy_s = _taken_count(), time.process_time()
        yield
        self._taken_count += _taken_count() - taken_count
        self._busy_s += time.process_time() - busy_s

    @property
    def is_calm(self) -> bool:
        """Whether the times that were measured are the machine's, not those of others' work."""
        return self._taken_count <= _CALM_RATE * self._busy_s


def _taken_count() -> int:
    """Returns how often threads of this process had to leave a core that they still needed."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def measure_batch_limit(engine: RenderEngine) -> int:
    """Returns how many frames to render at once, at most 4: the first hardly waits, all gain time.

    Args:
        engine: What is measured; one that takes its frames one by one is not.
    """
    if not engine.gains_by_batches:
        return 1
    limit, alone_s = 1, measure_frame_s(engine)
    batch_s = alone_s
    while limit < _BATCH_LIMIT:
        longest_s = min(alone_s + _BATCH_DELAY_S, _BATCH_SHARE * 2 * batch_s)
        batch_s = measure_frame_s(engine, batch_size=2 * limit)
        if batch_s > longest_s:
            break
        limit *= 2
    return limit


def recall_batch_limit(engine: RenderEngine, preset: str, memory: CalibrationMemory) -> int:
    """Returns ``measure_batch_limit`` of an engine; measured once per preset, version and device.

    Args:
        engine: Of an avatar of the preset.
        preset: Its name.
        memory: Where it is remembered.
    """
    if not engine.gains_by_batches:
        return 1
    info = engine.info
    key = f"batch/{preset}/v{GRAPH_VERSION}m{_METHOD}/{info.backend}{info.version}/{info.precision}"
    known = memory.recall(key)
    if known and "batch_limit" in known:
        return int(known["batch_limit"])
    disturbance = Disturbance()
    with disturbance.noted():
        limit = measure_batch_limit(engine)
    memory.remember(key, {"batch_limit": limit}, disturbance.is_calm)
    return limit


def open_faster_form(
    open_form: Callable[[bool], TorchEngine], form_key: str, memory: CalibrationMemory
) -> TorchEngine:
    """Opens an engine compiled if that saves a tenth; measured once per preset, version and device.

    Args:
        open_form: Opens it, compiled or as it is; both may be there beside each other.
        form_key: What the measurement holds for.
        memory: Where it is remembered.
    """
    key = f"compiled/{form_key}/v{GRAPH_VERSION}m{_METHOD}"
    known = memory.recall(key)
    if known and known.keys() >= {"plain", "compiled"}:
        return open_form(known["compiled"] < _COMPILED_SHARE * known["plain"])
    plain, compiled = open_form(False), open_form(True)
    disturbance = Disturbance()
    try:
        with disturbance.noted():
            times_s = {"plain": measure_frame_s(plain), "compiled": measure_frame_s(compiled)}
    except RenderError as error:  # short of memory, perhaps: it is measured next time
        logger.warning("an avatar was not measured compiled", extra={"why": str(error)})
        compiled.close()
        return plain
    if not compiled.is_compiled:  # the compiler may be mended: it is asked again some minutes later
        times_s["compiled"] = times_s["plain"]
    memory.remember(key, times_s, disturbance.is_calm and compiled.is_compiled)
    is_worth_it = times_s["compiled"] < _COMPILED_SHARE * times_s["plain"]
    told = {"is_compiled": is_worth_it, "seconds_per_frame": times_s}
    logger.info("avatars of a preset are compiled or not", extra=told)
    chosen, other = (compiled, plain) if is_worth_it else (plain, compiled)
    other.close()
    return chosen


def calibration_key(preset: str, versions: dict[str, str], thread_count: int) -> str:
    """Returns what a measurement holds for: this kind of machine, these versions, this preset.

    Args:
        preset: Name of the preset.
        versions: Version by backend, of those that took part.
        thread_count: Threads of an engine.
    """
    backends = "+".join(f"{name}{version}" for name, version in sorted(versions.items()))
    cores = usable_core_count()
    # The matrix unit may be kept from a container.
    processor = f"{processor_kind()}{' with matrix unit' if has_matrix_unit() else ''}/{cores}"
    return f"{processor}/{preset}/v{GRAPH_VERSION}m{_METHOD}/{thread_count}/{backends}"


@dataclass
class CalibrationMemory:
    """Measurements of engines, kept beside them: render times and batch limits.

    Attributes:
        path: The file.
    """

    path: Path = field(default_factory=lambda: cache_folder() / "calibration.json")

    def recall(self, key: str) -> dict[str, float] | None:
        """Returns what was measured, by name, or None if nothing was that still holds."""
        entry = dict(self._read().get(key, {}))
        valid_until = entry.pop(_VALID_UNTIL, float("inf"))
        return entry if entry and time.time() < valid_until else None

    def remember(self, key: str, figures: dict[str, float], is_calm: bool = True) -> None:
        """Keeps a measurement; one that cannot be written is made again next time.

        Args:
            key: What it holds for.
            figures: By name.
            is_calm: Whether nobody disturbed it; else it holds for some minutes only.
        """
        if not is_calm:
            figures = {**figures, _VALID_UNTIL: time.time() + _BUSY_VALID_S}
        entries = self._read() | {key: figures}
        incoming = self.path.with_name(f".{self.path.name}.{uuid4().hex[:8]}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            incoming.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")
            incoming.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                incoming.unlink()
            logger.warning(
                "calibration could not be kept and will be repeated",
                extra={"path": str(self.path), "why": str(error)},
            )

    def _read(self) -> dict[str, dict[str, float]]:
        """Returns all measurements; a damaged file counts as empty."""
        try:
            entries = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(entries, dict):
            return {}
        return {key: value for key, value in entries.items() if _is_measurement(value)}


def _is_measurement(value: object) -> bool:
    """Whether a value is figures by name."""
    return isinstance(value, dict) and all(
        isinstance(figure, int | float) for figure in value.values()
    )
