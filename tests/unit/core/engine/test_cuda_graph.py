# SPDX-License-Identifier: Apache-2.0
"""What a CUDA graph needs of a frozen generator, and what can be seen of it without a GPU."""

import contextlib
import copy
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from styleavatar_core.engine.base import (
    INPUT_NAMES,
    RenderEngine,
    RenderInput,
    blank_input,
    feed_of,
    joined,
)
from styleavatar_core.engine.cuda.graph import CapturedModule, batch_sizes, padded_count
from styleavatar_core.engine.cuda.stream import CudaStream, Work
from styleavatar_core.engine.frozen.composition import _doubling
from styleavatar_core.engine.frozen.freeze import FrozenGenerator, freeze
from styleavatar_core.engine.frozen.precision import with_precision
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.export.parity import random_input
from styleavatar_core.networks import get_preset, sample_noise
from tests.fakes.host_stream import HostStream
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


def frozen_nano() -> FrozenGenerator:
    avatar = UntrainedAvatar.make(get_preset("nano"))
    return freeze(avatar.generator, avatar.style, avatar.face, avatar.background)


def batch_of(engine: RenderEngine, count: int, seed: int = 0) -> RenderInput:
    return joined([random_input(engine, seed=seed + index) for index in range(count)])


@pytest.mark.parametrize("captures", [True, False])
def test_batches_between_two_graphs_take_the_larger_one(captures: bool) -> None:
    frozen = frozen_nano()
    eager, stream = TorchEngine(copy.deepcopy(frozen)), HostStream(captures=captures)
    captured = TorchEngine(frozen, stream=stream)
    captured.warm_up(3)
    assert stream.capture_count == 3  # for one, two and four
    stream.replay_count = 0
    for count in (4, 3, 1, 2, 3):
        batch = batch_of(eager, count, seed=count)
        output, expected = captured.render(batch), eager.render(batch)
        assert np.abs(output.image.astype(int) - expected.image).max() <= 1
        assert np.abs(output.mask.astype(int) - expected.mask).max() <= 1
        assert len(output.image) == len(output.mask) == count
    assert stream.capture_count == 3
    assert stream.replay_count == (5 if captures else 0)
    captured.close()


def test_what_is_on_the_device_takes_the_graphs_of_what_comes_from_the_host() -> None:
    frozen = frozen_nano()
    stream = HostStream()
    engine = TorchEngine(frozen, stream=stream)
    engine.warm_up(2)
    batch = batch_of(engine, 2)
    wanted = engine.render(batch)
    with torch.inference_mode():
        image, mask = engine.launch([torch.from_numpy(a) for a in feed_of(batch, None).values()])
    assert np.array_equal(image.numpy(), wanted.image)
    assert np.array_equal(mask.numpy(), wanted.mask)
    assert stream.capture_count == 2


def test_a_picture_is_its_callers_own() -> None:
    engine = TorchEngine(frozen_nano(), stream=HostStream())
    first = engine.render(batch_of(engine, 1)).image
    before = first.copy()
    engine.render(batch_of(engine, 1, seed=9))
    assert np.array_equal(first, before)


def test_a_graph_keeps_the_constants_that_it_reads() -> None:
    frozen = frozen_nano()
    captured = CapturedModule(frozen, frozen.input_types().values(), HostStream())
    captured.prepare(1)
    kernel, present = _doubling(64, 64, torch.float32, torch.device("cpu"))
    kept = {tensor.untyped_storage().data_ptr() for tensor in captured._kept}
    assert {kernel.untyped_storage().data_ptr(), present.untyped_storage().data_ptr()} <= kept
    weights = [parameter.untyped_storage().data_ptr() for parameter in frozen.parameters()]
    assert len(kept & set(weights)) > 10
    # Results of operators are not among them: they come anew with each frame.
    assert sum(tensor.nbytes for tensor in captured._kept) < 3 * sum(
        parameter.nbytes for parameter in (*frozen.parameters(), *frozen.buffers())
    )


def test_a_capture_for_which_memory_was_short_is_tried_again() -> None:
    class Short(HostStream):
        is_short = True

        def capture(self, work: Work) -> Work | None:
            if self.is_short:
                raise torch.OutOfMemoryError
            return super().capture(work)

    stream, module = Short(), nn.Softsign()
    captured = CapturedModule(_Tuple(module), [((3,), torch.float32)], stream)
    with pytest.raises(torch.OutOfMemoryError):
        captured.prepare(1)
    stream.is_short = False
    captured.prepare(1)
    assert stream.capture_count == 1
    with torch.inference_mode():
        captured.launch([torch.ones(1, 3)])
    assert stream.replay_count == 1


class _Tuple(nn.Module):
    """Gives a module's result as graphs take it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.module(values),)


def test_an_engine_can_be_closed_after_a_capture_that_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Stream(HostStream):
        close = CudaStream.close

    def refuse() -> None:
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    engine = TorchEngine(frozen_nano(), stream=Stream(captures=False))
    engine.render(batch_of(engine, 1))
    monkeypatch.setattr(torch.cuda, "empty_cache", refuse)
    engine.close()
    assert "memory stays with torch" in caplog.text


def test_the_largest_batch_is_captured_first() -> None:
    sizes: list[int] = []

    class Module(nn.Module):
        def forward(self, values: torch.Tensor) -> tuple[torch.Tensor]:
            sizes.append(len(values))
            return (values + 1,)

    CapturedModule(Module(), [((3,), torch.float32)], HostStream()).prepare(3)
    assert list(dict.fromkeys(sizes)) == [4, 2, 1]


def test_batches_are_made_as_large_as_the_next_power_of_two() -> None:
    assert [padded_count(count) for count in range(1, 10)] == [1, 2, 4, 4, 8, 8, 8, 8, 16]
    assert [batch_sizes(limit) for limit in (1, 2, 3, 4)] == [[1], [1, 2], [1, 2, 4], [1, 2, 4]]


@pytest.mark.parametrize(("precision", "is_exact"), [("fp32", True), ("fp16", False)])
def test_fp32_on_a_gpu_is_not_rounded_to_tf32(precision: str, is_exact: bool) -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        TorchEngine(with_precision(frozen_nano(), precision), stream=HostStream())
        assert torch.backends.cudnn.allow_tf32 != is_exact
        assert torch.backends.cuda.matmul.allow_tf32 != is_exact
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


class SlowToBegin(nn.Module):
    """Takes its time, as libraries do that choose their kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor]:
        self.has_begun.set()
        assert self.may_end.wait(30)
        return (values + 1,)


def test_frames_are_launched_while_another_avatar_is_warmed_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stream(HostStream):
        """With the real one's order between threads."""

        warm_up, launch = CudaStream.warm_up, CudaStream.launch
        _stream = None

    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    module = SlowToBegin()
    loading = CapturedModule(module, [((3,), torch.float32)], Stream())
    loader = threading.Thread(target=loading.prepare, args=(1,))
    loader.start()
    assert module.has_begun.wait(30)
    launched = threading.Event()
    renderer = threading.Thread(target=lambda: Stream().launch(launched.set), daemon=True)
    renderer.start()
    assert launched.wait(30)
    module.may_end.set()
    loader.join()
