# SPDX-License-Identifier: Apache-2.0
"""The built-in model's mesh: MediaPipe's points and edges, mirror partners, eyeballs."""

from __future__ import annotations

import itertools
from collections import deque

import numpy as np
import numpy.typing as npt
from mediapipe.python.solutions.face_mesh_connections import FACEMESH_TESSELATION
from scipy.optimize import linear_sum_assignment

from styleavatar_core.face3d.landmark_groups import FACE_LANDMARK_COUNT
from styleavatar_core.tracking.solver import solve_pose

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Pairs (right, left) and midline points that start the search for mirror partners.
_PAIRS = (
    (33, 263),
    (133, 362),
    (61, 291),
    (159, 386),
    (145, 374),
    (70, 300),
    (107, 336),
    (234, 454),
)
_MIDLINE = (1, 10, 152, 13, 14, 17, 168, 4)

# Two triangles of edges enclose others beside the nostrils: they are no faces.
_FALSE_FACES = {(49, 64, 129), (279, 294, 358)}

EYEBALL_RADIUS = 0.13  # decimetres
IRIS_RADIUS = 0.06
_SEGMENTS = 16
# Angles of the rings from the pupil: pupil border, iris border, limbus, white, equator.
_RING_ANGLES = (
    np.arcsin(0.025 / EYEBALL_RADIUS),
    np.arcsin(IRIS_RADIUS / EYEBALL_RADIUS),
    np.radians(32.0),
    np.radians(58.0),
    np.radians(90.0),
)
# The white is wider than a sphere, so that wide-open eyes show no gap in their corners.
_RING_STRETCH = (1.0, 1.0, 1.0, 1.15, 1.45)


def mirror_partners(mean: Array) -> Indices:
    """Finds each landmark's partner on the other side of the face.

    Args:
        mean: (478, 3) a roughly symmetric mean shape.

    Returns:
        (478,) int64, an involution.
    """
    right, left = np.array(_PAIRS).T
    seeds = np.concatenate([right, left, _MIDLINE])
    partners = np.concatenate([left, right, _MIDLINE])
    flipped = mean * [-1.0, 1.0, 1.0]
    pose = solve_pose(flipped[seeds], mean[partners], np.ones(len(seeds)))
    for _ in range(3):
        distances = np.linalg.norm(pose.apply(flipped)[:, None] - mean[None], axis=-1)
        partners = linear_sum_assignment(distances)[1]
        pose = solve_pose(flipped, mean[partners], np.ones(len(mean)))
    if (partners[partners] != np.arange(len(mean))).any():
        raise ValueError("The mean shape is not symmetric enough to find mirror partners.")
    return partners


def face_triangles(mean: Array) -> Indices:
    """Makes faces of the three-cliques of MediaPipe's edges; eyes and mouth stay holes.

    Args:
        mean: (478, 3) mean shape, looking at the camera (z away from it).

    Returns:
        (F, 3) int64, all wound alike; clockwise on the screen where they face the camera.
    """
    neighbors: dict[int, set[int]] = {}
    for a, b in FACEMESH_TESSELATION:
        neighbors.setdefault(a, set()).add(b)
        neighbors.setdefault(b, set()).add(a)
    cliques = {
        tuple(sorted((a, b, c)))
        for a, b in FACEMESH_TESSELATION
        for c in neighbors[a] & neighbors[b]
    }
    wound = _wind_alike(sorted(cliques - _FALSE_FACES))
    corners = mean[wound]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # Clockwise with y down means that x cross y points along +z, away from the camera.
    return wound if normals[:, 2].sum() > 0 else wound[:, [0, 2, 1]]


def _wind_alike(triangles: list[tuple[int, ...]]) -> Indices:
    by_edge: dict[frozenset[int], list[int]] = {}
    for index, triangle in enumerate(triangles):
        for edge in itertools.combinations(triangle, 2):
            by_edge.setdefault(frozenset(edge), []).append(index)
    wound: dict[int, tuple[int, ...]] = {0: triangles[0]}
    queue = deque([0])
    while queue:
        index = queue.popleft()
        a, b, c = wound[index]
        for start, stop in ((a, b), (b, c), (c, a)):
            for other in by_edge[frozenset((start, stop))]:
                if other not in wound:
                    (third,) = set(triangles[other]) - {start, stop}
                    wound[other] = (stop, start, third)
                    queue.append(other)
    return np.array([wound[i] for i in range(len(triangles))])


def eyeball(center: Array) -> tuple[Array, Indices, Indices]:
    """Makes one eyeball whose vertices have their mean at its centre.

    Args:
        center: (3,) decimetres.

    Returns:
        Vertices (N, 3), faces (F, 3) from 0, and the vertices of the five iris landmarks: centre,
        then image right, top, left and bottom.
    """
    rings = [*_RING_ANGLES, *(np.pi - a for a in reversed(_RING_ANGLES[:-1]))]
    turn = np.arange(_SEGMENTS) * 2 * np.pi / _SEGMENTS
    points = [np.array([[0.0, 0.0, -1.0]])]
    stretches = [*_RING_STRETCH, *reversed(_RING_STRETCH[:-1])]
    for angle, stretch in zip(rings, stretches, strict=True):
        side = np.sin(angle) * stretch
        depth = np.full(_SEGMENTS, -np.cos(angle))
        points.append(np.stack([side * np.cos(turn), side * np.sin(turn), depth], axis=1))
    points.append(np.array([[0.0, 0.0, 1.0]]))
    vertices = np.concatenate(points) * EYEBALL_RADIUS + center
    faces: list[tuple[int, int, int]] = []
    last = len(vertices) - 1
    for i in range(_SEGMENTS):
        j = (i + 1) % _SEGMENTS
        faces.append((0, 1 + i, 1 + j))
        for ring in range(len(rings) - 1):
            inner, outer = 1 + ring * _SEGMENTS, 1 + (ring + 1) * _SEGMENTS
            faces += [(inner + i, outer + i, outer + j), (inner + i, outer + j, inner + j)]
        back = 1 + (len(rings) - 1) * _SEGMENTS
        faces.append((last, back + j, back + i))
    border = 1 + _SEGMENTS  # second ring; angle grows from +x towards +y (down)
    quarter = _SEGMENTS // 4
    iris = [0, border, border + 3 * quarter, border + 2 * quarter, border + quarter]
    return vertices, np.array(faces), np.array(iris)


def region_graph_edges() -> Indices:
    """Returns (N, 2) int64 edges among the 468 face landmarks, each once."""
    edges = {tuple(sorted(edge)) for edge in FACEMESH_TESSELATION}
    return np.array([e for e in sorted(edges) if max(e) < FACE_LANDMARK_COUNT])
