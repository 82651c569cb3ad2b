# SPDX-License-Identifier: Apache-2.0
"""Foreground mattes of portrait frames (paper, Sec. 3.1).

The paper uses Robust Video Matting; its weights are used when a TorchScript file of them is given,
otherwise the selfie segmentation that MediaPipe carries in its package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from styleavatar_core.data.mediapipe_import import QuietSolution, import_mediapipe
from styleavatar_core.errors import AssetError
from styleavatar_core.types import ByteArray, FloatArray

# Names of the methods.
RVM = "robust-video-matting"
SELFIE = "mediapipe-selfie-segmentation"
_LONGEST_GAP_S = 0.5  # between frames of which one says something of the other


class ForegroundMatting:
    """Says for each pixel how much of it is person.

    Args:
        weights: TorchScript file of Robust Video Matting; without it MediaPipe is used.

    Attributes:
        name: Which method is in use, for reports and bundles.
    """

    def __init__(self, weights: Path | None = None) -> None:
        self._recurrent: list[Any] = [None] * 4
        self._last_time_s = 0.0
        self._network: Any = None  # one of the two
        self._segmentation: Any = None
        if weights is not None:
            self.name = RVM
            self._network = _load_torchscript(weights)
        else:
            self.name = SELFIE
            self._segmentation = _open_selfie_segmentation()

    def matte(self, frame: ByteArray, time_s: float = 0.0) -> FloatArray:
        """Computes the matte of the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB.
            time_s: When it was captured. Robust Video Matting takes over from the frame before what
                it saw there, unless too long has passed for it to say anything of this one.

        Returns:
            (H, W) float32 in [0, 1]; 1 = person, 0 = background.
        """
        if self._network is not None:
            if not 0 <= time_s - self._last_time_s <= _LONGEST_GAP_S:
                self._recurrent = [None] * 4
            self._last_time_s = time_s
            return self._matte_recurrent(frame)
        mask = self._segmentation.process(frame).segmentation_mask
        return np.clip(mask, 0.0, 1.0).astype(np.float32)

    def close(self) -> None:
        """Frees the models."""
        if self._segmentation is not None:
            self._segmentation.close()
            self._segmentation = None

    def _matte_recurrent(self, frame: ByteArray) -> FloatArray:
        import torch

        ratio = min(1.0, 512.0 / max(frame.shape[:2]))  # the ratio that its authors advise
        image = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255.0
        with torch.inference_mode():
            _, alpha, *self._recurrent = self._network(image, *self._recurrent, ratio)
        return alpha[0, 0].clamp(0, 1).numpy()


def _open_selfie_segmentation() -> QuietSolution:
    solutions = import_mediapipe().solutions
    # Model 0 keeps the outline of hair tighter than model 1 (landscape).
    return QuietSolution(
        lambda: solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)
    )


def _load_torchscript(path: Path) -> Any:
    import torch

    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise AssetError(
            f"{path} is not a TorchScript file of Robust Video Matting; leave the option out to "
            "use the built-in segmentation"
        ) from error
