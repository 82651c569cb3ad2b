# SPDX-License-Identifier: Apache-2.0
"""How avatars come to a plan of TensorRT, with a stand-in that computes their graphs on the CPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle, write_bundle
from styleavatar_core.engine import backends, selection
from styleavatar_core.engine.base import INPUT_NAMES, RenderEngine, joined
from styleavatar_core.engine.cache import EngineCache
from styleavatar_core.engine.cuda.stream import Tensors, Work
from styleavatar_core.engine.frozen.loading import load_frozen
from styleavatar_core.engine.frozen.parts import FrozenParts
from styleavatar_core.engine.opening import OpeningAvatar
from styleavatar_core.engine.reference import render_reference
from styleavatar_core.export.parity import random_input
from tests.fakes.host_stream import HostStream
from tests.fakes.nano_bundle import write_nano_bundle
from tests.fakes.tensorrt_runtime import BuilderFlag, Faults


def test_a_process_has_one_logger(faults: Faults) -> None:
    """TensorRT keeps a pointer to the first, which must not go with the avatar it came with."""
    from styleavatar_core.engine.tensorrt import build

    assert build.process_logger() is build.process_logger()


def open_tensorrt(bundle: AvatarBundle, precision: str | None = None) -> RenderEngine:
    return selection.open_engine(bundle, "tensorrt", precision=precision, thread_count=1)


@pytest.fixture
def other(tmp_path: Path) -> AvatarBundle:
    return read_bundle(write_nano_bundle(tmp_path / "other", seed=5))


def assert_shows(engine: RenderEngine, bundle: AvatarBundle, tolerance: int = 1) -> None:
    """Fails unless an engine gives a bundle's pictures, each of a batch its own."""
    inputs = joined([random_input(engine, seed=seed) for seed in range(3)])
    truth = render_reference(load_frozen(bundle), None, inputs).outputs
    output = engine.render(inputs)
    assert np.abs(output.image.astype(int) - truth.image).max() <= tolerance
    assert np.abs(output.mask.astype(int) - truth.mask).max() <= tolerance
    assert np.abs(truth.image[0].astype(int) - truth.image[1]).max() > 2 * tolerance


def test_avatars_of_a_preset_share_a_plan_and_keep_their_pictures(
    bundle: AvatarBundle, other: AvatarBundle, faults: Faults
) -> None:
    engines = [open_tensorrt(avatar, precision="fp32") for avatar in (bundle, other)]
    assert len(faults.configs) == 1
    assert BuilderFlag.REFIT_INDIVIDUAL in faults.configs[0].flags
    for engine, avatar in zip(engines, (bundle, other), strict=True):
        assert_shows(engine, avatar)
        assert engine.info.version == "11.4.0.106 on sm90-A GPU"
        assert "fp32 gives" in engine.info.note
        engine.close()


def test_fp32_is_not_rounded_to_tf32(bundle: AvatarBundle, faults: Faults) -> None:
    open_tensorrt(bundle, precision="fp32")
    assert BuilderFlag.TF32 not in faults.configs[0].flags


def test_fp16_is_what_a_gpu_computes_in(bundle: AvatarBundle, faults: Faults) -> None:
    engine = open_tensorrt(bundle)
    assert engine.info.precision == "fp16"
    assert_shows(engine, bundle, tolerance=4)


def test_nothing_of_a_person_is_in_what_others_share(
    bundle: AvatarBundle, cache: Path, faults: Faults
) -> None:
    open_tensorrt(bundle, precision="fp32")
    EngineCache().forget(bundle.digest)
    kept = [path.read_bytes() for path in cache.iterdir()]
    assert max(map(len, kept)) > 100_000  # the plan
    model = OpeningAvatar(FrozenParts(bundle), EngineCache(), 1).device_onnx()
    personal = [
        numpy_helper.to_array(tensor).tobytes()
        for tensor in model.graph.initializer
        if "generator." in tensor.name and numpy_helper.to_array(tensor).size > 8
    ]
    personal = [values for values in personal if any(values)]
    assert len(personal) > 20
    assert not [1 for values in personal for contents in kept if values in contents]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refuses_refit", "do not fit the engine"),
        ("misses_weights", "lacks 1 weights after its refit"),
        ("fails_to_refit", "could not refit the engine"),
        ("spoils_refits", "less than the 60 dB"),
    ],
)
def test_an_avatar_that_cannot_be_put_into_the_plan_gets_its_own(
    bundle: AvatarBundle,
    other: AvatarBundle,
    cache: Path,
    faults: Faults,
    fault: str,
    reason: str,
) -> None:
    open_tensorrt(other, precision="fp32")
    setattr(faults, fault, True)
    engine = open_tensorrt(bundle, precision="fp32")
    assert_shows(engine, bundle)
    assert reason in engine.info.note
    assert len(faults.configs) == 2
    assert BuilderFlag.REFIT_INDIVIDUAL not in faults.configs[1].flags
    again = open_tensorrt(bundle, precision="fp32")
    assert len(faults.configs) == 2  # its own plan is in the cache
    assert_shows(again, bundle)
    EngineCache().forget(bundle.digest)
    left = [path.name for path in cache.glob("*.engine")]
    assert not [name for name in left if name.startswith(bundle.digest[:32])]


@pytest.mark.parametrize("shortage", [{"lacks_memory": True}, {"free_bytes": 100_000}])
def test_no_plan_is_built_because_memory_is_short(
    bundle: AvatarBundle,
    other: AvatarBundle,
    faults: Faults,
    shortage: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_tensorrt(other, precision="fp32")
    with monkeypatch.context() as short_of_memory:
        for name, value in shortage.items():
            short_of_memory.setattr(faults, name, value)
        with pytest.raises(MemoryError, match="failed to allocate memory"):
            open_tensorrt(bundle, precision="fp32")
    assert len(faults.configs) == 1
    assert_shows(open_tensorrt(bundle, precision="fp32"), bundle)


def test_a_refit_is_judged_each_time(bundle: AvatarBundle, faults: Faults) -> None:
    assert "; " not in open_tensorrt(bundle, precision="fp16").info.note
    faults.spoils_refits = True
    engine = open_tensorrt(bundle, precision="fp16")
    assert "less than the 45 dB asked for; fp16 gives" in engine.info.note
    assert_shows(engine, bundle, tolerance=4)


def test_a_plan_of_another_machine_is_built_anew(
    bundle: AvatarBundle, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    open_tensorrt(bundle, precision="fp32")
    faults.machine = "second"
    assert_shows(open_tensorrt(bundle, precision="fp32"), bundle)
    assert len(faults.configs) == 2
    assert "cached engine is unusable, building anew" in caplog.text


@pytest.mark.parametrize("how", ["when created", "when set"])
def test_measurements_of_another_driver_are_made_anew(
    bundle: AvatarBundle, other: AvatarBundle, faults: Faults, how: str
) -> None:
    def build_own(avatar: AvatarBundle) -> bytes:
        opening = OpeningAvatar(FrozenParts(avatar), EngineCache(), 1, has_own_plan=True)
        backends.get_backend("tensorrt").open(opening)
        timings = faults.configs[-1].timings
        assert timings is not None
        return timings.contents

    assert build_own(bundle) == b""
    assert build_own(other) == b"measured "
    faults.refused_timings = how
    assert build_own(third(bundle)) == b""


def test_plans_of_all_and_of_one_avatar_share_what_was_measured(
    bundle: AvatarBundle, cache: Path, faults: Faults
) -> None:
    opening = OpeningAvatar(FrozenParts(bundle), EngineCache(), 1)
    for is_own in (False, True):
        backends.get_backend("tensorrt").open(replace(opening, has_own_plan=is_own))
    given = [config.timings.contents for config in faults.configs if config.timings]
    assert given == [b"", b"measured "]
    assert len(list(cache.glob("timing*"))) == 1


def third(bundle: AvatarBundle) -> AvatarBundle:
    """Returns the same avatar under another digest."""
    manifest = bundle.manifest.model_copy(update={"style_time": 0.25})
    path = bundle.path.with_name("third")
    write_bundle(
        path,
        manifest,
        generator=bundle.generator(),
        features=bundle.features(),
        preview_jpeg=b"-",
    )
    return read_bundle(path)


def test_a_plan_of_eight_bits_is_the_avatars_own(
    bundle: AvatarBundle, other: AvatarBundle, faults: Faults
) -> None:
    for avatar in (bundle, other):
        engine = open_tensorrt(avatar, precision="int8")
        assert engine.info.precision == "int8"
    assert [BuilderFlag.REFIT_INDIVIDUAL in config.flags for config in faults.configs] == [
        False,
        False,
    ]


@pytest.mark.parametrize("captures", [True, False])
def test_frames_are_rendered_whether_they_can_be_captured_or_not(
    bundle: AvatarBundle, faults: Faults, monkeypatch: pytest.MonkeyPatch, captures: bool
) -> None:
    streams: list[HostStream] = []

    def make() -> HostStream:
        streams.append(HostStream(captures=captures))
        return streams[-1]

    module = sys.modules["styleavatar_core.engine.tensorrt.engine"]
    monkeypatch.setattr(module, "CudaStream", make)
    engine = open_tensorrt(bundle, precision="fp32")
    engine.warm_up()
    assert_shows(engine, bundle)
    assert streams[-1].capture_count == 1
    assert streams[-1].replay_count == (4 + 3 if captures else 0)  # the gate's four, too
    sample = random_input(engine)
    image, _ = engine.launch([torch.from_numpy(getattr(sample, name)) for name in INPUT_NAMES])
    assert np.array_equal(image.numpy(), engine.render(sample).image)


def test_samples_come_back_while_others_are_computed_and_are_not_copied_again(
    bundle: AvatarBundle, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    class Stream(HostStream):
        def bring_back(self, sources: Tensors, results: Tensors) -> Work:
            steps.append("given")
            wait = super().bring_back(sources, results)
            return lambda: (steps.append("taken"), wait())[1]

    module = sys.modules["styleavatar_core.engine.tensorrt.engine"]
    monkeypatch.setattr(module, "CudaStream", Stream)
    engine = open_tensorrt(bundle, precision="fp32")
    steps.clear()
    assert_shows(engine, bundle)
    assert steps == ["given"] * 3 + ["taken"] * 3
    first = engine.render(random_input(engine)).image
    before = first.copy()
    engine.render(random_input(engine, seed=9))
    assert np.array_equal(first, before)
    assert not first.flags.owndata  # the pinned memory itself
