# SPDX-License-Identifier: Apache-2.0
"""What cannot become an avatar is refused by name, and nothing in it is run."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from styleavatar_core.cli.main import build_app
from styleavatar_core.errors import AssetError, NotFoundError
from styleavatar_core.export.official import import_official
from styleavatar_core.networks import GeneratorConfig
from tests.fakes.published import narrow_paper, write_published_checkpoint


@pytest.fixture(scope="module")
def config() -> GeneratorConfig:
    return narrow_paper()


def refused(config: GeneratorConfig, folder: Path, message: str, **changes: object) -> None:
    checkpoint = folder / "odd.pt"
    write_published_checkpoint(checkpoint, config, **changes)
    with pytest.raises(AssetError, match=message):
        import_official(checkpoint, folder / "avatar", config=config)
    assert not (folder / "avatar").exists()


def test_missing_parts_are_named(config: GeneratorConfig, tmp_path: Path) -> None:
    refused(config, tmp_path, "lacks 'g_ema'.*has 'i_g', which --last imports", g_ema=None)
    refused(config, tmp_path, r"lacks 'g_ema'.*skip_back$", g_ema=None, i_g=None)
    refused(config, tmp_path, "lacks 'skip_back'", skip_back=None)


def test_missing_unknown_and_odd_parameters_are_named(
    config: GeneratorConfig, tmp_path: Path
) -> None:
    parameters = write_published_checkpoint(tmp_path / "whole.pt", config)["g_ema"]
    without = {k: v for k, v in parameters.items() if not k.startswith("tex_up.1.conv.weight")}
    refused(
        config, tmp_path, r"lacks 1 of .*foreground\.decoder\.3\.conv\.conv\.weight", g_ema=without
    )
    unknown = parameters | {"tex_down.0.bias": torch.zeros(1)}
    refused(config, tmp_path, r"'g_ema\.tex_down\.0\.bias' is not a parameter", g_ema=unknown)
    wide = parameters | {"get_mask.0.weight": torch.zeros(1, 64, 3, 3)}
    refused(config, tmp_path, r"mask_conv\.weight.*\(1, 64, 3, 3\).*\(1, 32, 3, 3\)", g_ema=wide)
    refused(config, tmp_path, "'g_ema' of the checkpoint is no table", g_ema=[1, 2])
    refused(config, tmp_path, "'g_ema' of the checkpoint is no table", g_ema={0: torch.zeros(1)})
    refused(config, tmp_path, "'feature_face' of the checkpoint is no tensor", feature_face=3.0)
    scalar = torch.tensor(3.0)
    refused(config, tmp_path, r"'feature_face': the checkpoint has \(\)", feature_face=scalar)


def test_weights_and_maps_of_a_diverged_training_are_refused(
    config: GeneratorConfig, tmp_path: Path
) -> None:
    parts = write_published_checkpoint(tmp_path / "whole.pt", config)
    name = "mapping.0.bias"
    broken = parts["g_ema"] | {name: torch.full_like(parts["g_ema"][name], torch.nan)}
    refused(config, tmp_path, r"mapping\.layers\.0\.bias.*not finite.*diverged", g_ema=broken)
    maps = torch.full_like(parts["skip_face"], torch.inf)
    refused(config, tmp_path, "'skip_face'.*not finite", skip_face=maps)


@pytest.mark.parametrize(
    "change",
    [torch.Tensor.to_sparse, torch.Tensor.cfloat, lambda tensor: tensor.to("meta")],
)
def test_tensors_that_are_no_plain_numbers_are_refused(
    config: GeneratorConfig, tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    parameters = write_published_checkpoint(tmp_path / "whole.pt", config)["g_ema"]
    odd = parameters | {"mapping.0.bias": change(parameters["mapping.0.bias"])}
    refused(config, tmp_path, r"mapping\.layers\.0\.bias.*no plain numbers", g_ema=odd)


class Payload:
    """Writes a file when it is unpickled by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_refused_and_not_run(
    config: GeneratorConfig, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    refused(config, tmp_path, r"somebody's code.*refused", surprise=Payload(trace))
    legacy = tmp_path / "legacy.pt"
    torch.save({"x": Payload(trace)}, legacy, _use_new_zipfile_serialization=False)
    with pytest.raises(AssetError, match="plain values"):
        import_official(legacy, tmp_path / "avatar", config=config)
    assert not trace.exists()


def test_what_is_no_checkpoint_is_said_so(config: GeneratorConfig, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.pt"):
        import_official(tmp_path / "none.pt", tmp_path / "avatar")
    for text in ("no checkpoint", "hello", ""):  # torch fails in another way at each
        (tmp_path / "text.pt").write_text(text)
        with pytest.raises(AssetError, match=r"text\.pt cannot be read.*another kind") as refusal:
            import_official(tmp_path / "text.pt", tmp_path / "avatar")
        assert "weights_only" not in str(refusal.value)
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("avatar.json", "{}")
    with pytest.raises(AssetError, match=r"other\.pt cannot be read.*another kind"):
        import_official(tmp_path / "other.pt", tmp_path / "avatar")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(AssetError, match="no dict of networks"):
        import_official(tmp_path / "list.pt", tmp_path / "avatar")


def test_the_command_wants_the_published_widths(config: GeneratorConfig, tmp_path: Path) -> None:
    write_published_checkpoint(tmp_path / "narrow.pt", config)
    arguments = ["import-official", str(tmp_path / "narrow.pt"), str(tmp_path / "avatar")]
    result = CliRunner().invoke(build_app(), arguments)
    assert isinstance(result.exception, AssetError)
    assert "published widths" in str(result.exception)
