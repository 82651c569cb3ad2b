# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from styleavatar_core.data.dataset import AvatarDataset, decode_uv
from styleavatar_core.face3d.camera import parameters_in_crop, quaternion_from_rotation_vector
from styleavatar_core.face3d.tilt import tilt_matrix
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.samples.batches import BatchSampler, make_batch
from styleavatar_core.training.samples.clips import Clip
from styleavatar_core.training.samples.tilting import tilt_frame
from tests.fakes.prepared_clip import write_prepared_clip


def matrix_of(dataset, index: int, degrees: float) -> np.ndarray:
    canvas = dataset.info.crop.enlarged(1.5)
    return tilt_matrix(parameters_in_crop(dataset.parameters[index], canvas), degrees, 96)


def middle(mask: np.ndarray) -> np.ndarray:
    """Returns the (x, y) pixel indices of a mask's centre of gravity."""
    return np.array([part.mean() for part in np.nonzero(mask)[::-1]])


@pytest.fixture
def lopsided_dataset(tmp_path):
    """A clip whose person is a square above and right of the head's middle: one sees it turn."""
    write_prepared_clip(tmp_path)
    square = np.zeros((96, 96), bool)
    square[20:34, 60:74] = True
    for name, inside in (("frames", 255), ("masks", 255), ("renderings", 200), ("uv", 32768)):
        stored = np.load(tmp_path / f"{name}.npy", mmap_mode="r+")
        stored[:] = 0
        stored[:, square] = inside
        stored.flush()
    return AvatarDataset(tmp_path)


@pytest.mark.parametrize("degrees", [12.0, -20.0])
def test_picture_mask_and_renderings_tilt_alike(lopsided_dataset, degrees):
    frame = tilt_frame(lopsided_dataset, 4, degrees)
    matrix = matrix_of(lopsided_dataset, 4, degrees)
    was = lopsided_dataset.masks[4] > 127
    there = matrix[:, :2] @ middle(was) + matrix[:, 2]
    assert np.linalg.norm(there - middle(was)) > 5  # pixels
    uv, face = decode_uv(frame.uv)
    shown = (frame.image[..., 0] > 127, frame.mask > 127, frame.rendering[..., 0] > 100, face > 0)
    for mask in shown:
        np.testing.assert_allclose(middle(mask), there, atol=0.5)
        assert mask.sum() == pytest.approx(was.sum(), rel=0.1)
    np.testing.assert_allclose(uv[face > 0], 0.5, atol=1e-3)  # coordinates are not blended


def test_what_leaves_the_frame_is_not_compared_with(tiny_dataset):
    """At the height of the head it is turned with it; of the body it stays where it was."""
    frame = tilt_frame(tiny_dataset, 4, -20.0)
    outside = np.ones((96, 96), np.uint8)
    outside[:, 8:] = 0  # as the fake clip has it
    matrix = matrix_of(tiny_dataset, 4, -20.0)
    turned = cv2.warpAffine(outside, matrix, (96, 96), flags=cv2.INTER_NEAREST, borderValue=1)
    face = parameters_in_crop(tiny_dataset.parameters[4], tiny_dataset.info.crop.enlarged(1.5))
    decimetre = face.scale * 48  # pixels; the head's middle is in the 48th row
    head = slice(0, round(48 + 0.74 * decimetre))
    body = slice(round(48 + 1.16 * decimetre), 96)
    assert turned[head].sum() != outside[head].sum()
    np.testing.assert_array_equal(frame.valid[head], 1 - turned[head])
    np.testing.assert_array_equal(frame.valid[body], 1 - outside[body])
    np.testing.assert_array_equal(frame.mask_valid, frame.valid)


def test_samples_are_cut_from_the_tilted_frame(tiny_dataset, tiny_config):
    offset, tilts = np.array([[5, -3], [5, -3]]), np.array([0.0, 15.0])  # texels; two pixels each
    batch = make_batch(tiny_dataset, tiny_config, [4, 4], offset, tilts=tilts)
    frame = tilt_frame(tiny_dataset, 4, 15.0)
    box = slice(16 - 6, 80 - 6), slice(16 + 10, 80 + 10)
    _, face = decode_uv(frame.uv[box])
    np.testing.assert_array_equal(batch.face_mask[1, 0].numpy(), face)
    np.testing.assert_array_equal(batch.valid[1, 0].numpy(), frame.valid[box])
    shown = ((batch.image[1].permute(1, 2, 0).numpy() + 1) * 127.5).round()
    np.testing.assert_array_equal(shown, frame.image[box])
    central = ((batch.rendering[1].permute(1, 2, 0).numpy() + 1) * 127.5).round()
    np.testing.assert_array_equal(central, frame.rendering[16:80, 16:80])
    still = make_batch(tiny_dataset, tiny_config, [4], offset[:1])
    assert torch.equal(batch.image[0], still.image[0])


def test_persons_who_come_apart_are_tilted_beyond_what_frames_show(tiny_dataset, tiny_config):
    """Nobody else is, and only in their share."""
    tilting = TrainConfig(batch_size=4, apart_share=0.5, centered_share=0.0, tilt_share=0.5)
    upright = replace(tilting, tilt_share=0.0)
    together, apart = [], []
    for step in range(30):
        seen, still = (
            BatchSampler([Clip(tiny_dataset)], tiny_config, config).at_step(step)
            for config in (tilting, upright)
        )
        assert torch.equal(seen.window, still.window)
        is_tilted = (seen.image != still.image).flatten(1).any(dim=1)
        is_moved, stays = (
            (window != 0).any(dim=1) for window in (seen.window, seen.background_window)
        )
        together += is_tilted[stays].tolist()
        apart += is_tilted[is_moved & ~stays].tolist()
    assert len(together) > 30
    assert not any(together)
    assert len(apart) > 30
    assert 0.3 < np.mean(apart) < 0.7


def test_a_tilt_ends_beyond_the_frames_rolls(tiny_dataset, tiny_config, monkeypatch):
    rolls = np.linspace(-4.0, 8.0, len(tiny_dataset))
    turned = [
        replace(
            params, rotation=quaternion_from_rotation_vector(np.deg2rad(np.array([0, 0, roll])))
        )
        for params, roll in zip(tiny_dataset.parameters, rolls, strict=True)
    ]
    monkeypatch.setattr(tiny_dataset, "parameters", turned)
    clip = Clip(tiny_dataset)
    np.testing.assert_allclose(clip.rolls_deg, rolls[:15], atol=1e-4)
    drawn = []
    monkeypatch.setattr(
        "styleavatar_core.training.samples.batches.tilt_frame",
        lambda dataset, index, degrees: (
            drawn.append(rolls[index] + degrees) or tilt_frame(dataset, index, degrees)
        ),
    )
    config = TrainConfig(batch_size=4, apart_share=1.0, tilt_share=1.0, tilt_deg=15.0)
    sampler = BatchSampler([clip], tiny_config, config)
    for step in range(40):
        sampler.at_step(step)
    shown = np.array(drawn)
    left, right = -4.0, rolls[14]
    assert len(shown) == 160
    assert ((shown < left) | (shown > right)).all()
    assert 0.3 < (shown < left).mean() < 0.7
    assert left - 15.01 < shown.min() < left - 8
    assert right + 8 < shown.max() < right + 15.01
