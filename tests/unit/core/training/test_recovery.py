# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
import torch

from styleavatar_core.errors import TrainingError
from styleavatar_core.training.clock import Clock, Health
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.record.good_checkpoint import GoodCheckpoint
from styleavatar_core.training.recovery import (
    Trouble,
    find_trouble,
    observe,
    recover,
    require_another_try,
)
from styleavatar_core.training.samples.batches import BatchSampler
from styleavatar_core.training.samples.clips import Clip
from styleavatar_core.training.schedule import phase_at
from styleavatar_core.training.trainer import StepResult, Trainer


def result(loss=1.0, judge_lead=None):
    losses = {"l1": loss, "adversarial": 100.0}  # the latter says nothing about reconstruction
    judge = {} if judge_lead is None else {"judge": 100.0, "judge_lead": judge_lead}
    return StepResult(losses, is_finite=True, judge=judge)


def first_trouble(results):
    """Returns the step and what is found there, or None."""
    health = Health()
    for step, one in enumerate(results):
        health = observe(health, one)
        if trouble := find_trouble(health, one):
            return step, trouble
    return None


def test_a_training_that_goes_well_is_left_alone():
    falling = [result(1.0 / (1 + step / 50), judge_lead=0.5) for step in range(400)]
    noisy = [result(3.0 if step % 10 == 0 else 1.0) for step in range(400)]
    assert first_trouble(falling) is None
    assert first_trouble(noisy) is None


def test_a_loss_that_rises_is_noticed():
    step, trouble = first_trouble([result(1.0)] * 150 + [result(4.0)] * 100)
    assert trouble is Trouble.LOSS_ROSE
    assert 150 < step < 200


@pytest.mark.parametrize("well_steps", [1, 3, 30, 60])
def test_a_loss_that_explodes_early_is_noticed(well_steps):
    step, trouble = first_trouble([result(1.0)] * well_steps + [result(1e4)] * 100)
    assert (step, trouble) == (well_steps, Trouble.LOSS_ROSE)


def test_a_first_step_that_is_easy_by_chance_makes_no_trouble():
    assert first_trouble([result(0.3)] + [result(1.0)] * 400) is None


def test_a_discriminator_that_always_wins_is_noticed():
    step, trouble = first_trouble([result()] * 300 + [result(judge_lead=0.95)] * 200)
    assert (step, trouble) == (399, Trouble.JUDGE_WON)
    assert first_trouble([result(judge_lead=0.8)] * 400) is None


def test_numbers_that_are_none_are_noticed_at_once():
    assert first_trouble([StepResult({}, is_finite=False)]) == (0, Trouble.NOT_FINITE)


def test_a_discriminator_that_wins_becomes_gentler_and_is_then_left_out():
    saved = Clock(step=100, elapsed_s=50.0)
    now = replace(saved, step=300, elapsed_s=90.0, health=Health(judge_lead=0.95))
    config = TrainConfig(step_count=1000, adversarial_start=0.0)
    weights = []
    for _ in range(3):
        now = recover(saved, now, Trouble.JUDGE_WON)
        phase = phase_at(now, config)
        weights.append(phase.adversarial_weight / config.loss_weights.adversarial)
        assert phase.judge_rate == phase.rate * weights[-1]
    assert weights == [0.5, 0.25, 0.0]
    assert (now.step, now.elapsed_s, now.health, now.rate_factor) == (100, 90.0, Health(), 1.0)
    assert Clock.from_json(now.to_json()) == now


def test_divergence_halves_the_rate_until_it_is_given_up():
    now = Clock(step=9)
    for factor in (0.5, 0.25, 0.125):
        now = replace(recover(Clock(), now, Trouble.LOSS_ROSE), step=9)
        assert now.rate_factor == factor
    now = recover(Clock(), now, Trouble.JUDGE_WON)  # does not count as a divergence
    assert (now.rate_factor, now.is_given_up) == (0.125, False)
    now = recover(Clock(step=7), replace(now, step=9), Trouble.NOT_FINITE)
    assert now.is_given_up
    told = (
        r"4 times without getting on, .* at step 9 .* step 7 with a learning rate that is 0.0625 of"
    )
    with pytest.raises(TrainingError, match=told):
        require_another_try(now)
    for _ in range(3):  # when it is tried again
        now = recover(Clock(), now, Trouble.NOT_FINITE)
        assert not now.is_given_up
    assert recover(Clock(), now, Trouble.NOT_FINITE).is_given_up


def test_a_training_that_gets_past_its_divergences_is_not_given_up():
    now = Clock()
    for step in (100, 300, 500, 700, 900, 1100):  # each time from past where it diverged before
        now = recover(Clock(step=step - 50), replace(now, step=step), Trouble.LOSS_ROSE)
        assert not now.is_given_up
    for step in (1060, 1150, 1080):  # of these none is past all of them
        assert not now.is_given_up
        now = recover(Clock(step=1050), replace(now, step=step), Trouble.NOT_FINITE)
    assert now.is_given_up


def test_what_is_gone_back_to_may_be_older_than_an_interruption_that_is_still_counted():
    resumed = Clock(step=300, elapsed_s=90.0, resume_count=2)
    assert recover(Clock(step=100), resumed, Trouble.NOT_FINITE).resume_count == 2


def judged_step(dataset, tiny_config, **changes):
    """Takes one step with the discriminator; returns its trainer, weights before, and result."""
    config = TrainConfig(step_count=10, adversarial_start=0.0, **changes)
    trainer = Trainer(tiny_config, config)
    before = {name: value.clone() for name, value in trainer.judge.state_dict().items()}
    batch = BatchSampler([Clip(dataset)], tiny_config, config).at_step(0)
    result = trainer.step(batch, None, phase_at(Clock(step=5), config), number=0)
    return trainer, before, result


def test_gradients_of_the_discriminator_that_are_no_numbers_change_nothing(
    tiny_dataset, tiny_config
):
    trainer, before, result = judged_step(tiny_dataset, tiny_config, r1_weight=1e38)
    assert not result.is_finite
    for name, value in trainer.judge.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_long_gradients_of_the_discriminator_are_shortened(tiny_dataset, tiny_config):
    trainer, _, result = judged_step(tiny_dataset, tiny_config, r1_weight=1e6)
    assert result.is_finite
    gradients = torch.cat([weight.grad.flatten() for weight in trainer.judge.parameters()])
    assert float(gradients.norm()) == pytest.approx(TrainConfig().judge_gradient_norm, rel=1e-3)


def test_a_checkpoint_is_good_when_enough_steps_went_well_after_it(tmp_path):
    latest = tmp_path / "checkpoint.safetensors"
    good = GoodCheckpoint(latest, is_new=True)

    def save(step):
        latest.unlink(missing_ok=True)
        latest.write_text(str(step))
        good.after_save(step)
        return good.path.read_text()

    # Until one is good it is the oldest; what was written less than 50 steps ago never is.
    assert [save(step) for step in (0, 30, 49, 60, 109, 111, 160)] == [*"00000", "60", "60"]
    latest.write_text("back at 60")
    good.after_recovery(60)
    assert [save(step) for step in (100, 111)] == ["60", "back at 60"]
    assert GoodCheckpoint(latest, is_new=False).path.read_text() == "back at 60"
    assert GoodCheckpoint(latest, is_new=True).path == latest


def test_the_discriminator_says_how_far_it_leads(tiny_dataset, tiny_config):
    config = TrainConfig(step_count=10, adversarial_start=0.0, batch_size=4)
    trainer = Trainer(tiny_config, config)
    phase = replace(phase_at(Clock(step=1), config), rate=0.0, judge_rate=2e-3)
    batch = BatchSampler([Clip(tiny_dataset)], tiny_config, config).at_step(0)
    leads = [trainer.step(batch, None, phase, step).judge["judge_lead"] for step in range(1, 16)]
    assert all(-1 <= lead <= 1 for lead in leads)
    assert leads[-1] > leads[0] + 0.1  # networks that stand still are soon found out
