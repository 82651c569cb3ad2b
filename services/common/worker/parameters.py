# SPDX-License-Identifier: Apache-2.0
"""Face parameters and identities as JSON-able values, for the messages of workers."""

from __future__ import annotations

from typing import Any

import numpy as np

from styleavatar_core.types import FaceIdentity, FaceParameters


def parameters_to_body(parameters: FaceParameters) -> dict[str, Any]:
    """Writes face parameters as JSON-able values; float32 come back exactly."""
    return {
        "model_id": parameters.model_id,
        "rotation": parameters.rotation.tolist(),
        "translation": parameters.translation.tolist(),
        "scale": float(parameters.scale),
        "expression": parameters.expression.tolist(),
        "eye_rotation": parameters.eye_rotation.tolist(),
        "confidence": float(parameters.confidence),
        "capture_time_s": float(parameters.capture_time_s),
        "frame_index": int(parameters.frame_index),
    }


def parameters_from_body(body: dict[str, Any]) -> FaceParameters:
    """Reads what ``parameters_to_body`` wrote."""
    arrays = {
        name: np.array(body[name], np.float32)
        for name in ("rotation", "translation", "expression", "eye_rotation")
    }
    return FaceParameters(**{**body, **arrays})


def identity_to_body(identity: FaceIdentity) -> dict[str, Any]:
    """Writes a face identity as JSON-able values."""
    return {
        "model_id": identity.model_id,
        "identity": identity.identity.tolist(),
        "texture": identity.texture.tolist(),
    }


def identity_from_body(body: dict[str, Any]) -> FaceIdentity:
    """Reads what ``identity_to_body`` wrote."""
    arrays = {name: np.array(body[name], np.float32) for name in ("identity", "texture")}
    return FaceIdentity(body["model_id"], **arrays)
