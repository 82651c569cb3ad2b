# SPDX-License-Identifier: Apache-2.0
"""The perceptual loss against the network as torchvision lays it out, with few channels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from styleavatar_core.errors import AssetError
from styleavatar_core.training.perceptual import PerceptualLoss
from tests.fakes.vgg19 import narrow_vgg19

COMPARED = (1, 6, 11, 20, 29)  # each behind its activation


@pytest.fixture(scope="module")
def vgg19() -> nn.Module:
    return narrow_vgg19()


def write_pth(network: nn.Module, folder: Path) -> Path:
    """Writes torch's file with the first digits of its digest in its name, as torchvision does."""
    plain = folder / "plain.pth"
    classifier = {"classifier.0.weight": torch.zeros(2, 2)}  # of torchvision's file too
    torch.save(dict(network.state_dict()) | classifier, plain)
    digest = hashlib.sha256(plain.read_bytes()).hexdigest()
    return plain.rename(folder / f"vgg19-{digest[:8]}.pth")


def test_both_files_give_the_loss_of_the_network(vgg19: nn.Module, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    image, truth = (torch.rand(2, 3, 32, 48, generator=generator) * 2 - 1 for _ in range(2))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def features(pictures: torch.Tensor) -> list[torch.Tensor]:
        x = ((pictures + 1) / 2 - mean[:, None, None]) / deviation[:, None, None]
        found = []
        for index, layer in enumerate(vgg19.features):
            x = layer(x)
            if index in COMPARED:
                found.append(x)
        return found

    pairs = zip(features(image), features(truth), strict=True)
    wanted = float(sum((a - b).abs().mean() for a, b in pairs))
    assert wanted > 0.01
    save_file(dict(vgg19.state_dict()), tmp_path / "vgg19.safetensors")
    for path in (tmp_path / "vgg19.safetensors", write_pth(vgg19, tmp_path)):
        loss = PerceptualLoss(path)
        assert float(loss(image, truth)) == pytest.approx(wanted, rel=1e-5)
        assert float(loss(truth, truth)) == 0
        assert not list(loss.parameters())  # it learns nothing


def test_pictures_learn_from_it(vgg19: nn.Module, tmp_path: Path) -> None:
    loss = PerceptualLoss(write_pth(vgg19, tmp_path))
    truth = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    image = torch.zeros_like(truth, requires_grad=True)
    optimizer = torch.optim.Adam([image], lr=0.05)
    values = []
    for _ in range(30):
        value = loss(image, truth)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.8 * values[0]


def test_files_that_are_not_what_they_say_are_refused(vgg19: nn.Module, tmp_path: Path) -> None:
    path = write_pth(vgg19, tmp_path)
    damaged = tmp_path / "vgg19-00000000.pth"
    damaged.write_bytes(path.read_bytes())
    with pytest.raises(AssetError, match="are damaged: their sha256 begins with"):
        PerceptualLoss(damaged)
    with pytest.raises(AssetError, match="no such file"):
        PerceptualLoss(tmp_path / "nothing.safetensors")
    lacking = {k: v for k, v in vgg19.state_dict().items() if k != "features.28.bias"}
    save_file(lacking, tmp_path / "short.safetensors")
    with pytest.raises(AssetError, match=r"lack 'features\.28\.bias'"):
        PerceptualLoss(tmp_path / "short.safetensors")


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.touch, (Path("harm"),)


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Harmful(), tmp_path / "vgg19.pth")
    with pytest.raises(AssetError, match="cannot be read") as refusal:
        PerceptualLoss(tmp_path / "vgg19.pth")
    assert "weights_only" not in str(refusal.value)
    assert not (tmp_path / "harm").exists()
