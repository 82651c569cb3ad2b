# SPDX-License-Identifier: Apache-2.0
"""Who may call: API keys of the gateway and the gRPC services, TLS and mutual TLS of the latter.

A keys file has one line per key, ``NAME SHA256``: the digest, so that nobody who reads the file can
call. ``python -m services.common.security NAME`` makes a key and its line.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health

from services.common.settings import GrpcSettings
from styleavatar_core.errors import AuthenticationError, InvalidInputError

logger = logging.getLogger(__name__)

KEY_HEADER = "authorization"
KEY_PREFIX = "Bearer "
# Load balancers and orchestrators ask for health without a key; nothing else is open.
_OPEN_PREFIX = f"/{health.SERVICE_NAME}/"
_DIGEST = re.compile("[0-9a-f]{64}")


def digest_of(key: str) -> str:
    """Returns what a keys file holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeys:
    """The keys of a file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            InvalidInputError: When it cannot be read or a line is no key.
        """
        self._path = path
        self._version = (0, 0, 0)
        self._refused = (0, 0, 0)  # the version that could not be used
        self._digests: list[str] = []
        self._refresh()

    def check(self, key: str) -> None:
        """Lets a known key pass; while the file cannot be used, those that were in it before.

        Raises:
            AuthenticationError: When the key is not known.
        """
        try:
            self._refresh()
        except InvalidInputError as error:
            logger.error("API keys stay as they were", extra={"reason": str(error)})
        digest = digest_of(key)
        # All are compared, in constant time each: how long it takes says nothing about any.
        if not sum(hmac.compare_digest(digest, known) for known in self._digests):
            raise AuthenticationError(
                "This call needs a valid API key: send it as 'authorization: Bearer KEY'."
            )

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version in (self._version, self._refused):
                return
            lines = self._path.read_text(errors="replace").splitlines()
        except OSError as error:
            raise InvalidInputError(
                f"The file of API keys {self._path} cannot be read: {error.strerror}.",
                reason="BAD_SETTING",
            ) from error
        self._refused = version
        digests = []
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or not _DIGEST.fullmatch(words[1].lower()):
                raise InvalidInputError(
                    f"Line {number} of {self._path} is no API key; make lines with "
                    "'python -m services.common.security NAME'.",
                    reason="BAD_SETTING",
                )
            digests.append(words[1].lower())
        self._digests, self._version, self._refused = digests, version, (0, 0, 0)


class ApiKeyInterceptor(grpc.aio.ServerInterceptor):
    """Refuses every RPC without a valid key, but health checks."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Passes the call on, or puts a refusal in its place."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_OPEN_PREFIX):
            return handler
        value = str(dict(handler_call_details.invocation_metadata or ()).get(KEY_HEADER, ""))
        try:
            self._keys.check(value.removeprefix(KEY_PREFIX))
        except (AuthenticationError, InvalidInputError) as error:
            return _refusal(handler, error)
        return handler


def _refusal(handler: grpc.RpcMethodHandler, error: Exception) -> grpc.RpcMethodHandler:
    async def refuse(request: Any, context: grpc.aio.ServicerContext) -> Any:
        raise error

    async def refuse_stream(
        request: Any, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[Any, None]:
        raise error
        yield

    coders = (handler.request_deserializer, handler.response_serializer)
    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse_stream, *coders)
    return grpc.unary_unary_rpc_method_handler(refuse, *coders)


@dataclass(frozen=True, slots=True)
class ServerSecurity:
    """How a server protects itself.

    Attributes:
        credentials: Of TLS; None listens in the clear.
        api_keys: Keys that are asked for; None lets everybody in.
    """

    credentials: grpc.ServerCredentials | None = None
    api_keys: ApiKeys | None = None

    @classmethod
    def from_settings(cls, settings: GrpcSettings) -> ServerSecurity:
        """Reads the files that the settings name.

        Raises:
            InvalidInputError: When one is missing or cannot be read.
        """
        keys = ApiKeys(settings.api_keys_file) if settings.api_keys_file else None
        certificate, key = settings.tls_certificate, settings.tls_key
        if (certificate is None) != (key is None) or (settings.tls_client_ca and not certificate):
            raise InvalidInputError(
                "TLS needs STYLEAVATAR_TLS_CERTIFICATE and STYLEAVATAR_TLS_KEY together.",
                reason="BAD_SETTING",
            )
        if certificate is None or key is None:
            return cls(None, keys)
        authority = _read(settings.tls_client_ca) if settings.tls_client_ca else None
        credentials = grpc.ssl_server_credentials(
            [(_read(key), _read(certificate))], authority, authority is not None
        )
        return cls(credentials, keys)


def open_channel(
    address: str, settings: GrpcSettings, options: tuple[tuple[str, int], ...]
) -> grpc.aio.Channel:
    """Opens a channel to another service, as it expects its callers.

    Args:
        address: gRPC target.
        settings: With the authority of the other's certificate, when it has one.
        options: Of the channel.

    Returns:
        The channel, connected lazily.
    """
    if settings.tls_ca is None:
        return grpc.aio.insecure_channel(address, options=options)
    own = settings.tls_certificate and settings.tls_key
    credentials = grpc.ssl_channel_credentials(
        _read(settings.tls_ca),
        _read(settings.tls_key) if own and settings.tls_key else None,
        _read(settings.tls_certificate) if own and settings.tls_certificate else None,
    )
    return grpc.aio.secure_channel(address, credentials, options=options)


def key_metadata(settings: GrpcSettings) -> tuple[tuple[str, str], ...]:
    """Returns the metadata with which a service shows its own key to another."""
    if settings.api_key is None:
        return ()
    return ((KEY_HEADER, KEY_PREFIX + settings.api_key.get_secret_value()),)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error.strerror}.", reason="BAD_SETTING"
        ) from error


def main() -> None:
    """Makes a key: its line for the file on standard output, the key itself on standard error."""
    if len(sys.argv) != 2 or len(sys.argv[1].split()) != 1:
        sys.stderr.write("usage: python -m services.common.security NAME >> KEYS_FILE\n")
        sys.exit(2)
    key = secrets.token_urlsafe(32)
    # Begins a line of its own also behind a last line that nobody ended.
    sys.stdout.write(f"\n{sys.argv[1]} {digest_of(key)}\n")
    sys.stderr.write(f"{key}\n")


if __name__ == "__main__":
    main()
