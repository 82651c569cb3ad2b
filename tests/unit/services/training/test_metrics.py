# SPDX-License-Identifier: Apache-2.0
"""The trainer's metrics are what the job records say at that moment."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from services.common.collectors import TrainingMetrics


def test_counts_are_read_when_asked_for() -> None:
    counts = {"queued": 2}
    registry = CollectorRegistry()
    TrainingMetrics(registry, lambda: counts, lambda: ({"failed": 1}, 3))
    assert registry.get_sample_value("styleavatar_training_queued_jobs") == 2
    counts["queued"] = 0
    counts["running"] = 1
    assert registry.get_sample_value("styleavatar_training_queued_jobs") == 0
    assert registry.get_sample_value("styleavatar_training_running_jobs") == 1
    assert registry.get_sample_value("styleavatar_training_resumed_jobs_total") == 3
    failed = registry.get_sample_value("styleavatar_training_jobs_total", {"state": "failed"})
    assert failed == 1
