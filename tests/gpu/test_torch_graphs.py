# SPDX-License-Identifier: Apache-2.0
"""Torch on a GPU: captured graphs give the avatar's pictures, whoever else renders or loads."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle
from styleavatar_core.engine import backends, calibration
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.engine.cuda import stream
from styleavatar_core.engine.frozen.freeze import freeze
from styleavatar_core.engine.frozen.loading import load_frozen
from styleavatar_core.engine.frozen.precision import with_precision
from styleavatar_core.engine.reference import render_reference
from styleavatar_core.engine.selection import open_engine
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.networks import sample_noise
from tests.fakes.nano_bundle import write_nano_bundle
from tests.fakes.networks import UntrainedAvatar
from tests.gpu.pictures import assert_same, batch_of, truth_of
from tests.unit.core.engine.test_freeze import noisy_nano

Bundles = tuple[AvatarBundle, AvatarBundle]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("preset", ["nano", "lite", "hd"])
def test_a_gpu_gives_the_pictures_of_a_cpu(tmp_path: Path, preset: str, precision: str) -> None:
    bundle = read_bundle(write_nano_bundle(tmp_path / "avatar", seed=3, preset=preset))
    engine = open_engine(bundle, precision=precision)
    assert (engine.info.backend, engine.info.precision) == ("torch", precision)
    assert " dB against fp32" in engine.info.note
    inputs = batch_of(engine, 4)
    truth = truth_of(bundle, inputs)
    assert_same(engine.render(inputs), truth, precision)
    engine.warm_up(4)
    assert_same(engine.render(inputs), truth, precision)  # captured now, at the latest
    engine.close()


def test_what_the_published_network_has_is_captured_too() -> None:
    avatar = UntrainedAvatar.make(noisy_nano())
    noise = sample_noise(avatar.config, generator=torch.Generator().manual_seed(3))
    parts = (avatar.generator, avatar.style, avatar.face, avatar.background)
    for precision in ("fp32", "fp16"):
        frozen = freeze(*parts, noise=noise)
        engine = TorchEngine(with_precision(freeze(*parts, noise=noise), precision), device="cuda")
        inputs = batch_of(engine, 2)
        assert_same(
            engine.render(inputs), render_reference(frozen, None, inputs).outputs, precision
        )


def test_frames_are_captured_when_an_avatar_is_opened_and_not_later(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(bundles[0])
    engine.warm_up(4)
    warnings: list[object] = []
    monkeypatch.setattr(stream.logger, "warning", lambda *given, **more: warnings.append(given))

    def fail(*given: object) -> None:
        raise AssertionError("a live frame was captured")

    monkeypatch.setattr(stream.CudaStream, "capture", fail)
    for count in (1, 2, 3, 4):
        inputs = batch_of(engine, count)
        assert_same(engine.render(inputs), truth_of(bundles[0], inputs), "fp16")
    assert warnings == []  # none of them could not be captured


def test_two_avatars_take_turns_and_keep_their_pictures(bundles: Bundles) -> None:
    engines = [open_engine(bundle) for bundle in bundles]
    inputs = batch_of(engines[0], 2)
    truths = [truth_of(bundle, inputs) for bundle in bundles]
    for engine in engines:
        engine.warm_up(2)
    for _ in range(3):
        for engine, truth in zip(engines, truths, strict=True):
            assert_same(engine.render(inputs), truth, "fp16")
    engines[0].close()
    assert_same(engines[1].render(inputs), truths[1], "fp16")


def test_an_avatar_renders_while_others_are_loaded(bundles: Bundles) -> None:
    live = open_engine(bundles[0])
    live.warm_up(4)
    inputs = batch_of(live, 3)
    expected = live.render(inputs)
    is_over, wrong = threading.Event(), []

    def render() -> None:
        while not is_over.is_set():
            output = live.render(inputs)
            if not np.array_equal(output.image, expected.image):
                wrong.append(output)

    renderer = threading.Thread(target=render)
    renderer.start()
    try:
        for _ in range(3):
            other = open_engine(bundles[1])
            other.warm_up(4)
            assert_same(other.render(inputs), truth_of(bundles[1], inputs), "fp16")
            other.close()
    finally:
        is_over.set()
        renderer.join()
    assert wrong == []


def test_closing_gives_the_memory_back(bundles: Bundles) -> None:
    AvatarRenderer(bundles[0].path).close()  # libraries and contexts stay
    before = torch.cuda.mem_get_info()[0]
    renderer = AvatarRenderer(bundles[0].path)
    assert renderer.memory_bytes > 0
    assert torch.cuda.mem_get_info()[0] < before
    renderer.close()
    del renderer
    assert abs(before - torch.cuda.mem_get_info()[0]) < 64 * 2**20  # workspaces of libraries


def test_compiled_frames_are_captured_and_are_the_avatars(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler, which Triton needs")
    warnings: list[object] = []
    monkeypatch.setattr(stream.logger, "warning", lambda *given, **more: warnings.append(given))
    for bundle in bundles:  # the second takes the code of the first
        generator = with_precision(load_frozen(bundle), "fp16")
        engine = TorchEngine(generator, device="cuda", code_folder=tmp_path / "code")
        engine.warm_up(2)
        for count in (1, 2):
            inputs = batch_of(engine, count)
            assert_same(engine.render(inputs), truth_of(bundle, inputs), "fp16")
        assert engine.is_compiled
        engine.close()
    assert warnings == []  # none of them could not be captured
    monkeypatch.setattr(backends, "open_faster_form", calibration.open_faster_form)
    for bundle in bundles:
        engine = open_engine(bundle)
        inputs = batch_of(engine, 1)
        assert_same(engine.render(inputs), truth_of(bundle, inputs), "fp16")
        engine.close()
