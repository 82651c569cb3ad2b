# SPDX-License-Identifier: Apache-2.0
"""Live tracking of one face: frames in, parameters out (paper, Sec. 3.1)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from styleavatar_core.data.frame_clock import FrameClock
from styleavatar_core.errors import FaceNotFoundError, InvalidInputError
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import from_pixels, quaternion_from_matrix
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.tracking.filtering import ParameterFilter
from styleavatar_core.tracking.fit_prior import FitConfig
from styleavatar_core.tracking.fitter import FaceFitter, Fit
from styleavatar_core.tracking.identity import IdentityLearner
from styleavatar_core.tracking.landmarks import GIVE_UP_S, LandmarkDetector
from styleavatar_core.tracking.texture import solve_texture
from styleavatar_core.tracking.views import ViewSampler
from styleavatar_core.types import ByteArray, FaceIdentity, FaceParameters, FloatArray

_IDENTITY_LIMIT = 100.0  # standard deviations; far beyond any face


class Tracker:
    """Tracks one face through the frames of one stream.

    Args:
        model: The face model; the built-in one if None.
        identity: Who is seen, if known; else solved from the first good frames, then fixed until
            somebody else sits down.
        filtered: Whether parameters are smoothed (One-Euro); for live use.
        detector: Its own detector if None. A detector serves one stream only.
        config: Numbers of the fit.

    Raises:
        InvalidInputError: The identity is none of this face model's.
    """

    def __init__(
        self,
        model: FaceModel | None = None,
        identity: FaceIdentity | None = None,
        *,
        filtered: bool = True,
        detector: LandmarkDetector | None = None,
        config: FitConfig | None = None,
    ) -> None:
        self._model = model or builtin_model()
        if identity is not None:
            _check_identity(identity, self._model)
        self._detector = detector or LandmarkDetector()
        self._fitter = FaceFitter(self._model, identity.identity if identity else None, config)
        self._texture: FloatArray | None = identity.texture if identity else None
        self._learner = IdentityLearner(self._fitter) if identity is None else None
        self._person_index = 0  # whom texture and views show
        self._sampler: ViewSampler[Fit] = ViewSampler()
        self._last: Fit | None = None
        self._filter = ParameterFilter() if filtered else None
        self._clock = FrameClock()
        self._lost_s = 0.0

    @property
    def identity(self) -> FaceIdentity:
        """Who is seen, as far as it is known.

        Raises:
            FaceNotFoundError: No frame has shown a face yet.
        """
        texture = self._texture
        if texture is None:
            if not self._sampler.views:
                raise FaceNotFoundError("No face has been seen yet, so there is no identity.")
            # Solved when asked for: tracking needs no texture, and a live frame has no time for it.
            texture = solve_texture(self._model, self._fitter, self._sampler.views)
            if self._learner is None or self._learner.is_settled:
                self._texture = texture
        return FaceIdentity(self._model.model_id, self._fitter.identity.astype(np.float32), texture)

    def track(
        self, frame_rgb: ByteArray, capture_time_s: float = 0.0, frame_index: int = 0
    ) -> FaceParameters | None:
        """Tracks the face in the next frame.

        Args:
            frame_rgb: (H, W, 3) uint8 RGB.
            capture_time_s: When it was captured; filter and detector tell time by it.
            frame_index: Echoed.

        Returns:
            The parameters in frame coordinates, or None if there is no face.
        """
        pixels = self._detector.detect(frame_rgb, capture_time_s)
        # As the detector counts, which may find somebody else in the frame in which it gives up.
        self._lost_s += self._clock.step(capture_time_s)
        if pixels is None:
            self._last = None
            if self._filter:
                self._filter.reset()
            return None
        height, width = frame_rgb.shape[:2]
        landmarks = from_pixels(pixels, width, height).astype(np.float64)
        if self._learner:
            if self._lost_s > GIVE_UP_S:
                self._learner.doubt()
            self._learner.begin(landmarks)
        self._lost_s = 0.0
        fit = self._fitter.fit(landmarks, self._last)
        self._last = fit
        params = fit_to_parameters(self._model, fit, capture_time_s, frame_index)
        if self._learner:
            self._learn(self._learner, landmarks, fit, frame_rgb)
            params = replace(params, person_index=self._learner.person_index)
        return self._filter.apply(params) if self._filter else params

    def _learn(
        self, learner: IdentityLearner, landmarks: FloatArray, fit: Fit, frame_rgb: ByteArray
    ) -> None:
        learner.learn(landmarks, fit)
        if learner.person_index != self._person_index:  # somebody else has sat down
            self._person_index = learner.person_index
            self._texture, self._sampler = None, ViewSampler()
        if not learner.is_settled:
            self._sampler.offer(fit, frame_rgb)

    def close(self) -> None:
        """Frees the detector."""
        self._detector.close()


def _check_identity(identity: FaceIdentity, model: FaceModel) -> None:
    count = model.identity_basis.shape[-1]
    values = np.asarray(identity.identity)
    if identity.model_id != model.model_id or values.shape != (count,):
        raise InvalidInputError(
            f"The identity has {values.size} coefficients of face model '{identity.model_id}'; "
            f"this tracker needs {count} of '{model.model_id}'."
        )
    if not (np.abs(values) <= _IDENTITY_LIMIT).all():
        raise InvalidInputError(
            f"An identity coefficient is no number within {_IDENTITY_LIMIT:g} standard deviations."
        )


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
