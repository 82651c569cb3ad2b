# SPDX-License-Identifier: Apache-2.0
"""Who is seen: Eq. 2 for one identity shared by several frames (paper, Sec. 3.1).

Over a whole clip at once, or a little with every frame of a live stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from styleavatar_core.tracking.fitter import FaceFitter, Fit
from styleavatar_core.tracking.solver import solve_ridge
from styleavatar_core.types import FloatArray

# Frames of one clip err together: they count as few, however many they are.
_INDEPENDENT_FRAME_COUNT = 16.0

WITNESS_COUNT = 24  # frames of a stream that tell who is seen
_WITNESS_STEP = 3  # neighbouring frames tell little that is new
SETTLING_COUNT = WITNESS_COUNT * _WITNESS_STEP  # frames until the identity is fixed
_FOLLOW_SHARE = 0.3  # of the way to what the witnesses agree on, per frame: no frame jumps
# A head turned further (37 degrees), or a fit so much worse than the others', tells of no shape.
_FACING_COSINE_MIN, _ERROR_RATIO_MAX = 0.8, 2.0
_JUDGE_COUNT = 4  # witnesses that a new one is compared with
# Who comes back is somebody else if they fit so much worse than was usual, even at their best:
# a low percentile of the one error over the median of the other. On clips of four people it was
# 0.7 to 1.05 for the same person; 1.2 to 5 for others, but for two whose shapes are alike.
_STRANGER_PERCENTILE, _STRANGER_RATIO = 20.0, 1.15
_USUAL_COUNT, _USUAL_STEP = 30, 10  # errors that are remembered, one in so many frames
_DOUBT_COUNT = 30  # errors that decide


@dataclass(slots=True)
class _Witness:
    """A frame that tells who is seen: its landmarks, its fit, its normal equations."""

    landmarks: FloatArray
    fit: Fit
    gram: FloatArray
    moment: FloatArray
    error: float


def fit_identity(
    fitter: FaceFitter, frames: Sequence[FloatArray], turn_count: int = 6
) -> list[Fit]:
    """Solves one identity for several frames, and fixes it in the fitter.

    Frames whose residual is far above the others' count less.

    Args:
        fitter: Knows the model; is told the identity.
        frames: (478, 3) landmarks each, frame coordinates.
        turn_count: Turns of fitting frames and identity.

    Returns:
        The fits of the frames.
    """
    fits: list[Fit | None] = [None] * len(frames)
    for _ in range(turn_count):
        witnesses = [_testify(fitter, *pair) for pair in zip(frames, fits, strict=True)]
        fitter.set_identity(_agreed(witnesses))
        fits = [witness.fit for witness in witnesses]
    return [fitter.fit(frame, fit) for frame, fit in zip(frames, fits, strict=True)]


def _testify(fitter: FaceFitter, landmarks: FloatArray, start: Fit | None) -> _Witness:
    fit = fitter.fit(landmarks, start)
    return _Witness(landmarks, fit, *fitter.identity_equations(landmarks, fit))


def _agreed(witnesses: Sequence[_Witness]) -> FloatArray:
    """Returns the (I,) coefficients that explain the frames best."""
    errors = np.array([witness.error for witness in witnesses])
    trust = 1 / (1 + (errors / (2 * np.median(errors))) ** 4)
    trust *= min(trust.sum(), _INDEPENDENT_FRAME_COUNT) / trust.sum()
    gram = np.eye(len(witnesses[0].moment))
    moment = np.zeros(len(gram))
    for share, witness in zip(trust, witnesses, strict=True):
        gram += share * witness.gram
        moment += share * witness.moment
    return solve_ridge(gram, moment)


class IdentityLearner:
    """Learns who is seen while a stream runs, with a bounded piece of work per frame.

    Good frames of the first seconds become witnesses: those that face the camera and fit no worse
    than others. The present identity follows what they agree on, and each is fitted again as it
    grows better. Then the identity is fixed, until somebody else sits down.

    Attributes:
        person_index: How many people were seen before this one, one after the other.

    Args:
        fitter: Fits the stream's frames; is told the identity.
    """

    def __init__(self, fitter: FaceFitter) -> None:
        self._fitter = fitter
        self.person_index = -1
        self._meet()

    def _meet(self) -> None:
        """Begins with somebody new."""
        self.person_index += 1
        self._has_begun = False
        self._witnesses: list[_Witness] = []
        self._seen_count = 0
        self._revisited = 0
        self._settled_count = 0
        self._usual: deque[float] = deque(maxlen=_USUAL_COUNT)  # errors since it is settled
        self._doubts: list[float] | None = None  # errors since the person was away

    @property
    def is_settled(self) -> bool:
        """Whether the identity is fixed."""
        return self._seen_count >= SETTLING_COUNT

    def doubt(self) -> None:
        """Hears that nobody was there for long: who comes next may be somebody else."""
        if not self._has_begun:
            return  # there was nobody before
        if len(self._usual) < _USUAL_COUNT // 3:
            self._meet()
        else:
            self._doubts = []

    def begin(self, landmarks: FloatArray) -> None:
        """Makes a first guess from the (478, 3) landmarks of the first frame."""
        if not self._has_begun:
            self._fitter.set_identity(np.zeros_like(self._fitter.identity))
            fit_identity(self._fitter, [landmarks], turn_count=2)
            self._has_begun = True

    def learn(self, landmarks: FloatArray, fit: Fit) -> None:
        """Learns from the next frame, (478, 3) landmarks that were just fitted."""
        if fit.pose.rotation[2, 2] < _FACING_COSINE_MIN:
            return
        if self.is_settled:
            self._watch(landmarks, fit)
            return
        if self._seen_count % _WITNESS_STEP == 0:
            witness = _Witness(landmarks, fit, *self._fitter.identity_equations(landmarks, fit))
            if not self._is_good(witness):
                return
            self._witnesses.append(witness)
        else:
            place = self._revisited % len(self._witnesses)
            known = self._witnesses[place]
            self._witnesses[place] = _testify(self._fitter, known.landmarks, known.fit)
            self._revisited += 1
        self._seen_count += 1
        agreed = _agreed(self._witnesses)
        present = self._fitter.identity
        self._fitter.set_identity(present + _FOLLOW_SHARE * (agreed - present))
        if self.is_settled:
            self._witnesses.clear()

    def _is_good(self, witness: _Witness) -> bool:
        if len(self._witnesses) < _JUDGE_COUNT:
            return True
        usual = np.median([known.error for known in self._witnesses])
        return bool(witness.error <= _ERROR_RATIO_MAX * usual)

    def _watch(self, landmarks: FloatArray, fit: Fit) -> None:
        """Learns how well the person usually fits, or whether who came back is the same."""
        self._settled_count += 1
        step = _USUAL_STEP if self._doubts is None else _WITNESS_STEP
        if self._settled_count % step:
            return
        error = self._fitter.error(landmarks, fit)
        if self._doubts is None:
            self._usual.append(error)
            return
        self._doubts.append(error)
        if len(self._doubts) == _DOUBT_COUNT:
            least = np.percentile(self._doubts, _STRANGER_PERCENTILE)
            self._doubts = None
            if least > _STRANGER_RATIO * np.median(self._usual):
                self._meet()
