# SPDX-License-Identifier: Apache-2.0
"""Freezing does less work, not the same work faster; the benchmark counts it right."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks.engine import held_out_figures, peak_of
from benchmarks.engine_parts.case import Case
from benchmarks.engine_parts.measuring import measure
from benchmarks.engine_parts.peak import peak_gflops
from benchmarks.engine_parts.to_jpeg import jpeg_figures, to_jpeg_figures
from benchmarks.engine_parts.work import (
    ConvolutionCounter,
    Layer,
    Work,
    frozen_work,
    roofline_figures,
    roofline_ms,
    rule_ms,
    trained_gflop,
)
from styleavatar_core.avatar.bundle import AvatarBundle, write_bundle
from styleavatar_core.engine.frozen.freeze import freeze
from styleavatar_core.networks import get_preset
from tests.fakes.networks import UntrainedAvatar
from tests.unit.core.engine.test_freeze import noisy_nano


@pytest.mark.parametrize(
    ("make_config", "least_saving"), [(lambda: get_preset("nano"), 0.04), (noisy_nano, 0.03)]
)
def test_a_frozen_frame_is_less_work(make_config, least_saving: float) -> None:
    avatar = UntrainedAvatar.make(make_config())
    frozen = freeze(avatar.generator, avatar.style, avatar.face, avatar.background)
    gflop, gigabytes, _ = frozen_work(frozen)
    trained = trained_gflop(avatar.config, "cpu")
    assert 0.5 * trained < gflop < (1 - least_saving) * trained
    assert 0 < gigabytes < 1


def test_convolutions_are_counted() -> None:
    x = torch.zeros(1, 4, 10, 10)
    with ConvolutionCounter() as counter:
        F.conv2d(x, torch.zeros(8, 4, 3, 3), padding=1)
        F.conv2d(x, torch.zeros(4, 1, 3, 3), padding=1, groups=4)
        F.conv_transpose2d(x, torch.zeros(4, 2, 4, 4), stride=2)
    assert counter.flop == 2 * 100 * (8 * 4 * 9 + 4 * 9 + 4 * 2 * 16)


def test_the_roofline_is_the_slower_of_arithmetic_and_memory() -> None:
    assert roofline_ms(989.0, 0.0) == pytest.approx(1.0)
    assert roofline_ms(1.0, 4.8) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "compute",
    [
        lambda: peak_gflops("cpu", is_quick=True),
        lambda: measure(Case("nano", "eager", "fp32", 1, 1, 0.0, 1)),
    ],
    ids=["peak", "eager"],
)
def test_fp32_of_a_gpu_is_not_rounded_as_in_the_engines(
    compute: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # what torch begins with
    compute()
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_engine_is_built_loaded_and_measured(precision: str) -> None:
    figures = measure(Case("nano", "openvino", precision, 1, 1, 0.0, 1))
    times = {"build_s", "load_s", "ms_p50", "ms_p99"}
    assert times | {"memory_mb", "next_avatar_memory_mb", "psnr_db"} == set(figures)
    assert figures["psnr_db"] is not None
    assert figures["psnr_db"] > (60 if precision == "fp32" else 25)


def test_more_avatars_of_a_preset_are_counted_and_render_at_once() -> None:
    figures = measure(Case("nano", "onnxruntime", "fp32", 2, 1, 0.0, 1, stream_count=2))
    assert {"next_avatar_memory_mb", "streams2.frames_per_s", "ms_p50", "refit_s"} - set(
        figures
    ) == {"refit_s"}  # nothing but TensorRT refits
    assert figures["streams2.frames_per_s"] > 0


def test_the_way_from_parameters_to_jpeg_is_measured(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # set by what is called; put back here
    figures = to_jpeg_figures("nano", "onnxruntime", str(tmp_path), 1, 1, 0.0)
    whole, network = (
        figures[f"nano.onnxruntime.fp32.{name}_ms_p50"] for name in ("to_jpeg", "to_jpeg.network")
    )
    assert 0 < network < whole
    assert (jpeg_figures()["jpeg.turbo_ms"] or 0) > 0


def test_peaks_are_measured_where_engines_render() -> None:
    assert peak_gflops("cpu", is_quick=True) > 0.1
    assert peak_of("fp16", {"fp32": 2.0}) == 2.0
    assert peak_of("int8", {"fp32": 2.0, "fp16": 9.0}) == 9.0


def test_the_rule_for_presets_and_the_layers_of_a_roofline() -> None:
    work = Work(10.0, 1.0, [Layer(989.0, 0.0, 0.0), Layer(0.0, 0.0, 4.8)])
    assert rule_ms(work, 1000) == pytest.approx(3 + 42 + 43)
    # The first layer waits for arithmetic, the second for weights, which a batch shares.
    figures = roofline_figures(work)
    assert figures["h200_fp16_layers_ms"] == pytest.approx(2.0)
    assert figures["h200_fp16_b8_frames_per_s"] == pytest.approx(8e3 / 9)


def test_a_trained_avatars_quality_stands_beside_its_preset(
    bundle: AvatarBundle, tmp_path: Path
) -> None:
    path = write_bundle(
        tmp_path / "kim",
        bundle.manifest.model_copy(update={"metrics": {"psnr_db": 31.5}}),
        generator=bundle.generator(),
        features=bundle.features(),
        preview_jpeg=b"-",
    )
    assert held_out_figures("nano", [path]) == {"kim.held_out_psnr_db": 31.5}
    assert held_out_figures("lite", [path]) == {}
