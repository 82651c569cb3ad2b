# SPDX-License-Identifier: Apache-2.0
"""Learns mean, identity and expression directions from landmarks of many people.

Frames are brought into one pose (Eq. 1), then solved and learned in turns: bounded coefficients and
a person's rest shape given the directions; the directions given the coefficients, by ridge
regression towards the hand-made prior, held local and exactly symmetric by adding every frame's
mirror image with the coefficients of the two sides exchanged.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.face3d.arkit import ARKIT_INDEX, ARKIT_NAMES, mirrored_name
from styleavatar_core.tracking.solver import solve_bounded, solve_pose
from tools.builtin_model import topology
from tools.builtin_model.prior import ExpressionPrior

logger = logging.getLogger(__name__)

Array = npt.NDArray[np.float64]

EYE_DISTANCE = 0.63  # decimetres: what people measure on average
IDENTITY_COUNT = 48
_FLIP = np.array([-1.0, 1.0, 1.0])
_AXIS_WEIGHTS = np.array([1.0, 1.0, 0.15])  # MediaPipe's depth is a guess
_NOISE = 0.006  # decimetres, of one landmark
_EFFECTIVE_SHARE = 0.15  # neighbouring landmarks err together
_COEFFICIENT_SCALE = 0.35  # how far coefficients usually are from zero
_EXCHANGED = np.array([ARKIT_INDEX[mirrored_name(name)] for name in ARKIT_NAMES])


@dataclass(frozen=True)
class LearnedFace:
    """What landmarks can tell of faces.

    Attributes:
        mean: (468, 3) decimetres, symmetric.
        identity_basis: (468, 3, I) per standard deviation.
        expression_basis: (468, 3, 52).
        left_eye_center: (3,) centre of the subject's left eyeball.
        partners: (468,) mirror partners.
    """

    mean: Array
    identity_basis: Array
    expression_basis: Array
    left_eye_center: Array
    partners: npt.NDArray[np.int64]


@dataclass
class _State:
    frames: Array  # (N, 468, 3) posed into model space
    owner: npt.NDArray[np.int64]  # (N,) subject of each frame
    rest: Array  # (subjects, 468, 3)
    coefficients: Array  # (N, 52)
    basis: Array  # (468, 3, 52)


def learn(subjects: list[Array], round_count: int) -> LearnedFace:
    """Learns a face from landmarks.

    Args:
        subjects: One (frames, 478, 3) array per person, pixels, z on the scale of x.
        round_count: Alternations of solving and learning.
    """
    mean, partners = _symmetric_mean(subjects)
    partners = partners[: groups.FACE_LANDMARK_COUNT]
    face_mean = mean[: groups.FACE_LANDMARK_COUNT]
    prior = ExpressionPrior(face_mean, partners, topology.region_graph_edges()).basis()
    owner = np.concatenate([np.full(len(s), i) for i, s in enumerate(subjects)])
    raw = np.concatenate(subjects)[:, : groups.FACE_LANDMARK_COUNT]
    rest = np.broadcast_to(face_mean, (len(subjects), *face_mean.shape)).copy()
    state = _State(raw.copy(), owner, rest, np.zeros((len(raw), len(ARKIT_NAMES))), prior.copy())
    for index in range(max(round_count, 1)):
        _solve_poses(state, raw)
        _solve_coefficients(state, mean=face_mean)
        if index >= 2:
            state.basis = _learn_basis(state, prior, partners)
        logger.info("round %d: residual %.4f of the eye distance", index, _residual(state))
    rest_mean, identity = _identity_directions(state.rest, partners)
    return LearnedFace(
        rest_mean, identity, state.basis, _left_eye_center(mean, rest_mean), partners
    )


def _symmetric_mean(subjects: list[Array]) -> tuple[Array, npt.NDArray[np.int64]]:
    """Averages people after Eq. 1, makes the result symmetric, upright and of true size."""
    shapes = np.concatenate([s[:: max(1, len(s) // 10)] for s in subjects])
    sizes = np.linalg.norm(shapes[:, 263] - shapes[:, 33], axis=1)
    ones = np.ones(shapes.shape[1])
    frontal = np.abs(shapes[:, 263, 2] - shapes[:, 33, 2]) / sizes
    mean = shapes[np.argmin(frontal)] / sizes[np.argmin(frontal)]
    for _ in range(5):
        mean = np.median([solve_pose(mean, s, ones).invert(s) for s in shapes], axis=0)
    partners = topology.mirror_partners(mean)
    mirrored = (mean * _FLIP)[partners]
    mean = (mean + solve_pose(mirrored, mean, ones).apply(mirrored)) / 2
    # A shape averaged with its posed mirror image is symmetric about a tilted plane: untilt it.
    half = solve_pose((mean * _FLIP)[partners], mean, ones)
    axis = np.linalg.eigh((half.rotation * _FLIP + (half.rotation * _FLIP).T) / 2)[1][:, 0]
    axis = axis * np.sign(axis[0])
    turn = _rotation_between(axis, np.array([1.0, 0.0, 0.0]))
    mean = (mean - mean.mean(axis=0)) @ turn.T
    mean = (mean + (mean * _FLIP)[partners]) / 2
    left, right = mean[list(groups.LEFT_EYE_CORNERS)], mean[list(groups.RIGHT_EYE_CORNERS)]
    return mean * (EYE_DISTANCE / np.linalg.norm(left.mean(0) - right.mean(0))), partners


def _rotation_between(start: Array, stop: Array) -> Array:
    cross, cosine = np.cross(start, stop), float(start @ stop)
    skew = np.array([[0, -cross[2], cross[1]], [cross[2], 0, -cross[0]], [-cross[1], cross[0], 0]])
    return np.eye(3) + skew + skew @ skew / (1 + cosine)


def _model_frames(state: _State) -> Array:
    moved = np.tensordot(state.coefficients, state.basis, axes=(1, 2))
    return state.rest[state.owner] + moved


def _solve_poses(state: _State, raw: Array) -> None:
    mobility = np.sqrt((state.basis**2).sum(axis=(1, 2)))
    weights = 1 / (1 + (mobility / 0.1) ** 2)
    for index, model in enumerate(_model_frames(state)):
        state.frames[index] = solve_pose(model, raw[index], weights).invert(raw[index])


def _solve_coefficients(state: _State, mean: Array) -> None:
    """Solves Eq. 2 for every frame in bounds, then every person's rest shape."""
    count = state.basis.shape[-1]
    rows = (state.basis * np.sqrt(_AXIS_WEIGHTS)[None, :, None]).reshape(-1, count)
    gram = rows.T @ rows * _EFFECTIVE_SHARE / _NOISE**2 + np.eye(count) / _COEFFICIENT_SCALE**2
    lower, upper = np.zeros(count), np.ones(count)
    offsets = (state.frames - state.rest[state.owner]) * np.sqrt(_AXIS_WEIGHTS)
    moments = offsets.reshape(len(offsets), -1) @ rows * _EFFECTIVE_SHARE / _NOISE**2
    for index, moment in enumerate(moments):
        state.coefficients[index] = solve_bounded(gram, moment, lower, upper)
    for subject in range(len(state.rest)):
        mine = state.owner == subject
        if mine.sum() >= 10:
            # What is never relaxed belongs to the person, not to the expression.
            floor = np.percentile(state.coefficients[mine], 10, axis=0)
            state.coefficients[mine] = np.maximum(state.coefficients[mine] - floor, 0.0)
        moved = np.tensordot(state.coefficients[mine], state.basis, axes=(1, 2))
        state.rest[subject] = np.median(state.frames[mine] - moved, axis=0)


def _learn_basis(state: _State, prior: Array, partners: npt.NDArray[np.int64]) -> Array:
    """Ridge regression of what is left on the coefficients, around the prior.

    Each person has the same weight; frames enter twice, as seen and mirrored.
    """
    face_count = len(prior)
    counts = np.bincount(state.owner)
    used = counts[state.owner] >= 10
    weight = 1 / np.sqrt(counts[state.owner][used])
    coefficients = state.coefficients[used]
    left = state.frames[used] - state.rest[state.owner[used]]
    left = left - np.tensordot(coefficients, prior, axes=(1, 2))
    both = np.concatenate([coefficients, coefficients[:, _EXCHANGED]])
    left = np.concatenate([left, left[:, partners] * _FLIP])
    weights = np.concatenate([weight, weight])
    gram = (both * weights[:, None]).T @ both
    moment = np.einsum("nj,nvc->vcj", both * weights[:, None], left)
    reach = np.linalg.norm(prior, axis=1)  # (468, 52)
    locality = reach / np.maximum(reach.max(axis=0), 1e-9)
    basis = prior.copy()
    for vertex in range(face_count):
        # A direction may change where the prior moves something, and hardly elsewhere.
        stiffness = 0.3 / (0.02 + locality[vertex]) ** 2
        basis[vertex] += np.linalg.solve(gram + np.diag(stiffness), moment[vertex].T).T
    # What is too small to see is nothing: it costs time in every frame.
    basis[np.broadcast_to((locality < 0.01)[:, None], basis.shape)] = 0.0
    mirrored = (basis[partners] * _FLIP[None, :, None])[..., _EXCHANGED]
    return (basis + mirrored) / 2


def _residual(state: _State) -> float:
    left = (state.frames - _model_frames(state))[..., :2]
    return float(np.linalg.norm(left, axis=-1).mean() / EYE_DISTANCE)


def _identity_directions(rest: Array, partners: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Principal components of rest shapes and their mirror images; far outliers are drawn in."""
    shapes = np.concatenate([rest, rest[:, partners] * _FLIP])
    mean = shapes.mean(axis=0)
    ones = np.ones(rest.shape[1])
    shapes = np.stack([solve_pose(mean, s, ones).invert(s) for s in shapes])
    mean = np.median(shapes, axis=0)
    mean = (mean + mean[partners] * _FLIP) / 2
    deviations = shapes - mean
    sizes = np.linalg.norm(deviations, axis=(1, 2))
    deviations *= np.minimum(1.0, 1.6 * np.median(sizes) / sizes)[:, None, None]
    _, singular, directions = np.linalg.svd(
        deviations.reshape(len(shapes), -1), full_matrices=False
    )
    directions = (
        directions[:IDENTITY_COUNT] * np.sign(directions[:IDENTITY_COUNT].sum(axis=1))[:, None]
    )
    scaled = directions * (singular[:IDENTITY_COUNT] / np.sqrt(len(shapes)))[:, None]
    return mean, scaled.reshape(-1, *mean.shape).transpose(1, 2, 0)


def _left_eye_center(mean: Array, rest_mean: Array) -> Array:
    """Puts the eyeball behind the mean iris, its front a little behind the lids."""
    iris = mean[list(groups.LEFT_IRIS)].mean(axis=0)
    lids = rest_mean[list(groups.LEFT_UPPER_LID + groups.LEFT_LOWER_LID)]
    rim = rest_mean[list(groups.LEFT_EYE)].mean(axis=0)
    depth = np.median(lids[:, 2]) + 0.012 + topology.EYEBALL_RADIUS
    return np.array([(iris[0] + rim[0]) / 2, (iris[1] + rim[1]) / 2, depth])
