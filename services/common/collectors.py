# SPDX-License-Identifier: Apache-2.0
"""Prometheus collectors: metrics that are read from where they are known whenever somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


class DeviceMetrics:
    """GPUs, asked whenever somebody asks for metrics."""

    def __init__(
        self, read_devices: Callable[[], Iterable[tuple[int, int | None, float | None]]]
    ) -> None:
        self._read_devices = read_devices

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics as they are now."""
        prefix = "styleavatar_rendering_device_"
        used = GaugeMetricFamily(f"{prefix}memory_bytes", "Memory in use.", labels=["device"])
        busy = GaugeMetricFamily(
            f"{prefix}utilization", "Share of the time that it was busy.", labels=["device"]
        )
        for index, used_bytes, share in self._read_devices():
            if used_bytes is not None:
                used.add_metric([str(index)], used_bytes)
            if share is not None:
                busy.add_metric([str(index)], share)
        yield used
        yield busy


class TrainingMetrics:
    """What the trainer measures: read from the job records whenever somebody asks.

    A job runs in a process of its own and may change trainers; its record outlives them all.
    """

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        count_jobs: Callable[[], tuple[Mapping[str, int], int]] = lambda: ({}, 0),
    ) -> None:
        """Registers the metrics.

        Args:
            registry: Where.
            count_jobs: Gives the number of jobs by state in lower case, and of resumptions.
        """
        self._count_jobs = count_jobs
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics as they are now."""
        prefix = "styleavatar_training_"
        counts, resume_count = self._count_jobs()
        ended = CounterMetricFamily(
            f"{prefix}jobs", "Known jobs that reached a final state.", labels=["state"]
        )
        for state in ("succeeded", "failed", "canceled"):
            ended.add_metric([state], counts.get(state, 0))
        yield ended
        for state, help_text in (("queued", "Jobs waiting."), ("running", "Jobs at work.")):
            yield GaugeMetricFamily(f"{prefix}{state}_jobs", help_text, counts.get(state, 0))
        yield CounterMetricFamily(
            f"{prefix}resumed_jobs", "Interruptions after which a known job went on.", resume_count
        )
