# SPDX-License-Identifier: Apache-2.0
"""Places of a service are counted, and those who find none come back one by one."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Gauge

from services.common.opening import RETRY_DELAYS_S, StreamLimit
from styleavatar_core.errors import OverloadedError


def test_those_who_are_refused_together_do_not_come_back_together() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("streams", "open", registry=registry)
    refused: list[str] = []
    limit = StreamLimit(1, lambda: refused.append("one"))
    delays_s = set()
    with limit.admitted(gauge):
        for _ in range(50):
            with pytest.raises(OverloadedError) as caught, limit.admitted(gauge):
                pass
            delays_s.add(caught.value.retry_delay_s)
        assert registry.get_sample_value("streams") == 1
    assert len(delays_s) == len(refused) == 50
    assert RETRY_DELAYS_S[0] <= min(delays_s) <= max(delays_s) <= RETRY_DELAYS_S[1]
    with limit.admitted(gauge):  # its place was given back
        pass
    assert registry.get_sample_value("streams") == 0
