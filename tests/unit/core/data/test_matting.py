# SPDX-License-Identifier: Apache-2.0
"""What Robust Video Matting remembers is of frames shortly before, and of no others."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Optional

import numpy as np
import pytest
import torch

from styleavatar_core.data.matting import ForegroundMatting

Maps = Optional[torch.Tensor]  # noqa: UP045 -- TorchScript of this Python knows no other


class Counting(torch.nn.Module):
    """Takes and gives what such a network does; its matte is a tenth of the frames in memory."""

    def forward(
        self,
        image: torch.Tensor,
        first: Maps,
        second: Maps,
        third: Maps,
        fourth: Maps,
        ratio: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Maps, Maps, Maps]:
        before = torch.zeros_like(image[:, :1]) if first is None else first
        seen = before + 0.1
        return image * ratio, seen, seen, second, third, fourth


@pytest.mark.parametrize(
    ("times", "remembered"),
    [
        ([0.0, 0.04, 0.08, 0.5], [1, 2, 3, 4]),  # thinned or with a short break
        ([10.0, 10.04, 11.0, 11.04], [1, 2, 1, 2]),  # the face was away
        ([5.0, 9.0, 13.0, 2.0], [1, 1, 1, 1]),  # some frames of a whole clip
    ],
)
def test_memory_ends_where_frames_lie_apart(
    tmp_path: Path, times: list[float], remembered: list[int]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the format that such networks have
        torch.jit.script(Counting()).save(str(tmp_path / "rvm.pt"))
        matting = ForegroundMatting(tmp_path / "rvm.pt")
    frame = np.zeros((8, 8, 3), np.uint8)
    seen = [matting.matte(frame, time_s)[0, 0] for time_s in times]
    np.testing.assert_allclose(seen, np.array(remembered) / 10, atol=1e-6)
