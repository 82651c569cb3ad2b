# SPDX-License-Identifier: Apache-2.0
"""What the OpenAPI description says that FastAPI does not see: the upload form, the problems."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.gateway.schemas import DEFAULT_MINUTES

_PROBLEM = {
    "description": "What was wrong, as a problem document (RFC 9457).",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "reason", "detail", "request_id"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "reason": {"type": "string", "description": "Stable word for programs."},
                    "detail": {"type": "string", "description": "One sentence for people."},
                    "request_id": {"type": "string", "description": "Finds it in the log."},
                },
            }
        }
    },
}
_FIELDS = {
    "video": {"type": "string", "format": "binary", "description": "Portrait video of one person."},
    "consent": {"type": "string", "description": "Statement of consent, in words."},
    "consent_subject": {"type": "string", "description": "Who is shown."},
    "consent_given_by": {"type": "string", "description": "Who consents."},
    "source": {"type": "string", "description": "Where the video comes from."},
    "preset": {"type": "string", "enum": list(DEFAULT_MINUTES)},
    "minutes": {"type": "number", "description": "Of training."},
}
UPLOAD_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["video", "consent"],
                    "properties": _FIELDS,
                }
            }
        },
    }
}
# FastAPI's own form of errors, which no route answers with.
_FOREIGN_STATUS, _FOREIGN_SCHEMAS = "422", ("HTTPValidationError", "ValidationError")


def describe_problems(app: FastAPI) -> None:
    """Has an application's description name problem documents as what every route may answer."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop(_FOREIGN_STATUS, None)
                    operation["responses"]["default"] = _PROBLEM
            for name in _FOREIGN_SCHEMAS:
                schema["components"]["schemas"].pop(name, None)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]
