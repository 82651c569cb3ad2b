# SPDX-License-Identifier: Apache-2.0
"""What the gateway makes of odd requests, and of a Redis or a disk that fails in part."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.integration.job_system import JobSystem, serving


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobSystem]:
    with serving(tmp_path_factory.mktemp("data")) as system:
        yield system


def test_methods_that_nobody_knows_are_counted_as_one(system: JobSystem) -> None:
    for method in ("LOCK", "MKCOL", "PROPFIND"):
        assert system.http.request(method, "/healthz").status_code == 405
    counted = system.http.get("/metrics").text
    methods = set(re.findall(r'requests_total{method="(\w+)"', counted))
    assert "other" in methods
    assert methods <= {"GET", "HEAD", "POST", "DELETE", "other"}
