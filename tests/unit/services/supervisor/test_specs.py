# SPDX-License-Identifier: Apache-2.0
"""What ``serve`` starts: variables that the services know, ports that are free."""

from __future__ import annotations

import importlib
import shutil
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from prometheus_client import start_http_server
from rich.console import Console

from services.common.settings import ServiceSettings
from services.supervisor.child import Child, ChildSpec
from services.supervisor.commands import run
from services.supervisor.redis_server import find_redis_server
from services.supervisor.settings import SupervisorSettings, choose_ports, hold_ports
from services.supervisor.specs import http_answers, redis_answers, service_specs
from services.supervisor.supervisor import Supervisor
from styleavatar_core.errors import ConflictError, EngineUnavailableError, InvalidInputError

ANY = {name: 0 for name in SupervisorSettings.model_fields if name.endswith("_port")}
NAMES = ("gateway", "tracking", "rendering", "training")


def settings_class(name: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"services.{name}.settings")
    return getattr(module, f"{name.capitalize()}Settings")


def spec_of(name: str, **values: object) -> ChildSpec:
    settings = SupervisorSettings(data_folder=Path("data"), redis_url=None, **values)
    return next(spec for spec in service_specs(settings, "redis://r") if spec.name == name)


@pytest.mark.parametrize("name", NAMES)
def test_services_are_started_with_variables_they_know(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(name)
    assert spec.command[1:] == ["-m", f"services.{name}"]
    known = set(settings_class(name).variable_names().values())
    assert {v for v in spec.environment if v.startswith(f"STYLEAVATAR_{name.upper()}_")} <= known
    for variable, value in spec.environment.items():
        monkeypatch.setenv(variable, value)
    assert settings_class(name)().data_folder == Path("data")


@pytest.mark.parametrize("name", NAMES)
def test_default_ports_are_the_services_own(name: str) -> None:
    fields = settings_class(name).model_fields
    environment = spec_of(name).environment
    for field in ("port", "metrics_port"):
        if field in fields:
            variable = f"STYLEAVATAR_{name.upper()}_{field.upper()}"
            assert environment[variable] == str(fields[field].default)


def test_listening_everywhere_is_reached_at_home() -> None:
    assert spec_of("gateway", host="0.0.0.0").address == "http://127.0.0.1:8080"


def test_free_ports_differ_and_taken_ones_are_named() -> None:
    ports = choose_ports("127.0.0.1", {"a_port": 0, "b_port": 0, "c_port": 0})
    assert len(set(ports.values())) == 3
    # Not one that a connection could be given before the service listens.
    assert max(ports.values()) < int(
        Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConflictError, match=f"port {port} .*STYLEAVATAR_SERVE_GATEWAY_PORT"):
            choose_ports("127.0.0.1", {"gateway_port": port})


@pytest.mark.parametrize("host", ["::1", "192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_none_can_listen_at_is_told_from_a_taken_port(host: str) -> None:
    for port in (0, 8080):
        with pytest.raises(InvalidInputError, match=f"of {host}: .*STYLEAVATAR_SERVE_HOST"):
            choose_ports(host, {"gateway_port": port})


def is_given(port: int) -> bool:
    """Whether somebody who looks for a free port is given this one."""
    with socket.socket() as stranger:
        try:
            stranger.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_a_held_port_is_given_to_nobody_but_the_service_that_is_to_listen_there() -> None:
    with hold_ports("127.0.0.1", {"grpc_port": 0, "http_port": 0}) as ports:
        assert not any(map(is_given, ports.values()))
        server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
        assert server.add_insecure_port(f"127.0.0.1:{ports['grpc_port']}") == ports["grpc_port"]
        server.stop(None).wait()
        http_server, _ = start_http_server(ports["http_port"], "127.0.0.1")
        http_server.shutdown()
        http_server.server_close()


def test_no_port_is_lost_while_its_service_has_yet_to_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ChildSpec("slow", ["sleep", "60"], {}, "", lambda: True)
    monkeypatch.setattr("services.supervisor.supervisor.service_specs", lambda *_: [spec])
    settings = SupervisorSettings(data_folder=tmp_path, redis_url="redis://127.0.0.1:1", **ANY)
    with Supervisor(settings) as supervisor:
        ports = [getattr(supervisor.settings, name) for name in ANY]
        assert not any(map(is_given, ports))
    assert all(map(is_given, ports))


def test_a_redis_server_is_found() -> None:
    assert find_redis_server().name == "redis-server"


def test_nobody_there_is_not_ready() -> None:
    (port,) = choose_ports("127.0.0.1", {"a_port": 0}).values()
    assert not http_answers(f"http://127.0.0.1:{port}/")
    assert not redis_answers(f"redis://127.0.0.1:{port}/0")


def test_a_child_that_cannot_be_started_just_now_is_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.symlink_to("/bin/true")
    child = Child(ChildSpec("brief", [str(program)], {}, "", lambda: True), tmp_path / "log")
    child.start()
    child.wait_until_ended(10)
    program.unlink()
    shutil.rmtree(tmp_path / "log")
    look_for(child, lambda: (tmp_path / "log").exists())
    assert child.restart_count == 0
    program.symlink_to("/bin/true")
    look_for(child, lambda: child.restart_count == 1)
    child.wait_until_ended(10)


def look_for(child: Child, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        child.look_after()
        time.sleep(0.02)


def test_serving_ends_when_the_supervisor_has_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(child: Child) -> None:
        raise RuntimeError("out of luck")

    names = ("gateway", "tracking", "rendering")
    specs = [ChildSpec(name, ["sleep", "60"], {}, "", lambda: True) for name in names]
    monkeypatch.setattr("services.supervisor.supervisor.service_specs", lambda *_: specs)
    monkeypatch.setattr(Child, "look_after", fail)
    settings = SupervisorSettings(data_folder=tmp_path, redis_url="redis://127.0.0.1:1", **ANY)
    with pytest.raises(EngineUnavailableError, match="out of luck"):
        run(Supervisor(settings), Console(quiet=True))


def test_a_child_that_ends_at_once_is_started_again_a_little_later(tmp_path: Path) -> None:
    child = Child(ChildSpec("brief", ["true"], {}, "", lambda: True), tmp_path)
    child.start()
    child.wait_until_ended(10)
    assert child.exit_code == 0
    child.look_after()
    assert child.restart_count == 0, "a process that ends at once must not be started at once"
    look_for(child, lambda: child.restart_count == 1)
    child.wait_until_ended(10)
