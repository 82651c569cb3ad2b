# SPDX-License-Identifier: Apache-2.0
"""The client knows no core and the gateway no torch: their lists of presets are the core's."""

from __future__ import annotations

from styleavatar_client.create_command import Preset

from services.gateway.schemas import DEFAULT_MINUTES
from styleavatar_core.networks import PRESETS


def test_presets_are_those_of_the_core() -> None:
    assert set(Preset) == set(DEFAULT_MINUTES) == set(PRESETS)
