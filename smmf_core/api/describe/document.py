"""The OpenAPI 3.1 document of the inference port, made of the structs that its decoders use.

Owns how operations become paths; made at the first question for it, then kept.
"""

from __future__ import annotations

import re
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec

from smmf_core import __version__
from smmf_core.api.describe import rules_anthropic, rules_ollama, rules_openai, rules_responses
from smmf_core.api.describe.anthropic_answers import AnthropicError
from smmf_core.api.describe.forms import Schema
from smmf_core.api.describe.operations import OPERATIONS, Operation
from smmf_core.errors import KINDS

_TEXT = (
    "One OpenAI-compatible endpoint over many models. The routes under `/v1` are also under "
    "`/api/v1` and without any prefix. Fields that are not described are ignored, null is as if a "
    "field were left out, and whatever is wrong is a 400 that names the field. A stream that fails "
    "after its first byte ends with an event that holds an `error`."
)
FIELDS = rules_openai.FIELDS | rules_anthropic.FIELDS | rules_responses.FIELDS | rules_ollama.FIELDS
_MORE = rules_openai.MORE | rules_responses.MORE | rules_ollama.MORE
_REF = "#/components/schemas/{name}"
_LONG = re.compile(r"smmf_core\.api\.(\w+)\.\w+\.(\w+)")  # of structs whose name others have, too
_JSON = "application/json"
_READS = (401, 403, 404)
_WRITES = (400, 401, 403, 404, 413, 415, 429, 500, 502, 503, 504)
_OVERLOADED = 529  # Anthropic's
_ASIDE = "models"  # of operations that no Worker answers
_RETRY_AFTER = (429, 503, _OVERLOADED)
_ID = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
_WAIT = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
_HEADERS = {
    "RequestId": {
        "description": "The request's own, if it gave a sane one; else a new one.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    "RetryAfter": {
        "description": "Seconds.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 60},
    },
}
_PARAMETERS = [
    {
        "name": "X-SMMF-Priority",
        "in": "header",
        "description": "As `priority` in the body, which it overrules.",
        "schema": {"type": "integer"},
    },
    {
        "name": "X-SMMF-Timeout",
        "in": "header",
        "description": "How many seconds the client waits.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e7},
    },
]
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}


@cache
def document() -> bytes:
    structs = {
        kind
        for operation in OPERATIONS
        for kind in (operation.body, operation.answer, operation.event, operation.error)
        if kind is not None
    }
    ordered = sorted(structs | set(FIELDS), key=str)
    schemas, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    shown = dict(zip(ordered, schemas, strict=True))
    for kind, fields in FIELDS.items():
        _component(components, shown[kind])["properties"].update(fields)
    for kind, more in _MORE.items():
        _component(components, shown[kind]).update(more)
    paths: dict[str, Any] = {}
    refusals: dict[str, Any] = {}
    for operation in OPERATIONS:
        method = "get" if operation.body is None else "post"
        paths.setdefault(operation.path, {})[method] = _operation(operation, shown)
        for status in _statuses(operation):
            refusals[_refusal_name(operation, status)] = _refusal(status, shown[operation.error])
    described = {
        "openapi": "3.1.0",
        "info": {"title": "SMMF", "version": __version__, "description": _TEXT},
        "servers": [{"url": "/"}],
        "security": [{name: []} for name in _SECURITY] + [{}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": refusals,
            "securitySchemes": _SECURITY,
            "headers": _HEADERS,
        },
    }
    return _LONG.sub(_short, msgspec.json.encode(described).decode()).encode()


def _component(components: dict[str, Any], schema: Schema) -> dict[str, Any]:
    found: dict[str, Any] = components[schema["$ref"].rpartition("/")[2]]
    return found


def _short(found: re.Match[str]) -> str:
    """OpenAI's keep their names, those of other dialects are told apart by the dialect's."""
    package, name = found.groups()
    return name if package == "openai" else package.capitalize() + name


def _operation(operation: Operation, shown: dict[Any, Schema]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": _responses(operation, shown),
    }
    if operation.is_open:
        described["security"] = []
    if operation.body is not None:
        body = {"required": True, "content": {_JSON: {"schema": shown[operation.body]}}}
        described["requestBody"] = body
        if operation.tag != _ASIDE:
            described["parameters"] = _PARAMETERS
    if operation.param:
        schema = {"type": "string", "minLength": 1}
        param = {"name": operation.param, "in": "path", "required": True, "schema": schema}
        described["parameters"] = [param]
    return described


def _responses(operation: Operation, shown: dict[Any, Schema]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answer is not None:
        content[_JSON] = {"schema": shown[operation.answer]}
    if operation.event is not None:
        text = "What follows `data: `, for each event but the last, `[DONE]`."
        event = {**shown[operation.event], "description": text}
        content[operation.stream] = {"schema": {"type": "string"}, "x-event": event}
    if operation.plain:
        content[operation.plain] = {"schema": {"type": "string"}}
    responses: dict[str, Any] = {"200": {"description": "OK", "headers": _ID, "content": content}}
    for status in _statuses(operation):
        name = _refusal_name(operation, status)
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return responses


def _refusal_name(operation: Operation, status: int) -> str:
    return f"{operation.error.__name__}{status}"


def _refusal(status: int, schema: Schema) -> dict[str, Any]:
    return {
        "description": _codes(status),
        "headers": _ID | _WAIT if status in _RETRY_AFTER else _ID,
        "content": {_JSON: {"schema": schema}},
    }


def _statuses(operation: Operation) -> tuple[int, ...]:
    if operation.is_open:
        return (503,) if operation.name == "ready" else ()
    if operation.body is None:
        return _READS if operation.param else _READS[:2]
    is_anthropic = operation.error is AnthropicError
    return (*_WRITES, _OVERLOADED) if is_anthropic else _WRITES


def _codes(status: int) -> str:
    """The codes that such an answer may have."""
    if status == _OVERLOADED:
        return "Overloaded: a full queue, or no model to answer."
    codes = ", ".join(code for code, kind in KINDS.items() if kind.status == status)
    return f"{HTTPStatus(status).phrase}: {codes}."
