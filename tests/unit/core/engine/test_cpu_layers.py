# SPDX-License-Identifier: Apache-2.0
"""Layers that do with less work give what plain convolutions give."""

from collections.abc import Iterator

import pytest
import torch

from benchmarks.engine_parts.untrained import frozen_errors
from styleavatar_core.engine.cpu import direct_convs, layers, tiled_convs
from styleavatar_core.engine.cpu.block_code import BLOCK_COLUMNS
from styleavatar_core.engine.cpu.direct_convs import DirectConv
from styleavatar_core.engine.cpu.filtered_convs import FilteredConv
from styleavatar_core.engine.cpu.layers import (
    MatrixConv,
    SharedConv,
    missing_bytes,
    with_less_work,
    works_in_strips,
)
from styleavatar_core.engine.cpu.matrix_code import SIDE, has_matrix_unit
from styleavatar_core.engine.cpu.strips import plan_strips, share_strips, strip_threads, torch_alone
from styleavatar_core.engine.cpu.tile_forms import (
    DOUBLING,
    DOUBLING_SMALL,
    HALVING,
    HALVING_SMALL,
    SAME,
    SAME_LARGE,
    SAME_SMALL,
    TileForm,
    form_for,
)
from styleavatar_core.engine.cpu.tiled_convs import TiledConv
from styleavatar_core.engine.frozen.composition import FrozenNarrowConv
from styleavatar_core.engine.frozen.freeze import FrozenGenerator, freeze
from styleavatar_core.engine.frozen.layers import FrozenConv, FrozenPointwise
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.export.parity import random_input
from styleavatar_core.networks import sample_noise
from styleavatar_core.ops.upfirdn2d import IMAGE_TAPS
from tests.fakes.networks import UntrainedAvatar
from tests.unit.core.engine.test_freeze import noisy_nano

# Also not multiples of a tile.
SHAPES = [(2, SIDE, 30, 37), (1, 3 * SIDE, 8, 8), (1, 2 * SIDE, 4, 33)]
OUTPUTS = 2 * BLOCK_COLUMNS
SCALES = {"same": 1.0, "up": 2.0, "down": 0.5}
needs_matrix_unit = pytest.mark.skipif(
    not has_matrix_unit(), reason="this processor multiplies no matrices"
)
FORMS_OF_MODES = {
    "same": [SAME, SAME_SMALL, SAME_LARGE],
    "up": [DOUBLING, DOUBLING_SMALL],
    "down": [HALVING, HALVING_SMALL],
}
KINDS = [  # the form of tiles, or none for a direct convolution
    *(
        pytest.param(form, mode, id=f"{mode}_{form.pixels}")
        for mode, forms in FORMS_OF_MODES.items()
        for form in forms
    ),
    *(pytest.param(None, mode, id=mode, marks=needs_matrix_unit) for mode in SCALES),
]
WITH_AND_WITHOUT = [False, pytest.param(True, marks=needs_matrix_unit)]


def make_conv(inputs: int, mode: str, *, slope: float | None) -> FrozenConv:
    return FrozenConv(
        torch.randn(OUTPUTS, inputs, 3, 3) / (9 * inputs) ** 0.5,
        torch.randn(OUTPUTS),
        slope=slope,
        noise_strength=0.3,
        up_taps=IMAGE_TAPS if mode == "up" else None,
        down_taps=IMAGE_TAPS if mode == "down" else None,
    )


def with_less(conv: FrozenConv, form: TileForm | None) -> FilteredConv:
    return DirectConv(conv) if form is None else TiledConv(conv, form)


def most_off(form: TileForm | None) -> float:
    """Of sixteen million numbers of spread one, the one that is farthest off."""
    return 6e-4 if form is SAME_LARGE else 1e-4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slope", [0.2, None])
@pytest.mark.parametrize(("form", "mode"), KINDS)
def test_less_work_is_the_same_convolution(
    shape: tuple[int, int, int, int], slope: float | None, form: TileForm | None, mode: str
) -> None:
    conv = make_conv(shape[1], mode, slope=slope)
    layer = with_less(conv, form)
    x = torch.randn(shape).to(memory_format=torch.channels_last)
    noise = torch.randn(1, 1, *(int(SCALES[mode] * side) for side in shape[2:]))
    for added in (None, noise):
        expected = conv(x, noise=added)
        torch.testing.assert_close(layer(x, noise=added), expected, atol=most_off(form), rtol=1e-5)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("form", "mode"), KINDS)
def test_strips_join_without_a_seam(
    monkeypatch: pytest.MonkeyPatch, form: TileForm | None, mode: str
) -> None:
    conv = make_conv(SIDE, mode, slope=0.2)
    layer, x = with_less(conv, form), torch.randn(1, SIDE, 40, 24)
    whole = layer(x)  # channels are shared
    monkeypatch.setattr(tiled_convs, "_STRIP_BYTES", (1, 1))  # one block of tiles at a time
    monkeypatch.setattr(direct_convs, "_STRIP_BYTES", 1)  # or of pixels
    for strips in (
        layer,
        with_less(conv, form),
    ):  # kernels are there; are to come
        torch.testing.assert_close(strips(x), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("form", "mode", "side"), [(SAME_LARGE, "same", 512), (DOUBLING, "up", 256)]
)
def test_large_images_are_written_past_the_caches(
    form: TileForm | None, mode: str, side: int
) -> None:
    conv = make_conv(SIDE, mode, slope=0.2)
    x = torch.randn(1, SIDE, side, side).to(memory_format=torch.channels_last)
    torch.testing.assert_close(with_less(conv, form)(x), conv(x), atol=most_off(form), rtol=1e-5)


@pytest.mark.usefixtures("two_threads")
def test_every_strip_is_computed_once_and_a_failure_arrives() -> None:
    strips = plan_strips(11, 1, 3)
    assert len(strips) == 4
    seen: list[int] = []
    share_strips(strips, lambda thread, first, count: seen.extend(range(first, first + count)))
    assert sorted(seen) == list(range(11))

    def fail(thread: int, first: int, count: int) -> None:
        raise ValueError(f"strip {first}")

    with pytest.raises(ValueError, match="strip"):
        share_strips(strips, fail)
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_strips_end_where_blocks_do() -> None:
    strips = plan_strips(50, 1, 10, 6)
    assert all(first % 6 == 0 for first, _ in strips)
    assert [first + count for first, count in strips] == [*(first for first, _ in strips[1:]), 50]


@pytest.mark.usefixtures("two_threads")
def test_torch_is_alone_only_as_long_as_it_is_to_be() -> None:
    with torch_alone(3):
        assert (torch.get_num_threads(), strip_threads()) == (1, 3)
        with torch_alone(None):
            assert strip_threads() == 3
        seen: list[int] = []
        share_strips([(0, 1), (1, 1)], lambda *_: seen.append(torch.get_num_threads()))
        assert seen == [1, 1]
    assert (torch.get_num_threads(), strip_threads()) == (2, 2)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("taps", [IMAGE_TAPS, (1.0, 1.0)])
@pytest.mark.parametrize("mode", ["same", "up", "down"])
def test_threads_share_the_channels_of_a_convolution(mode: str, taps: tuple[float, ...]) -> None:
    ends = {} if mode == "same" else {f"{mode}_taps": taps}
    weight, bias = torch.randn(20, 6, 3, 3), torch.randn(20)
    conv = FrozenConv(weight, bias, slope=0.2, noise_strength=0.3, **ends)
    x = torch.randn(2, 6, 8, 8).to(memory_format=torch.channels_last)
    side = {"same": 8, "up": 16, "down": 4}[mode]
    noise = torch.randn(1, 1, side, side)
    shared = SharedConv(conv)(x, noise=noise)
    torch.testing.assert_close(shared, conv(x, noise=noise), atol=1e-5, rtol=1e-5)
    assert shared.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("form", "mode"), KINDS)
def test_rounding_errors_stay_small(form: TileForm | None, mode: str) -> None:
    # In steps of float32, not in errors of torch: those are 2 or 5 steps, as the processor adds.
    most = {SAME_LARGE: 250, HALVING: 3, HALVING_SMALL: 3, None: 40}.get(form, 15)
    torch.manual_seed(0)
    conv = make_conv(256, mode, slope=None)
    x = torch.randn(1, 256, 32, 32)
    less = with_less(conv, form)(x)
    exact = conv.double()(x.double())
    assert (less - exact).std() < most * torch.finfo(torch.float32).eps * exact.std()


@pytest.mark.parametrize(
    ("mode", "sides", "form"),
    [
        ("same", (128, 128), SAME_LARGE),
        ("same", (16, 16), SAME),
        ("same", (8, 8), SAME_SMALL),
        ("up", (64, 64), DOUBLING),
        ("up", (32, 32), DOUBLING_SMALL),
        ("down", (16, 16), HALVING),
        ("down", (8, 12), HALVING_SMALL),
    ],
)
def test_small_images_have_small_kernels(mode: str, sides: tuple[int, int], form: TileForm) -> None:
    assert form_for(mode, sides) is form
    assert len(form.kernel) <= len(form_for(mode, (512, 512)).kernel)


@pytest.mark.parametrize("has_unit", WITH_AND_WITHOUT)
def test_pictures_of_the_largest_preset_are_within_the_stated_error(
    monkeypatch: pytest.MonkeyPatch, has_unit: bool
) -> None:
    monkeypatch.setattr(layers, "has_matrix_unit", lambda: has_unit)
    assert frozen_errors("paper")["torch_cpu_max_error_ppm"] < 100


def test_a_convolution_to_one_channel_is_the_same_in_two_steps() -> None:
    conv = FrozenConv(torch.randn(1, 9, 3, 3), torch.randn(1), slope=None)
    x, constant = torch.randn(2, 9, 6, 7), torch.randn(1, 4, 6, 7)
    torch.testing.assert_close(FrozenNarrowConv(conv)(x), conv(x), atol=1e-5, rtol=1e-5)
    x = torch.cat([x[:, :5], constant.expand(2, -1, -1, -1)], dim=1)
    narrow = FrozenNarrowConv(conv, constant)
    torch.testing.assert_close(narrow(x[:, :5], constant), conv(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("sides", [(6, 7), (1, 2)])  # one sample of 1x2: less than a block
def test_a_pointwise_convolution_is_a_product(
    monkeypatch: pytest.MonkeyPatch,
    layout: torch.memory_format,
    has_bias: bool,
    sides: tuple[int, int],
) -> None:
    conv = FrozenPointwise(torch.randn(3, 5, 1, 1), torch.randn(3) if has_bias else None)
    x = torch.randn(2, 5, *sides).to(memory_format=layout)
    for least in (1, 10**6):  # with our product, with torch's
        monkeypatch.setattr(layers, "_LEAST_FLOATS", least)
        torch.testing.assert_close(MatrixConv(conv)(x), conv(x), atol=1e-5, rtol=1e-5)


def frozen_noisy_nano() -> FrozenGenerator:
    torch.manual_seed(5)
    avatar = UntrainedAvatar.make(noisy_nano())
    noise = sample_noise(avatar.config, generator=torch.Generator().manual_seed(3))
    return freeze(avatar.generator, avatar.style, avatar.face, avatar.background, noise=noise)


@torch.no_grad()
@pytest.mark.parametrize("has_unit", WITH_AND_WITHOUT)
def test_a_whole_generator_with_less_work_gives_the_same_pictures(
    monkeypatch: pytest.MonkeyPatch, has_unit: bool
) -> None:
    monkeypatch.setattr(layers, "has_matrix_unit", lambda: has_unit)
    sample = random_input(TorchEngine(frozen_noisy_nano()))
    inputs = [
        torch.from_numpy(array)
        for array in (sample.texture_rendering, sample.uv_rendering, sample.face_mask)
    ]
    expected = frozen_noisy_nano()(*inputs)
    monkeypatch.setattr(layers, "_LEAST_CHANNELS", 1)
    monkeypatch.setattr(layers, "_LEAST_FLOP", 1)
    monkeypatch.setattr(layers, "_LEAST_DIRECT_FLOP", 1)
    monkeypatch.setattr(layers, "_MOST", 0.1)
    generator = with_less_work(frozen_noisy_nano())
    modules = list(generator.modules())
    kind = DirectConv if has_unit else TiledConv
    for mode, least in (("same", 5), ("up", 1)):
        assert sum(isinstance(layer, kind) and layer.mode == mode for layer in modules) > least
    assert works_in_strips(generator)
    assert sum(isinstance(layer, SharedConv) for layer in modules) > 1
    assert missing_bytes(generator) > 0  # kernels of tiles come with the first picture
    for output, wanted in zip(generator(*inputs), expected, strict=True):
        assert (output.int() - wanted.int()).abs().max() <= 1
    assert missing_bytes(generator) == 0


def test_small_layers_stay_as_they_are() -> None:
    generator = with_less_work(frozen_noisy_nano())
    assert not any(isinstance(layer, FilteredConv | SharedConv) for layer in generator.modules())
    assert not works_in_strips(generator)
