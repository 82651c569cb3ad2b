# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.training.samples.batches import make_batch
from styleavatar_core.training.samples.below_frame import extend_person
from styleavatar_core.training.samples.pictures import image_array
from tests.fakes.prepared_clip import write_prepared_clip

EDGE = 56  # first canvas row below the frame; the disc of the fake clip reaches to row 67


@pytest.fixture
def cut_dataset(tmp_path):
    """A clip whose lower edge cuts the person, as preparing writes it: edges are repeated."""
    write_prepared_clip(tmp_path)
    for name in ("frames", "masks"):
        stored = np.load(tmp_path / f"{name}.npy", mmap_mode="r+")
        stored[:, EDGE:] = stored[:, EDGE - 1 : EDGE]
        stored.flush()
    valid = np.ones((96, 96), np.uint8)
    valid[EDGE:] = 0
    valid[:, :4] = 0
    np.save(tmp_path / "valid.npy", valid)
    return AvatarDataset(tmp_path)


def test_samples_say_that_a_person_cut_by_the_lower_edge_goes_on(cut_dataset, tiny_config):
    batch = make_batch(cut_dataset, tiny_config, [0], np.array([[-8, 8]]))  # texels of two pixels
    below = EDGE - 32  # in the box
    is_person = cut_dataset.masks[0][EDGE, :64] > 127
    assert 20 < is_person.sum() < 50
    assert batch.mask_valid[0, 0, below // 2 :].min() == 1
    np.testing.assert_array_equal(batch.mask[0, 0, -1], batch.mask[0, 0, below // 2 - 1])
    assert (batch.valid[0, 0, below:].numpy() == is_person).all()
    assert (image_array(batch.image)[0, below:, is_person] == (220, 150, 120)).all()
    # What is beside the frame, above its lower edge, stays unknown.
    assert batch.valid[0, 0, :below, :4].max() == 0
    assert batch.mask_valid[0, 0, : below // 2, :2].max() == 0


def test_the_extension_is_the_softer_the_deeper_and_of_the_persons_colours_only():
    picture = np.zeros((60, 64, 3), np.uint8)
    picture[:] = (0, 255, 0)
    picture[:, 16:48:2], picture[:, 17:48:2] = (200, 0, 0), (100, 0, 0)  # stripes
    mask = np.zeros((60, 64), np.uint8)
    mask[:, 16:48] = 255
    valid = np.ones((60, 64), np.uint8)
    valid[40:] = 0
    before = picture.copy()
    made, pictured, masked = extend_person(picture, mask, valid)
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(made[:41], before[:41])
    own = made[40:, 16:48].astype(int)
    assert own[..., 1].max() == 0  # no green
    contrast = np.ptp(own[..., 0], axis=1)
    assert contrast[0] == 100
    assert contrast[10:].max() < 20
    assert own[10:, :, 0].mean() == pytest.approx(150, abs=3)
    np.testing.assert_array_equal(made[:, :16], before[:, :16])
    np.testing.assert_array_equal(pictured[40:] > 0, mask[40:] > 0)
    assert masked.min() == 1


def test_nothing_is_made_up_where_the_box_ends_within_the_frame():
    picture, mask = np.full((8, 8, 3), 9, np.uint8), np.full((8, 8), 255, np.uint8)
    valid = np.ones((8, 8), np.uint8)
    valid[:2] = 0  # the box reaches beyond the upper edge
    made, pictured, masked = extend_person(picture, mask, valid)
    np.testing.assert_array_equal(made, picture)
    np.testing.assert_array_equal(pictured, valid)
    np.testing.assert_array_equal(masked, valid)
