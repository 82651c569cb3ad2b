# SPDX-License-Identifier: Apache-2.0
"""Engines of a real bundle: they agree, are chosen, cached and refused."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle, write_bundle
from styleavatar_core.engine import backends, selection
from styleavatar_core.engine.backends import automatic_backends
from styleavatar_core.engine.base import RenderEngine, RenderInput, RenderOutput
from styleavatar_core.engine.frozen import parts
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.frozen.loading import load_frozen
from styleavatar_core.engine.keeping import wait_until_kept
from styleavatar_core.engine.onnx import onnx_engine
from styleavatar_core.engine.onnx.onnx_engine import OnnxEngine
from styleavatar_core.engine.opening import OpeningAvatar
from styleavatar_core.engine.selection import open_engine
from styleavatar_core.errors import (
    AssetError,
    EngineUnavailableError,
    InvalidInputError,
    RenderError,
)
from styleavatar_core.export.parity import random_input
from tests.fakes.nano_bundle import write_nano_bundle

BACKENDS = automatic_backends()
CACHED = [name for name in BACKENDS if name != "torch"]


def open_all(bundle: AvatarBundle) -> dict[str, RenderEngine]:
    return {name: open_engine(bundle, name, thread_count=1) for name in BACKENDS}


@pytest.mark.parametrize(("preset", "seed"), [("nano", 3), ("lite", 4)])
def test_every_backend_gives_the_pictures_of_torch(tmp_path: Path, preset: str, seed: int) -> None:
    path = write_nano_bundle(tmp_path / "avatar", seed=seed, preset=preset)
    engines = open_all(read_bundle(path))
    for number in range(32):
        sample = random_input(engines["torch"], seed=number)
        expected = engines["torch"].render(sample)
        for name in CACHED:
            output = engines[name].render(sample)
            error = np.abs(output.image.astype(int) - expected.image)
            # One step of uint8: two runtimes may round a value between two steps differently.
            assert error.max() <= 1, name
            assert error.mean() < 0.01, name
            assert np.abs(output.mask.astype(int) - expected.mask).max() <= 1, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_engine_renders_a_batch_sample_by_sample(bundle: AvatarBundle, backend: str) -> None:
    engine = open_engine(bundle, backend, thread_count=1)
    assert engine.info.backend == backend
    assert engine.info.image_size_px == 128
    samples = [random_input(engine, seed=seed) for seed in (1, 2)]
    fields = ("texture_rendering", "uv_rendering", "face_mask")
    batch = RenderInput(*(np.concatenate([getattr(s, name) for s in samples]) for name in fields))
    together = engine.render(batch)
    assert together.image.shape == (2, 128, 128, 3)
    assert together.image.dtype == np.uint8
    assert together.mask.shape == (2, 128, 128)
    alone = engine.render(samples[1])
    assert np.abs(together.image[1].astype(int) - alone.image[0]).max() <= 1
    engine.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_picture_stays_what_it_was_when_the_next_is_rendered(
    bundle: AvatarBundle, backend: str
) -> None:
    engine = open_engine(bundle, backend, thread_count=1)
    first = engine.render(random_input(engine, seed=1))
    copy = first.image.copy()
    engine.render(random_input(engine, seed=2))
    assert np.array_equal(first.image, copy)


def test_torch_uses_the_threads_it_was_given_while_it_renders(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = torch.get_num_threads(), []
    engine = open_engine(bundle, "torch", thread_count=before + 1)
    forward = FrozenGenerator.forward

    def watch(self: FrozenGenerator, *inputs: torch.Tensor) -> object:
        seen.append(torch.get_num_threads())
        return forward(self, *inputs)

    monkeypatch.setattr(FrozenGenerator, "forward", watch)
    engine.render(random_input(engine))
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_input_of_a_wrong_size_fails_this_frame_only(bundle: AvatarBundle, backend: str) -> None:
    engine = open_engine(bundle, backend, thread_count=1)
    good = random_input(engine)
    bad = type(good)(good.texture_rendering[:, :-2], good.uv_rendering, good.face_mask)
    with pytest.raises(RenderError):
        engine.render(bad)
    assert engine.render(good).image.any()


@pytest.mark.parametrize("backend", CACHED)
def test_engine_is_cached_by_digest_and_built_anew_when_damaged(
    bundle: AvatarBundle, cache: Path, backend: str
) -> None:
    open_engine(bundle, backend)
    wait_until_kept()
    (entry,) = cache.glob("*.engine")
    assert entry.name.startswith(bundle.digest[:32])
    contents = entry.read_bytes()
    again = open_engine(bundle, backend)
    assert again.render(random_input(again)).image.any()
    assert entry.read_bytes() == contents
    entry.write_bytes(b"damaged")
    assert open_engine(bundle, backend).info.backend == backend
    wait_until_kept()
    assert entry.stat().st_size > 1000


def test_what_is_built_sooner_than_read_is_not_cached(
    bundle: AvatarBundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_KEPT_BYTES", 1000)
    for backend in CACHED:
        open_engine(bundle, backend)
    open_engine(bundle, "onnxruntime", precision="int8")
    wait_until_kept()
    (entry,) = cache.glob("*-onnxruntime*.engine")
    assert "int8" in entry.name
    assert not list(cache.glob("*-openvino*.engine"))


def test_a_cached_engine_opens_without_the_weights(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CACHED:
        open_engine(bundle, name)
    wait_until_kept()

    def fail(bundle: AvatarBundle) -> None:
        raise AssertionError("the generator was frozen again")

    monkeypatch.setattr(parts, "load_frozen", fail)
    for name in CACHED:
        assert open_engine(bundle, name).info.backend == name


def test_auto_measures_once_per_machine_and_remembers(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By backend, with two threads, then with one: the engines are measured in this order.
    times = {"torch": [4.0, 5.0], "onnxruntime": [2.0, 1.0], "openvino": [3.0, 6.0]}
    opened: list[int] = []
    calls: list[str] = []

    class Watched(OnnxEngine):
        def __init__(self, model: bytes, *, thread_count: int, **rest: Any) -> None:
            opened.append(thread_count)
            super().__init__(model, thread_count=thread_count, **rest)

    def measure(engine: RenderEngine) -> float:
        calls.append(engine.info.backend)
        return times[engine.info.backend][calls.count(engine.info.backend) - 1]

    monkeypatch.setattr(selection, "measure_frame_s", measure)
    monkeypatch.setattr(selection, "usable_core_count", lambda: 2)
    monkeypatch.setattr(onnx_engine, "OnnxEngine", Watched)
    for _ in range(2):
        engine = open_engine(bundle, thread_count=2)
        assert engine.info.backend == "onnxruntime"
        assert opened[-1] == 1
        assert engine.render(random_input(engine)).image.any()
    assert sorted(calls) == sorted(2 * BACKENDS)
    calls.clear()
    open_engine(bundle, thread_count=1)
    assert sorted(calls) == sorted(BACKENDS)


def test_auto_takes_the_fastest_that_has_the_precision(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"torch": 1.0, "onnxruntime": 2.0, "openvino": 3.0}
    calls: list[str] = []

    def measure(engine: RenderEngine) -> float:
        calls.append(engine.info.backend)
        return times[engine.info.backend]

    monkeypatch.setattr(selection, "measure_frame_s", measure)
    opened = [
        open_engine(bundle, precision=precision, thread_count=1).info.backend
        for precision in ("int8", "bf16", "fp32")
    ]
    assert opened == ["onnxruntime", "openvino", "torch"]
    assert sorted(calls) == sorted(BACKENDS)
    monkeypatch.setattr(selection, "automatic_backends", lambda: ["torch"])
    with pytest.raises(EngineUnavailableError, match=r"precision .bf16.*OpenVINO"):
        open_engine(bundle, precision="bf16", thread_count=1)


def test_auto_does_without_a_runtime_that_does_not_work(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(avatar: OpeningAvatar) -> RenderEngine:
        raise ImportError("libopenvino.so: cannot enable executable stack")

    for name in ("onnxruntime", "openvino"):
        broken = replace(selection.BACKENDS[name], open=fail)
        monkeypatch.setitem(selection.BACKENDS, name, broken)
    for _ in range(2):  # measured, and remembered for a while
        engine = open_engine(bundle, thread_count=1)
        assert engine.info.backend == "torch"
    warned = [record.why for record in caplog.records if "does not work" in record.message]
    assert warned == ["libopenvino.so: cannot enable executable stack"] * 2
    monkeypatch.setitem(
        selection.BACKENDS, "torch", replace(selection.BACKENDS["torch"], open=fail)
    )
    monkeypatch.setattr(selection.CalibrationMemory, "recall", lambda *_: None)
    with pytest.raises(ImportError, match="executable stack"):
        open_engine(bundle, thread_count=1)


def test_auto_closes_what_opens_and_cannot_render(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    class Failing(OnnxEngine):
        def _render(self, inputs: RenderInput) -> RenderOutput:
            raise RuntimeError("no room for it")

        def close(self) -> None:
            closed.append("onnxruntime")
            super().close()

    monkeypatch.setattr(onnx_engine, "OnnxEngine", Failing)
    monkeypatch.setattr(selection, "automatic_backends", lambda: ["torch", "onnxruntime"])
    assert open_engine(bundle, thread_count=1).info.backend == "torch"
    assert closed == ["onnxruntime"]


def test_auto_really_measures(bundle: AvatarBundle, cache: Path) -> None:
    engine = open_engine(bundle, thread_count=1)
    assert engine.render(random_input(engine)).image.any()
    assert engine.info.backend in (cache / "calibration.json").read_text()


def test_nothing_is_skipped_for_want_of_a_runtime() -> None:
    assert BACKENDS == ["torch", "onnxruntime", "openvino"]


def test_unknown_backend_is_refused(bundle: AvatarBundle) -> None:
    with pytest.raises(
        InvalidInputError, match="no rendering backend 'abacus'; choose one of auto"
    ):
        open_engine(bundle, "abacus")


def test_backend_that_is_not_installed_is_said_so_and_left_out(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name)
    )
    with pytest.raises(EngineUnavailableError, match="needs openvino, which is not installed"):
        open_engine(bundle, "openvino")
    assert open_engine(bundle, thread_count=1).info.backend in ("torch", "onnxruntime")


def test_weights_of_another_preset_are_refused(bundle: AvatarBundle, tmp_path: Path) -> None:
    weights = bundle.generator()
    weights.pop("mask_conv.weight")
    path = write_bundle(
        tmp_path / "odd",
        bundle.manifest,
        generator=weights,
        features=bundle.features(),
        preview_jpeg=b"-",
    )
    with pytest.raises(AssetError, match="do not fit its preset 'nano'"):
        load_frozen(read_bundle(path))
