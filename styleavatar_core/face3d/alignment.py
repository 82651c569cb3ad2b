# SPDX-License-Identifier: Apache-2.0
"""One point set laid on another by rotation, translation and scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from styleavatar_core.types import FloatArray


@dataclass(frozen=True, slots=True)
class Similarity:
    """Maps v to ``scale * rotation @ v + translation``.

    Attributes:
        rotation: (3, 3) float64.
        translation: (3,) float64.
        scale: Positive.
    """

    rotation: FloatArray
    translation: FloatArray
    scale: float

    def apply(self, points: FloatArray) -> FloatArray:
        """Maps (N, 3) points."""
        return self.scale * points @ self.rotation.T + self.translation

    def turn(self, directions: FloatArray) -> FloatArray:
        """Maps (V, 3, N) directions, which have no place."""
        return self.scale * np.einsum("ij,vjn->vin", self.rotation, directions)


def align(source: FloatArray, target: FloatArray) -> Similarity:
    """Returns the similarity that brings (K, 3) points nearest to others (Eq. 1)."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0, dtype=np.float64)
    centered = source - source_mean
    u, singular, vt = np.linalg.svd((target - target_mean).T @ centered)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((singular * signs).sum() / (centered**2).sum())
    return Similarity(rotation, target_mean - scale * rotation @ source_mean, scale)
