# SPDX-License-Identifier: Apache-2.0
"""Figures of held-out frames, against renderers whose faults are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from styleavatar_core.data.dataset import AvatarDataset
from styleavatar_core.data.spread import spread_evenly
from styleavatar_core.evaluation.baselines import nearest_parameters
from styleavatar_core.evaluation.evaluate import (
    evaluate_frames,
    evaluate_held_out,
    held_out_truth,
    pick_frames,
)
from styleavatar_core.evaluation.learned_metrics import LearnedMetrics
from styleavatar_core.types import ByteArray
from tests.fakes.prepared_clip import write_prepared_clip

MASK = np.full((32, 32), 255, np.uint8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> AvatarDataset:
    return write_prepared_clip(tmp_path_factory.mktemp("clip"))


def test_the_truth_itself_is_perfect(dataset: AvatarDataset) -> None:
    figures = evaluate_held_out(dataset, lambda i: (held_out_truth(dataset, i), MASK))
    assert np.isnan(figures["psnr_db"])  # infinite for equal frames: no mean to give
    assert figures["ssim"] == pytest.approx(1.0, abs=1e-5)
    assert figures["no_background_ssim"] == pytest.approx(1.0, abs=1e-5)
    assert figures["flicker"] == 0
    assert figures["mean_frame_flicker"] > 0
    assert figures["frame_count"] == 6


def test_an_error_in_the_background_leaves_the_person_alone(dataset: AvatarDataset) -> None:
    def render(index: int) -> tuple[ByteArray, ByteArray]:
        person = dataset.window(dataset.masks[index]) > 0
        image = held_out_truth(dataset, index).copy()
        image[~person] = 255 - image[~person]
        return image, MASK

    figures = evaluate_held_out(dataset, render)
    assert figures["psnr_db"] < 12
    assert np.isnan(figures["no_background_psnr_db"])
    assert figures["no_background_ssim"] == pytest.approx(1.0, abs=1e-5)


def test_large_pictures_are_compared_at_the_papers_size(tmp_path: Path) -> None:
    large = write_prepared_clip(tmp_path, size_px=1024, frame_count=5, train_count=3)

    def chequered(index: int) -> tuple[ByteArray, ByteArray]:
        image = held_out_truth(large, index).copy()
        signs = np.indices(image.shape[:2]).sum(0) % 2 * 40 - 20
        return np.uint8(image + signs[..., None]), MASK

    learned = RecordedMetrics()
    outputs: list[ByteArray] = []
    evaluation = evaluate_frames(
        large, chequered, learned=learned, on_output=lambda _, image: outputs.append(image)
    )
    # Halved, the pattern is gone: at full size it would be 22 dB.
    assert evaluation.figures["psnr_db"] > 45 or np.isnan(evaluation.figures["psnr_db"])
    assert evaluation.figures["no_background_psnr_db"] > 45 or np.isnan(
        evaluation.figures["no_background_psnr_db"]
    )
    assert [image.shape for image in outputs] == [(1024, 1024, 3)] * 2
    assert learned.seen == [("", 512), ("no_background_", 512)] * 2


class RecordedMetrics(LearnedMetrics):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def add(self, image: ByteArray, truth: ByteArray, prefix: str = "") -> None:
        assert image.shape == truth.shape
        self.seen.append((prefix, image.shape[0]))


def test_flicker_is_what_changes_from_frame_to_frame_only(dataset: AvatarDataset) -> None:
    def darker(index: int) -> tuple[ByteArray, ByteArray]:
        return held_out_truth(dataset, index) - np.uint8(20), MASK

    def blinking(index: int) -> tuple[ByteArray, ByteArray]:
        return held_out_truth(dataset, index) - np.uint8(20 * (index % 2)), MASK

    assert evaluate_held_out(dataset, darker)["flicker"] == 0
    evaluation = evaluate_frames(dataset, blinking)
    assert evaluation.figures["flicker"] == pytest.approx(20.0)
    flickers = evaluation.series["flicker"]
    assert np.isnan(flickers[0])
    assert flickers[1:] == [20.0] * 5


def test_a_limit_keeps_neighbours_together(dataset: AvatarDataset) -> None:
    assert pick_frames(dataset, None) == [14, 15, 16, 17, 18, 19]
    assert pick_frames(dataset, 4) == [14, 15, 18, 19]
    assert pick_frames(dataset, 1) == [14]
    seen: list[int] = []
    evaluation = evaluate_frames(
        dataset,
        lambda i: (held_out_truth(dataset, i), MASK),
        frame_limit=4,
        on_output=lambda index, image: seen.append(index),
    )
    assert seen == evaluation.indices == [14, 15, 18, 19]
    assert np.isnan(evaluation.series["flicker"]).tolist() == [True, False, True, False]


def test_spread_evenly_takes_first_and_last() -> None:
    assert spread_evenly([3, 4, 5, 6, 7], 3) == [3, 5, 7]
    assert spread_evenly([3], 6) == [3]


def test_nearest_parameters_are_zero_for_training_frames_and_grow_outside(
    dataset: AvatarDataset,
) -> None:
    train = [dataset.parameters[i] for i in dataset.train_indices]
    window = dataset.info.crop
    assert set(nearest_parameters(train, train[3:5], window).values()) == {0.0}
    beyond = [dataset.parameters[i] for i in dataset.held_out_indices]
    outside = nearest_parameters(train, beyond, window)
    deviation = np.std([p.expression[0] for p in train])
    last = dataset.train_indices[-1]
    steps = np.mean([(index - last) / 100 for index in dataset.held_out_indices])
    assert outside["nearest_expression_std"] == pytest.approx(steps / deviation, rel=1e-4)
    assert outside["nearest_rotation_std"] == 0
    assert outside["nearest_translation_std"] < outside["nearest_expression_std"]


def test_faces_that_do_not_follow_each_other_have_no_flicker(tmp_path: Path) -> None:
    dataset = write_prepared_clip(tmp_path)
    dataset.parameters[:] = [replace(p, frame_index=0) for p in dataset.parameters]
    figures = evaluate_held_out(dataset, lambda i: (held_out_truth(dataset, i), MASK))
    assert np.isnan(figures["flicker"])
