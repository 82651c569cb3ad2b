# SPDX-License-Identifier: Apache-2.0
"""Eq. 3: texture coefficients from the colours of several frames."""

from __future__ import annotations

from collections.abc import Sequence

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
_LEAST_VISIBLE = 0.1  # weight below which a frame says nothing of a vertex
_TURN_COUNT = 3  # of solving and of trusting those vertices less that fit badly


def solve_texture(
    model: FaceModel, fitter: FaceFitter, views: Sequence[tuple[Fit, ByteArray]]
) -> FloatArray:
    """Solves Eq. 3 on the vertices that the frames show.

    A vertex has the median of its colours: a hand, a reflection or a dark moment of some frames
    does not count. What no frame shows as the model can, as glasses or hair, counts less. The
    light is unknown and ends up in the coefficients; the paper finds the texture "not critical".

    Args:
        model: The face model.
        fitter: Knows the person's shape.
        views: At least one: the fit of a frame, and (H, W, 3) uint8 RGB of it at any size.

    Returns:
        (T,) float32.
    """
    neutral = model.neutral(fitter.identity)
    seen = [_sample(model, neutral, fit, frame) for fit, frame in views]
    colors, weights = _median(*(np.stack(part) for part in zip(*seen, strict=True)))
    wanted = colors - model.mean_texture
    basis = model.texture_basis.astype(np.float64)
    coefficients: FloatArray = np.zeros(basis.shape[-1])
    trust = np.ones(len(weights))
    for _ in range(_TURN_COUNT):
        root = np.sqrt(weights * trust)[:, None]
        design = (basis * root[..., None]).reshape(-1, basis.shape[-1])
        precision = _EFFECTIVE_SHARE / _NOISE**2
        gram = precision * design.T @ design + np.eye(design.shape[1])
        coefficients = solve_ridge(gram, precision * design.T @ (wanted * root).ravel())
        error = np.linalg.norm(wanted - basis @ coefficients, axis=1)
        trust = 1 / (1 + (error / _NOISE) ** 2)
    return coefficients.astype(np.float32)


def _sample(
    model: FaceModel, neutral: FloatArray, fit: Fit, frame_rgb: ByteArray
) -> tuple[FloatArray, FloatArray]:
    """Returns the colour of each vertex, (V, 3) in [0, 1], and how well it is seen, (V,)."""
    height, width = frame_rgb.shape[:2]
    expression, eyes = fit.expression.astype(np.float32), fit.eye_rotation.astype(np.float32)
    points = fit.pose.apply(model.vertices(neutral, expression, eyes)).astype(np.float32)
    normals = vertex_normals(model.faces, points)
    pixels = to_pixels(points, width, height)
    columns = np.clip(pixels[:, 0].astype(int), 0, width - 1)
    rows = np.clip(pixels[:, 1].astype(int), 0, height - 1)
    inside = (pixels[:, 0] >= 0) & (pixels[:, 0] < width)
    inside &= (pixels[:, 1] >= 0) & (pixels[:, 1] < height)
    weights = np.clip(-normals[:, 2], 0.0, 1.0) * inside * (irradiance(normals) > 0.3)
    for start, stop in model.eye_vertices:
        weights[start:stop] *= 0.2  # lids hide most of an eyeball
    return frame_rgb[rows, columns].astype(np.float64) / 255, weights


def _median(colors: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Returns the median colour over the frames that show a vertex, and their mean weight.

    Args:
        colors: (N, V, 3).
        weights: (N, V).
    """
    shown = weights >= np.minimum(_LEAST_VISIBLE, weights.max(axis=0))
    middle = np.nanmedian(np.where(shown[..., None], colors, np.nan), axis=0)
    return middle, (weights * shown).sum(axis=0) / shown.sum(axis=0)
