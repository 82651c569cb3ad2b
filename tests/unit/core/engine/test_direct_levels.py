# SPDX-License-Identifier: Apache-2.0
"""A level that is computed window by window gives what its layers give one after the other."""

import pytest
import torch

from styleavatar_core.engine.cpu import direct_levels
from styleavatar_core.engine.cpu.direct_convs import DirectConv
from styleavatar_core.engine.cpu.direct_levels import DirectLevel
from styleavatar_core.engine.cpu.layers import MatrixConv
from styleavatar_core.engine.cpu.matrix_code import SIDE, has_matrix_unit
from styleavatar_core.engine.cpu.strips import torch_alone
from styleavatar_core.engine.frozen.layers import FrozenConv, FrozenToRGB
from styleavatar_core.ops.upfirdn2d import IMAGE_TAPS

pytestmark = pytest.mark.skipif(
    not has_matrix_unit(), reason="this processor multiplies no matrices"
)
# Rows and columns of a window, and rows of a part: also more than there are, and no divisors.
WINDOWS = [(16, 128, 128), (6, 10, 14), (8, 2, 8)]
SHAPES = [(2, 9, 13), (1, 1, 1), (1, 5, 40)]


def make_layers(slope: float | None) -> tuple[FrozenConv, FrozenConv, FrozenToRGB]:
    inputs, middle, outputs = 2 * SIDE, SIDE, 3 * SIDE
    up, conv = (
        FrozenConv(
            torch.randn(after, before, 3, 3) / (9 * before) ** 0.5,
            torch.randn(after),
            slope=slope,
            noise_strength=0.3,
            up_taps=taps,
        )
        for before, after, taps in ((inputs, middle, IMAGE_TAPS), (middle, outputs, None))
    )
    weight = torch.randn(12, outputs, 1, 1) / outputs**0.5
    return up, conv, FrozenToRGB(weight, torch.randn(12))


@torch.inference_mode()
@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("slope", "is_noisy"), [(0.2, False), (None, True)])
def test_windows_join_to_the_level(
    monkeypatch: pytest.MonkeyPatch,
    windows: tuple[int, int, int],
    shape: tuple[int, int, int],
    slope: float | None,
    is_noisy: bool,
) -> None:
    for name, size in zip(("_ROWS", "_COLUMNS", "_PART_ROWS"), windows, strict=True):
        monkeypatch.setattr(direct_levels, name, size)
    count, height, width = shape
    up, conv, to_rgb = make_layers(slope)
    x = torch.randn(count, 2 * SIDE, height, width)
    before = torch.randn(count, 12, height, width)
    noise = torch.randn(1, 1, 2 * height, 2 * width) if is_noisy else None
    feature = conv(up(x, noise=noise), noise=noise)
    product = MatrixConv(to_rgb.pixels)
    parts = (DirectConv(up), DirectConv(conv), (product.kernels.numpy(), product.bias.numpy()))
    for has_feature in (True, False):
        level = DirectLevel(*parts, has_feature=has_feature)
        for pixels in (None, before):
            with torch_alone(2):
                found, drawn = level(x, None, pixels, noise=noise)
            expected = to_rgb(feature, None, pixels)
            torch.testing.assert_close(drawn, expected, atol=5e-5, rtol=1e-5)
            if has_feature:
                torch.testing.assert_close(found, feature, atol=5e-5, rtol=1e-5)
            else:
                assert found.numel() == 0
