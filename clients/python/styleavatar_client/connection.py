# SPDX-License-Identifier: Apache-2.0
"""Where the services are and how one shows who one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

MESSAGE_BYTES_LIMIT = 32 * 1024 * 1024

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_BYTES_LIMIT),
    # A server that is silent for so long is asked whether it lives, and given so long to answer.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # How long to knock at a node that says nothing (20 s if unsaid): a search has others to ask.
    ("grpc.min_reconnect_backoff_ms", 5_000),
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller shows, and whom it believes.

    Attributes:
        api_key: Key that the services ask for; empty when they ask for none.
        tls_ca: PEM file of the authority of the services' certificates; None talks in the clear.
        tls_certificate: PEM file of the caller's own certificate, for mutual TLS.
        tls_key: PEM file of its private key.
    """

    api_key: str = ""
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns what travels with every call."""
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def open_channel(self, address: str) -> grpc.Channel:
        """Opens a channel, connected lazily.

        Args:
            address: ``host:port``.
        """
        if self.tls_ca is None:
            return grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
        own = [path.read_bytes() if path else None for path in (self.tls_key, self.tls_certificate)]
        credentials = grpc.ssl_channel_credentials(self.tls_ca.read_bytes(), *own)
        return grpc.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)


class Connection:
    """A channel to one of several equal nodes."""

    def __init__(self, addresses: Sequence[str], credentials: Credentials) -> None:
        """Takes the first address.

        Args:
            addresses: ``host:port`` of each node.
            credentials: Shown to all of them.
        """
        self.addresses = tuple(addresses)  # beginning with the node in use
        self.metadata = credentials.metadata()
        self._credentials = credentials
        self.channel = credentials.open_channel(self.address)

    @property
    def address(self) -> str:
        """The node in use."""
        return self.addresses[0]

    def turn(self) -> None:
        """Goes over to the next node; with one only, connects to it afresh."""
        self.channel.close()
        self.addresses = (*self.addresses[1:], self.addresses[0])
        self.channel = self._credentials.open_channel(self.address)

    def close(self) -> None:
        """Ends all calls."""
        self.channel.close()
