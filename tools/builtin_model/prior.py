# SPDX-License-Identifier: Apache-2.0
"""Hand-made meaning of the 52 expressions: handles that pull, and a smooth sheet in between.

Each direction names the landmarks that it moves and how far at coefficient 1 (decimetres; x towards
the subject's left, y down, z away from the camera). The rest follows by minimal bending on the
mesh, whose holes (mouth, eyes) keep upper and lower lips and lids apart. Directions of the right
side are mirrored from the left, so the basis is exactly symmetric.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import splu

from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.face3d.arkit import ARKIT_INDEX, ARKIT_NAMES, mirrored_name

Array = npt.NDArray[np.float64]
Handle = tuple[Sequence[int], tuple[float, float, float]]

_HANDLE_STIFFNESS = 1e3

_LEFT_CORNER = (291, 308)
_BOTH_CORNERS_LEFT_SIDE = (291, 308, 409, 375)
_UPPER_LIP = groups.UPPER_OUTER_LIP + groups.UPPER_INNER_LIP
_LOWER_LIP = groups.LOWER_OUTER_LIP + groups.LOWER_INNER_LIP
_UPPER_LEFT = (267, 269, 270, 312, 311, 310)
_LOWER_LEFT = (314, 405, 321, 317, 402, 318)
_CHIN = (152, 175, 199, 200, 148, 377, 171, 396)
_LEFT_INNER_BROW = (336, 285, 296, 295)
_LEFT_OUTER_BROW = (300, 293, 276, 283, 334, 282)
_LEFT_UPPER = groups.LEFT_UPPER_LID
_LEFT_LOWER = groups.LEFT_LOWER_LID

# Brows and smiles leave the lids to the eye directions, or a frown would read as a blink.
_STILL_LIDS: Handle = (groups.LIDS, (0.0, 0.0, 0.0))

# Directions that have a left and a right form, given for the left, with the reach of each pull.
_SIDED: dict[str, tuple[float, list[Handle]]] = {
    "eyeSquintLeft": (0.22, [(_LEFT_LOWER, (0, -0.045, 0)), (_LEFT_UPPER[1:-1], (0, 0.02, 0))]),
    "eyeWideLeft": (0.2, [(_LEFT_UPPER[1:-1], (0, -0.055, 0)), (_LEFT_LOWER, (0, 0.008, 0))]),
    "eyeLookInLeft": (0.15, [((*_LEFT_UPPER, *_LEFT_LOWER), (-0.012, 0, 0))]),
    "eyeLookOutLeft": (0.15, [((*_LEFT_UPPER, *_LEFT_LOWER), (0.012, 0, 0))]),
    "eyeLookUpLeft": (0.2, [(_LEFT_UPPER[1:-1], (0, -0.03, 0)), (_LEFT_LOWER, (0, -0.01, 0))]),
    "eyeLookDownLeft": (0.2, [(_LEFT_UPPER[1:-1], (0, 0.05, 0)), (_LEFT_LOWER, (0, 0.015, 0))]),
    "mouthSmileLeft": (
        0.6,
        [
            (_LEFT_CORNER, (0.09, -0.08, 0.04)),
            ((409, 375), (0.07, -0.06, 0.03)),
            ((425, 280, 411), (0.03, -0.05, -0.03)),
            _STILL_LIDS,
        ],
    ),
    "mouthFrownLeft": (0.45, [(_LEFT_CORNER, (0.02, 0.09, 0.01)), ((375, 321), (0.0, 0.05, 0.0))]),
    "mouthDimpleLeft": (0.4, [(_LEFT_CORNER, (0.07, 0.0, 0.05))]),
    "mouthStretchLeft": (
        0.5,
        [(_LEFT_CORNER, (0.10, 0.05, 0.04)), ((321, 375), (0.06, 0.05, 0.02))],
    ),
    "mouthPressLeft": (
        0.3,
        [
            (_UPPER_LEFT, (0, 0.02, 0.01)),
            (_LOWER_LEFT, (0, -0.025, 0.01)),
            (_LEFT_CORNER, (0.01, -0.01, 0.0)),
        ],
    ),
    "mouthLowerDownLeft": (0.35, [(_LOWER_LEFT, (0.01, 0.08, 0.01)), ((17, 14), (0, 0.04, 0))]),
    "mouthUpperUpLeft": (0.35, [(_UPPER_LEFT, (0.01, -0.07, 0.0)), ((0, 13), (0, -0.035, 0))]),
    "browDownLeft": (
        0.4,
        [(_LEFT_INNER_BROW, (-0.02, 0.07, 0)), (_LEFT_OUTER_BROW, (-0.01, 0.05, 0)), _STILL_LIDS],
    ),
    "browOuterUpLeft": (0.4, [(_LEFT_OUTER_BROW, (0.0, -0.09, 0.01)), _STILL_LIDS]),
    "cheekSquintLeft": (
        0.4,
        [((280, 347, 346, 330), (0.0, -0.05, -0.02)), (_LEFT_LOWER, (0, -0.02, 0))],
    ),
    "noseSneerLeft": (
        0.3,
        [((279, 358, 294, 327), (0.015, -0.045, 0.0)), ((266, 371), (0, -0.03, 0))],
    ),
}

_CENTRAL: dict[str, tuple[float, list[Handle]]] = {
    "jawForward": (0.8, [(_CHIN, (0, 0, -0.1)), (_LOWER_LIP, (0, 0, -0.08))]),
    "jawLeft": (0.8, [(_CHIN, (0.12, 0, 0)), (_LOWER_LIP, (0.09, 0, 0))]),
    "mouthClose": (0.35, [(_LOWER_LIP, (0, -0.12, 0)), (_UPPER_LIP, (0, 0.04, 0))]),
    "mouthFunnel": (
        0.5,
        [
            (_BOTH_CORNERS_LEFT_SIDE, (-0.05, 0, -0.02)),
            ((61, 78, 185, 146), (0.05, 0, -0.02)),
            ((0, 37, 267), (0, -0.04, -0.09)),
            ((17, 84, 314), (0, 0.05, -0.09)),
            ((13, 82, 312), (0, -0.03, -0.06)),
            ((14, 87, 317), (0, 0.04, -0.06)),
        ],
    ),
    "mouthPucker": (
        0.55,
        [
            (_BOTH_CORNERS_LEFT_SIDE, (-0.11, 0, -0.04)),
            ((61, 78, 185, 146), (0.11, 0, -0.04)),
            ((0, 13, 14, 17), (0, 0, -0.1)),
        ],
    ),
    "mouthLeft": (0.5, [((*_UPPER_LIP, *_LOWER_LIP, *groups.LIP_CORNERS), (0.11, 0, 0))]),
    "mouthRollLower": (
        0.25,
        [
            (groups.LOWER_OUTER_LIP[1:-1], (0, -0.035, 0.03)),
            (groups.LOWER_INNER_LIP, (0, -0.01, 0.04)),
        ],
    ),
    "mouthRollUpper": (
        0.25,
        [
            (groups.UPPER_OUTER_LIP[1:-1], (0, 0.035, 0.03)),
            (groups.UPPER_INNER_LIP, (0, 0.01, 0.04)),
        ],
    ),
    "mouthShrugLower": (0.5, [(_LOWER_LIP, (0, -0.05, -0.04)), (_CHIN, (0, -0.03, -0.02))]),
    "mouthShrugUpper": (0.35, [(_UPPER_LIP, (0, -0.045, -0.03))]),
    "browInnerUp": (
        0.4,
        [(_LEFT_INNER_BROW, (0, -0.08, 0)), ((107, 55, 66, 65), (0, -0.08, 0)), _STILL_LIDS],
    ),
    "cheekPuff": (0.5, [((425, 411, 427), (0.06, 0, -0.07)), ((205, 187, 207), (-0.06, 0, -0.07))]),
    "tongueOut": (0.3, []),
}

# Jaw hinge and how much of its swing each landmark takes part in.
_JAW_ANGLE = np.radians(17.0)
_JAW_OVAL = ((323, 93), (361, 132), (288, 58), (397, 172), (365, 136), (379, 150), (378, 149))
_JAW_OVAL_SHARE = (0.02, 0.15, 0.4, 0.65, 0.8, 0.9, 0.95)


class ExpressionPrior:
    """Builds the hand-made directions on a mean shape.

    Args:
        mean: (468, 3) symmetric mean shape, decimetres.
        partners: (468,) mirror partner of each landmark.
        edges: (N, 2) mesh edges.
    """

    def __init__(
        self, mean: Array, partners: npt.NDArray[np.int64], edges: npt.NDArray[np.int64]
    ) -> None:
        self._mean = mean
        self._partners = partners
        count = len(mean)
        lengths = np.linalg.norm(mean[edges[:, 0]] - mean[edges[:, 1]], axis=1)
        rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
        both = np.concatenate([lengths, lengths])
        self._graph: csr_matrix = coo_matrix((both, (rows, columns)), (count, count)).tocsr()
        stiffness = coo_matrix(
            (1 / np.maximum(both, 1e-3), (rows, columns)), (count, count)
        ).tocsr()
        degree = np.asarray(stiffness.sum(axis=1)).ravel()
        laplacian = diags(np.ones(count)) - diags(1 / degree) @ stiffness
        self._bending = (laplacian.T @ laplacian).tocsc()

    def basis(self) -> Array:
        """Returns (468, 3, 52) float64, symmetric, in ARKit order."""
        directions = np.zeros((len(self._mean), 3, len(ARKIT_NAMES)))
        for name, (reach, handles) in _CENTRAL.items():
            directions[..., ARKIT_INDEX[name]] = self._bend(_targets(handles), reach)
        directions[..., ARKIT_INDEX["jawOpen"]] = self._bend(self._jaw_targets(), 0.3)
        for name, (reach, handles) in _SIDED.items():
            directions[..., ARKIT_INDEX[name]] = self._bend(_targets(handles), reach)
        directions[..., ARKIT_INDEX["eyeBlinkLeft"]] = self._bend(self._blink_targets(), 0.22)
        for name, index in ARKIT_INDEX.items():
            if name.endswith("Right"):
                left = directions[..., ARKIT_INDEX[mirrored_name(name)]]
                directions[..., index] = left[self._partners] * [-1.0, 1.0, 1.0]
            elif not name.endswith("Left"):
                mirrored = directions[self._partners, :, index] * [-1.0, 1.0, 1.0]
                directions[..., index] = (directions[..., index] + mirrored) / 2
        return directions

    def _bend(self, targets: dict[int, Array], reach: float) -> Array:
        if not targets:
            return np.zeros_like(self._mean)
        indices = np.array(list(targets))
        distance = dijkstra(self._graph, directed=False, indices=indices, min_only=True)
        held = np.zeros(len(self._mean))
        held[indices] = 1.0
        held[distance > reach] = 1.0
        wanted = np.zeros_like(self._mean)
        wanted[indices] = np.array(list(targets.values()))
        system = self._bending + diags(_HANDLE_STIFFNESS * held + 1e-6)
        return splu(system.tocsc()).solve(_HANDLE_STIFFNESS * held[:, None] * wanted)

    def _blink_targets(self) -> dict[int, Array]:
        """The upper lid comes down to the lower lid, which rises a little."""
        targets = {}
        for upper, lower in zip(_LEFT_UPPER, _LEFT_LOWER, strict=True):
            gap = self._mean[lower] - self._mean[upper]
            targets[upper] = np.array([gap[0], 1.05 * gap[1], gap[2]]) * [0.7, 0.95, 0.7]
            targets[lower] = np.array([0.0, -0.1 * gap[1], 0.0])
        return targets

    def _jaw_targets(self) -> dict[int, Array]:
        """Chin and lower lip swing about an axis through both ears; the jaw line takes a share."""
        ear = self._mean[[323, 93]].mean(axis=0)
        cosine, sine = np.cos(_JAW_ANGLE), np.sin(_JAW_ANGLE)
        swing = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        shares = dict.fromkeys((*_CHIN, 176, 400, 208, 428, 18), 1.0)
        shares |= dict.fromkeys(_LOWER_LIP, 0.95)
        shares |= dict.fromkeys((146, 375, 95, 324), 0.75)
        shares |= dict.fromkeys(groups.LIP_CORNERS, 0.42)
        shares |= dict.fromkeys((185, 409, 191, 415), 0.15)
        shares |= dict.fromkeys((0, 13, 37, 267, 2, 164, 82, 312), 0.0)
        for pair, share in zip(_JAW_OVAL, _JAW_OVAL_SHARE, strict=True):
            shares |= dict.fromkeys(pair, share)
        moved = (self._mean - ear) @ swing.T + ear - self._mean
        return {index: share * moved[index] for index, share in shares.items()}


def _targets(handles: list[Handle]) -> dict[int, Array]:
    return {index: np.array(pull) for indices, pull in handles for index in indices}
