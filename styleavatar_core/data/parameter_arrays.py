# SPDX-License-Identifier: Apache-2.0
"""Face parameters of many frames as arrays, as files hold them."""

from __future__ import annotations

import numpy as np

from styleavatar_core.types import FaceParameters


def stack_parameters(parameters: list[FaceParameters]) -> dict[str, np.ndarray]:
    """Stacks parameters to arrays with a leading T."""
    stacked = {
        name: np.stack([getattr(p, name) for p in parameters]).astype(np.float32)
        for name in ("rotation", "translation", "expression", "eye_rotation")
    }
    for name, kind in (
        ("scale", np.float64),
        ("confidence", np.float32),
        ("capture_time_s", np.float64),
        ("frame_index", np.int64),
    ):
        stacked[name] = np.array([getattr(p, name) for p in parameters], kind)
    return stacked


def unstack_parameters(arrays: dict[str, np.ndarray], model_id: str) -> list[FaceParameters]:
    """Restores what :func:`stack_parameters` stacked."""
    return [
        FaceParameters(
            model_id=model_id,
            rotation=arrays["rotation"][i],
            translation=arrays["translation"][i],
            scale=float(arrays["scale"][i]),
            expression=arrays["expression"][i],
            eye_rotation=arrays["eye_rotation"][i],
            confidence=float(arrays["confidence"][i]),
            capture_time_s=float(arrays["capture_time_s"][i]),
            frame_index=int(arrays["frame_index"][i]),
        )
        for i in range(len(arrays["scale"]))
    ]
