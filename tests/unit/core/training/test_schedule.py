# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from styleavatar_core.training.clock import Clock
from styleavatar_core.training.config import TrainConfig
from styleavatar_core.training.schedule import (
    after_evaluation,
    budget_share,
    evaluation_is_due,
    learning_rate,
    phase_at,
    stopped_by,
    under_budget,
)

CONFIG = TrainConfig(
    step_count=64,
    evaluation_share=1 / 16,
    plateau_share=1 / 8,
    plateau_gain_db=0.1,
    static_share=5 / 8,
)


def look_until(quality, config=CONFIG, clock=None):
    """Lets a training of 64 steps run whose PSNR after a step is ``quality(step)``."""
    clock, looks = clock or Clock(), []
    while budget_share(clock, config) < 1.0:
        clock = replace(clock, step=clock.step + 1)
        if evaluation_is_due(clock, config):
            looks.append(clock.step)
            clock = after_evaluation(clock, quality(clock.step), config)
    return clock, looks


def test_rate_rises_then_falls():
    config = TrainConfig(learning_rate=1.0, warm_up_share=0.1, final_rate_share=0.1)
    rates = [learning_rate(config, share) for share in (0.0, 0.05, 0.1, 0.5, 1.0)]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(1.0)
    assert rates[2] > rates[3] > rates[4] == pytest.approx(0.1)


def test_budget_counts_time_or_steps():
    assert budget_share(Clock(elapsed_s=30), TrainConfig(minutes=1.0)) == 0.5
    assert budget_share(Clock(step=5, elapsed_s=9e9), TrainConfig(step_count=10)) == 0.5


def test_a_quality_that_rises_takes_the_whole_budget():
    clock, looks = look_until(lambda step: 20 + step / 10)
    assert clock.step == 64
    assert looks == [1, *range(4, 65, 4)]
    assert stopped_by(clock, CONFIG) == "steps"
    assert stopped_by(clock, TrainConfig()) == "time"


def test_rounding_makes_no_look_late():
    config = replace(CONFIG, step_count=40, evaluation_share=0.025)
    _, looks = look_until(lambda step: 20 + step, config)
    assert looks == [*range(1, 41)]


def test_a_quality_that_stands_still_begins_the_final_part_at_once():
    clock, _ = look_until(lambda step: min(20 + step / 10, 22.1))  # rises for 21 steps
    # At step 32 the looks at 28 and 32 gain little on those at 20 and 24: 32 is 5/8 of 51.2.
    assert clock.budget_factor == pytest.approx(0.8)
    assert clock.step == 52
    assert stopped_by(clock, CONFIG) == "plateau"
    assert phase_at(replace(clock, step=32), CONFIG).is_static_frozen
    assert not phase_at(replace(clock, step=31), CONFIG).is_static_frozen


def test_what_comes_in_the_final_part_cuts_nothing():
    clock, _ = look_until(lambda step: min(step, 36))
    assert clock.step == 64


def test_it_can_be_switched_off():
    clock, _ = look_until(lambda _: 20.0, replace(CONFIG, plateau_gain_db=None))
    assert clock.step == 64


def test_switched_off_afterwards_it_gives_the_whole_budget():
    cut, _ = look_until(lambda _: 20.0)
    # Two windows of two looks are full at step 12: 12 is 5/8 of what is left of the budget.
    assert cut.budget_factor == pytest.approx(12 / 64 / (5 / 8))
    assert under_budget(cut, CONFIG, CONFIG) == cut
    config = replace(CONFIG, plateau_gain_db=None)
    clock = under_budget(cut, CONFIG, config)
    assert budget_share(clock, config) == cut.step / 64
    clock, looks = look_until(lambda _: 20.0, config, clock)
    assert looks == [step for step in range(4, 65, 4) if step > cut.step]
    assert stopped_by(clock, config) == "steps"


def test_a_larger_budget_is_judged_by_its_own_looks():
    config = replace(CONFIG, step_count=192)
    done, _ = look_until(lambda step: 20 + step / 10)
    # The rate is high again: it takes some time until quality is what it was before.
    begun = under_budget(done, CONFIG, config)
    clock, looks = look_until(lambda step: 12 + step / 10, config, begun)
    assert looks == [*range(72, 193, 12)]
    assert (clock.step, stopped_by(clock, config)) == (192, "steps")


@pytest.mark.parametrize(("step_count", "last"), [(56, 52), (40, 40)])
def test_a_smaller_budget_leaves_a_cut_where_it_was(step_count, last):
    clock = Clock()
    while not clock.has_plateaued:  # at step 32, of 51.2 then
        clock = replace(clock, step=clock.step + 1)
        if evaluation_is_due(clock, CONFIG):
            quality = min(20 + clock.step / 10, 22.1)
            clock = after_evaluation(clock, quality, CONFIG)
    smaller = replace(CONFIG, step_count=step_count)
    clock, _ = look_until(lambda _: 22.1, smaller, under_budget(clock, CONFIG, smaller))
    assert (clock.step, clock.psnr_history[:2]) == (last, (20.1, 20.4))


@pytest.mark.parametrize("quality", [20.0, 30.0])
def test_the_same_budget_changes_nothing(quality):
    clock = Clock()
    while budget_share(clock, CONFIG) < 1.0:
        assert under_budget(clock, CONFIG, CONFIG) == clock
        clock = replace(clock, step=clock.step + 1)
        if evaluation_is_due(clock, CONFIG):
            clock = after_evaluation(clock, min(clock.step / 2, quality), CONFIG)
    assert under_budget(clock, CONFIG, CONFIG) == clock


def test_the_discriminator_joins_by_its_share():
    config = TrainConfig(step_count=10, adversarial_start=0.5)
    assert phase_at(Clock(step=4), config).adversarial_weight == 0
    assert phase_at(Clock(step=5), config).adversarial_weight == 0.05


def test_a_clock_survives_storage_to_the_bit():
    clock = Clock(step=3, elapsed_s=0.1 + 0.2, psnr_history=(1 / 3, 2 / 3), budget_factor=0.7)
    assert Clock.from_json(clock.to_json()) == clock
    assert Clock.from_json('{"step": 5, "elapsed_s": 1.5}') == Clock(step=5, elapsed_s=1.5)
