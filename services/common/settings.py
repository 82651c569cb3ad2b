# SPDX-License-Identifier: Apache-2.0
"""Base of every service's settings: environment variables in, one frozen object out.

A service builds its settings once in ``__main__`` and passes them down; nothing reads settings at
import. pydantic-settings ignores a misspelt variable silently, so the base class looks at the
environment itself and refuses every name of ours that nobody knows.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, SettingsConfigDict

from styleavatar_core.errors import InvalidInputError

DATA_VARIABLE = "STYLEAVATAR_DATA"
REDIS_VARIABLE = "REDIS_URL"
_OURS = "STYLEAVATAR_"
# Each of them judges the names with its own prefix, and leaves those of the others to them.
_SERVICES = ("SERVE", "GATEWAY", "TRACKING", "RENDERING", "TRAINING")
_CLIENT_VARIABLES = {"STYLEAVATAR_URL", "STYLEAVATAR_TRACKING"}
# Compose reads it from the same `.env` that the containers have.
_COMPOSE_VARIABLES = {"STYLEAVATAR_PUBLISH"}
# Whoever sets these wants protection: without a value they would silently give none.
_NEVER_EMPTY = ("STYLEAVATAR_API_KEYS_FILE", "STYLEAVATAR_TLS_")
# How like a known name an unknown one must be to be taken for its misspelling.
_LIKENESS = 0.85


def default_data_folder() -> Path:
    """Returns the folder that holds avatars and jobs when nothing else is said."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "styleavatar"


class ServiceSettings(BaseSettings):
    """What all services are told: where data lies and how to log.

    Subclasses set their own ``env_prefix``. Fields given by an alias here are shared by all
    services and carry no prefix of their own.
    """

    model_config = SettingsConfigDict(
        frozen=True, populate_by_name=True, env_ignore_empty=True, extra="forbid"
    )

    data_folder: Path = Field(
        default_factory=default_data_folder,
        validation_alias=DATA_VARIABLE,
        description="Folder of avatars, face models, uploads and job files, shared by all; unset: "
        "`styleavatar` in `XDG_DATA_HOME`, else in `~/.local/share`.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO",
        validation_alias="STYLEAVATAR_LOG_LEVEL",
        description="Least severe level that is logged.",
    )
    log_format: Literal["console", "json"] = Field(
        default="console",
        validation_alias="STYLEAVATAR_LOG_FORMAT",
        description="One line for people, or one JSON object a line.",
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidInputError(self._sentence(error), reason="BAD_SETTING") from error
        self._refuse_unknown_variables()
        self._refuse_empty_protection()

    @property
    def avatars_folder(self) -> Path:
        """Folder of finished avatar bundles: the artifact store."""
        return self.data_folder / "avatars"

    @property
    def jobs_folder(self) -> Path:
        """Folder of uploads, datasets and checkpoints of training jobs."""
        return self.data_folder / "jobs"

    @classmethod
    def variable_names(cls) -> dict[str, str]:
        """Returns field name -> environment variable, for this service."""
        prefix = cls.model_config.get("env_prefix", "")
        return {
            name: str(field.validation_alias or f"{prefix}{name}".upper())
            for name, field in cls.model_fields.items()
        }

    @classmethod
    def explain(cls) -> dict[str, tuple[str, str]]:
        """Returns environment variable -> default (empty where there is none) and meaning."""
        rows = {}
        for name, variable in cls.variable_names().items():
            field = cls.model_fields[name]
            default = "" if field.default in (PydanticUndefined, None) else str(field.default)
            rows[variable] = (default, field.description or "")
        return rows

    @classmethod
    def _sentence(cls, error: ValidationError) -> str:
        names = cls.variable_names()
        parts = []
        for item in error.errors():
            if not item["loc"]:  # of several together; the input holds all, secrets too
                parts.append(item["msg"])
                continue
            field = str(item["loc"][0])
            parts.append(f"{names.get(field, field)}: {item['msg']} (got {item.get('input')!r})")
        return "settings cannot be used: " + "; ".join(parts)

    @classmethod
    def _refuse_unknown_variables(cls) -> None:
        own = str(cls.model_config.get("env_prefix", "")).upper()
        others = tuple({f"{_OURS}{service}_" for service in _SERVICES} - {own})
        shared = {*RedisSettings.variable_names().values(), *GrpcSettings.variable_names().values()}
        own_names = {*cls.variable_names().values()}
        known = shared | own_names | _CLIENT_VARIABLES | _COMPOSE_VARIABLES
        for variable in os.environ:
            name = variable.upper()
            if not name.startswith(_OURS) or name in known or name.startswith(others):
                continue
            near = difflib.get_close_matches(name, known, n=1, cutoff=_LIKENESS)
            advice = f"; did you mean {near[0]}?" if near else ""
            raise InvalidInputError(
                f"unknown environment variable {variable}{advice}", reason="BAD_SETTING"
            )

    @classmethod
    def _refuse_empty_protection(cls) -> None:
        own = {*cls.variable_names().values()}
        for variable, value in os.environ.items():
            name = variable.upper()
            if not value and name in own and name.startswith(_NEVER_EMPTY):
                raise InvalidInputError(
                    f"{variable} is empty, which would switch protection off; name a file, or"
                    " unset it",
                    reason="BAD_SETTING",
                )


class RedisSettings(ServiceSettings):
    """Adds where Redis is, for the services that use it."""

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        validation_alias=REDIS_VARIABLE,
        description="Redis of job queue and job records; `styleavatar serve` embeds one if unset.",
    )


class CallerSettings(ServiceSettings):
    """Adds who may call, for the services that people and other systems talk to."""

    api_keys_file: Path | None = Field(
        default=None,
        validation_alias="STYLEAVATAR_API_KEYS_FILE",
        description="Keys that callers must show, `NAME SHA256` a line; none when unset.",
    )


class GrpcSettings(CallerSettings):
    """Adds how a gRPC service encrypts, and how it calls others."""

    tls_certificate: Path | None = Field(
        default=None,
        validation_alias="STYLEAVATAR_TLS_CERTIFICATE",
        description="PEM chain of a gRPC server, shown to servers too; in the clear when unset.",
    )
    tls_key: Path | None = Field(
        default=None,
        validation_alias="STYLEAVATAR_TLS_KEY",
        description="PEM private key of the certificate.",
    )
    tls_client_ca: Path | None = Field(
        default=None,
        validation_alias="STYLEAVATAR_TLS_CLIENT_CA",
        description="PEM authority whose certificates callers must show (mutual TLS).",
    )
    tls_ca: Path | None = Field(
        default=None,
        validation_alias="STYLEAVATAR_TLS_CA",
        description="PEM authority of the services' certificates, for calls between them.",
    )
    api_key: SecretStr | None = Field(
        default=None,
        validation_alias="STYLEAVATAR_API_KEY",
        description="Key that a service shows to other services.",
    )
    keepalive_s: float = Field(
        default=30.0,
        gt=0,
        validation_alias="STYLEAVATAR_KEEPALIVE_S",
        description="A connection that is silent for so long is asked whether its other end lives.",
    )
