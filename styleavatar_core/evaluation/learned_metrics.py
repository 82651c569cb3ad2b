# SPDX-License-Identifier: Apache-2.0
"""LPIPS and FID (paper, Tables 1-3), where a user has given the networks that define them.

Both networks come as TorchScript files, as NVIDIA distributes them with StyleGAN3's metrics;
neither is part of this project. Without its file a metric is absent, never replaced by another.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from styleavatar_core.errors import AssetError
from styleavatar_core.types import ByteArray, FloatArray

_LEAST_FID_FRAMES = 2


class LearnedMetrics:
    """Collects pairs of pictures and compares them by learned features.

    Args:
        lpips_weights: ``vgg16.pt``: maps (B, 3, H, W) in [0, 255] to features whose squared
            distance is LPIPS, when called with ``return_lpips=True``.
        fid_weights: ``inception-2015-12-05.pt``: maps (B, 3, H, W) uint8 to (B, 2048) features
            when called with ``return_features=True``.

    Raises:
        AssetError: A file is no such network.
    """

    def __init__(
        self, *, lpips_weights: Path | None = None, fid_weights: Path | None = None
    ) -> None:
        self._lpips = None if lpips_weights is None else _load(lpips_weights, "LPIPS")
        self._inception = None if fid_weights is None else _load(fid_weights, "FID")
        self._distances: dict[str, list[float]] = {}
        self._features: dict[str, tuple[list[FloatArray], list[FloatArray]]] = {}

    @property
    def absent(self) -> list[str]:
        """Metrics whose weights were not given."""
        networks = {"lpips": self._lpips, "fid": self._inception}
        return [name for name, network in networks.items() if network is None]

    def add(self, image: ByteArray, truth: ByteArray, prefix: str = "") -> None:
        """Takes in a pair of pictures.

        Args:
            image: (H, W, 3) uint8 RGB.
            truth: (H, W, 3) uint8 RGB.
            prefix: Begins the figures' names of all pairs that were given it.
        """
        pair = torch.from_numpy(np.stack([image, truth])).permute(0, 3, 1, 2)
        with torch.inference_mode():
            if self._lpips is not None:
                one, other = self._lpips(pair.float(), resize_images=False, return_lpips=True)
                distance = float((one - other).square().sum())
                self._distances.setdefault(prefix, []).append(distance)
            if self._inception is not None:
                features = self._inception(pair, return_features=True).numpy()
                both = self._features.setdefault(prefix, ([], []))
                for collected, feature in zip(both, features, strict=True):
                    collected.append(feature)

    def figures(self) -> dict[str, float]:
        """Returns ``lpips`` and ``fid``, as far as there were weights and enough pictures."""
        figures = {
            f"{prefix}lpips": float(np.mean(distances))
            for prefix, distances in self._distances.items()
        }
        for prefix, both in self._features.items():
            if len(both[0]) >= _LEAST_FID_FRAMES:
                outputs, truths = (np.stack(features) for features in both)
                figures[f"{prefix}fid"] = frechet_distance(outputs, truths)
        return figures


def frechet_distance(first: FloatArray, second: FloatArray) -> float:
    """Returns the Frechet distance between normal distributions fitted to two sets of features.

    The trace of the covariances' root is the sum of the singular values of the product of the
    centred samples: exact, and small where there are fewer samples than features.

    Args:
        first: (T, N) float.
        second: (U, N) float.
    """
    means = [features.astype(np.float64).mean(axis=0) for features in (first, second)]
    centred = [
        (features - mean) / np.sqrt(len(features) - 1)
        for features, mean in zip((first, second), means, strict=True)
    ]
    variances = sum(float(np.square(samples).sum()) for samples in centred)
    root = float(np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum())
    return float(np.square(means[0] - means[1]).sum()) + variances - 2.0 * root


def _load(path: Path, metric: str) -> Any:
    try:
        with warnings.catch_warnings():
            # The format is called outdated; it is the one that these networks exist in.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise AssetError(
            f"{path} is not the TorchScript network of {metric}; leave the option out to go "
            f"without {metric}"
        ) from error
