# SPDX-License-Identifier: Apache-2.0
"""``python -m tools.builtin_model``: makes the built-in face model's file."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from styleavatar_core.face3d import landmark_groups as groups
from styleavatar_core.face3d.arkit import ARKIT_NAMES
from styleavatar_core.face3d.builtin import BUILTIN_MODEL_ID, BUILTIN_MODEL_PATH
from styleavatar_core.face3d.model import FaceModel, load_face_model
from tools.builtin_model import appearance, head_shell, learning, topology
from tools.builtin_model.mouth import with_mouth

logger = logging.getLogger(__name__)


def assemble(learned: learning.LearnedFace) -> FaceModel:
    """Adds eyeballs, head shell, colours and UV to what was learned of the face."""
    face, edges = learned.mean, topology.region_graph_edges()
    vertices, faces = [face], [topology.face_triangles(face)]
    identity, landmarks = (
        [learned.identity_basis],
        list(range(groups.FACE_LANDMARK_COUNT)) + [0] * 10,
    )
    ranges = []
    for rim, iris, side in (
        (groups.LEFT_EYE, groups.LEFT_IRIS, 1.0),
        (groups.RIGHT_EYE, groups.RIGHT_IRIS, -1.0),
    ):
        center = learned.left_eye_center * [side, 1.0, 1.0]
        points, triangles, iris_points = topology.eyeball(center)
        start = sum(map(len, vertices))
        vertices.append(points)
        faces.append(triangles + start)
        # An eyeball goes where the person's eye opening is, without changing its size.
        shift = learned.identity_basis[list(rim)].mean(axis=0)
        identity.append(np.broadcast_to(shift, (len(points), *shift.shape)))
        for landmark, point in zip(iris, iris_points, strict=True):
            landmarks[landmark] = start + int(point)
        ranges.append((start, start + len(points)))
    shell_start = sum(map(len, vertices))
    shell = head_shell.shell_vertices(face)
    vertices.append(shell.reshape(-1, 3))
    faces.append(head_shell.shell_triangles(shell_start))
    # The far ends keep a person's size of head, but no expression.
    size = learned.identity_basis[list(groups.FACE_OVAL)].mean(axis=0)
    hung = head_shell.shell_basis(learned.identity_basis, rest=size, power=1.0)
    identity.append(hung.reshape(-1, *size.shape))
    directions = np.concatenate(identity)
    sizes = np.zeros((len(directions), 3, head_shell.SIZE_COUNT))
    sizes[shell_start:] = head_shell.size_basis(face).reshape(-1, 3, head_shell.SIZE_COUNT)
    eye_points = vertices[1] - learned.left_eye_center
    angles = np.arctan2(np.linalg.norm(eye_points[:, :2], axis=1), -eye_points[:, 2])
    total = sum(map(len, vertices))
    expression = np.zeros((total, 3, len(ARKIT_NAMES)))
    expression[: len(face)] = learned.expression_basis
    still = np.zeros(learned.expression_basis.shape[1:])
    hung = head_shell.shell_basis(learned.expression_basis, rest=still, power=3.0)
    expression[shell_start:] = hung.reshape(-1, *still.shape)
    return FaceModel(
        model_id=BUILTIN_MODEL_ID,
        mean_shape=np.concatenate(vertices).astype(np.float32),
        identity_basis=np.concatenate([directions, sizes], axis=2).astype(np.float32),
        expression_basis=expression.astype(np.float32),
        expression_names=ARKIT_NAMES,
        mean_texture=appearance.mean_texture(face, angles).astype(np.float32),
        texture_basis=appearance.texture_basis(face, edges, angles).astype(np.float32),
        faces=np.concatenate(faces).astype(np.int32),
        uv_coordinates=appearance.unwrap(face, learned.partners, faces[0], eye_points).astype(
            np.float32
        ),
        landmark_indices=np.array(landmarks, np.int32),
        eye_vertices=(ranges[0], ranges[1]),
    )


def main() -> None:
    """Reads landmarks and learns, or takes a model that has learned; adds the mouth; writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--landmarks", type=Path, help="arrays (frames, 478, 3) in pixels, one per subject")  # fmt: skip  # noqa: E501
    source.add_argument(
        "--face", type=Path, help="an earlier file of the model, of which all but the mouth is kept"
    )
    parser.add_argument("--output", type=Path, default=BUILTIN_MODEL_PATH)
    parser.add_argument(
        "--rounds", type=int, default=8, help="alternations of solving and learning"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.face:
        earlier = load_face_model(options.face)
        has_mouth = earlier.mouth_vertices != (0, 0)
        model = earlier.without_mouth(BUILTIN_MODEL_ID) if has_mouth else earlier
    else:
        with np.load(options.landmarks) as file:
            subjects = [file[name].astype(np.float64) for name in sorted(file.files)]
        model = assemble(learning.learn(subjects, options.rounds))
    model = replace(with_mouth(model), model_id=BUILTIN_MODEL_ID)
    model.save(options.output)
    logger.info("wrote %s: %d vertices, %d kB", options.output.name, len(model.mean_shape), options.output.stat().st_size // 1000)  # fmt: skip  # noqa: E501


if __name__ == "__main__":
    main()
