# SPDX-License-Identifier: Apache-2.0
"""A clip as a training sees it: its dataset, and what it shows of person and room."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np
import torch

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.face3d.camera import rotation_vector_from_quaternion
from styleavatar_core.networks import GeneratorConfig
from styleavatar_core.training.samples.appearance import backplate, unwrapped_texture
from styleavatar_core.training.samples.pictures import image_tensor
from styleavatar_core.types import ByteArray, FloatArray


class Clip:
    """One video that is trained on.

    Args:
        dataset: The prepared video.
    """

    def __init__(self, dataset: AvatarDataset) -> None:
        self.dataset = dataset

    @cached_property
    def backplate(self) -> ByteArray:
        """(S, S, 3) uint8 RGB, the canvas without the person; found when first asked for."""
        return backplate(self.dataset)

    @cached_property
    def rolls_deg(self) -> FloatArray:
        """How far the head is tilted in each training frame, degrees, clockwise on the screen."""
        parameters = self.dataset.parameters[: len(self.dataset.train_indices)]
        rolls = [rotation_vector_from_quaternion(params.rotation)[2] for params in parameters]
        return np.rad2deg(np.array(rolls, np.float32))

    def appearance(self, config: GeneratorConfig) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns what the RGB parts of the static maps start from, see ``appearance``.

        Returns:
            The face's texture (1, 3, 2F, 2F) in UV space and the backplate (1, 3, 2G, 2G), float32
            in [-1, 1]; F and G are the sides of their maps.
        """
        texture = unwrapped_texture(self.dataset, 2 * config.face.size)
        side = 2 * config.background.size
        plate = cv2.resize(self.backplate, (side, side), interpolation=cv2.INTER_AREA)
        return image_tensor(texture[None]), image_tensor(plate[None])
