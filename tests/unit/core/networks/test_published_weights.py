# SPDX-License-Identifier: Apache-2.0
"""The paper preset gives what the published networks give.

Feature generator and discriminator are compared with values that the published code gave on tensors
filled by rule. The portrait generator's values were taken from this implementation on the day it
agreed with the published images to 1.5e-6, as that comparison needs large files.
"""

import pytest
import torch

from styleavatar_core.errors import AssetError
from styleavatar_core.networks import (
    Discriminator,
    FeatureGenerator,
    FeatureMaps,
    Noise,
    PortraitGenerator,
    get_preset,
)
from styleavatar_core.networks.weights import convert_published
from tests.fakes.published import fill, load_filled

# fmt: off
STYLE = [
    0.5, 0.4794255495071411, 0.8775825500488281, 0.8414709568023682,
    0.5403023362159729, 0.9092974066734314, -0.416146844625473, -0.756802499294281,
    -0.6536436080932617, 0.9893582463264465, -0.1455000340938568, -0.2879033088684082,
    -0.9576594829559326, 0.5514267086982727, 0.8342233300209045, 0.9200260639190674,
    0.39185723662376404, 0.7210376858711243, -0.6928958296775818, -0.9992080330848694,
    -0.03979076072573662, 0.07951849699020386, -0.9968333840370178, -0.15853337943553925,
    0.9873536229133606, -0.313057005405426, 0.9497343301773071, -0.5946419835090637,
    0.8039906024932861, -0.9561731815338135, 0.2928018271923065, -0.5599384903907776,
    -0.8285341858863831, 0.9278563261032104, 0.3729378283023834, 0.6920654773712158,
    -0.7218347787857056, -0.9991137981414795, 0.04209081456065178, -0.08410702645778656,
    -0.9964567422866821, 0.1676180213689804, 0.9858520030975342, 0.33049315214157104,
    0.943808376789093, 0.6238443851470947, 0.7815485596656799, 0.9751293659210205,
    0.2216363251209259, 0.43224820494651794, -0.9017546772956848, -0.7795636653900146,
    0.6263229846954346, -0.9765173196792603, -0.21543903648853302, 0.4207598865032196,
    -0.9071720242500305, -0.7634032368659973, 0.6459222435951233, -0.9861981868743896,
    -0.1655689775943756, 0.3265676498413086, -0.9451737999916077, -0.6173264384269714,
]
FACE_SKIP = [
    -0.375784, -0.048630, -0.039086, -0.590933, 0.556402, 0.062110,
    -0.597244, 0.039933, 0.318777, 0.234946, 0.099874, 0.085711,
    0.213710, 0.146867, 0.075374, 0.197344, 0.073496, 0.013574,
    0.279711, 0.313801, 0.355715, 0.332338, 0.372844, 0.385912,
    0.326665, 0.317292, 0.370668, 0.015679, -0.036654, -0.001261,
    0.036716, -0.017514, 0.047227, 0.053186, -0.021854, 0.046713,
]
FACE_FEATURE = [
    -0.063851, -0.048169, -0.036959, -0.066636, 0.020995, -0.005747,
    -0.045238, -0.040837, -0.019659, -0.213015, -0.223637, -0.217165,
    -0.213585, -0.236427, -0.221770, -0.210358, -0.216581, -0.215023,
    -0.011580, -0.040275, -0.024354, -0.028626, -0.051090, -0.060625,
    -0.030106, -0.058751, -0.056459, 0.091260, 0.102731, 0.081708,
    0.087847, 0.107678, 0.072487, 0.084141, 0.088950, 0.074998,
]
PORTRAIT_OFFSET = (-12, 13)
PORTRAIT = [
    0.119569, 0.051240, 0.153355, -0.073268, 0.393176, 0.143416,
    -0.086342, 0.048971, 0.140127, 0.163994, 0.098650, 0.206652,
    0.619409, 0.710065, 0.770759, 0.438922,
]
# fmt: on


@torch.no_grad()
def test_feature_generator_gives_the_published_maps() -> None:
    generator = FeatureGenerator(get_preset("paper").face)
    load_filled(generator, "f_g")
    maps = generator.eval()(torch.tensor([STYLE]))
    skip = maps.rgb_pack[0, ::3, ::50, ::63].flatten()
    torch.testing.assert_close(skip, torch.tensor(FACE_SKIP), atol=1e-4, rtol=0)
    feature = maps.feature[0, ::64, ::63, ::63].flatten()
    torch.testing.assert_close(feature, torch.tensor(FACE_FEATURE), atol=1e-4, rtol=0)


@torch.no_grad()
def test_discriminator_gives_the_published_score() -> None:
    discriminator = Discriminator(get_preset("paper").discriminator)
    load_filled(discriminator, "d")
    images = fill("in.d", (2, 6, 1024, 1024), 0.5)
    score = discriminator(images[:, :3], images[:, 3:])
    expected = torch.tensor([[0.16381861], [0.16621241]])
    torch.testing.assert_close(score, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_portrait_generator_gives_the_agreed_image_in_a_moved_window() -> None:
    generator = PortraitGenerator(get_preset("paper"))
    load_filled(generator, "g_ema")
    values = portrait_values(generator, PORTRAIT_OFFSET)
    torch.testing.assert_close(values, torch.tensor(PORTRAIT), atol=1e-4, rtol=0)


def portrait_values(generator: PortraitGenerator, offset: tuple[int, int]) -> torch.Tensor:
    """Twelve pixels, corners included, and four values of the mask."""
    maps = {
        name: FeatureMaps(
            fill(f"in.feature_{name}", (1, 256, 128, 128)),
            fill(f"in.skip_{name}", (1, 12, 128, 128)),
        )
        for name in ("face", "back")
    }
    noise = Noise(
        fill("in.noise_base", (1, 21, 256, 256)),
        fill("in.noise_face", (1, 21, 128, 128)),
        fill("in.noise_back", (1, 21, 128, 128)),
    )
    axis = torch.linspace(-1, 1, 128)
    disc = ((axis[:, None] ** 2 + axis**2) < 0.25).float()
    output = generator(
        fill("in.style", (1, 64)),
        fill("in.rendering", (1, 3, 256, 256)).tanh(),
        fill("in.uv", (1, 2, 128, 128), 0.2, 0.5).clamp(0, 1),
        disc[None, None],
        maps["face"],
        maps["back"],
        torch.tensor([offset]),
        noise=noise,
    )
    pixels = output.image[0, :, [0, 1023, 300, 512], [1023, 0, 700, 512]].flatten()
    return torch.cat([pixels, output.mask[0, 0, [0, 64, 127, 30], [0, 64, 127, 90]]])


def test_unknown_parameter_is_refused_by_name() -> None:
    with pytest.raises(AssetError, match=r"g_ema\.tex_down\.0\.bias"):
        convert_published("g_ema", {"tex_down.0.bias": torch.zeros(1)})


def test_constant_buffers_are_left_out() -> None:
    buffers = {
        "to_rgbs_0.0.iwt.ll": torch.zeros(2, 2),
        "convs_0.0.conv.blur.kernel": torch.zeros(4),
    }
    assert convert_published("g_ema", buffers) == {}
