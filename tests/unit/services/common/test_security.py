# SPDX-License-Identifier: Apache-2.0
"""Keys stay what they were while their file is not what it should be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from services.common.security import ApiKeys, ServerSecurity, digest_of
from services.common.settings import GrpcSettings
from styleavatar_core.errors import AuthenticationError, InvalidInputError

OLD, NEW = f"alice {digest_of('old')}", f"alice {digest_of('new')}"


def test_a_spoiled_file_locks_nobody_out_and_tells_callers_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text(OLD)
    keys = ApiKeys(path)
    path.write_bytes(f"{OLD}bob\xff\n".encode("latin-1"))
    for _ in range(3):
        keys.check("old")
    with pytest.raises(AuthenticationError) as caught:
        keys.check("unknown")
    assert str(path) not in str(caught.value)
    assert len(caplog.records) == 1
    assert "Line 1" in caplog.records[0].reason
    path.write_text(f"{OLD}\n{NEW}\n")  # two of one name: the old one goes when its line does
    keys.check("old")
    keys.check("new")
    path.write_text(f"{NEW}\n")
    with pytest.raises(AuthenticationError):
        keys.check("old")
    path.write_text("nonsense")
    with pytest.raises(InvalidInputError, match="Line 1"):
        ApiKeys(path)


@pytest.mark.parametrize("word", ["é" * 64, "g" * 64, digest_of("new")[1:]])
def test_a_word_that_is_no_digest_locks_nobody_out(tmp_path: Path, word: str) -> None:
    path = tmp_path / "keys"
    path.write_text(OLD)
    keys = ApiKeys(path)
    path.write_text(f"{NEW}\nbob {word}\n")
    keys.check("old")
    with pytest.raises(InvalidInputError, match="Line 2"):
        ApiKeys(path)


def test_a_file_may_have_comments_empty_lines_and_digests_in_capitals(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# who may call\n\nalice {digest_of('old').upper()}\n")
    ApiKeys(path).check("old")


@pytest.mark.parametrize("given", ["CERTIFICATE", "KEY", "CLIENT_CA"])
def test_half_of_what_tls_needs_does_not_serve_in_the_clear(tmp_path: Path, given: str) -> None:
    settings = GrpcSettings(**{f"STYLEAVATAR_TLS_{given}": tmp_path / "file.pem"})
    with pytest.raises(InvalidInputError, match="TLS_CERTIFICATE and STYLEAVATAR_TLS_KEY together"):
        ServerSecurity.from_settings(settings)


def test_a_key_is_added_behind_a_line_that_nobody_ended(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(OLD)
    with path.open("a") as file:
        made = subprocess.run(
            [sys.executable, "-m", "services.common.security", "bob"],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
    keys = ApiKeys(path)
    keys.check("old")
    keys.check(made.stderr.strip())
