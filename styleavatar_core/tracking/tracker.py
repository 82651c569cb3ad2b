# SPDX-License-Identifier: Apache-2.0
"""Live tracking of one face: frames in, parameters out (paper, Sec. 3.1)."""

from __future__ import annotations

import logging

import numpy as np

from styleavatar_core.errors import FaceNotFoundError
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import from_pixels, quaternion_from_matrix
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.tracking.filtering import ParameterFilter
from styleavatar_core.tracking.fitter import FaceFitter, Fit
from styleavatar_core.tracking.landmarks import LandmarkDetector
from styleavatar_core.tracking.texture import solve_texture
from styleavatar_core.types import ByteArray, FaceIdentity, FaceParameters, FloatArray

logger = logging.getLogger(__name__)

# The identity is solved over the first good frames, again at each of these counts, then fixed.
_IDENTITY_FRAME_COUNTS = (1, 8, 24)
_IDENTITY_FRAME_STEP = 3  # neighbouring frames tell little that is new


class Tracker:
    """Tracks one face through the frames of one stream.

    Args:
        model: The face model; the built-in one if None.
        identity: Who is seen, if known; else solved from the first good frames, then fixed.
        filtered: Whether parameters are smoothed (One-Euro); for live use.
        detector: Its own detector if None. A detector serves one stream only.
    """

    def __init__(
        self,
        model: FaceModel | None = None,
        identity: FaceIdentity | None = None,
        *,
        filtered: bool = True,
        detector: LandmarkDetector | None = None,
    ) -> None:
        self._model = model or builtin_model()
        self._detector = detector or LandmarkDetector()
        self._fitter = FaceFitter(self._model, identity.identity if identity else None)
        self._texture: FloatArray | None = identity.texture if identity else None
        self._is_identity_fixed = identity is not None
        self._gallery: list[FloatArray] = []
        self._seen_count = 0
        self._last: Fit | None = None
        self._filter = ParameterFilter() if filtered else None

    @property
    def identity(self) -> FaceIdentity:
        """Who is seen, as far as it is known.

        Raises:
            FaceNotFoundError: No frame has shown a face yet.
        """
        if self._texture is None:
            raise FaceNotFoundError("No face has been seen yet, so there is no identity.")
        return FaceIdentity(
            self._model.model_id, self._fitter.identity.astype(np.float32), self._texture
        )

    def track(
        self, frame_rgb: ByteArray, capture_time_s: float = 0.0, frame_index: int = 0
    ) -> FaceParameters | None:
        """Tracks the face in the next frame.

        Args:
            frame_rgb: (H, W, 3) uint8 RGB.
            capture_time_s: When it was captured; must grow for the filter to work.
            frame_index: Echoed.

        Returns:
            The parameters in frame coordinates, or None if there is no face.
        """
        pixels = self._detector.detect(frame_rgb)
        if pixels is None:
            self._last = None
            if self._filter:
                self._filter.reset()
            return None
        height, width = frame_rgb.shape[:2]
        landmarks = from_pixels(pixels, width, height).astype(np.float64)
        self._learn_identity(landmarks)
        fit = self._fitter.fit(landmarks, self._last)
        self._last = fit
        params = fit_to_parameters(self._model, fit, capture_time_s, frame_index)
        if self._texture is None:
            self._texture = solve_texture(self._model, self._fitter, fit, frame_rgb)
        return self._filter.apply(params) if self._filter else params

    def close(self) -> None:
        """Frees the detector."""
        self._detector.close()

    def _learn_identity(self, landmarks: FloatArray) -> None:
        if self._is_identity_fixed:
            return
        if self._seen_count % _IDENTITY_FRAME_STEP == 0:
            self._gallery.append(landmarks)
            if len(self._gallery) in _IDENTITY_FRAME_COUNTS:
                self._fitter.fit_identity(self._gallery, turn_count=3)
                self._last = None
            if len(self._gallery) >= _IDENTITY_FRAME_COUNTS[-1]:
                self._is_identity_fixed = True
                self._gallery.clear()
        self._seen_count += 1


def fit_to_parameters(
    model: FaceModel, fit: Fit, capture_time_s: float, frame_index: int
) -> FaceParameters:
    """Turns a fit into what crosses process lines."""
    return FaceParameters(
        model_id=model.model_id,
        rotation=quaternion_from_matrix(fit.pose.rotation),
        translation=fit.pose.translation.astype(np.float32),
        scale=fit.pose.scale,
        expression=fit.expression.astype(np.float32),
        eye_rotation=fit.eye_rotation.astype(np.float32),
        capture_time_s=capture_time_s,
        frame_index=frame_index,
    )
