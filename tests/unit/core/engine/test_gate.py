# SPDX-License-Identifier: Apache-2.0
"""Low precision is used only where its pictures are those of fp32."""

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle, write_bundle
from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.avatar.statistics import ParameterStatistics
from styleavatar_core.engine import gate, reference, selection
from styleavatar_core.engine.base import RenderOutput, joined
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cache_key import CacheKey
from styleavatar_core.engine.frozen import parts
from styleavatar_core.engine.frozen.freeze import FrozenGenerator
from styleavatar_core.engine.frozen.loading import load_frozen
from styleavatar_core.engine.frozen.parts import FrozenParts
from styleavatar_core.engine.frozen.precision import with_precision
from styleavatar_core.engine.gate import Candidate, judge, open_gated
from styleavatar_core.engine.keeping import wait_until_kept
from styleavatar_core.engine.onnx.graph import onnx_model
from styleavatar_core.engine.onnx.onnx_engine import OnnxEngine
from styleavatar_core.engine.reference import Reference, reference_of, render_reference
from styleavatar_core.engine.selection import open_engine
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.engine.typical_inputs import (
    draw_parameters,
    to_render_input,
    typical_inputs,
)
from styleavatar_core.engine.verdicts import Verdict, VerdictMemory
from styleavatar_core.errors import AssetError, EngineUnavailableError, RenderError
from styleavatar_core.export.parity import random_input


@pytest.mark.parametrize(
    ("backend", "precision", "least_db"),
    [("onnxruntime", "fp16", 45), ("openvino", "fp16", 45), ("onnxruntime", "int8", 40)],
)
def test_what_passes_is_used_and_says_how_far_it_is(
    bundle: AvatarBundle, backend: str, precision: str, least_db: int
) -> None:
    engine = open_engine(bundle, backend, precision=precision, thread_count=1)
    assert engine.info.precision == precision
    assert f"dB against fp32, at least the {least_db} dB asked for" in engine.info.note


@pytest.mark.parametrize(
    ("backend", "precision", "safer"),
    [("openvino", "fp16", "fp32"), ("onnxruntime", "int8", "fp16")],
)
def test_what_fails_is_replaced_by_the_next_safer_with_the_reason(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch, backend: str, precision: str, safer: str
) -> None:
    monkeypatch.setitem(gate.LEAST_PSNR_DB, precision, 98.0)
    engine = open_engine(bundle, backend, precision=precision, thread_count=1)
    assert engine.info.precision == safer
    assert f"{precision} gives" in engine.info.note
    assert "less than the 98 dB asked for" in engine.info.note


def test_an_avatar_is_judged_once(bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_engine(bundle, "onnxruntime", precision="fp16", thread_count=1)

    def fail(*arguments: object) -> None:
        raise AssertionError("judged again")

    monkeypatch.setattr(gate, "judge", fail)
    monkeypatch.setattr(selection, "reference_of", fail)
    again = open_engine(bundle, "onnxruntime", precision="fp16", thread_count=1)
    assert again.info == first.info


def test_the_verdict_lies_beside_the_engine_and_goes_with_it(
    bundle: AvatarBundle, cache: Path
) -> None:
    engine = open_engine(bundle, "onnxruntime", precision="fp16", thread_count=1)
    wait_until_kept()
    (entry,) = cache.glob("*fp16*.engine")
    note = json.loads(entry.with_suffix(".txt").read_text())
    assert note["reason"] == engine.info.note
    assert note["psnr_db"] > 45
    EngineCache().forget(bundle.digest)  # the reference pictures, too
    assert not [path for path in cache.iterdir() if not path.name.startswith(".")]


def test_an_avatar_deleted_while_it_is_opened_leaves_nothing_or_is_told(
    bundle: AvatarBundle,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    copy = read_bundle(shutil.copytree(bundle.path, tmp_path / "copy"))

    def made_and_deleted(*arguments: Any) -> Reference:
        made = reference_of(*arguments)
        shutil.rmtree(copy.path)
        return made

    monkeypatch.setattr(selection, "reference_of", made_and_deleted)
    open_engine(copy, "torch", precision="fp16", thread_count=1)
    assert not copy.path.exists()
    assert not list(cache.glob(f"*{copy.digest[:32]}*"))
    assert "cannot be removed" not in caplog.text
    (cache / f".{copy.digest[:32]}").mkdir()  # what cannot be unlinked
    with pytest.raises(AssetError):  # not that it cannot be forgotten
        open_engine(copy, "torch", precision="fp16", thread_count=1)
    assert "engines of a deleted avatar cannot be removed" in caplog.text


def test_the_reference_is_made_once(bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = FrozenParts(bundle)
    first = reference_of(frozen, EngineCache(), 1)
    monkeypatch.setattr(reference, "render_reference", None)
    again = reference_of(frozen, EngineCache(), 1)
    assert np.array_equal(first.outputs.image, again.outputs.image)
    assert np.array_equal(first.outputs.mask, again.outputs.mask)
    assert np.array_equal(first.inputs.uv_rendering, again.inputs.uv_rendering)
    assert first.outputs.image.shape == (4, 128, 128, 3)
    assert first.outputs.image.std() > 1


def test_engines_are_judged_by_held_out_frames_where_there_are_such(
    bundle: AvatarBundle, tmp_path: Path
) -> None:
    statistics = ParameterStatistics.from_dict(bundle.manifest.statistics)
    rng = np.random.default_rng(7)
    frames = [draw_parameters(statistics, rng) for _ in range(9)]
    path = write_bundle(
        tmp_path / "held-out",
        bundle.manifest,
        generator=bundle.generator(),
        features=bundle.features(),
        preview_jpeg=b"-",
        held_out=frames,
    )
    frozen = FrozenParts(read_bundle(path))
    judged = reference_of(frozen, EngineCache(), 1).inputs
    assert len(judged.face_mask) == 4
    model, identity = bundle.manifest.face_model(), bundle.manifest.face_identity
    renderer = ConditioningRenderer(model, identity, frozen.info.rendering_size_px)
    for index, frame in ((0, frames[0]), (-1, frames[8])):
        shown = to_render_input(renderer.render(frame), frozen.info, bundle.manifest)
        assert np.array_equal(judged.uv_rendering[index], shown.uv_rendering[0])
        assert np.array_equal(judged.texture_rendering[index], shown.texture_rendering[0])


def test_an_avatar_is_frozen_once_for_engine_and_gate(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = []
    load = parts.load_frozen

    def watch(*arguments: Any, **more: Any) -> FrozenGenerator:
        frozen.append(arguments)
        return load(*arguments, **more)

    monkeypatch.setattr(parts, "load_frozen", watch)
    open_engine(bundle, "onnxruntime", precision="fp16", thread_count=1)
    assert len(frozen) == 1


def test_the_runtimes_version_is_said(bundle: AvatarBundle) -> None:
    engine = open_engine(bundle, "onnxruntime", thread_count=1)
    assert engine.info.version == importlib.metadata.version("onnxruntime")


def test_overflow_is_refused(bundle: AvatarBundle) -> None:
    frozen = load_frozen(bundle)
    broken = with_precision(load_frozen(bundle), "fp16")
    for parameter in broken.generator.synthesis.decoder.parameters():
        parameter.data *= 3e4  # beyond fp16: infinite, then not a number
    inputs = joined(typical_inputs(bundle.manifest, TorchEngine(frozen).info, 2))
    engine = OnnxEngine(onnx_model(broken).SerializeToString(), thread_count=1, precision="fp16")
    verdict = judge(engine, render_reference(load_frozen(bundle), None, inputs))
    assert not verdict.is_accepted
    assert verdict.psnr_db < 20


def test_one_wrong_mask_among_right_pictures_is_enough(bundle: AvatarBundle) -> None:
    engine = TorchEngine(load_frozen(bundle))
    inputs = joined(typical_inputs(bundle.manifest, engine.info, 2))
    truth = render_reference(load_frozen(bundle), None, inputs)
    assert judge(engine, truth).is_accepted
    mask = truth.outputs.mask.copy()
    mask[1] = 255 - mask[1]
    wrong = Reference(truth.inputs, RenderOutput(truth.outputs.image, mask))
    assert judge(engine, wrong).psnr_db < 20


def test_what_is_judged_anew_and_refused_is_closed_whatever_was_found_before(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(load_frozen(bundle))
    closed: list[str] = []
    monkeypatch.setattr(engine, "close", lambda: closed.append("closed"))
    key, memory = CacheKey(bundle.digest, "torch", "1"), VerdictMemory(EngineCache())
    memory.remember(key, Verdict("fp32", 99.0))
    black = Reference(random_input(engine), RenderOutput(*np.zeros((2, 1, 1, 1), np.uint8)))
    shared = Candidate("fp32", lambda: engine, key, is_judged_anew=True)
    with pytest.raises(EngineUnavailableError, match="no engine gives the avatar's pictures"):
        open_gated([shared], lambda: black, memory)
    assert closed == ["closed"]
    assert not memory.recall(key).is_accepted


def test_what_fails_for_want_of_memory_is_judged_again_next_time(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as short_of_memory:
        short_of_memory.setattr(OnnxEngine, "_render", fail)
        engine = open_engine(bundle, "onnxruntime", precision="fp16", thread_count=1)
        assert engine.info.precision == "fp32"  # not judged on a CPU
        assert "fp16 could not render" in engine.info.note
    engine = open_engine(bundle, "onnxruntime", precision="fp16", thread_count=1)
    assert engine.info.precision == "fp16"


def test_when_nothing_can_render_the_reason_is_told(
    bundle: AvatarBundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(TorchEngine, "_render", fail)
    engine = TorchEngine(load_frozen(bundle))
    closed: list[str] = []
    monkeypatch.setattr(engine, "close", lambda: closed.append("closed"))
    key = CacheKey(bundle.digest, "torch", "1")
    candidates = [Candidate(name, lambda: engine, key) for name in ("fp16", "fp32")]
    truth = Reference(random_input(engine), RenderOutput(*np.zeros((2, 1, 1, 1), np.uint8)))
    with pytest.raises(RenderError, match="no room") as caught:
        open_gated(candidates, lambda: truth, VerdictMemory(EngineCache()))
    assert isinstance(caught.value.__cause__, MemoryError)
    assert closed == ["closed", "closed"]
    assert not list(cache.glob("*.txt"))


def test_an_engine_that_cannot_be_made_ready_has_no_verdict(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError("no room")

    engine = TorchEngine(load_frozen(bundle))
    monkeypatch.setattr(engine, "warm_up", fail)
    sample = random_input(engine)
    with pytest.raises(RenderError, match="could not be made ready: no room"):
        judge(engine, Reference(sample, engine.render(sample)))


def test_an_engine_that_cannot_render_has_no_verdict(bundle: AvatarBundle) -> None:
    frozen = load_frozen(bundle)
    sample = random_input(TorchEngine(load_frozen(bundle)))
    truth = render_reference(frozen, None, sample)
    bad = type(sample)(sample.texture_rendering[:, :-2], sample.uv_rendering, sample.face_mask)
    half = TorchEngine(with_precision(frozen, "fp16"))
    with pytest.raises(RenderError):
        judge(half, Reference(bad, truth.outputs))


@pytest.mark.parametrize(
    ("precision", "psnr_db", "is_accepted"),
    [
        ("bf16", 45.0, True),
        ("fp16", 45.0, True),
        ("fp16", 44.9, False),
        ("int8", 40.0, True),
        ("int8", 39.9, False),
    ],
)
def test_the_gate_is_where_it_is_stated(precision: str, psnr_db: float, is_accepted: bool) -> None:
    assert Verdict(precision, psnr_db).is_accepted == is_accepted


def test_typical_inputs_show_faces_that_differ(bundle: AvatarBundle) -> None:
    info = TorchEngine(load_frozen(bundle)).info
    inputs = typical_inputs(bundle.manifest, info, 3)
    assert len(inputs) == 3
    assert inputs[0].texture_rendering.shape == (1, 128, 128, 3)
    assert not np.array_equal(inputs[0].texture_rendering, inputs[1].texture_rendering)
    again = typical_inputs(bundle.manifest, info, 3)
    assert np.array_equal(inputs[2].uv_rendering, again[2].uv_rendering)
