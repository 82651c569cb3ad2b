# SPDX-License-Identifier: Apache-2.0
"""LPIPS and FID with small networks of the interface that the real ones have."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from styleavatar_core.errors import AssetError
from styleavatar_core.evaluation.learned_metrics import LearnedMetrics, frechet_distance

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 200, (6, 16, 16, 3), dtype=np.uint8)


class Perceptual(torch.nn.Module):
    def forward(
        self, x: torch.Tensor, resize_images: bool = True, return_lpips: bool = False
    ) -> torch.Tensor:
        assert return_lpips
        assert not resize_images
        return (x / 255).mean(dim=[2, 3])


class Inception(torch.nn.Module):
    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert return_features
        x = x.float() / 255
        return torch.cat([x.mean(dim=[2, 3]), x.std(dim=[2, 3])], dim=1)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("networks")
    files = folder / "lpips.pt", folder / "fid.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the format that such networks have
        for network, file in zip((Perceptual(), Inception()), files, strict=True):
            torch.jit.script(network).save(str(file))
    return files


def test_without_weights_there_are_no_figures() -> None:
    learned = LearnedMetrics()
    learned.add(PICTURES[0], PICTURES[1])
    assert learned.figures() == {}
    assert learned.absent == ["lpips", "fid"]


def test_distances_are_those_of_the_networks(networks: tuple[Path, Path]) -> None:
    learned = LearnedMetrics(lpips_weights=networks[0], fid_weights=networks[1])
    same = LearnedMetrics(lpips_weights=networks[0], fid_weights=networks[1])
    for picture in PICTURES:
        learned.add(picture + np.uint8(51), picture)
        learned.add(picture, picture, prefix="no_background_")
        same.add(picture, picture)
    figures = learned.figures()
    assert figures["lpips"] == pytest.approx(3 * 0.2**2, rel=1e-4)
    assert figures["fid"] == pytest.approx(3 * 0.2**2, rel=1e-4)
    assert figures["no_background_lpips"] == 0
    assert figures["no_background_fid"] == pytest.approx(0.0, abs=1e-6)
    assert learned.absent == []
    assert same.figures()["lpips"] == 0
    assert same.figures()["fid"] == pytest.approx(0.0, abs=1e-6)


def test_frechet_distance_of_known_normals() -> None:
    # One dimension: (m1 - m2)^2 + (s1 - s2)^2.
    first = np.array([[-1.0], [1.0]]) * np.sqrt(0.5)
    second = np.array([[2.0], [8.0]])
    deviation = np.std([2.0, 8.0], ddof=1)
    assert frechet_distance(first, second) == pytest.approx(25 + (deviation - 1) ** 2)
    wide = RNG.normal(size=(5, 40))
    assert frechet_distance(wide, wide) == pytest.approx(0.0, abs=1e-9)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vgg.pt").write_text("no network")
    with pytest.raises(AssetError, match=r"vgg\.pt is not the TorchScript network of LPIPS"):
        LearnedMetrics(lpips_weights=tmp_path / "vgg.pt")
