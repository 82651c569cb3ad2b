# SPDX-License-Identifier: Apache-2.0
"""What a CUDA graph needs of a frozen generator, and what can be seen of it without a GPU."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from styleavatar_core.engine.base import INPUT_NAMES, blank_input
from styleavatar_core.engine.freeze import freeze
from styleavatar_core.engine.precision import with_precision
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.networks import get_preset, sample_noise
from tests.fakes.networks import UntrainedAvatar
from tests.unit.core.engine.test_freeze import noisy_nano


class HostWatch(TorchDispatchMode):
    """Notes operators that a stream which is captured cannot have: those that involve the host.

    The device is ``meta``, on which nothing is computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        taken = [value for value in args if isinstance(value, torch.Tensor)]
        devices = {value.device.type for value in taken if value.dim()}
        if isinstance(result, torch.Tensor):
            devices.add(result.device.type)
        if len(devices) > 1 or ("meta" in devices and "_local_scalar" in str(func)):
            self.seen.append(str(func))
        return result


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("make_config", [lambda: get_preset("nano"), noisy_nano])
def test_nothing_between_inputs_and_outputs_touches_the_host(make_config, precision: str) -> None:
    avatar = UntrainedAvatar.make(make_config())
    noise = sample_noise(avatar.config, generator=torch.Generator().manual_seed(3))
    frozen = freeze(avatar.generator, avatar.style, avatar.face, avatar.background, noise=noise)
    frozen = with_precision(frozen, precision).to("meta")
    sample = blank_input(TorchEngine(frozen, device="meta").info)
    inputs = [torch.from_numpy(getattr(sample, name)).to("meta") for name in INPUT_NAMES]
    with torch.inference_mode():
        frozen(*inputs)  # what is made once is made now
        with HostWatch() as watch:
            image, _ = frozen(*inputs)
    assert image.shape == (1, 128, 128, 3)
    assert watch.seen == []


def test_the_watch_sees_what_it_is_for() -> None:
    x = torch.ones(3, device="meta")
    with torch.inference_mode(), HostWatch() as watch:
        x + torch.ones(3).to("meta")
    assert watch.seen
