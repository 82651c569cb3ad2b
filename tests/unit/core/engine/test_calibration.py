# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from styleavatar_core.engine import calibration
from styleavatar_core.engine.base import EngineInfo, RenderEngine, RenderInput, RenderOutput
from styleavatar_core.engine.calibration import (
    CalibrationMemory,
    Disturbance,
    calibration_key,
    measure_batch_limit,
    open_faster_form,
    recall_batch_limit,
)


@pytest.fixture
def memory(tmp_path: Path) -> CalibrationMemory:
    return CalibrationMemory(tmp_path / "cache" / "calibration.json")


def test_a_measurement_outlives_the_process(memory: CalibrationMemory) -> None:
    assert memory.recall("key") is None
    memory.remember("key", {"torch": 0.02})
    memory.remember("other", {"torch": 0.03})
    assert CalibrationMemory(memory.path).recall("key") == {"torch": 0.02}


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"key": 3}', '{"key": {"torch": "fast"}}'])
def test_a_damaged_memory_is_forgotten(memory: CalibrationMemory, text: str) -> None:
    memory.path.parent.mkdir()
    memory.path.write_text(text)
    assert memory.recall("key") is None
    memory.remember("key", {"torch": 0.02})
    assert memory.recall("key") == {"torch": 0.02}


def test_what_was_measured_on_a_busy_machine_holds_for_a_while(
    memory: CalibrationMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.remember("calm", {"torch": 0.02})
    memory.remember("busy", {"torch": 0.02}, is_calm=False)
    assert memory.recall("busy") == {"torch": 0.02}
    later_s = time.time() + 3600
    monkeypatch.setattr(calibration, "time", SimpleNamespace(time=lambda: later_s))
    assert memory.recall("busy") is None
    assert memory.recall("calm") == {"torch": 0.02}


def test_who_has_to_share_a_core_is_disturbed() -> None:
    def is_calm_at_rest() -> bool:
        rest = Disturbance()
        with rest.noted():
            time.sleep(0.02)
        return rest.is_calm

    # Others may work here, too: one quiet moment is enough.
    assert any(is_calm_at_rest() for _ in range(100))
    fight = Disturbance()
    # Threads that hold no interpreter lock, more than there are cores: they take turns.
    count = 3 * len(os.sched_getaffinity(0))
    data = bytes(100_000_000)
    with ThreadPoolExecutor(count) as threads, fight.noted():
        list(threads.map(lambda _: hashlib.sha256(data).digest(), range(count)))
    assert not fight.is_calm


def test_where_nothing_can_be_written_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    memory = CalibrationMemory(Path("/proc/styleavatar/calibration.json"))
    memory.remember("key", {"torch": 0.02})
    assert memory.recall("key") is None
    assert "calibration could not be kept" in caplog.text


def test_another_version_preset_or_thread_count_is_measured_anew() -> None:
    keys = {
        calibration_key("lite", {"torch": "2"}, 2),
        calibration_key("nano", {"torch": "2"}, 2),
        calibration_key("lite", {"torch": "3"}, 2),
        calibration_key("lite", {"torch": "2", "openvino": "1"}, 2),
        calibration_key("lite", {"torch": "2"}, 1),
    }
    assert len(keys) == 5


def test_a_processor_that_multiplies_matrices_is_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = set()
    for has_unit in (False, True):
        monkeypatch.setattr(calibration, "has_matrix_unit", lambda has_unit=has_unit: has_unit)
        keys.add(calibration_key("lite", {"torch": "2"}, 2))
    assert len(keys) == 2


class TimedEngine(RenderEngine):
    """Takes a first frame's time and so much more for each other frame, on a clock of its own."""

    runtime = "nothing"

    def __init__(self, more_s: float, gains_by_batches: bool, first_s: float = 0.01) -> None:
        super().__init__(EngineInfo("torch", "fp32", 4, 4, 4))
        self.gains_by_batches = gains_by_batches
        self.now_s = 0.0
        self._first_s, self._more_s = first_s, more_s

    def _render(self, inputs: RenderInput) -> RenderOutput:
        count = len(inputs.face_mask)
        self.now_s += self._first_s + (count - 1) * self._more_s
        return RenderOutput(np.zeros((count, 4, 4, 3), np.uint8), np.zeros((count, 4, 4), np.uint8))

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("more_s", "gains", "limit"),
    [(0.0001, True, 4), (0.0015, True, 2), (0.009, True, 1), (0.0, False, 1)],
)
def test_frames_go_together_only_where_the_first_hardly_waits_for_the_others(
    monkeypatch: pytest.MonkeyPatch, more_s: float, gains: bool, limit: int
) -> None:
    engine = TimedEngine(more_s, gains)
    clock = SimpleNamespace(perf_counter=lambda: engine.now_s)
    monkeypatch.setattr(calibration, "time", clock)
    assert measure_batch_limit(engine) == limit
    assert (engine.now_s > 0) == gains


@pytest.mark.parametrize(("more_s", "limit"), [(0.0006, 1), (0.0005, 1), (0.0003, 4)])
def test_frames_go_together_only_where_that_saves_time(
    monkeypatch: pytest.MonkeyPatch, more_s: float, limit: int
) -> None:
    engine = TimedEngine(more_s, gains_by_batches=True, first_s=0.0006)
    monkeypatch.setattr(calibration, "time", SimpleNamespace(perf_counter=lambda: engine.now_s))
    assert measure_batch_limit(engine) == limit


def test_a_batch_limit_is_measured_once_per_preset(
    memory: CalibrationMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TimedEngine(0.0001, gains_by_batches=True)
    clock = SimpleNamespace(
        perf_counter=lambda: engine.now_s, process_time=time.process_time, time=time.time
    )
    monkeypatch.setattr(calibration, "time", clock)
    assert recall_batch_limit(engine, "lite", memory) == 4
    spent_s = engine.now_s
    assert recall_batch_limit(engine, "lite", memory) == 4
    assert engine.now_s == spent_s
    recall_batch_limit(engine, "hd", memory)
    assert engine.now_s > spent_s


class Forms:
    """Opens engines of which a frame takes a time, and counts those that are open."""

    def __init__(self, plain_s: float, compiled_s: float, *, can_compile: bool = True) -> None:
        self.now_s, self.opened, self.open_count = 0.0, [], 0
        self._times_s, self._can_compile = (plain_s, compiled_s), can_compile

    def open(self, is_compiled: bool) -> RenderEngine:
        forms = self

        class Engine(TimedEngine):
            def _render(self, inputs: RenderInput) -> RenderOutput:
                forms.now_s += self._first_s
                if self._first_s < 0:
                    raise MemoryError("no room for it")
                return super()._render(inputs)

            def close(self) -> None:
                forms.open_count -= 1

        engine = Engine(0.0, gains_by_batches=True, first_s=self._times_s[is_compiled])
        engine.is_compiled = is_compiled and self._can_compile
        self.opened.append(is_compiled)
        self.open_count += 1
        return engine

    def choose(self, memory: CalibrationMemory, key: str = "lite/torch2/fp16") -> RenderEngine:
        self.opened = []
        return open_faster_form(self.open, key, memory)


@pytest.fixture
def watch_forms(monkeypatch: pytest.MonkeyPatch) -> Callable[[Forms], Forms]:
    def watch(forms: Forms) -> Forms:
        clock = SimpleNamespace(
            perf_counter=lambda: forms.now_s, process_time=time.process_time, time=time.time
        )
        monkeypatch.setattr(calibration, "time", clock)
        return forms

    return watch


@pytest.mark.parametrize(("compiled_s", "is_compiled"), [(0.008, True), (0.0095, False)])
def test_avatars_of_a_preset_are_compiled_where_that_saves_a_tenth(
    memory: CalibrationMemory,
    watch_forms: Callable[[Forms], Forms],
    compiled_s: float,
    is_compiled: bool,
) -> None:
    forms = watch_forms(Forms(0.010, compiled_s))
    assert forms.choose(memory).is_compiled == is_compiled
    assert forms.opened == [False, True]
    assert forms.open_count == 1
    spent_s = forms.now_s
    assert forms.choose(memory).is_compiled == is_compiled
    assert forms.opened == [is_compiled]
    assert forms.now_s == spent_s
    forms.choose(memory, "lite/torch3/fp16")
    assert forms.opened == [False, True]


def test_a_compiler_that_fails_is_asked_again_some_minutes_later(
    memory: CalibrationMemory,
    watch_forms: Callable[[Forms], Forms],
) -> None:
    forms = watch_forms(Forms(0.010, 0.001, can_compile=False))  # what failed took the plain form
    assert not forms.choose(memory).is_compiled
    forms.choose(memory)
    assert forms.opened == [False]
    later_s = time.time() + 3600
    calibration.time.time = lambda: later_s
    forms.choose(memory)
    assert forms.opened == [False, True]


def test_what_cannot_be_measured_compiled_is_opened_as_it_is(
    memory: CalibrationMemory,
    watch_forms: Callable[[Forms], Forms],
    caplog: pytest.LogCaptureFixture,
) -> None:
    forms = watch_forms(Forms(0.010, -1.0))
    assert not forms.choose(memory).is_compiled
    assert forms.open_count == 1
    assert "no room for it" in caplog.records[-1].why
    forms.choose(memory)
    assert forms.opened == [False, True]
