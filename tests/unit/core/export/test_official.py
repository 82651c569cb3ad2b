# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of the published code becomes a bundle that renders what its weights render."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from styleavatar_core.avatar.bundle import read_bundle
from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.avatar.reenactment import DriverMode, ParameterStatistics, Retargeter
from styleavatar_core.data.picture import decode_jpeg
from styleavatar_core.data.portrait import choose_window
from styleavatar_core.engine.avatar_renderer import AvatarRenderer
from styleavatar_core.engine.frozen.loading import load_frozen
from styleavatar_core.engine.torch_engine import TorchEngine
from styleavatar_core.engine.typical_inputs import to_render_input
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
from styleavatar_core.face3d.lip_gap import lip_gap
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
    assert float(lip_gap(BUILTIN_MODEL_ID).of(rest.expression)) == pytest.approx(0.0, abs=1e-4)
    assert np.count_nonzero(rest.expression > 0.05) <= 2  # what closes the lips
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


def test_parameters_of_a_parallel_training_are_recognised(
    config: GeneratorConfig, tmp_path: Path
) -> None:
    parameters = write_published_checkpoint(tmp_path / "one.pt", config)["g_ema"]
    parallel = {f"module.{name}": tensor for name, tensor in parameters.items()}
    write_published_checkpoint(tmp_path / "many.pt", config, g_ema=parallel)
    one = read_bundle(import_official(tmp_path / "one.pt", tmp_path / "one", config=config))
    many = read_bundle(import_official(tmp_path / "many.pt", tmp_path / "many", config=config))
    assert one.manifest.files == many.manifest.files
