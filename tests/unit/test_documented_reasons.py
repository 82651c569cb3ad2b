# SPDX-License-Identifier: Apache-2.0
"""Every reason that a caller may be told is explained in docs/api.md, and none that is not told."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RAISED = (
    r'reason="([A-Z_]+)"',
    r'default_reason(?:: ClassVar\[str\])? = "([A-Z_]+)"',
    r'problem\(\s*\d+,\s*"([A-Z_]+)"',
    r'_fail\(\s*job,\s*"([A-Z_]+)"',
    r'Failure\([\w.]+, "([A-Z_]+)"',
    r'\b[45]\d\d: "([A-Z_]+)"',
    r'reason = .*, "([A-Z_]+)"\)$',
    r'^([A-Z_]+) = "\1"',
)
# Between a worker and its front, between a trainer and its queue.
NEVER_TOLD = {"FRAME_ABANDONED", "FRAME_LATE", "STALE_ATTEMPT"}


def raised_reasons() -> set[str]:
    listing = subprocess.run(
        ["git", "ls-files", "services/*.py", "styleavatar_core/*.py"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    texts = [(ROOT / line).read_text() for line in listing.splitlines()]
    found = (re.findall(pattern, text, re.M) for text in texts for pattern in RAISED)
    return {word for words in found for word in words}


def test_reasons_are_those_of_the_documentation() -> None:
    text = (ROOT / "docs" / "api.md").read_text().split("## Errors")[1].split("\n## ")[0]
    documented = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", text))
    documented = {word for word in documented if not word.startswith("STYLEAVATAR_")}
    codes = {"INVALID_ARGUMENT", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"}
    assert raised_reasons() - NEVER_TOLD == documented - codes
