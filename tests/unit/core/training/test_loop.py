# SPDX-License-Identifier: Apache-2.0
import copy
import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from styleavatar_core.data.picture import decode_jpeg
from styleavatar_core.errors import AssetError, ConflictError, TrainingCanceled, TrainingError
from styleavatar_core.training import loop
from styleavatar_core.training.avatar_networks import AvatarNetworks
from styleavatar_core.training.clock import Health
from styleavatar_core.training.config import LossWeights, TrainConfig
from styleavatar_core.training.loop import load_average, train
from styleavatar_core.training.record.checkpoint import CHECKPOINT_NAME, save_checkpoint
from styleavatar_core.training.schedule import stopped_by
from tests.fakes.prepared_clip import write_prepared_clip
from tests.fakes.tiny_bundle import tiny_config as smallest_config

CONFIG = TrainConfig(
    step_count=6, batch_size=2, adversarial_start=0.5, r1_interval=2, evaluation_share=0.5
)


def weights(path):
    return {k: v for k, v in load_file(path).items() if k.startswith("module/networks")}


@pytest.mark.parametrize(
    ("preset", "changes", "reason"),
    [
        ("tiny_config", {}, "steps"),
        # Stopped after its feature generators were frozen.
        ("tiny_published_config", {"static_share": 0.1}, "steps"),
        # Every gain is too small: the budget is cut at the second look.
        (
            "tiny_config",
            {"plateau_gain_db": 99.0, "plateau_share": 0.1, "evaluation_share": 0.1},
            "plateau",
        ),
    ],
)
def test_a_stopped_and_resumed_run_gives_the_same_numbers(
    tiny_dataset, request, tmp_path, preset, changes, reason
):
    tiny_config = request.getfixturevalue(preset)
    config = replace(CONFIG, **changes)
    whole = train([tiny_dataset], tiny_config, config, tmp_path / "whole")
    polls = iter([False, True])
    with pytest.raises(TrainingCanceled):
        train(
            [tiny_dataset], tiny_config, config, tmp_path / "parts", should_stop=lambda: next(polls)
        )
    parts = train([tiny_dataset], tiny_config, config, tmp_path / "parts")
    wanted, got = load_file(whole), load_file(parts)
    assert wanted.keys() == got.keys()
    assert wanted
    for name, value in wanted.items():
        assert torch.equal(got[name], value), name
    _, clock = load_average(parts, tiny_config)
    _, unbroken = load_average(whole, tiny_config)
    assert (clock.step, clock.resume_count) == (unbroken.step, 1)
    assert clock.psnr_history == unbroken.psnr_history
    assert stopped_by(clock, config) == reason


def test_a_training_goes_on_with_a_larger_budget_and_looks_again(
    tiny_dataset, tiny_config, tmp_path
):
    train([tiny_dataset], tiny_config, CONFIG, tmp_path)
    kept = {CHECKPOINT_NAME, "training.jsonl", "samples.jpg"}  # nothing to go back to
    assert {path.name for path in tmp_path.iterdir()} == kept
    config = replace(CONFIG, step_count=18)
    _, clock = load_average(train([tiny_dataset], tiny_config, config, tmp_path), tiny_config)
    assert (clock.step, clock.resume_count) == (18, 1)
    assert len(clock.psnr_history) == 2  # at half of it and at its end


def test_feature_generators_freeze_after_their_share(tiny_dataset, tiny_config, tmp_path):
    def trained(share):
        config = replace(CONFIG, static_share=share, adversarial_start=1.0)
        return weights(train([tiny_dataset], tiny_config, config, tmp_path / str(share)))

    torch.manual_seed(CONFIG.seed)
    start = {f"module/networks/{k}": v for k, v in AvatarNetworks(tiny_config).state_dict().items()}
    frozen, learning = trained(0.0), trained(1.0)
    for part in ("face.", "background."):
        names = [name for name in start if name.startswith(f"module/networks/{part}")]
        assert names
        assert all(torch.equal(frozen[name], start[name]) for name in names)
        assert not all(torch.equal(learning[name], start[name]) for name in names)
    name = "module/networks/generator.mask_conv.weight"
    assert not torch.equal(frozen[name], start[name])


def test_bf16_learns_what_fp32_does(tiny_dataset, tiny_config, tmp_path):
    psnr_db = {}
    for precision in ("fp32", "bf16"):
        events = []
        config = TrainConfig(
            step_count=24, batch_size=4, adversarial_start=0.5, r1_interval=4, precision=precision
        )
        folder = tmp_path / precision
        train([tiny_dataset], tiny_config, config, folder, on_progress=events.append)
        psnr_db[precision] = events[-1].psnr_db
        assert all(
            value.dtype == torch.float32 for value in weights(folder / CHECKPOINT_NAME).values()
        )
    assert psnr_db["bf16"] != psnr_db["fp32"]  # it ran in it
    assert psnr_db["bf16"] > psnr_db["fp32"] - 1.0  # so few steps differ by chance, either way


def test_it_learns_and_reports(tiny_dataset, tiny_config, tmp_path):
    events = []
    config = TrainConfig(step_count=30, batch_size=4, adversarial_start=1.0, evaluation_share=0.5)
    train([tiny_dataset], tiny_config, config, tmp_path, on_progress=events.append)
    lines = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert events[0].stage == "training"
    assert events[-1].fraction == 1.0
    assert events[-1].psnr_db > 8.0  # the untrained networks give less than 5 dB
    assert decode_jpeg(events[-1].preview_jpeg).shape[2] == 3
    assert lines[0]["step"] == 1
    assert {"l1", "structure", "mask"} <= lines[0].keys()


def test_only_watched_frames_tell_how_good_a_training_is(tmp_path, tiny_config):
    dataset = write_prepared_clip(tmp_path / "dataset", frame_count=50, train_count=40)
    assert [*dataset.train_indices, *dataset.watched_indices] == list(range(40))
    assert list(dataset.watched_indices) == [38, 39]
    clean, rng = dataset.frames, np.random.default_rng(0)
    config = replace(CONFIG, plateau_gain_db=None)

    def trained(name, spoiled):
        events, frames = [], np.array(clean)
        frames[spoiled] = rng.integers(0, 256, frames[spoiled].shape, np.uint8)
        dataset.frames = frames
        path = train([dataset], tiny_config, config, tmp_path / name, on_progress=events.append)
        return weights(path), load_average(path, tiny_config)[1].psnr_history, events[-1]

    wanted, wanted_db, told = trained("clean", [])
    blind, blind_db, blind_told = trained("held_out", dataset.held_out_indices)
    assert blind_db == wanted_db
    assert (blind_told.psnr_db, blind_told.preview_jpeg) == (told.psnr_db, told.preview_jpeg)
    watching, watching_db, watching_told = trained("watched", dataset.watched_indices)
    assert all(seen < clean_db - 1 for seen, clean_db in zip(watching_db, wanted_db, strict=True))
    assert watching_told.preview_jpeg == told.preview_jpeg  # no frame of the clip is in it
    assert all(torch.equal(wanted[name], blind[name]) for name in wanted)
    assert all(torch.equal(wanted[name], watching[name]) for name in wanted)


def test_a_checkpoint_of_another_run_is_refused(tiny_dataset, tiny_config, tmp_path):
    config = replace(CONFIG, step_count=1)
    train([tiny_dataset], tiny_config, config, tmp_path)
    with pytest.raises(ConflictError, match="another video"):
        train([tiny_dataset], tiny_config, replace(config, seed=5), tmp_path)
    other = copy.copy(tiny_dataset)
    other.info = replace(tiny_dataset.info, model_digest="of another file of the same name")
    with pytest.raises(ConflictError, match="face model"):
        train([other], tiny_config, config, tmp_path)


def test_a_damaged_checkpoint_is_refused(tiny_config, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"broken")
    with pytest.raises(AssetError, match="cannot be read"):
        load_average(tmp_path / "checkpoint.safetensors", tiny_config)


@pytest.mark.parametrize(
    ("pause", "step", "elapsed_s", "saved"),
    [
        (0.0, 7, 67.0, [0, 1, 2, 3, 4, 5, 6, 7, 7]),
        (2.0, 40, 60.0, [0, 1, 21, 40]),  # twenty seconds of training after ten of writing
    ],
)
def test_saving_is_part_of_the_budget_and_a_small_one(
    tiny_dataset, tmp_path, monkeypatch, pause, step, elapsed_s, saved
):
    ticks, steps = itertools.count(), []
    seconds = [0.0]  # that saving took until now

    def save(path, clock, *state):
        seconds[0] += 9.0
        steps.append(clock.step)
        save_checkpoint(path, clock, *state)

    # A look at the clock takes a second, of which there is one in a step; a checkpoint nine more.
    now = SimpleNamespace(monotonic=lambda: next(ticks) + seconds[0])
    monkeypatch.setattr(loop, "time", now)
    monkeypatch.setattr(loop, "save_checkpoint", save)
    budget = {"step_count": None, "minutes": 1.0, "checkpoint_pause": pause}
    clock = long_training(tiny_dataset, tmp_path, **budget)
    assert (clock.step, clock.elapsed_s, steps) == (step, elapsed_s, saved)


def test_a_rate_that_is_too_high_is_halved_and_then_given_up(tiny_dataset, tiny_config, tmp_path):
    config = replace(CONFIG, learning_rate=1e30, warm_up_share=0.01)
    with pytest.raises(TrainingError, match=r"diverged 4 times.*run the same again"):
        train([tiny_dataset], tiny_config, config, tmp_path)
    networks, clock = load_average(tmp_path / "checkpoint.safetensors", tiny_config)
    assert clock.rate_factor == 1 / 16
    assert [recovery.cause for recovery in clock.recoveries] == ["not finite"] * 4
    assert all(recovery.back_to_step == 0 for recovery in clock.recoveries)
    assert all(torch.isfinite(value).all() for value in networks.state_dict().values())


def long_training(dataset, folder, should_stop=None, on_progress=None, **changes):
    """Trains the smallest networks with a checkpoint after each step; returns the last clock."""
    settings = {"batch_size": 1, "step_count": 150, "evaluation_share": 1.0}
    settings |= {"checkpoint_interval_s": 0.0, "checkpoint_pause": 0.0, "preview_interval_s": 1e6}
    config = replace(CONFIG, **settings | changes)
    callbacks = {"should_stop": should_stop, "on_progress": on_progress}
    path = train([dataset], smallest_config(), config, folder, **callbacks)
    return load_average(path, smallest_config())[1]


def test_a_loss_that_rises_leads_back_to_before_it_rose_and_says_so(tmp_path, caplog):
    dataset, steps = write_prepared_clip(tmp_path / "dataset", train_count=16), iter(range(1000))
    rng, clean = np.random.default_rng(0), dataset.frames

    def spoil() -> bool:
        if next(steps) >= 102:
            dataset.frames = rng.integers(0, 256, clean.shape, np.uint8)
        return False

    events = []
    clock = long_training(dataset, tmp_path, spoil, events.append, adversarial_start=1.0)
    (recovery,) = clock.recoveries
    told = f"loss rose at step {recovery.step}, back to step {recovery.back_to_step}"
    assert told in caplog.text
    back = next(event for event in events if told in event.message)
    assert (back.step, back.stage) == (recovery.back_to_step, "training")
    assert recovery.cause == "loss rose"
    assert 102 < recovery.step < 150
    # Later checkpoints were written while the loss was rising already.
    assert 50 <= recovery.back_to_step < 102
    assert (clock.step, clock.rate_factor) == (150, 0.5)


def test_a_rate_at_which_the_first_losses_explode_is_halved(tiny_dataset, tmp_path):
    clock = long_training(tiny_dataset, tmp_path, adversarial_start=1.0, learning_rate=0.6)
    assert {recovery.cause for recovery in clock.recoveries} == {"loss rose"}
    assert all(recovery.step < 50 for recovery in clock.recoveries)
    assert clock.step == 150
    assert clock.health.loss < 1.0  # without it, 1e4


def test_a_training_that_was_given_up_goes_on_from_a_good_checkpoint(tmp_path, monkeypatch):
    dataset, going_back = write_prepared_clip(tmp_path / "dataset", train_count=16), loop.recover
    clean, spoiled = dataset.renderings, np.full(dataset.renderings.shape, np.nan, np.float32)
    well_steps = iter([60, 5, 5, 5, 20, 100])  # before what is spoiled, and after each return

    def recover(*arguments):
        nonlocal steps
        steps, dataset.renderings = iter(range(next(well_steps))), clean
        return going_back(*arguments)

    def spoil() -> bool:
        if next(steps, None) is None:
            dataset.renderings = spoiled
        return False

    steps = iter(range(next(well_steps)))
    monkeypatch.setattr(loop, "recover", recover)
    with pytest.raises(TrainingError, match=r"diverged 4 times.*run the same again"):
        long_training(dataset, tmp_path, spoil, step_count=80, adversarial_start=1.0)
    _, clock = load_average(tmp_path / CHECKPOINT_NAME, smallest_config())
    assert (clock.step, clock.health, len(clock.recoveries)) == (0, Health(), 4)
    clock = long_training(dataset, tmp_path, spoil, step_count=80, adversarial_start=1.0)
    assert (clock.step, len(clock.recoveries)) == (80, 5)


def test_a_discriminator_that_wins_leads_back_and_becomes_gentler(tiny_dataset, tmp_path):
    # Networks that learn nothing are found out.
    nothing = LossWeights(l1=0.0, structure=0.0, mask=0.0, adversarial=1e-30)
    changes = {"loss_weights": nothing, "r1_weight": 0.0, "learning_rate": 1e-2}
    clock = long_training(tiny_dataset, tmp_path, adversarial_start=0.0, **changes)
    assert {recovery.cause for recovery in clock.recoveries} == {"discriminator won"}
    assert all(one.back_to_step <= one.step - 50 for one in clock.recoveries)
    assert (clock.step, clock.rate_factor) == (150, 1.0)
    assert clock.judge_factor == {1: 0.5, 2: 0.25, 3: 0.0}[len(clock.recoveries)]


def test_both_sides_are_logged_from_one_table(tiny_dataset, tiny_config, tmp_path):
    events = []
    config = replace(CONFIG, adversarial_start=0.0, step_count=2)
    train([tiny_dataset], tiny_config, config, tmp_path, on_progress=events.append)
    line = json.loads((tmp_path / "training.jsonl").read_text().splitlines()[0])
    wanted = {"l1", "structure", "mask", "adversarial", "judge", "judge_penalty", "judge_lead"}
    assert events[0].losses.keys() == wanted
    assert {name: line[name] for name in wanted} == pytest.approx(events[0].losses, rel=1e-5)
