# SPDX-License-Identifier: Apache-2.0
"""What torch on a CPU does in channels-last layout is what the networks define."""

import pytest
import torch
import torch.nn.functional as F

from styleavatar_core.engine.cpu import composition, pixels
from styleavatar_core.engine.cpu.composition import (
    FaceAdder,
    FaceRows,
    SharedBlender,
    SharedCutter,
)
from styleavatar_core.engine.cpu.pixels import (
    PixelsToImage,
    SharedBytes,
    SharedHalving,
    SharedMaskBytes,
    SharedToRGB,
)
from styleavatar_core.engine.frozen.freeze import ImageBytes, MaskBytes
from styleavatar_core.engine.frozen.layers import FrozenToRGB
from styleavatar_core.networks.composition import (
    FaceJoiner,
    FaceSampler,
    LinspaceCutter,
    MaskBlender,
    crop_windows_linspace,
)
from styleavatar_core.networks.feature_generator import FeatureMaps
from styleavatar_core.ops.upfirdn2d import downsample_image


def test_a_face_in_a_table_is_the_face() -> None:
    maps = FeatureMaps(torch.randn(1, 5, 16, 16), torch.randn(1, 12, 16, 16))
    uv = torch.rand(2, 2, 8, 8)
    uv[0, :, 0, :4] = torch.tensor([0.0, 1.0, 0.5, 1 / 32])  # corners, edges of texels
    mask = (torch.rand(2, 1, 8, 8) > 0.4).float()
    behind = [
        torch.randn(2, count, 8, 8).to(memory_format=torch.channels_last) for count in (5, 12)
    ]
    defined = FaceJoiner("add")(*behind, *FaceSampler("nearest", 1)(maps, uv, mask))
    added = FaceAdder(maps)(*behind, *FaceRows(16)(maps, uv, mask))
    for part, expected in zip(added, defined, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixels_are_put_where_pixel_shuffle_puts_them(
    monkeypatch: pytest.MonkeyPatch, layout: torch.memory_format
) -> None:
    monkeypatch.setattr(pixels, "_STRIP_BYTES", 1)  # every row a strip
    blocks = torch.randn(2, 12, 5, 7).to(memory_format=layout)
    for least in (1, 10**6):  # with our code, with torch's
        monkeypatch.setattr(pixels, "_LEAST_FLOATS", least)
        assert torch.equal(PixelsToImage()(blocks), F.pixel_shuffle(blocks, 2))


@pytest.mark.parametrize("start", [4, 5])
def test_a_window_is_the_same_in_either_layout(start: int) -> None:
    canvas, starts = torch.randn(2, 3, 20, 20), torch.tensor([[start, 6]])
    cut = crop_windows_linspace(canvas, starts, 8)
    other = crop_windows_linspace(canvas.to(memory_format=torch.channels_last), starts, 8)
    assert other.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(cut, other)


@pytest.fixture
def small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (composition, pixels):
        monkeypatch.setattr(module, "_STRIP_BYTES", 64)


@pytest.mark.usefixtures("small_strips")
@pytest.mark.parametrize("factor", [1, 2, 8])
def test_masks_are_enlarged_as_torch_enlarges_them(factor: int) -> None:
    masks = torch.rand(2, 1, 6, 9)
    found, expected = (kind(factor)(masks) for kind in (SharedMaskBytes, MaskBytes))
    assert found.shape == (2, 6 * factor, 9 * factor)
    # Sums are rounded in another order: a level of difference where one is just at a half.
    assert (found.int() - expected.int()).abs().max() <= 1
    assert (found != expected).float().mean() < 0.01


@pytest.mark.usefixtures("small_strips")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_threads_share_is_what_the_networks_define(layout: torch.memory_format) -> None:
    canvas = torch.randn(2, 3, 20, 21).to(memory_format=layout)
    starts = torch.tensor([[4, 5]])
    assert torch.equal(SharedCutter()(canvas, starts, 8), LinspaceCutter()(canvas, starts, 8))
    mask, back = torch.rand(2, 1, 20, 21), torch.randn(1, 3, 20, 21)
    blended = SharedBlender()(mask, canvas, back)
    torch.testing.assert_close(blended, MaskBlender()(mask, canvas, back))
    blocks = torch.randn(2, 12, 7, 5).to(memory_format=layout)
    assert torch.equal(SharedBytes()(blocks), ImageBytes()(F.pixel_shuffle(blocks, 2)))


@pytest.mark.usefixtures("small_strips")
@pytest.mark.parametrize("sides", [(10, 14), (2, 2)])
def test_an_image_is_halved_as_it_is_defined(sides: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *sides)
    torch.testing.assert_close(SharedHalving()(images), downsample_image(images))


@pytest.mark.usefixtures("small_strips")
@pytest.mark.parametrize("sides", [(5, 4), (1, 1)])
def test_the_doubled_image_is_added_as_it_is_defined(sides: tuple[int, int]) -> None:
    layer = FrozenToRGB(torch.randn(12, 5, 1, 1), torch.randn(12))
    x, blocks = torch.randn(2, 5, 2 * sides[0], 2 * sides[1]), torch.randn(2, 12, *sides)
    shared = SharedToRGB(layer)
    torch.testing.assert_close(shared(x, None, blocks), layer(x, None, blocks))
    assert torch.equal(shared(x, None, None), layer(x, None, None))
