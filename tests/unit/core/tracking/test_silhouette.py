# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from styleavatar_core.avatar.conditioning import ConditioningRenderer
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.face3d.camera import quaternion_from_matrix
from styleavatar_core.tracking.silhouette import fit_silhouette, unseen_directions
from styleavatar_core.types import FaceIdentity, FaceParameters

model = builtin_model()
COUNT = model.identity_basis.shape[-1]


def turned(yaw: float) -> FaceParameters:
    cosine, sine = np.cos(yaw), np.sin(yaw)
    matrix = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    return FaceParameters(
        model_id=model.model_id,
        rotation=quaternion_from_matrix(matrix).astype(np.float32),
        translation=np.array([0.0, 0.2, 0.0], np.float32),
        scale=0.6,
        expression=np.zeros(52, np.float32),
        eye_rotation=np.zeros((2, 2), np.float32),
    )


def test_size_of_hair_is_found_from_masks() -> None:
    directions = unseen_directions(model)
    assert len(directions) == 4
    truth = np.zeros(COUNT, np.float32)
    truth[:3] = 0.7, -0.5, 0.3
    known = truth.copy()
    truth[directions] = -2.5, 3.0, 2.0, -1.5
    texture = np.zeros(model.texture_basis.shape[-1], np.float32)
    renderer = ConditioningRenderer(model, FaceIdentity(model.model_id, truth, texture), 96)
    poses = [turned(yaw) for yaw in (-1.2, -0.6, 0.0, 0.6, 1.2)]
    masks = [renderer.render(pose).face_mask * 255 for pose in poses]
    found = fit_silhouette(model, known, poses, masks)
    assert np.array_equal(found[:3], known[:3])
    assert found[directions] == pytest.approx(truth[directions], abs=1.0)


def test_without_masks_the_identity_stays() -> None:
    identity = np.ones(COUNT, np.float32)
    assert np.array_equal(fit_silhouette(model, identity, [], []), identity)
