# SPDX-License-Identifier: Apache-2.0
"""Freezing does less work, not the same work faster; the benchmark counts it right."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.engine_parts.measuring import Case, measure
from benchmarks.engine_parts.work import ConvolutionCounter, frozen_work, roofline_ms, trained_gflop
from styleavatar_core.engine.freeze import freeze
from styleavatar_core.networks import get_preset
from tests.fakes.networks import UntrainedAvatar
from tests.unit.core.engine.test_freeze import noisy_nano


@pytest.mark.parametrize(
    ("make_config", "least_saving"), [(lambda: get_preset("nano"), 0.04), (noisy_nano, 0.03)]
)
def test_a_frozen_frame_is_less_work(make_config, least_saving: float) -> None:
    avatar = UntrainedAvatar.make(make_config())
    frozen = freeze(avatar.generator, avatar.style, avatar.face, avatar.background)
    gflop, gigabytes = frozen_work(frozen)
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


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_engine_is_built_loaded_and_measured(precision: str) -> None:
    figures = measure(Case("nano", "openvino", precision, 1, 1, 0.0, 1))
    assert {"build_s", "load_s", "memory_mb", "psnr_db", "ms_p50", "ms_p99"} == set(figures)
    assert figures["psnr_db"] is not None
    assert figures["psnr_db"] > (60 if precision == "fp32" else 25)
