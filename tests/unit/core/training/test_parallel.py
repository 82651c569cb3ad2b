# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from styleavatar_core.errors import InvalidInputError
from styleavatar_core.networks.discriminator import append_minibatch_stddev
from styleavatar_core.training.loop import load_average, train
from styleavatar_core.training.parallel import own_device, told_by_first_rank
from tests.fakes.parallel_training import CONFIG, prepare
from tests.fakes.tiny_bundle import tiny_config

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Both trainings, by two processes and by one, of the same clip."""
    folder = tmp_path_factory.mktemp("parallel")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "tests.fakes.parallel_training", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    alone = train([prepare(folder / "dataset")], tiny_config(), CONFIG, folder / "alone")
    return result, folder, load_file(alone), load_file(folder / "shared" / alone.name)


def test_two_processes_take_the_steps_of_one(outcome):
    _, _, alone, shared = outcome
    assert alone.keys() == shared.keys()
    gradients = {name: value for name, value in alone.items() if name.endswith("/exp_avg")}
    for owner in ("networks", "judge"):
        assert any(name.startswith(f"optimizer/{owner}/") for name in gradients)
    assert max(float(value.abs().max()) for value in gradients.values()) > 1e-3
    for name, wanted in gradients.items():
        assert (shared[name] - wanted).abs().max() < 1e-5, name


def test_weights_average_and_discriminator_are_those_of_one_process(outcome):
    _, _, alone, shared = outcome
    for owner in ("networks", "average", "judge"):
        weights = {n: v for n, v in alone.items() if n.startswith(f"module/{owner}/")}
        far = [(shared[name] - value).abs() > 1e-5 for name, value in weights.items()]
        count = sum(int(one.sum()) for one in far)
        # Adam makes a step of what rounding leaves of gradients that are zero.
        assert count < 1e-3 * sum(one.numel() for one in far), (owner, count)


def test_the_first_rank_decides_and_reports_for_all(outcome):
    result, folder, _, _ = outcome
    for rank in (0, 1):
        assert f"rank {rank}: 3 pictures per step cannot be shared evenly by 2" in result.stdout
    _, clock = load_average(folder / "timed" / "checkpoint.safetensors", tiny_config())
    assert clock.elapsed_s >= 1.2  # 0.02 minutes
    assert clock.step > 0
    assert len(clock.psnr_history) > 1


def test_alone_all_is_local():
    assert told_by_first_rank(3.5) == 3.5
    x = torch.randn(4, 3, 2, 2)
    assert append_minibatch_stddev(x).shape == (4, 4, 2, 2)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InvalidInputError, match=r"process 3 .* shows 2; use --nproc-per-node 2"):
        own_device()
