# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from styleavatar_core.engine.calibration import CalibrationMemory, calibration_key


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
