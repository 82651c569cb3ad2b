# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import cv2
import numpy as np
import pytest

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.evaluation.evaluate import face_mask
from styleavatar_core.evaluation.metrics import sharpness
from styleavatar_core.face3d.builtin import builtin_model
from styleavatar_core.training.samples.appearance import backplate, unwrapped_texture
from styleavatar_core.types import ByteArray
from tests.fakes.prepared_clip import write_prepared_clip


def test_backplate_shows_what_is_behind_the_person(tiny_dataset):
    plate = backplate(tiny_dataset).astype(int)
    rows, columns = np.indices((96, 96)) + 0.5
    truth = np.stack([columns * 2, rows * 2, np.full_like(rows, 90)], axis=2)
    error = np.abs(plate - truth).max(axis=2)
    always_hidden = np.abs(columns - 48) < 22
    always_hidden &= np.abs(rows - 48) < 22
    assert error[~always_hidden].max() <= 1
    assert (
        error[always_hidden].max() < 40
    )  # filled from around, not with the person (220, 150, 120)


def test_strands_that_mattes_leave_out_do_not_stay_in_the_room(tmp_path: Path) -> None:
    without = backplate(write_prepared_clip(tmp_path, size_px=256)).astype(int)
    frames = np.load(tmp_path / "frames.npy", mmap_mode="r+")
    rows, columns = (np.indices(frames.shape[1:3]) + 0.5) / frames.shape[1]
    for index, frame in enumerate(frames):  # a dark outline of two pixels, as far off the disc
        away = (np.hypot(columns - 0.5 - 0.08 * np.sin(index), rows - 0.5) - 0.2) * len(frame)
        frame[(away >= 2) & (away < 4)] = 0
    frames.flush()
    left = np.abs(backplate(AvatarDataset(tmp_path)) - without).max(axis=2)
    assert left.max() < 25
    assert (left > 10).mean() < 0.005


def pattern(uv: np.ndarray) -> ByteArray:
    """Returns a smooth pattern in UV space: (..., 2) float to (..., 3) uint8."""
    u, v = uv[..., 0], uv[..., 1]
    waves = np.stack([np.sin(20 * u), np.sin(20 * v), np.cos(9 * (u + v))], axis=-1)
    return np.rint(128 + 80 * waves).astype(np.uint8)


def test_unwrapped_texture_finds_the_pattern_that_the_frames_show(tmp_path):
    write_prepared_clip(tmp_path, frame_count=12, train_count=10)
    frames = np.load(tmp_path / "frames.npy", mmap_mode="r+")
    rows, columns = (np.indices(frames.shape[1:3]) + 0.5) / frames.shape[1]
    for index in range(12):  # the patterned disc before green
        x = 0.5 + 0.08 * np.sin(index)
        inside = (columns - x) ** 2 + (rows - 0.5) ** 2 < 0.04
        uv = np.stack([(columns - x) * 2 + 0.5, (rows - 0.5) * 2 + 0.5], axis=-1)
        frames[index] = np.where(inside[..., None], pattern(uv), (0, 255, 0))
    frames.flush()
    texture = unwrapped_texture(AvatarDataset(tmp_path), 32).astype(int)
    rows, columns = (np.indices((32, 32)) + 0.5) / 32
    truth = pattern(np.stack([columns, rows], axis=-1)).astype(int)
    seen = (columns - 0.5) ** 2 + (rows - 0.5) ** 2 < 0.36**2
    assert np.abs(texture - truth)[seen].mean() < 3
    assert texture[0, 0, 1] < 200  # beyond the disc: from the nearest texels, not the green


@pytest.mark.parametrize(
    ("waves", "flicker", "side", "least", "most"),
    [
        (60, 0, 32, 0.9, 1.1),  # two steps from the mean: 0.66
        # Each texel is seen in a light of its own, so that the mean is rough; two steps: 2.87
        (10, 40, 256, 1.0, 2.0),
    ],
)
def test_unwrapped_texture_is_as_sharp_as_the_frames(tmp_path, waves, flicker, side, least, most):
    write_prepared_clip(tmp_path, frame_count=40, train_count=38)
    frames = np.load(tmp_path / "frames.npy", mmap_mode="r+")
    rng, places = np.random.default_rng(0), []
    rows, columns = (np.indices(frames.shape[1:3]) + 0.5) / frames.shape[1]
    for index in range(40):
        x = 0.5 + 0.08 * np.sin(index)
        places.append(np.stack([(columns - x) * 2 + 0.5, (rows - 0.5) * 2 + 0.5], axis=-1))
        gray = 128 + 60 * np.sin(waves * places[-1]).prod(axis=-1) + rng.normal(0, flicker)
        frames[index] = np.clip(gray, 0, 255)[..., None]
    frames.flush()
    dataset = AvatarDataset(tmp_path)
    texture, ratios = unwrapped_texture(dataset, side), []
    for index in range(38):
        place = (places[index] * side - 0.5).astype(np.float32)
        drawn = cv2.remap(texture, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        drawn, truth = (np.array(dataset.window(p)) for p in (drawn, dataset.frames[index]))
        disc = np.array(dataset.window(dataset.masks[index])) & (
            255 * face_mask(dataset, index, 64)
        )
        ratios.append(sharpness(drawn, truth, disc))
    assert least < np.mean(ratios) < most


def test_a_half_transparent_outline_does_not_bring_the_background_into_the_texture(tmp_path):
    write_prepared_clip(tmp_path, frame_count=12, train_count=10)
    frames, masks = (np.load(tmp_path / f"{n}.npy", mmap_mode="r+") for n in ("frames", "masks"))
    rows, columns = (np.indices(frames.shape[1:3]) + 0.5) / frames.shape[1]
    for index in range(12):  # the disc before green, its rim half transparent
        radius = np.hypot(columns - 0.5 - 0.08 * np.sin(index), rows - 0.5)
        matte = np.clip((0.2 - radius) / 0.04, 0, 1) ** 0.5
        masks[index] = np.rint(255 * matte)
        frames[index] = (0, 255, 0) + (np.array([220, 150, 120]) - (0, 255, 0)) * matte[..., None]
    frames.flush()
    masks.flush()
    texture = unwrapped_texture(AvatarDataset(tmp_path), 32).astype(int)
    radius = np.hypot(*((np.indices((32, 32)) + 0.5) / 32 - 0.5))
    rim = (radius > 0.34) & (radius < 0.4)
    assert texture[rim][:, 1].mean() < 165  # weighed by the matte itself: 190


def mouth_and_clip(folder):
    """Returns UV places and colours of the model's mouth inside, and a clip's arrays to change."""
    model = builtin_model()
    place = slice(*model.mouth_vertices)
    inside, colors = model.uv_coordinates[place], 255 * model.mean_texture[place]
    write_prepared_clip(folder, frame_count=12, train_count=10)
    names = ("frames", "masks", "uv")
    stored = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in names}
    return inside, colors, stored


def test_a_mouth_that_hardly_opens_is_as_dark_as_it_is_seen(tmp_path):
    inside, colors, stored = mouth_and_clip(tmp_path)
    stored["frames"][:], stored["masks"][:], stored["uv"][:] = (48, 24, 24), 255, 0
    teeth = inside[colors.sum(axis=1) > 0.9 * colors.sum(axis=1).max()]
    slit = teeth[np.arange(40) % len(teeth)]
    stored["uv"][:, 48, 28:68] = np.rint(slit * 65534) + 1
    texture = unwrapped_texture(AvatarDataset(tmp_path), 128).astype(int)
    columns, rows = np.rint(128 * inside - 0.5).astype(int).T
    assert texture[rows, columns].max() < 60  # in the model's colours 200


def test_the_mouths_inside_is_the_models_until_a_frame_shows_it(tmp_path):
    inside, colors, stored = mouth_and_clip(tmp_path)
    stored["uv"][stored["uv"][..., 1] > 0.75 * 65535] = 0
    columns, rows = np.rint(128 * inside - 0.5).astype(int).T
    texture = unwrapped_texture(AvatarDataset(tmp_path), 128).astype(int)
    within = slice(20, None)  # the rim lies on the border of the island
    assert np.abs(texture[rows, columns] - colors)[within].mean() < 25
    side = stored["uv"].shape[1]
    steps = np.linspace(inside.min(axis=0) + 0.02, inside.max(axis=0) - 0.02, side)
    stored["uv"][:] = np.rint(np.stack(np.meshgrid(*steps.T), axis=-1) * 65534) + 1
    stored["frames"][:], stored["masks"][:] = (20, 40, 220), 255
    texture = unwrapped_texture(AvatarDataset(tmp_path), 128).astype(int)
    column, row = (128 * inside.mean(axis=0)).astype(int)
    assert np.abs(texture[row, column] - (20, 40, 220)).max() < 10
