# SPDX-License-Identifier: Apache-2.0
import importlib.util
import struct
import subprocess
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from styleavatar_core.errors import AssetError
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.loop import train
from styleavatar_core.training.record.tensorboard import tensorboard_log
from styleavatar_core.types import Progress


def read_events(folder):
    """Reads what TensorBoard reads: records of length, checksum, event, checksum."""
    (file,) = folder.iterdir()
    data, events = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def test_a_training_can_be_watched(tiny_dataset, tiny_config, tmp_path):
    config = TrainConfig(step_count=3, adversarial_start=0.0, evaluation_share=0.3)
    board = tmp_path / "tensorboard"
    with tensorboard_log(board) as write:
        train([tiny_dataset], tiny_config, config, tmp_path / "training", on_progress=write)
    values = {}
    for event in read_events(board):
        for value in event.summary.value:
            values.setdefault(value.tag, []).append((event.step, value))
    assert {"loss/l1", "loss/structure", "loss/mask", "loss/adversarial"} <= values.keys()
    assert {"loss/judge", "loss/judge_penalty", "judge/judge_lead"} <= values.keys()
    step, psnr = values["watched/psnr_db"][-1]
    assert step == 3
    assert psnr.simple_value > 0
    assert values["watched/preview"][0][1].image.width > 100


# With tensorboardX's own writer this waits for ever: it is a process of its own for that reason.
ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from styleavatar_core.training.record.tensorboard import tensorboard_log
from styleavatar_core.types import Progress

board = Path(sys.argv[1])
_, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
with tensorboard_log(board) as write:
    write(Progress("training", 0.0, step=0, losses={"l1": 1.0}))
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    for step in range(1, 100):
        write(Progress("training", 0.0, step=step, losses={"l1": 1.0}))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    write(Progress("training", 1.0, step=100, losses={"l1": 1.0}))
"""


def test_a_full_disk_costs_events_and_a_warning_and_nothing_else(tmp_path):
    command = [sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path / "board")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr.count("cannot be written")) == (0, 1), result.stderr
    steps = [event.step for event in read_events(tmp_path / "board") if event.summary.value]
    assert (steps[:2], steps[-1]) == ([0, 1], 100)
    assert len(steps) < 50  # no record is half there, and what came after is


def test_where_no_file_can_be_made_nothing_is_written(tmp_path, caplog):
    (tmp_path / "taken").write_text("this is no folder")
    with tensorboard_log(tmp_path / "taken") as write:
        for step in (1, 2):
            write(Progress("training", 0.5, step=step, losses={"l1": 1.0}))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_what_was_gone_back_from_is_taken_back(tmp_path):
    with tensorboard_log(tmp_path) as write:
        for step in (5, 9, 7, 8):
            write(Progress("training", 0.5, step=step, losses={"l1": 1.0}))
    events = read_events(tmp_path)
    starts = [event.step for event in events if event.session_log.status == SessionLog.START]
    assert starts == [5, 7]  # TensorBoard drops step 7 and later ones written before
    assert [event.step for event in events if event.summary.value] == [5, 9, 7, 8]


def test_want_of_the_package_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(AssetError, match=r"install styleavatar\[tensorboard\]"),
        tensorboard_log(tmp_path),
    ):
        pass
