# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import torch.nn.functional as F

from styleavatar_core.networks.composition import (
    BackgroundCutter,
    TextureSampler,
    crop_windows,
    crop_windows_linspace,
)
from styleavatar_core.networks.feature_generator import FeatureMaps
from styleavatar_core.networks.mapping import position_code


def coordinates(size: int) -> torch.Tensor:
    """A canvas whose two channels are column and row."""
    axis = torch.arange(size, dtype=torch.float32)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([columns, rows])[None]


def test_each_sample_gets_its_window() -> None:
    cut = crop_windows(coordinates(10), torch.tensor([[2, 3], [5, 0]]), 4)
    assert cut.shape == (2, 2, 4, 4)
    assert cut[0, :, 0, 0].tolist() == [2, 3]
    assert cut[1, :, -1, -1].tolist() == [8, 3]


def test_outside_the_canvas_is_zero() -> None:
    cut = crop_windows(torch.ones(1, 1, 4, 4), torch.tensor([[-1, 2]]), 4)
    assert cut[0, 0].tolist() == [[0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("start", "odd_index", "odd_value"), [(64, -1, 192), (52, -1, 180), (53, 0, 52), (77, 0, 76)]
)
def test_published_windows_are_one_off_at_one_end(
    start: int, odd_index: int, odd_value: int
) -> None:
    # The reference note, 5.5: the last texel for even offsets, the first for odd ones.
    cut = crop_windows_linspace(coordinates(256), torch.tensor([[start, start]]), 128)
    expected = torch.arange(start, start + 128, dtype=torch.float32)
    expected[odd_index] = odd_value
    assert torch.equal(cut[0, 0, 0], expected)
    assert torch.equal(cut[0, 1, :, 0], expected)


def test_sampling_at_texel_centres_gives_the_texels() -> None:
    texture = torch.randn(1, 3, 8, 8)
    centres = (coordinates(8) + 0.5) / 8
    for mode in ("nearest", "bilinear"):
        torch.testing.assert_close(TextureSampler(mode)(texture, centres), texture)


def test_bilinear_sampling_is_linear_between_centres_and_flat_beyond() -> None:
    texture = coordinates(4)[:, :1]
    uv = torch.tensor([[0.5, 0.5], [0.25, 0.5], [0.0, 0.5]]).t()[None, :, None]
    assert TextureSampler("bilinear")(texture, uv).flatten().tolist() == [1.5, 0.5, 0.0]


def test_position_code_is_the_value_and_its_waves() -> None:
    code = position_code(torch.tensor([0.5]), 8, octave_count=2)
    x = torch.tensor(0.5)
    expected = [0.5, x.sin(), x.cos(), (2 * x).sin(), (2 * x).cos(), 0, 0, 0]
    torch.testing.assert_close(code, torch.tensor([expected]))
    assert position_code(torch.tensor([0.5, 1.0]), 64).shape == (2, 64)


def test_smaller_background_maps_are_resampled_before_they_are_cut() -> None:
    maps = FeatureMaps(coordinates(4), torch.zeros(1, 12, 4, 4))
    feature, pack = BackgroundCutter(8, 4)(maps, torch.tensor([[3, 1]]))
    assert pack.shape == (1, 12, 4, 4)
    # Texel k of eight lies at k / 2 - 1/4 of four; windows begin at column 3 and row 1.
    assert feature[0, 0, 0].tolist() == [1.25, 1.75, 2.25, 2.75]
    assert feature[0, 1, :, 0].tolist() == [0.25, 0.75, 1.25, 1.75]


@pytest.mark.parametrize("starts", [[[0, 0]], [[9, 5]], [[-1, 2], [13, 14]]])  # some reach beyond
def test_windows_of_smaller_maps_are_those_of_the_whole_resampled_map(
    starts: list[list[int]],
) -> None:
    maps = FeatureMaps(torch.randn(1, 3, 4, 4), torch.randn(1, 12, 4, 4))
    corners = torch.tensor(starts)
    shown = BackgroundCutter(16, 4)(maps, corners)
    for part, cut in zip((maps.feature, maps.rgb_pack), shown, strict=True):
        whole = F.interpolate(part, size=(16, 16), mode="bilinear", align_corners=False)
        torch.testing.assert_close(cut, crop_windows(whole, corners, 4))
