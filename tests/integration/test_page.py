# SPDX-License-Identifier: Apache-2.0
"""The gateway's page in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.job_system import JobSystem, serving

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# Without a network of its own, nobody's profile, and three seconds of page time.
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--virtual-time-budget=3000",
)  # fmt: skip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture
def system(tmp_path: Path) -> Iterator[JobSystem]:
    with serving(tmp_path) as system:
        yield system


def shown(system: JobSystem, profile: Path) -> dict[str, str]:
    """What the page says in each of its parts, as text."""
    command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile}", "--dump-dom"]
    page = subprocess.run(
        [*command, str(system.http.base_url)], capture_output=True, text=True, timeout=60
    ).stdout
    parts = re.findall(r'<div class="grid" id="(\w+)">(.*?)</div>\n', page)
    return {name: " ".join(re.sub("<[^>]+>", " ", inside).split()) for name, inside in parts}


def test_the_page_says_what_is_away_and_what_is_not(system: JobSystem, tmp_path: Path) -> None:
    page = shown(system, tmp_path / "profile")
    assert "gateway works" in page["system"]
    assert "redis works" in page["system"]
    assert (page["avatars"], page["jobs"]) == ("None yet.", "None yet.")
    system.redis_process.terminate()
    system.redis_process.wait()
    page = shown(system, tmp_path / "profile")
    assert "gateway works" in page["system"]
    assert "redis does not answer" in page["system"]
    away = "the job queue does not answer, or takes no jobs just now; try again"
    assert (page["avatars"], page["jobs"]) == (away, away)
