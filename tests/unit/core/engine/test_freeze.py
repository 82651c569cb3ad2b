# SPDX-License-Identifier: Apache-2.0
"""The frozen generator gives what the trained one gives."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from styleavatar_core.engine.frozen.composition import FrozenSampler, enlarge
from styleavatar_core.engine.frozen.freeze import freeze
from styleavatar_core.engine.onnx.graph import onnx_model
from styleavatar_core.engine.onnx.onnx_engine import OnnxEngine
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.export.parity import compare_engines
from styleavatar_core.networks import GeneratorConfig, get_preset, sample_noise
from styleavatar_core.networks.composition import TextureSampler
from tests.fakes.networks import UntrainedAvatar, published_options
from tests.fakes.published import narrow_paper


def noisy_nano() -> GeneratorConfig:
    """Nano with what only the published topology uses."""
    return published_options(get_preset("nano"))


@torch.no_grad()
def assert_frozen_equals_trained(
    config: GeneratorConfig, offset: tuple[int, int], count: int
) -> None:
    avatar = UntrainedAvatar.make(config)
    noise = sample_noise(avatar.config, generator=torch.Generator().manual_seed(3))
    inputs = avatar.inputs(count)
    trained = avatar.generator(
        avatar.style.expand(count, -1),
        **inputs,
        face=avatar.face,
        background=avatar.background,
        window=torch.tensor([offset]).expand(count, -1),
        noise=noise,
    )
    frozen = freeze(
        avatar.generator,
        avatar.style,
        avatar.face,
        avatar.background,
        window=offset,
        noise=noise,
    )
    output = frozen.generator(
        frozen.style.expand(count, -1),
        **inputs,
        face=avatar.face,
        background=avatar.background,
        window=frozen.window,
        noise=noise,
    )
    # Relative to the spread of an untrained generator's image, which is about 2.
    scale = trained.image.std().item()
    torch.testing.assert_close(output.image / scale, trained.image / scale, atol=1e-4, rtol=0)
    torch.testing.assert_close(output.mask, trained.mask, atol=1e-4, rtol=0)


@pytest.mark.parametrize("offset", [(0, 0), (2, -2), (5, -8)])
@pytest.mark.parametrize("make_config", [lambda: get_preset("nano"), noisy_nano])
def test_frozen_equals_trained(make_config, offset: tuple[int, int]) -> None:
    assert_frozen_equals_trained(make_config(), offset, count=2)


@pytest.mark.parametrize(
    "make_config", [lambda: get_preset("lite"), lambda: get_preset("hd"), narrow_paper]
)
def test_frozen_equals_trained_in_larger_presets(make_config) -> None:
    assert_frozen_equals_trained(make_config(), (3, -4), count=1)


@pytest.mark.parametrize("make_config", [lambda: get_preset("nano"), noisy_nano])
@torch.no_grad()
def test_the_foregrounds_window_moves_and_the_background_stays(make_config) -> None:
    avatar = UntrainedAvatar.make(make_config())
    noise = sample_noise(avatar.config, generator=torch.Generator().manual_seed(3))
    inputs = avatar.inputs(1)
    frozen = freeze(avatar.generator, avatar.style, avatar.face, avatar.background, noise=noise)
    for offset in ((16, -9), (-7, 0), (0, 0)):
        maps = {"face": avatar.face, "background": avatar.background, "noise": noise}
        trained = avatar.generator(
            avatar.style,
            **inputs,
            **maps,
            window=torch.tensor([offset]),
            background_window=torch.zeros(1, 2, dtype=torch.int64),
        )
        frozen.move_window(offset)
        output = frozen.generator(frozen.style, **inputs, **maps, window=frozen.window)
        scale = trained.image.std().item()
        torch.testing.assert_close(output.image / scale, trained.image / scale, atol=1e-4, rtol=0)
        torch.testing.assert_close(output.mask, trained.mask, atol=1e-4, rtol=0)


def test_published_options_survive_export(tmp_path: Path) -> None:
    avatar = UntrainedAvatar.make(noisy_nano())
    noise = sample_noise(avatar.config, generator=torch.Generator().manual_seed(3))
    frozen = freeze(avatar.generator, avatar.style, avatar.face, avatar.background, noise=noise)
    engine = OnnxEngine(onnx_model(frozen).SerializeToString(), thread_count=1)
    parity = compare_engines(TorchEngine(frozen), engine)
    assert parity.image_mean_error < 0.01
    assert parity.mask_error <= 1


def test_bytes_are_the_image_clipped_and_rounded() -> None:
    avatar = UntrainedAvatar.make(get_preset("nano"))
    inputs = avatar.inputs(1)
    frozen = freeze(avatar.generator, avatar.style, avatar.face, avatar.background)
    with torch.no_grad():
        image = avatar.generator(
            avatar.style,
            **inputs,
            face=avatar.face,
            background=avatar.background,
            window=torch.zeros(1, 2, dtype=torch.int64),
        ).image
        rendering = ((inputs["rendering"] + 1) * 127.5).round().to(torch.uint8)
        pixels, mask = frozen(
            rendering.permute(0, 2, 3, 1),
            inputs["uv"].permute(0, 2, 3, 1),
            inputs["face_mask"][:, 0].to(torch.uint8),
        )
    expected = ((image.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1)
    assert pixels.dtype == torch.uint8
    assert (pixels.float() - expected).abs().max() <= 0.51
    assert mask.shape == (1, 128, 128)


def test_freezing_leaves_the_generator_alone() -> None:
    avatar = UntrainedAvatar.make(get_preset("nano"))
    before = {name: value.clone() for name, value in avatar.generator.state_dict().items()}
    freeze(avatar.generator, avatar.style, avatar.face, avatar.background)
    after = avatar.generator.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.requires_grad for parameter in avatar.generator.parameters())


@pytest.mark.parametrize("factor", [2, 4])
def test_a_mask_is_enlarged_bilinearly(factor: int) -> None:
    mask = torch.rand(2, 1, 5, 7)
    expected = F.interpolate(mask, scale_factor=factor, mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarge(mask, factor), expected)


def test_table_sampling_equals_grid_sampling_beyond_the_border_too() -> None:
    texture = torch.randn(1, 5, 8, 8)
    uv = torch.rand(2, 2, 9, 7) * 1.4 - 0.2
    expected = TextureSampler("bilinear")(texture, uv)
    torch.testing.assert_close(FrozenSampler(texture)(texture, uv), expected, atol=1e-5, rtol=1e-5)
