# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest
import torch

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.errors import AssetError
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.samples.batches import (
    FIXED_STYLE_TIME,
    BatchSampler,
    make_batch,
    move_apart,
)
from styleavatar_core.training.samples.clips import Clip
from styleavatar_core.training.samples.pictures import image_array, image_tensor


def test_box_moves_picture_mask_uv_and_valid_alike(tiny_dataset, tiny_config):
    offset = np.array([[-8, 3]])  # texels; two pixels each
    batch = make_batch(tiny_dataset, tiny_config, [4], offset)
    image = image_array(batch.image)[0]
    np.testing.assert_array_equal(image, tiny_dataset.frames[4][22:86, :64])
    assert batch.valid[0, 0, :, :8].sum() == 0
    assert batch.valid[0, 0, :, 8:].min() == 1
    face = batch.face_mask[0, 0].numpy() > 0
    np.testing.assert_array_equal(face, tiny_dataset.masks[4][22:86, 0:64] > 127)
    still = make_batch(tiny_dataset, tiny_config, [4])
    assert torch.equal(batch.rendering, still.rendering)
    rendered = image_array(batch.box_rendering)[0]
    np.testing.assert_array_equal(rendered, tiny_dataset.renderings[4][22:86, :64])
    halved = cv2.resize(tiny_dataset.masks[4][22:86, :64], (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(batch.mask[0, 0], halved / 255.0, atol=1e-6)


def test_uv_survives_storage(tiny_dataset, tiny_config):
    batch = make_batch(tiny_dataset, tiny_config, [0])
    inside = batch.face_mask[0, 0] > 0
    columns = torch.arange(64).repeat(64, 1)[inside] + 16.5
    assert batch.uv[0, 0][inside] == pytest.approx(((columns - 48) / 48 + 0.5).numpy(), abs=2e-5)


def test_a_step_is_repeatable_and_each_epoch_sees_every_frame(tiny_dataset, tiny_config):
    config = TrainConfig(batch_size=4, centered_share=0.0)
    sampler = BatchSampler([Clip(tiny_dataset)], tiny_config, config)
    first = sampler.at_step(7)
    sampler.at_step(2)
    again = BatchSampler([Clip(tiny_dataset)], tiny_config, config).at_step(7)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.window, again.window)
    seen = sorted(sampler._frame(tiny_dataset, position) for position in range(15, 30))
    assert seen == list(range(15))  # never among them: 15, watched, and 16-19, held out


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_sample_has_the_time_of_its_frame_or_that_of_inference(tiny_dataset, tiny_config, share):
    config = TrainConfig(batch_size=4, fixed_style_share=share)
    sampler = BatchSampler([Clip(tiny_dataset)], tiny_config, config)
    own = [sampler._frame(tiny_dataset, place) / len(tiny_dataset) for place in range(8, 12)]
    wanted = own if share == 0 else [FIXED_STYLE_TIME] * 4
    assert sampler.at_step(2).style_time.tolist() == pytest.approx(wanted)


def test_windows_stay_on_the_canvas(tiny_dataset, tiny_config):
    sampler = BatchSampler([Clip(tiny_dataset)], tiny_config, TrainConfig(centered_share=0.0))
    windows = torch.cat([sampler.at_step(step).window for step in range(40)])
    assert windows.abs().max() <= tiny_config.maximum_offset
    assert windows.unique().numel() > 5


def test_image_round_trip():
    images = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    np.testing.assert_array_equal(image_array(image_tensor(images)), images)


def test_an_unfinished_dataset_is_refused(tmp_path):
    with pytest.raises(AssetError, match="no complete dataset"):
        AvatarDataset(tmp_path)


def test_a_person_moves_before_a_background_that_stays(tiny_dataset, tiny_config):
    offset = np.array([[5, -3], [5, -3]])  # texels; two pixels each
    boxes = make_batch(tiny_dataset, tiny_config, [4, 4], offset)
    behind = np.full((64, 64, 3), 7, np.uint8)
    valid = np.zeros((64, 64), np.uint8)
    batch = move_apart(boxes, behind, valid, np.array([True, False]))
    image = image_array(batch.image)
    person = batch.face_mask[0, 0].numpy() > 0
    core = cv2.erode(person.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert core.sum() > 400
    assert (np.abs(image[0][core].astype(int) - (220, 150, 120)) <= 1).all()
    far = cv2.dilate(person.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
    assert (image[0][far] == 7).all()
    assert batch.valid[0, 0].numpy()[far].max() == 0
    assert batch.valid[0, 0].numpy()[core].min() == 1
    assert batch.window.tolist() == [[5, -3], [5, -3]]
    assert batch.background_window.tolist() == [[0, 0], [5, -3]]
    np.testing.assert_array_equal(image[1], image_array(boxes.image)[1])


def test_windows_come_apart_only_in_their_share_of_samples(tiny_dataset, tiny_config):
    config = TrainConfig(batch_size=4, centered_share=1.0, apart_share=0.5)
    sampler = BatchSampler([Clip(tiny_dataset)], tiny_config, config)
    batches = [sampler.at_step(step) for step in range(20)]
    assert all(batch.background_window.abs().max() == 0 for batch in batches)
    moved = torch.cat([batch.window.abs().amax(dim=1) > 0 for batch in batches])
    assert 20 < moved.sum() < 60
