# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from styleavatar_core.errors import InvalidInputError
from styleavatar_core.networks import PRESETS, GeneratorConfig, get_preset


@pytest.mark.parametrize("name", PRESETS)
def test_config_survives_json(name: str) -> None:
    config = get_preset(name)
    assert GeneratorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_fit_together(name: str) -> None:
    config = get_preset(name)
    assert config.foreground.output_size == config.canvas_size
    assert config.synthesis.output_size * 2 == config.image_size_px
    assert config.foreground.output_channels == config.background.feature_channels
    assert config.discriminator.final_size == 4


def test_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"paper, paper\+, hd, lite, nano"):
        get_preset("huge")


def test_config_of_another_version_is_refused() -> None:
    values = get_preset("nano").to_dict()
    synthesis = values["synthesis"] | {"unheard_of": 1}
    for changes, place in (
        ({"unheard_of": 1}, "unheard_of"),
        ({"synthesis": synthesis}, r"synthesis\.unheard_of"),
        ({"image_size_px": "large"}, "image_size_px"),
        ({"face": None}, "face"),
    ):
        with pytest.raises(InvalidInputError, match=rf"\({place}: .*another version"):
            GeneratorConfig.from_dict(values | changes)
