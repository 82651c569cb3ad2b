# SPDX-License-Identifier: Apache-2.0
"""Engines of a real bundle: they agree, are chosen, cached and refused."""

from pathlib import Path

import numpy as np
import pytest

from styleavatar_core.avatar.bundle import AvatarBundle, read_bundle, write_bundle
from styleavatar_core.engine import selection
from styleavatar_core.engine.cache import cache_folder, onnx_path
from styleavatar_core.engine.loading import load_frozen
from styleavatar_core.engine.selection import forget_calibration, open_engine
from styleavatar_core.errors import AssetError, InvalidInputError, RenderError
from styleavatar_core.export.parity import compare_engines, random_input
from tests.fakes.nano_bundle import write_nano_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> AvatarBundle:
    return read_bundle(write_nano_bundle(tmp_path_factory.mktemp("bundle") / "avatar"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget_calibration()
    return cache_folder()


def test_onnx_runtime_gives_the_picture_of_torch(bundle: AvatarBundle) -> None:
    parity = compare_engines(open_engine(bundle, "torch"), open_engine(bundle, "onnxruntime"))
    # One step of uint8: the two may round a value between two steps differently.
    assert parity.image_error <= 1
    assert parity.mask_error <= 1
    assert parity.image_mean_error < 0.01


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_engine_renders_a_batch_sample_by_sample(bundle: AvatarBundle, backend: str) -> None:
    engine = open_engine(bundle, backend, thread_count=1)
    assert engine.info.backend == backend
    assert engine.info.image_size_px == 128
    samples = [random_input(engine, seed=seed) for seed in (1, 2)]
    fields = ("texture_rendering", "uv_rendering", "face_mask")
    batch = type(samples[0])(
        *(np.concatenate([getattr(s, name) for s in samples]) for name in fields)
    )
    together = engine.render(batch)
    assert together.image.shape == (2, 128, 128, 3)
    assert together.image.dtype == np.uint8
    assert together.mask.shape == (2, 128, 128)
    alone = engine.render(samples[1])
    assert np.abs(together.image[1].astype(int) - alone.image[0]).max() <= 1
    engine.close()


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_input_of_a_wrong_size_fails_this_frame_only(bundle: AvatarBundle, backend: str) -> None:
    engine = open_engine(bundle, backend, thread_count=1)
    good = random_input(engine)
    bad = type(good)(good.texture_rendering[:, :-2], good.uv_rendering, good.face_mask)
    with pytest.raises(RenderError):
        engine.render(bad)
    assert engine.render(good).image.any()


def test_graph_is_cached_by_digest_and_written_anew_when_damaged(bundle: AvatarBundle) -> None:
    open_engine(bundle, "onnxruntime")
    path = onnx_path(bundle.digest)
    written = path.stat().st_mtime_ns
    open_engine(bundle, "onnxruntime")
    assert path.stat().st_mtime_ns == written
    path.write_bytes(b"damaged")
    assert open_engine(bundle, "onnxruntime").info.backend == "onnxruntime"
    assert path.stat().st_size > 1000


def test_auto_measures_once_and_remembers(
    bundle: AvatarBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"torch": 1.0, "onnxruntime": 2.0}
    calls: list[str] = []

    def measure(engine, frame_count: int = 1) -> float:
        calls.append(engine.info.backend)
        return times[engine.info.backend]

    monkeypatch.setattr(selection, "measure_frame_s", measure)
    assert open_engine(bundle).info.backend == "torch"
    assert open_engine(bundle).info.backend == "torch"
    assert sorted(calls) == ["onnxruntime", "torch"]


def test_auto_really_measures(bundle: AvatarBundle) -> None:
    engine = open_engine(bundle, thread_count=1)
    assert selection.measure_frame_s(engine, 1) > 0


def test_unknown_backend_is_refused(bundle: AvatarBundle) -> None:
    with pytest.raises(InvalidInputError, match="tensorrt"):
        open_engine(bundle, "tensorrt")


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
