# SPDX-License-Identifier: Apache-2.0
"""One thread: on shared cores, OpenMP threads that wait for each other take ten times as long."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle
from styleavatar_core.engine.cache import cache_folder
from styleavatar_core.engine.frozen import peaks
from tests.fakes import tensorrt_runtime
from tests.fakes.host_stream import HostStream
from tests.fakes.nano_bundle import write_nano_bundle
from tests.fakes.tensorrt_runtime import Faults

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> AvatarBundle:
    """An untrained avatar, for all tests that do not change it."""
    return read_bundle(write_nano_bundle(tmp_path_factory.mktemp("bundle") / "avatar"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Random numbers of a test are its own, whichever ran before it in the same process."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of an empty engine cache, this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """A machine with a GPU and TensorRT, as far as our code can see; what goes wrong there."""
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_runtime)
    for name in ("build", "engine"):
        module = importlib.import_module(f"styleavatar_core.engine.tensorrt.{name}")
        monkeypatch.setattr(module, "tensorrt", tensorrt_runtime)
    monkeypatch.setattr(module, "CudaStream", HostStream)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(peaks, "fast_device", lambda: "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    found = Faults()
    monkeypatch.setattr(tensorrt_runtime, "faults", found)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (found.free_bytes, 2**38))
    return found
