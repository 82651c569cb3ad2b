# SPDX-License-Identifier: Apache-2.0
"""What torch on a CPU does in channels-last layout is what the networks define."""

import pytest
import torch
import torch.nn.functional as F

from styleavatar_core.engine import cpu_composition
from styleavatar_core.engine.cpu_composition import NearestFace, PixelsToImage
from styleavatar_core.networks.composition import FaceSampler, crop_windows_linspace
from styleavatar_core.networks.feature_generator import FeatureMaps


def test_a_face_in_a_table_is_the_face() -> None:
    maps = FeatureMaps(torch.randn(1, 5, 16, 16), torch.randn(1, 12, 16, 16))
    uv = torch.rand(2, 2, 8, 8)
    uv[0, :, 0, :4] = torch.tensor([0.0, 1.0, 0.5, 1 / 32])  # corners, edges of texels
    mask = (torch.rand(2, 1, 8, 8) > 0.4).float()
    defined = FaceSampler("nearest", 1)(maps, uv, mask)
    for part, expected in zip(NearestFace(maps)(maps, uv, mask), defined, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pixels_are_put_where_pixel_shuffle_puts_them(
    monkeypatch: pytest.MonkeyPatch, layout: torch.memory_format
) -> None:
    monkeypatch.setattr(cpu_composition, "_STRIP_BYTES", 1)  # every row a strip
    pixels = torch.randn(2, 12, 5, 7).to(memory_format=layout)
    for least in (1, 10**6):  # with our code, with torch's
        monkeypatch.setattr(cpu_composition, "_LEAST_FLOATS", least)
        assert torch.equal(PixelsToImage()(pixels), F.pixel_shuffle(pixels, 2))


@pytest.mark.parametrize("start", [4, 5])
def test_a_window_is_the_same_in_either_layout(start: int) -> None:
    canvas, starts = torch.randn(2, 3, 20, 20), torch.tensor([[start, 6]])
    cut = crop_windows_linspace(canvas, starts, 8)
    other = crop_windows_linspace(canvas.to(memory_format=torch.channels_last), starts, 8)
    assert other.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(cut, other)
