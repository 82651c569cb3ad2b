# SPDX-License-Identifier: Apache-2.0
"""What frames cost is measured, beside others too."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.common.storage import AvatarStore
from services.rendering.catalog import AvatarCatalog
from services.rendering.pool.capacity import FrameCosts
from tests.fakes.bundle import write_fake_bundle


def test_costs_are_known_by_avatar_then_by_preset(tmp_path: Path) -> None:
    for name, preset in (("anna", "nano"), ("ben", "nano"), ("carla", "lite")):
        write_fake_bundle(tmp_path / name, 1, preset=preset)
    catalog = AvatarCatalog(AvatarStore(tmp_path))
    anna, ben, carla = (catalog.get(name) for name in ("anna", "ben", "carla"))
    costs = FrameCosts()
    assert costs.frame_s(anna) is None
    costs.calibrate(anna, 0.010)
    assert (costs.frame_s(anna), costs.frame_s(ben), costs.frame_s(carla)) == (0.010, 0.010, None)
    costs.observe(carla, 0.5)
    assert costs.frame_s(carla) is None
    costs.calibrate(carla, 0.3)
    costs.calibrate(ben, 0.01)
    assert costs.longest_s == 0.3


def test_a_cost_is_the_mean_of_the_last_frames(tmp_path: Path) -> None:
    write_fake_bundle(tmp_path / "anna", 1)
    anna = AvatarCatalog(AvatarStore(tmp_path)).get("anna")
    costs = FrameCosts()
    costs.calibrate(anna, 0.020)
    for _ in range(100):
        costs.observe(anna, 0.008)
        costs.observe(anna, 0.012)
    assert costs.frame_s(anna) == pytest.approx(0.010, rel=0.03)


def test_a_frame_that_was_held_up_for_long_says_little(tmp_path: Path) -> None:
    write_fake_bundle(tmp_path / "anna", 1)
    anna = AvatarCatalog(AvatarStore(tmp_path)).get("anna")
    costs = FrameCosts()
    costs.calibrate(anna, 0.020)
    costs.observe(anna, 5.0)
    assert costs.frame_s(anna) == pytest.approx(0.021)
