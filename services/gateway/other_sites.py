# SPDX-License-Identifier: Apache-2.0
"""Keeps other people's web pages from acting through the browser of somebody who opens them.

A page may send a form to every address that its visitor's browser reaches, this machine's own too,
and it may have its own name mean this machine, after which it may read the answers (DNS rebinding).
"""

from __future__ import annotations

import ipaddress

from fastapi import Request

from services.gateway.dependencies import PartsDependency
from styleavatar_core.errors import AuthenticationError

_READING_METHODS = ("GET", "HEAD", "OPTIONS")
_OWN_SITE = ("same-origin", "none")  # of Sec-Fetch-Site; none: typed by the person


def refuse_other_sites(request: Request, parts: PartsDependency) -> None:
    """Lets programs and our own page pass.

    Raises:
        AuthenticationError: A web page of another site asks to change something; or the gateway,
            meant for this machine and without API keys, is called by a name that is not its own.
    """
    if request.method not in _READING_METHODS and _is_of_other_site(request):
        raise AuthenticationError(
            "a web page of another site may not do this; use this gateway's page, or a program",
            reason="OTHER_SITE",
        )
    host = request.url.hostname or ""
    if parts.api_keys is None and _is_local(parts.settings.host) and not _is_local(host):
        raise AuthenticationError(
            f"this gateway listens for its own machine only and is not called '{host}'; call it"
            " localhost, or ask for API keys: STYLEAVATAR_API_KEYS_FILE",
            reason="UNKNOWN_HOST",
        )


def _is_of_other_site(request: Request) -> bool:
    """Whether a browser says so; programs say nothing."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in _OWN_SITE
    origin = request.headers.get("origin")  # all that older browsers say, and those without TLS
    return origin is not None and origin.partition("://")[2] != request.headers.get("host")


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
