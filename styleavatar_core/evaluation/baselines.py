# SPDX-License-Identifier: Apache-2.0
"""What an avatar must beat: the nearest training frame (paper, Table 3) and the mean frame."""

from __future__ import annotations

import numpy as np

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.face3d.camera import parameters_in_crop, rotation_vector_from_quaternion
from styleavatar_core.types import ByteArray, CropBox, FaceParameters, FloatArray


class NearestSample:
    """Finds the training frame nearest in translation, rotation and expression (Sec. 4.2).

    Each parameter is divided by its standard deviation in training; the three groups weigh the
    same. Translation is where the head is in the window and how large.

    Args:
        parameters: Training parameters, source frame coordinates.
        window: The portrait window.
    """

    def __init__(self, parameters: list[FaceParameters], window: CropBox) -> None:
        self._window = window
        stacked = [self._groups(p) for p in parameters]
        self._train = [np.stack(group) for group in zip(*stacked, strict=True)]
        self._deviations = [np.maximum(group.std(axis=0), 1e-4) for group in self._train]

    def find(self, parameters: FaceParameters) -> int:
        """Returns the position of the nearest training frame."""
        return int(np.argmin(self._distances(parameters).sum(axis=0)))

    def group_distances(self, parameters: FaceParameters) -> tuple[float, float, float]:
        """Returns the distances to the nearest in translation, rotation and expression (Table 4).

        Each is sought separately, as the paper does; root mean square in standard deviations.
        """
        translation, rotation, expression = np.sqrt(self._distances(parameters).min(axis=1))
        return float(translation), float(rotation), float(expression)

    def _distances(self, parameters: FaceParameters) -> FloatArray:
        """Returns (3, T) mean squared normalised distances per group."""
        groups = self._groups(parameters)
        return np.stack(
            [
                np.square((train - group) / deviation).mean(axis=1)
                for train, group, deviation in zip(
                    self._train, groups, self._deviations, strict=True
                )
            ]
        )

    def _groups(self, parameters: FaceParameters) -> tuple[FloatArray, FloatArray, FloatArray]:
        local = parameters_in_crop(parameters, self._window)
        translation = np.append(local.translation[:2] * local.scale, local.scale)
        rotation = rotation_vector_from_quaternion(local.rotation)
        return translation, rotation, np.asarray(local.expression, np.float32)


def nearest_parameters(
    train: list[FaceParameters], parameters: list[FaceParameters], window: CropBox
) -> dict[str, float]:
    """Returns how far a sequence leaves what was trained on (paper, Table 4).

    Args:
        train: Training parameters, source frame coordinates.
        parameters: What the avatar is driven with, the same coordinates; at least one.
        window: The portrait window.

    Returns:
        Means over the sequence: ``nearest_translation_std``, ``nearest_rotation_std`` and
        ``nearest_expression_std``, in standard deviations of the training part.
    """
    nearest = NearestSample(train, window)
    means = np.mean([nearest.group_distances(p) for p in parameters], axis=0)
    names = ("translation", "rotation", "expression")
    return {f"nearest_{name}_std": float(value) for name, value in zip(names, means, strict=True)}


def mean_frame(dataset: AvatarDataset) -> ByteArray:
    """Returns the mean of the training frames in the window, (H, W, 3) uint8."""
    total = np.zeros_like(dataset.window(dataset.frames[0]), np.float64)
    for index in dataset.train_indices:
        total += dataset.window(dataset.frames[index])
    return np.rint(total / len(dataset.train_indices)).astype(np.uint8)
