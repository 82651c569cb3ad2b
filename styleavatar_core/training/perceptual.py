# SPDX-License-Identifier: Apache-2.0
"""The paper's perceptual loss (Sec. 3.3) with VGG19, used when somebody has its weights.

The weights are not ours to ship: a file with the convolutions under torchvision's names
(``features.0.weight`` ...) is given by path, torchvision's own ``.pth`` or safetensors.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from styleavatar_core.errors import AssetError

# What a manifest calls the losses, by whether there are weights.
VGG19_LOSS = "vgg19"
STRUCTURE_LOSS = "multi-scale structure (no VGG19 weights given)"

# Index of each convolution in ``features``; None is a 2x2 maximum. Taken to relu5_1.
_LAYERS = (0, 2, None, 5, 7, None, 10, 12, 14, 16, None, 19, 21, 23, 25, None, 28)
_COMPARED = (0, 5, 10, 19, 28)  # relu1_1, relu2_1, ... relu5_1
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


class PerceptualLoss(nn.Module):
    """Mean absolute difference of VGG19 features.

    Args:
        path: File with torchvision's parameter names: safetensors, or torch's format (``.pth``),
            of which only tensors are read.

    Raises:
        AssetError: The file lacks a layer, cannot be read or is not what its name says.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        tensors = _read(path)
        for index in (layer for layer in _LAYERS if layer is not None):
            for part in ("weight", "bias"):
                name = f"features.{index}.{part}"
                if name not in tensors:
                    raise AssetError(f"the VGG19 weights {path.name} lack '{name}'")
                self.register_buffer(f"{part}_{index}", tensors[name].float())
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Compares (B, 3, H, W) pictures in [-1, 1]; returns a scalar."""
        with torch.no_grad():
            wanted = self._features(truth)
        pairs = zip(self._features(image), wanted, strict=True)
        return torch.stack([(got - want).abs().mean() for got, want in pairs]).sum()

    def _features(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = ((image + 1) / 2 - self.mean) / self.deviation
        found = []
        for index in _LAYERS:
            if index is None:
                x = F.max_pool2d(x, 2)
                continue
            weight, bias = getattr(self, f"weight_{index}"), getattr(self, f"bias_{index}")
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
            if index in _COMPARED:
                found.append(x)
        return found


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Reads weights; a file whose name ends in a digest, as torchvision's do, must have it."""
    if not path.is_file():
        raise AssetError(f"the VGG19 weights {path} cannot be read: there is no such file")
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        told = re.search(r"-([0-9a-f]{8,64})\.pth$", path.name)
        if path.suffix == ".pth":
            tensors: dict[str, torch.Tensor] = torch.load(path, "cpu", weights_only=True)
        else:
            tensors = load_file(path)
    except Exception as error:  # the readers' errors have no common base
        # Not what torch says: it advises to load the file in a way that could run code.
        raise AssetError(
            f"the VGG19 weights {path.name} cannot be read: they must be tensors alone, as .pth or "
            ".safetensors, copied whole"
        ) from error
    if told is not None and not digest.startswith(told[1]):
        raise AssetError(
            f"the VGG19 weights {path.name} are damaged: their sha256 begins with "
            f"{digest[: len(told[1])]}; download them again"
        )
    return tensors
