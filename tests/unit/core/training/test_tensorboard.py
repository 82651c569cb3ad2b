# SPDX-License-Identifier: Apache-2.0
import importlib.util
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from styleavatar_core.errors import AssetError
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.loop import train
from styleavatar_core.training.tensorboard import tensorboard_log


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


def test_want_of_the_package_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(AssetError, match=r"install styleavatar\[tensorboard\]"),
        tensorboard_log(tmp_path),
    ):
        pass
