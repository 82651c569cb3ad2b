# SPDX-License-Identifier: Apache-2.0
"""Alerts ask for metrics that the services have."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from services.common.collectors import TrainingMetrics
from services.common.metrics import GatewayMetrics, RenderingMetrics, TrackingMetrics

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "prometheus"
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
METRIC = re.compile(r"styleavatar_\w+")


def known_series() -> set[str]:
    registry = CollectorRegistry()
    for kind in (RenderingMetrics, TrackingMetrics, GatewayMetrics, TrainingMetrics):
        kind(registry)
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        family.name + suffix for family in registry.collect() for suffix in suffixes[family.type]
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts_use_metrics_that_exist(rule: dict[str, str]) -> None:
    used = set(METRIC.findall(rule["expr"]))
    assert used <= known_series()
    assert used or rule["expr"].startswith("up ")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed here")
@pytest.mark.parametrize(
    "command", [["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"]]
)
def test_promtool_is_content(command: list[str]) -> None:
    result = subprocess.run(
        ["promtool", *command], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_service_is_missed_that_is_found_by_its_name_and_has_no_node() -> None:
    (rule,) = (rule for rule in RULES if rule["alert"] == "ServiceDown")
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    found = {job["job_name"] for job in config if "dns_sd_configs" in job}
    assert set(re.findall(r'absent\(up\{job="(\w+)"\}\)', rule["expr"])) == found
