# SPDX-License-Identifier: Apache-2.0
"""Containers start what `styleavatar serve` starts: same commands, ports and variables."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from services.common.settings import ServiceSettings
from services.supervisor.redis_server import redis_command
from services.supervisor.settings import SupervisorSettings
from services.supervisor.specs import service_specs

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OUR_SERVICES = {
    "gateway": "services.gateway.settings:GatewaySettings",
    "tracking": "services.tracking.settings:TrackingSettings",
    "rendering": "services.rendering.settings:RenderingSettings",
    "trainer": "services.training.settings:TrainingSettings",
}


def settings_class(service: str) -> type[ServiceSettings]:
    module, name = OUR_SERVICES[service].split(":")
    return getattr(importlib.import_module(module), name)


def service(name: str) -> dict[str, Any]:
    return COMPOSE["services"][name]


def default_ports(name: str) -> set[int]:
    fields = settings_class(name).model_fields
    return {fields[field].default for field in ("port", "metrics_port") if field in fields}


@pytest.mark.parametrize("name", ["docker-compose.yml", "deploy/gpu/compose.yml"])
def test_compose_files_are_valid(name: str) -> None:
    command = [str(Path(sys.executable).with_name("check-jsonschema"))]
    command += ["--builtin-schema", "vendor.compose-spec", name]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_same_processes_are_there() -> None:
    assert set(COMPOSE["services"]) == {*OUR_SERVICES, "redis", "prometheus"}
    assert service("prometheus")["profiles"] == ["observability"]


@pytest.mark.parametrize("name", OUR_SERVICES)
def test_commands_are_modules_that_exist(name: str) -> None:
    python, flag, module = service(name)["command"]
    assert (python, flag) == ("python", "-m")
    assert importlib.util.find_spec(f"{module}.__main__") is not None


@pytest.mark.parametrize("name", OUR_SERVICES)
def test_variables_are_known_to_the_service(name: str) -> None:
    known = set(settings_class(name).variable_names().values())
    assert set(service(name)["environment"]) <= known


@pytest.mark.parametrize("name", OUR_SERVICES)
def test_what_compose_reads_from_the_env_file_stops_no_service(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [ROOT / "docker-compose.yml", *ROOT.glob("deploy/*/compose.yml")]
    text = "".join(path.read_text() for path in files)
    defaults = dict(re.findall(r"\$\{(STYLEAVATAR_\w+):-([^}]*)\}", text))
    assert set(defaults) == set(re.findall(r"\$\{(STYLEAVATAR_\w+)", text))
    assert "STYLEAVATAR_PUBLISH" in defaults
    for variable, value in defaults.items():
        monkeypatch.setenv(variable, value)
    settings_class(name)()
    SupervisorSettings()


@pytest.mark.parametrize("name", OUR_SERVICES)
def test_variables_make_valid_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in service(name)["environment"].items():
        if not value.startswith("${"):
            monkeypatch.setenv(variable, value)
    settings = settings_class(name)()
    assert settings.data_folder == Path("/data")
    assert settings.model_dump()["host"] == "0.0.0.0"


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_what_is_published_only_this_machine_can_call_unless_told(name: str) -> None:
    told = "${STYLEAVATAR_PUBLISH:-127.0.0.1}" if name in OUR_SERVICES else "127.0.0.1"
    for mapping in service(name).get("ports", []):
        address, here, inside = mapping.rsplit(":", 2)
        assert address == told  # others know no API keys
        assert here == inside


@pytest.mark.parametrize("name", OUR_SERVICES)
def test_callers_reach_the_default_port_and_replicas_fight_for_none(name: str) -> None:
    published = {int(mapping.split(":")[-1]) for mapping in service(name).get("ports", [])}
    port = settings_class(name).model_fields.get("port")
    assert published == ({port.default} if port else set())  # metrics are scraped inside


@pytest.mark.parametrize("name", OUR_SERVICES)
def test_serve_starts_the_same_command_with_the_same_variables(name: str) -> None:
    specs = {spec.name: spec for spec in service_specs(SupervisorSettings(), "redis://redis")}
    spec = specs["training" if name == "trainer" else name]
    assert spec.command[1:] == service(name)["command"][1:]
    # Redis is told to all by `serve`, in containers only to those who use it.
    assert set(service(name)["environment"]) | {"REDIS_URL"} == set(spec.environment)
    containers = service(name)["environment"]
    ports = {variable for variable in spec.environment if variable.endswith("_PORT")}
    assert {v: containers[v] for v in ports} == {v: spec.environment[v] for v in ports}


def test_prometheus_scrapes_every_service_where_it_listens() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    targets = {}
    for job in config["scrape_configs"]:
        if "dns_sd_configs" in job:
            (found,) = job["dns_sd_configs"]
            (host,), port = found["names"], found["port"]
        else:
            ((target,),) = (at["targets"] for at in job["static_configs"])
            host, port = target.split(":")
        targets[job["job_name"]] = host, int(port)
    assert set(targets) == set(OUR_SERVICES)
    for name, (host, port) in targets.items():
        assert host == name
        assert port in default_ports(name)


def test_the_dockerfile_passes_the_linter() -> None:
    hadolint = str(Path(sys.executable).with_name("hadolint"))
    result = subprocess.run(
        [hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(requirements: Iterable[str]) -> set[str]:
    """Names of what must be installed for some requirements, by what is installed here."""
    names, waiting = set[str](), [Requirement(text) for text in requirements]
    seen = set[str]()
    while waiting:
        asked = waiting.pop()
        if str(asked) in seen:
            continue
        seen.add(str(asked))
        names.add(normal(asked.name))
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            for text in importlib.metadata.requires(asked.name) or ():
                needs = Requirement(text)
                extras = ("", *asked.extras)
                if needs.marker is None or any(needs.marker.evaluate({"extra": e}) for e in extras):
                    waiting.append(needs)
    return names


def test_images_have_what_the_package_needs_and_no_tools_of_developers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    (base,) = re.findall(r"RUN (grep -Ev .*?) > runtime.lock", DOCKERFILE.read_text(), re.DOTALL)
    left_out = set("|".join(re.findall(r"\^\((.*?)\)==", base)).split("|"))
    locked = {normal(line.split("==")[0]) for line in lines}
    assert left_out == locked - needed([*project["dependencies"], *chain(*extras)])


@pytest.mark.parametrize("name", OUR_SERVICES)
def test_what_is_costly_to_build_outlives_a_restart(name: str) -> None:
    (cache,) = re.findall(r"XDG_CACHE_HOME=(\S+)", DOCKERFILE.read_text())
    volumes = dict(volume.split(":") for volume in service(name)["volumes"])
    assert volumes == {"styleavatar-data": "/data", "styleavatar-cache": cache}
    assert set(volumes) <= set(COMPOSE["volumes"])
    assert service(name)["tmpfs"] == ["/tmp"]


def test_redis_keeps_its_data_as_the_embedded_one_does() -> None:
    def kept(command: list[str]) -> list[str]:
        names = ("--appendonly", "--appendfsync", "--save")
        return [command[command.index(name) + 1] for name in names]

    assert kept(service("redis")["command"]) == kept(redis_command(ROOT, ROOT / "redis.sock"))


def test_gpus_are_given_to_those_who_compute_in_an_image_of_their_own() -> None:
    added = yaml.safe_load((ROOT / "deploy" / "gpu" / "compose.yml").read_text())["services"]
    assert set(added) == {"rendering", "trainer"}
    limit = "STYLEAVATAR_RENDERING_ENGINE_BYTES_PER_WORKER"  # they share them
    assert limit in added["rendering"]["environment"]
    assert limit in settings_class("rendering").variable_names().values()
    images = {service(name)["image"] for name in OUR_SERVICES}
    for changes in added.values():
        assert changes["image"] not in images
        dockerfile = (ROOT / changes["build"]["dockerfile"]).read_text()
        assert f" AS {changes['build']['target']}\n" in dockerfile
        # Compose merges arguments: without its own, it would get torch without CUDA.
        assert changes["build"]["args"] == dict.fromkeys(service("rendering")["build"]["args"], "")
        (device,) = changes["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


@pytest.mark.parametrize("name", OUR_SERVICES)
def test_images_are_built_from_files_that_exist(name: str) -> None:
    build = service(name)["build"]
    dockerfile = (ROOT / build["dockerfile"]).read_text()
    assert f" AS {build['target']}\n" in dockerfile
