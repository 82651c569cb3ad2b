# SPDX-License-Identifier: Apache-2.0
"""Eq. 3: texture coefficients from the colours of one frame."""

from __future__ import annotations

import numpy as np

from styleavatar_core.face3d.camera import to_pixels
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.raster.mesh import irradiance, vertex_normals
from styleavatar_core.tracking.fitter import FaceFitter, Fit
from styleavatar_core.tracking.solver import solve_ridge
from styleavatar_core.types import ByteArray, FloatArray

# Colour noise, as a share of full scale, against texture coefficients of about 1; the neighbours of
# a vertex show the same light, so only a part of the vertices counts.
_NOISE = 0.1
_EFFECTIVE_SHARE = 0.3


def solve_texture(
    model: FaceModel, fitter: FaceFitter, fit: Fit, frame_rgb: ByteArray
) -> FloatArray:
    """Solves Eq. 3 on the vertices that the frame shows.

    The frame's own light is unknown and ends up in the coefficients; the paper finds the texture
    "not critical".

    Args:
        model: The face model.
        fitter: Knows the person's shape.
        fit: The fit of this frame.
        frame_rgb: (H, W, 3) uint8 RGB.

    Returns:
        (T,) float32.
    """
    height, width = frame_rgb.shape[:2]
    vertices = model.vertices(
        model.neutral(fitter.identity),
        fit.expression.astype(np.float32),
        fit.eye_rotation.astype(np.float32),
    )
    points = fit.pose.apply(vertices).astype(np.float32)
    normals = vertex_normals(model.faces, points)
    pixels = to_pixels(points, width, height)
    columns = np.clip(pixels[:, 0].astype(int), 0, width - 1)
    rows = np.clip(pixels[:, 1].astype(int), 0, height - 1)
    inside = (pixels[:, 0] >= 0) & (pixels[:, 0] < width)
    inside &= (pixels[:, 1] >= 0) & (pixels[:, 1] < height)
    weights = np.clip(-normals[:, 2], 0.0, 1.0) * inside * (irradiance(normals) > 0.3)
    for start, stop in model.eye_vertices:
        weights[start:stop] *= 0.2  # lids hide most of an eyeball
    colors = frame_rgb[rows, columns].astype(np.float64) / 255 - model.mean_texture
    root = np.sqrt(weights)[:, None]
    design = (model.texture_basis * root[..., None]).reshape(-1, model.texture_basis.shape[-1])
    precision = _EFFECTIVE_SHARE / _NOISE**2
    gram = precision * design.T @ design + np.eye(design.shape[1])
    return solve_ridge(gram, precision * design.T @ (colors * root).ravel()).astype(np.float32)
