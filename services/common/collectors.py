# SPDX-License-Identifier: Apache-2.0
"""Prometheus collectors: metrics that are read from where they are known whenever somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from redis.exceptions import RedisError


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

    A job runs in a process of its own and may change trainers; its record outlives them all. What
    only grows is counted apart: a count of present records falls when a job is deleted or retried,
    which Prometheus takes for a new start from zero. While Redis is away only that is told.
    """

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        count_present: Callable[[], Mapping[str, int]] = dict,
        totals: Callable[[], tuple[Mapping[str, int], int]] = lambda: ({}, 0),
    ) -> None:
        """Registers the metrics.

        Args:
            registry: Where.
            count_present: Gives the number of present jobs by state in lower case.
            totals: Gives how often jobs reached each final state, and were resumed, ever.
        """
        self._count_present = count_present
        self._totals = totals
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics as they are now."""
        prefix = "styleavatar_training_"
        up_name, up_text = f"{prefix}redis_up", "Whether Redis answers: 1, or 0."
        try:
            present = self._count_present()
            ends, resume_count = self._totals()
        except RedisError:
            yield GaugeMetricFamily(up_name, up_text, 0)
            return
        yield GaugeMetricFamily(up_name, up_text, 1)
        ended = CounterMetricFamily(
            f"{prefix}jobs", "Jobs that reached a final state.", labels=["state"]
        )
        for state in ("succeeded", "failed", "canceled"):
            ended.add_metric([state], ends.get(state, 0))
        yield ended
        for state, help_text in (("queued", "Jobs waiting."), ("running", "Jobs at work.")):
            yield GaugeMetricFamily(f"{prefix}{state}_jobs", help_text, present.get(state, 0))
        yield CounterMetricFamily(
            f"{prefix}resumed_jobs", "Interruptions after which a job went on.", resume_count
        )
