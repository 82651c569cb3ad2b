# SPDX-License-Identifier: Apache-2.0
"""VGG19 as torchvision lays it out, with few channels and random weights."""

from __future__ import annotations

import torch
from torch import nn

_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)
_MAXIMA = (4, 9, 18, 27)


def narrow_vgg19() -> nn.Module:
    """Returns the network up to its last layer that is compared; always the same weights."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 3
    for index in range(30):
        if index in _CONVOLUTIONS:
            width = 4 + index // 10
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            channels = width
        else:
            layers.append(nn.MaxPool2d(2) if index in _MAXIMA else nn.ReLU())
    network = nn.Module()
    network.features = nn.Sequential(*layers)
    return network.requires_grad_(False)
