# SPDX-License-Identifier: Apache-2.0
"""``styleavatar serve``: everything up with one command, down with one signal, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from services.supervisor.settings import SupervisorSettings
from services.supervisor.supervisor import Supervisor
from styleavatar_core.errors import ConflictError, EngineUnavailableError
from tests.integration.job_system import readable_by_others, wait_for

PORTS = [name for name in SupervisorSettings.model_fields if name.endswith("_port")]
SERVE = "import typer; from services.supervisor.commands import serve; typer.run(serve)"
NAMES = ["redis", "gateway", "tracking", "rendering", "training"]


def settings(folder: Path, **values: object) -> SupervisorSettings:
    own = {"data_folder": folder / "data", "log_folder": folder / "logs", "redis_url": None}
    return SupervisorSettings(**dict.fromkeys(PORTS, 0) | own | values)


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with Supervisor(settings(tmp_path_factory.mktemp("serve"))) as supervisor:
        supervisor.wait_ready(120)
        yield supervisor


def works(supervisor: Supervisor) -> dict[str, bool]:
    answer = httpx.get(f"{supervisor.endpoints.gateway_url}/v1/system")
    return {part["name"]: part["is_healthy"] for part in answer.json()}


def test_all_parts_work_together(supervisor: Supervisor) -> None:
    assert [child.spec.name for child in supervisor.children] == NAMES
    assert works(supervisor) == dict.fromkeys(
        ["gateway", "redis", "trainer", "tracking", "rendering"], True
    )


def test_a_process_that_dies_is_started_again(supervisor: Supervisor) -> None:
    child = next(c for c in supervisor.children if c.spec.name == "gateway")
    first_pid = child.pid
    os.kill(first_pid, signal.SIGKILL)
    wait_for(lambda: child.pid != first_pid and child.spec.is_ready())
    assert child.restart_count == 1
    assert works(supervisor)["gateway"]


def test_what_it_writes_is_its_owners_alone(supervisor: Supervisor) -> None:
    data_folder = supervisor.settings.data_folder
    assert list((data_folder / "redis").rglob("*.aof"))
    assert readable_by_others(data_folder) == []
    assert data_folder.stat().st_mode & 0o077 == 0


def test_a_taken_port_is_named(supervisor: Supervisor, tmp_path: Path) -> None:
    taken = supervisor.settings.gateway_port
    with pytest.raises(ConflictError, match=f"port {taken} .*STYLEAVATAR_SERVE_GATEWAY_PORT"):
        Supervisor(settings(tmp_path, gateway_port=taken)).start()


@pytest.mark.parametrize("name", ["data_folder", "log_folder"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "inside"
    with pytest.raises(ConflictError, match=f"{folder} cannot be made: .*; choose one .* --data"):
        Supervisor(settings(tmp_path, **{name: folder})).start()


def test_with_a_certificate_it_says_at_once_that_it_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLEAVATAR_TLS_CERTIFICATE", str(tmp_path / "server.pem"))
    with pytest.raises(ConflictError, match="STYLEAVATAR_TLS_CERTIFICATE is set"):
        Supervisor(settings(tmp_path)).start()


@pytest.mark.parametrize("variable", ["STYLEAVATAR_RENDERING_PORTT", "STYLEAVATAR_TLS_KEY"])
def test_a_setting_that_no_service_can_use_ends_the_wait_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")  # a name that nobody knows; a key without its certificate
    with (
        Supervisor(settings(tmp_path)) as supervisor,
        pytest.raises(EngineUnavailableError, match=r"(track|render)ing.* cannot run with these"),
    ):
        supervisor.wait_ready(60)


def test_a_data_folder_serves_one_supervisor_at_a_time(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    in_use = supervisor.settings.data_folder
    with pytest.raises(ConflictError, match=f"{in_use} is in use by another"):
        Supervisor(settings(tmp_path, data_folder=in_use)).start()
    other = settings(tmp_path)
    for _ in range(2):  # one after the other may have it
        with Supervisor(other) as following:
            following.wait_ready(120)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """The command, once it says what runs where, and all its processes."""
    # Nothing on this machine is to be reached through a proxy, whatever is set for the rest.
    unset = {"REDIS_URL", "no_proxy", "NO_PROXY"}
    environment = {k: v for k, v in os.environ.items() if k not in unset}
    environment |= {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    with (tmp_path / "stderr").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "--any-ports", "--data", str(tmp_path / "data")],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
    assert process.stdout is not None
    for line in process.stdout:
        if "Ctrl-C" in line:
            break
    family = psutil.Process(process.pid).children(recursive=True)
    yield process, family
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_everything_cleanly(
    serving: tuple[subprocess.Popen[str], list[psutil.Process]], tmp_path: Path, number: int
) -> None:
    process, family = serving
    assert len(family) >= len(NAMES)
    process.send_signal(number)
    assert process.wait(60) == 0
    assert not psutil.wait_procs(family, timeout=5)[1], "something outlived its supervisor"
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_nothing_outlives_a_killed_supervisor(
    serving: tuple[subprocess.Popen[str], list[psutil.Process]],
) -> None:
    process, family = serving
    process.kill()
    assert not psutil.wait_procs(family, timeout=20)[1]
