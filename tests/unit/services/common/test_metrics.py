# SPDX-License-Identifier: Apache-2.0
"""Metric names follow one rule, labels stay bounded, and a taken port is said."""

from __future__ import annotations

import socket

import httpx
import pytest
from prometheus_client import CollectorRegistry

from services.common.collectors import TrainingMetrics
from services.common.metrics import GatewayMetrics, RenderingMetrics, TrackingMetrics, serve_metrics
from styleavatar_core.errors import ConflictError

UNBOUNDED = {"avatar_id", "stream", "session_id", "job_id", "frame_index", "client"}


@pytest.mark.parametrize(
    ("kind", "service"),
    [
        (RenderingMetrics, "rendering"),
        (TrackingMetrics, "tracking"),
        (GatewayMetrics, "gateway"),
        (TrainingMetrics, "training"),
    ],
)
def test_names_carry_service_and_labels_are_bounded(kind: type, service: str) -> None:
    registry = CollectorRegistry()
    metrics = kind(registry)
    for metric in registry.collect():
        assert metric.name.startswith(f"styleavatar_{service}_")
        if metric.type == "histogram":
            assert metric.name.endswith(("_seconds", "_size"))  # a time, or a count
        assert not any(UNBOUNDED & set(sample.labels) for sample in metric.samples)
    for metric in vars(metrics).values():
        assert not UNBOUNDED & set(getattr(metric, "_labelnames", ()))


def test_devices_are_asked_whenever_somebody_asks_for_metrics() -> None:
    registry = CollectorRegistry()
    loads: list[tuple[int, int | None, float | None]] = [(0, 5_000_000, 0.5)]
    RenderingMetrics(registry, read_devices=lambda: loads)
    loads.append((1, 7_000_000, 0.25))
    for name, expected in (("memory_bytes", 7_000_000), ("utilization", 0.25)):
        series = f"styleavatar_rendering_device_{name}"
        assert registry.get_sample_value(series, {"device": "1"}) == expected
    loads.append((2, 1_000_000, None))
    names = ("memory_bytes", "utilization")
    told = [f"styleavatar_rendering_device_{name}" for name in names]
    assert [registry.get_sample_value(name, {"device": "2"}) for name in told] == [1_000_000, None]


def test_metrics_are_served_until_stopped() -> None:
    registry = CollectorRegistry()
    RenderingMetrics(registry).frames.inc(3)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stop = serve_metrics("127.0.0.1", port, registry)
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        assert "styleavatar_rendering_frames_total 3.0" in httpx.get(url).text
        with pytest.raises(ConflictError, match=str(port)):
            serve_metrics("127.0.0.1", port, registry)
    finally:
        stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
