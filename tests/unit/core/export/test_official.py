# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of the published code becomes a bundle that renders what its weights render."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.avatar.reenactment import DriverMode, ParameterStatistics, Retargeter
from styleavatar_core.cli.main import build_app
from styleavatar_core.data.picture import decode_jpeg
from styleavatar_core.data.portrait import choose_window
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.engine.frozen.loading import load_frozen
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.engine.typical_inputs import to_render_input
from styleavatar_core.errors import AssetError, NotFoundError
from styleavatar_core.export.official import import_official
from styleavatar_core.export.parity import random_input
from styleavatar_core.face3d.builtin import BUILTIN_MODEL_ID, builtin_model
from styleavatar_core.face3d.camera import (
    project,
    quaternion_from_rotation_vector,
    rotation_vector_from_quaternion,
    to_pixels,
)
from styleavatar_core.face3d.faceverse import convert_faceverse
from styleavatar_core.face3d.library import add_face_model
from styleavatar_core.networks import (
    FeatureMaps,
    GeneratorConfig,
    Noise,
    PortraitGenerator,
    position_code,
)
from styleavatar_core.networks.weights import convert_published
from styleavatar_core.provenance.consent import make_consent
from styleavatar_core.types import FaceParameters
from tests.fakes.faceverse import faceverse_contents, write_faceverse
from tests.fakes.published import narrow_paper, write_published_checkpoint


@pytest.fixture(scope="module")
def config() -> GeneratorConfig:
    return narrow_paper()


@pytest.mark.parametrize(("network", "seed"), [("g_ema", 0), ("i_g", 7)])
def test_the_bundle_gives_the_image_of_the_checkpoints_weights(
    config: GeneratorConfig, tmp_path: Path, network: str, seed: int
) -> None:
    checkpoint = tmp_path / "050000.pt"
    parts = write_published_checkpoint(checkpoint, config, seed)
    bundle = read_bundle(
        import_official(checkpoint, tmp_path / "avatar", network=network, config=config)
    )
    frozen = load_frozen(bundle)
    engine = TorchEngine(frozen)
    sample = random_input(engine, seed=seed)
    rendered = engine.render(sample)

    generator = PortraitGenerator(config)
    generator.load_state_dict(convert_published(network, parts[network]))
    with torch.no_grad():
        output = generator(
            position_code(torch.tensor([0.5]), 64),
            torch.from_numpy(sample.texture_rendering).permute(0, 3, 1, 2) / 127.5 - 1,
            torch.from_numpy(sample.uv_rendering).permute(0, 3, 1, 2),
            torch.from_numpy(sample.face_mask)[:, None].float(),
            FeatureMaps(parts["feature_face"][:1], parts["skip_face"][:1]),
            FeatureMaps(parts["feature_back"][:1], parts["skip_back"][:1]),
            torch.zeros(1, 2, dtype=torch.int64),
            noise=Noise(frozen.noise_foreground, frozen.noise_face, frozen.noise_background),
        )
    expected = ((output.image.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1)
    assert expected.std() > 5  # there is a picture to compare
    assert (torch.from_numpy(rendered.image).float() - expected).abs().max() < 0.6


def test_with_its_face_model_it_is_driven_and_sees_no_rim(
    config: GeneratorConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLEAVATAR_DATA", str(tmp_path))
    model = add_face_model(replace(builtin_model(), model_id="faceverse-v3"))
    checkpoint = tmp_path / "a.pt"
    write_published_checkpoint(checkpoint, config)
    bundle = import_official(checkpoint, tmp_path / "avatar", config=config)
    manifest = read_bundle(bundle).manifest
    assert manifest.model_digest == model.digest
    zeros, ahead = np.zeros((2, 2), np.float32), np.array([1, 0, 0, 0], np.float32)
    face = FaceParameters(
        "faceverse-v3", ahead, np.zeros(3, np.float32), 0.5, np.zeros(52, np.float32), zeros
    )
    renderer = AvatarRenderer(bundle, backend="torch")
    first, second = (renderer.render(replace(face, scale=scale)).image for scale in (0.5, 0.7))
    info = renderer.engine_info
    renderer.close()
    assert first.shape == (1024, 1024, 3)
    assert not np.array_equal(first, second)
    drawn = ConditioningRenderer(model, manifest.face_identity, info.rendering_size_px).render(face)
    own = manifest.model_copy(update={"training": {}})
    seen, whole = (to_render_input(drawn, info, m).face_mask[0] for m in (manifest, own))
    rows, columns = np.nonzero(seen)
    for down, right in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)):
        assert whole[rows + down, columns + right].all()
    assert 0 < whole.sum() - seen.sum() < 0.1 * whole.sum()


def test_the_bundle_says_what_it_is(config: GeneratorConfig, tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.pt"
    write_published_checkpoint(checkpoint, config)
    first = read_bundle(import_official(checkpoint, tmp_path / "a", config=config))
    manifest = first.manifest
    assert (manifest.preset, manifest.model_id) == ("paper", "faceverse-v3")
    assert "No statement of consent was recorded" in manifest.consent.statement
    assert manifest.source.file_name == "a.pt"
    assert decode_jpeg(first.preview()).shape == (1024, 1024, 3)
    consent = make_consent("I agree to this avatar of me")
    given = import_official(checkpoint, tmp_path / "b.zip", consent=consent, config=config)
    assert read_bundle(given).manifest.consent == consent


def imported_statistics(
    config: GeneratorConfig, folder: Path, face_model: str
) -> ParameterStatistics:
    write_published_checkpoint(folder / "a.pt", config)
    bundle = import_official(
        folder / "a.pt", folder / "avatar", face_model=face_model, config=config
    )
    return ParameterStatistics.from_dict(read_bundle(bundle).manifest.statistics)


def driver_face(statistics: ParameterStatistics, **changes: object) -> FaceParameters:
    count = len(statistics.neutral_expression)
    ahead, place = np.array([1, 0, 0, 0], np.float32), np.zeros(3, np.float32)
    face = FaceParameters(
        statistics.model_id,
        ahead,
        place,
        0.45,
        np.zeros(count, np.float32),
        np.zeros((2, 2), np.float32),
    )
    return replace(face, **changes)


@pytest.mark.parametrize("mode", ["same_person", "other_person"])
def test_it_turns_tilts_and_comes_closer_as_its_driver_does(
    config: GeneratorConfig, tmp_path: Path, mode: DriverMode
) -> None:
    statistics = imported_statistics(config, tmp_path, BUILTIN_MODEL_ID)
    retargeter = Retargeter(statistics, mode)
    first = retargeter.retarget(driver_face(statistics)).parameters
    usual = 0.45 if mode == "same_person" else float(statistics.scale.mean[0])
    assert first.scale == pytest.approx(usual)
    retargeter.set_neutral()
    for turned in ([0.1, 0.9, 0.0], [0.0, 0.0, -0.7], [-0.6, -0.8, 0.5]):
        rotation = quaternion_from_rotation_vector(np.array(turned))
        closer = driver_face(statistics, rotation=rotation, scale=0.9)
        result = retargeter.retarget(closer)
        assert not result.clamped
        seen = rotation_vector_from_quaternion(result.parameters.rotation)
        assert seen == pytest.approx(np.array(turned), abs=1e-5)
        assert result.parameters.scale == pytest.approx(2 * usual, rel=1e-5)


def test_a_lost_face_fades_to_a_face_at_rest_as_large_as_in_our_own_windows(
    config: GeneratorConfig, tmp_path: Path
) -> None:
    statistics = imported_statistics(config, tmp_path, BUILTIN_MODEL_ID)
    rest = Retargeter(statistics).hold(0.0).parameters
    assert not rest.expression.any()
    model = builtin_model()
    landmarks = to_pixels(project(model.mean_shape, rest)[model.landmark_indices], 800, 800)
    assert choose_window(landmarks[None], 800, 800).half_size == pytest.approx(1.0, abs=1e-3)


def test_a_face_model_without_a_limit_has_none_in_an_imported_avatar(
    config: GeneratorConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLEAVATAR_DATA", str(tmp_path))
    contents = write_faceverse(tmp_path / "file.npy", faceverse_contents("v4"))
    model_id = add_face_model(convert_faceverse(contents)).model_id
    strong = np.linspace(0, 5, 177, dtype=np.float32)
    statistics = imported_statistics(config, tmp_path, model_id)
    result = Retargeter(statistics, "same_person").retarget(
        driver_face(statistics, expression=strong)
    )
    assert not result.clamped
    assert result.parameters.expression == pytest.approx(strong)


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


def test_parameters_of_a_parallel_training_are_recognised(
    config: GeneratorConfig, tmp_path: Path
) -> None:
    parameters = write_published_checkpoint(tmp_path / "one.pt", config)["g_ema"]
    parallel = {f"module.{name}": tensor for name, tensor in parameters.items()}
    write_published_checkpoint(tmp_path / "many.pt", config, g_ema=parallel)
    one = read_bundle(import_official(tmp_path / "one.pt", tmp_path / "one", config=config))
    many = read_bundle(import_official(tmp_path / "many.pt", tmp_path / "many", config=config))
    assert one.manifest.files == many.manifest.files


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
