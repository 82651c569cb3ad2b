# SPDX-License-Identifier: Apache-2.0
"""Warps a portrait photograph as its fitted mesh moves: the picture half of the sample clip.

Every output pixel asks where in the photograph it comes from. On the face the mesh says so,
triangle by triangle; around it (hair, ears, neck) a thin-plate spline continues the mesh's motion
and dies away towards the shoulders. The person is cut out; the background stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from styleavatar_core.face3d.camera import matrix_from_quaternion, project, to_pixels
from styleavatar_core.face3d.landmark_groups import FACE_OVAL
from styleavatar_core.face3d.model import FaceModel
from styleavatar_core.raster.software import interpolate, rasterize
from styleavatar_core.sample.clean_plate import clean_plate
from styleavatar_core.sample.layers import (
    IRIS_CENTERS,
    LEFT_EYE_RING,
    LOWER_INNER_LIP,
    RIGHT_EYE_RING,
    UPPER_INNER_LIP,
    fit_affine,
    lower_lid,
    take_eye,
    take_mouth,
    upper_lid,
)
from styleavatar_core.sample.skin import LifelikeSkin
from styleavatar_core.types import ByteArray, FaceIdentity, FaceParameters, FloatArray

_CHIN, _FOREHEAD, _SKIN_POINTS = 152, 10, 468
# Upper edge, lower edge, the upper one's share in where they meet: mostly the upper lid moves.
_OPENINGS = (
    (UPPER_INNER_LIP, LOWER_INNER_LIP, 0.5),
    (upper_lid(LEFT_EYE_RING), lower_lid(LEFT_EYE_RING), 0.2),
    (upper_lid(RIGHT_EYE_RING), lower_lid(RIGHT_EYE_RING), 0.2),
)
# The head's outline lies about this far behind the face's centre, decimetres.
_OUTLINE_DEPTH_DM = 0.75
_GRID_CELLS = 32


@dataclass(frozen=True, slots=True)
class Portrait:
    """A square photograph and what was found in it.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        matte: (S, S) float32 in [0, 1], 1 on the person.
        landmarks: (478, 2) float32 pixels.
        params: The fitted pose and expression.
        identity: The fitted identity.
    """

    image: ByteArray
    matte: FloatArray
    landmarks: FloatArray
    params: FaceParameters
    identity: FaceIdentity


class PortraitWarp:
    """Shows a portrait with other parameters than those it was taken with."""

    def __init__(self, portrait: Portrait, model: FaceModel) -> None:
        self._portrait = portrait
        self._model = model
        self._size = len(portrait.image)
        self._neutral = model.neutral(portrait.identity.identity)
        self._skin = LifelikeSkin(model)
        self._rest = self._rest_vertices()
        self._rest_px = self._pixels(self._rest, portrait.params)
        self._eyes = [take_eye(portrait.image, portrait.landmarks, s) for s in IRIS_CENTERS]
        self._irises = [int(model.landmark_indices[index]) for index in IRIS_CENTERS.values()]
        self._mouth = take_mouth(portrait.image, portrait.landmarks)
        self._plate = clean_plate(portrait.image, portrait.matte)
        self._outline = self._head_outline()
        self._fixed_px = self._shoulders()
        skin = set(model.landmark_indices[:_SKIN_POINTS].tolist())
        self._faces = np.array([f for f in model.faces if skin.issuperset(f.tolist())], np.int32)
        self._feather = self._feather_weights()

    def render(self, params: FaceParameters) -> ByteArray:
        """Shows the portrait with these parameters.

        Args:
            params: Pose, gaze and expression, in the square's frame coordinates.

        Returns:
            (S, S, 3) uint8 RGB.
        """
        target_px = self._targets(params)
        rigid_px = self._pixels(self._rest, params)
        source = self._skin_source(target_px, self._surrounding_source(target_px, params))
        frame = self._person_over_plate(source)
        for eye, iris in zip(self._eyes, self._irises, strict=True):
            ring = self._of_landmarks(eye.ring)
            rigid = fit_affine(self._rest_px[ring, :2], rigid_px[ring, :2])
            eye.paint(frame, target_px[ring, :2], rigid, target_px[iris, :2])
        upper, lower = self._of_landmarks(UPPER_INNER_LIP), self._of_landmarks(LOWER_INNER_LIP)
        rigid = fit_affine(self._rest_px[upper + lower, :2], rigid_px[upper + lower, :2])
        self._mouth.paint(frame, target_px[upper, :2], target_px[lower, :2], rigid)
        return frame

    def landmarks(self, params: FaceParameters) -> FloatArray:
        """Returns where :meth:`render` puts the landmarks, (478, 3) pixels, z on the scale of x."""
        return self._targets(params)[self._model.landmark_indices]

    def _targets(self, params: FaceParameters) -> FloatArray:
        vertices = self._rest + self._moved_by(params)
        return self._with_closed_edges(self._pixels(vertices, params))

    def _with_closed_edges(self, target_px: FloatArray) -> FloatArray:
        """Lets lids and lips that pass each other meet instead, (V, 3) pixels."""
        for upper, lower, upper_share in _OPENINGS:
            above, below = self._of_landmarks(upper), self._of_landmarks(lower)
            passed = target_px[above, 1] > target_px[below, 1]
            meeting = upper_share * target_px[above] + (1 - upper_share) * target_px[below]
            for side in (above, below):
                target_px[side, :2] = np.where(passed[:, None], meeting, target_px[side])[:, :2]
        return target_px

    def _of_landmarks(self, landmarks: tuple[int, ...]) -> list[int]:
        return [int(self._model.landmark_indices[index]) for index in landmarks]

    def _pixels(self, vertices: FloatArray, params: FaceParameters) -> FloatArray:
        return to_pixels(project(vertices, params), self._size, self._size)

    def _shape(self, params: FaceParameters) -> FloatArray:
        return self._model.vertices(self._neutral, params.expression, params.eye_rotation)

    def _moved_by(self, params: FaceParameters) -> FloatArray:
        return self._skin.moved(self._shape(params) - self._shape(self._portrait.params))

    def _rest_vertices(self) -> FloatArray:
        """The fitted mesh, of a head's depth, moved in the image plane to meet every landmark."""
        params = self._portrait.params
        fitted = self._skin.deepened(self._shape(params))
        index = self._model.landmark_indices
        missing = self._portrait.landmarks - self._pixels(fitted, params)[index, :2]
        in_frame = np.concatenate([missing, np.zeros((len(missing), 1))], axis=1)
        in_frame /= self._size / 2 * params.scale
        correction = np.zeros_like(fitted)
        correction[index] = in_frame @ matrix_from_quaternion(params.rotation)
        for eye, (start, stop) in zip(IRIS_CENTERS.values(), self._model.eye_vertices, strict=True):
            correction[start:stop] = correction[index[eye]]
        return fitted + correction

    def _head_outline(self) -> FloatArray:
        """Points around hair and head that move with the skull, (N, 3) model space at rest."""
        oval = self._portrait.landmarks[list(FACE_OVAL)]
        center = oval.mean(axis=0)
        reach = float(np.ptp(oval[:, 1])) * 1.1
        points = []
        for angle in np.deg2rad(np.arange(-195, 16, 14)):
            direction = np.array([np.cos(angle), np.sin(angle)])
            steps = center + np.arange(reach * 0.35, reach)[:, None] * direction
            pixel = np.clip(steps.astype(int), 0, self._size - 1)
            outside = self._portrait.matte[pixel[:, 1], pixel[:, 0]] < 0.5
            length = reach * 0.35 + (int(np.argmax(outside)) if outside.any() else len(steps))
            points += [center + direction * length, center + direction * length * 1.3]
        return self._lift(np.array(points), _OUTLINE_DEPTH_DM)

    def _lift(self, pixels: FloatArray, behind_dm: float) -> FloatArray:
        """Puts pixels of the photograph into the head's space, behind the face's centre."""
        params = self._portrait.params
        frame = (pixels - self._size / 2) / (self._size / 2)
        rotation = matrix_from_quaternion(params.rotation)
        center_z = (rotation @ self._rest[:_SKIN_POINTS].mean(axis=0))[2]
        rotated = np.empty((len(pixels), 3))
        rotated[:, :2] = frame / params.scale - params.translation[:2]
        rotated[:, 2] = center_z + behind_dm
        return (rotated @ rotation).astype(np.float32)

    def _shoulders(self) -> FloatArray:
        """Points that stay: shoulders and the image's lower border, (N, 2) pixels."""
        oval = self._portrait.landmarks[list(FACE_OVAL)]
        middle, height = oval[:, 0].mean(), float(np.ptp(oval[:, 1]))
        chin = float(self._portrait.landmarks[_CHIN, 1])
        rows = [(0.05, (-1.25, 1.25)), (0.3, (-1.0, 1.0)), (0.55, (-0.9, -0.45, 0, 0.45, 0.9))]
        points = [(middle + x * height, chin + y * height) for y, xs in rows for x in xs]
        points += [(x * self._size, self._size * y) for x in np.linspace(0, 1, 7) for y in (0.9, 1)]
        return np.array(points, np.float32)

    def _feather_weights(self) -> FloatArray:
        """(V, 1) float32: 0 on the face's rim, 1 within it; where mesh and surroundings mix."""
        neighbours: dict[int, set[int]] = {}
        for face in self._faces.tolist():
            for vertex in face:
                neighbours.setdefault(vertex, set()).update(face)
        rim = set(self._of_landmarks(FACE_OVAL))
        near = set().union(*(neighbours[vertex] for vertex in rim)) - rim
        weights = np.ones((len(self._rest), 1), np.float32)
        weights[list(near)] = 0.6
        weights[list(rim)] = 0.0
        return weights

    def _surrounding_source(self, target_px: FloatArray, params: FaceParameters) -> FloatArray:
        """Where each pixel around the face comes from, (S, S, 2) float32 pixels."""
        oval = self._of_landmarks(FACE_OVAL)
        outline_rest = self._pixels(self._outline, self._portrait.params)[:, :2]
        outline_now = self._pixels(self._outline, params)[:, :2]
        sources = np.concatenate([self._rest_px[oval, :2], outline_rest, self._fixed_px])
        targets = np.concatenate([target_px[oval, :2], outline_now, self._fixed_px])
        cells = np.linspace(0.0, self._size, _GRID_CELLS + 1)
        grid = np.stack(np.meshgrid(cells, cells), axis=-1).reshape(-1, 2)
        # The smoothest surface; a little looser, lest it ring between anchors that nearly meet.
        surface = RBFInterpolator(targets / self._size, sources - targets, smoothing=1e-4)
        moved = surface(grid / self._size)  # a thin-plate spline
        coarse = moved.reshape(_GRID_CELLS + 1, _GRID_CELLS + 1, 2).astype(np.float32)
        centers = (np.arange(self._size, dtype=np.float32) + 0.5) * (_GRID_CELLS / self._size)
        at_x, at_y = np.meshgrid(centers, centers)
        dense = cv2.remap(coarse, at_x, at_y, cv2.INTER_LINEAR)
        rows, columns = np.indices((self._size, self._size), np.float32) + 0.5
        return dense + np.stack([columns, rows], axis=-1)

    def _skin_source(self, target_px: FloatArray, around: FloatArray) -> FloatArray:
        """Where each pixel comes from: by the mesh on the face, as around it elsewhere."""
        fragments = rasterize(target_px, self._faces, self._size, self._size)
        attributes = np.concatenate([self._rest_px[:, :2], self._feather], axis=1)
        known = interpolate(fragments, self._faces, attributes)
        return around + (known[..., :2] - around) * known[..., 2:]

    def _person_over_plate(self, source: FloatArray) -> ByteArray:
        """Fetches the person from the photograph and lays it over the empty background."""
        at_x, at_y = source[..., 0] - 0.5, source[..., 1] - 0.5
        image, matte = self._portrait.image, self._portrait.matte
        person = cv2.remap(image, at_x, at_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.remap(matte, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mixed = self._plate + (person - self._plate) * alpha[..., None]
        return np.clip(np.round(mixed), 0, 255).astype(np.uint8)
