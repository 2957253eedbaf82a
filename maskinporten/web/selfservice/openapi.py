"""The self-service API as an OpenAPI 3.1 document, made of the rows that answer and validate.

Served at `/v3/api-docs`, where clients of Digdir's API look for it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from maskinporten import __version__
from maskinporten.web.selfservice.endpoint import MAX_PAGE_SIZE, Endpoint
from maskinporten.web.selfservice.refusals import ErrorBody

_DESCRIPTION: Final = """\
Organisations run their own clients, keys, scopes and accesses here, as in Digdir's API.

Get an access token with the admin scopes that an operation names, and send it as a bearer token.
Nothing is ever deleted: `DELETE` puts a thing out of use, `PUT` with `active: true` brings it back.
Every answer carries `Registry-Revision`; sent along in a request, it says what the answer must rest
on at least. `ETag` and `If-Match` guard against overwriting what somebody else has changed.
The same operations stand under `/external/api/v1` and at the root, with and without a final slash.
"""
_SWITCH: Final = {"type": "boolean"}
_TEXT: Final = {"type": "string"}
PARAMETERS: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "inactive": (_SWITCH, "Show what is out of use too"),
    "scope": (_TEXT, "The name of a scope"),
    "consumer_orgno": ({"type": "string", "pattern": "^[0-9]{9}$"}, "An organisation number"),
    "prefix": (_TEXT, "The part of a scope's name before the colon"),
    "delegated_sources": (_SWITCH, "Only scopes that can be delegated, or only the others"),
    "accessible_for_all": (_SWITCH, "Only what is open to every organisation, or only the rest"),
    "integration_type": (_TEXT, "Only this kind of client, or what it may use"),
    "client_id": (_TEXT, "The client that would ask for the token"),
    "consumer_org": (_TEXT, "For whom, by delegation: an organisation number"),
    "iss_onbehalfof": (_TEXT, "For whom: a customer registered on the client"),
    "kid": (_TEXT, "Signed with this key; left out, the one that lives longest"),
    "at": (_TEXT, "A revision, or a time as 2026-01-31T12:00:00Z; left out, now"),
    "before": (
        {"type": "integer", "minimum": 0, "maximum": 2**53},
        "Only older than this revision",
    ),
    "limit": ({"type": "integer", "minimum": 0, "maximum": 100}, "At most so many; 50 if left out"),
    "org": ({"type": "string", "pattern": "^[0-9]{9}$"}, "Only what concerns this organisation"),
    "page": ({"type": "integer", "minimum": 0}, "Number of a page, from 0"),
    "size": (
        {"type": "integer", "minimum": 0, "maximum": MAX_PAGE_SIZE},
        "Things on a page; left out, the answer is the whole list. Link leads to the next page",
    ),
}
"""Schema and description of every parameter of a query."""

_IN_PATH: Final = re.compile(r"{([a-z_]+)(:path)?}")
_REF: Final = "#/components/schemas/{name}"
_ERRORS: Final[Mapping[str, str]] = {
    "400": "Something is wrong with the input; `errors` says what, member by member",
    "401": "The access token is missing or does not hold",
    "403": "The token lacks a scope, or the thing is not yours",
    "404": "There is no such thing among yours",
    "409": "It is there already, or out of use, or others were quicker",
    "412": "It has changed since you read it",
    "503": "Repeat the same request after Retry-After seconds; nothing was stored",
}


def openapi(endpoints: Iterable[Endpoint], issuer: str) -> dict[str, Any]:
    """The document."""
    rows = list(endpoints)
    types = {t for row in rows for t in (row.takes, row.gives) if t not in (None, str)}
    _, schemas = msgspec.json.schema_components(
        sorted({*types, ErrorBody}, key=str), ref_template=_REF
    )
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        item = paths.setdefault(_IN_PATH.sub(r"{\1}", row.path), {})
        if row.own_base is not None:
            item.setdefault("servers", [{"url": row.own_base}])
        item.setdefault(row.method.lower(), _operation(row))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Maskinporten self-service",
            "version": __version__,
            "description": _DESCRIPTION,
        },
        "servers": [{"url": "/api/v1"}],
        "externalDocs": {"url": issuer + ".well-known/oauth-authorization-server"},
        "paths": paths,
        "components": {
            "schemas": {_plain(name): _renamed(schema) for name, schema in schemas.items()},
            "securitySchemes": {
                "maskinporten": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
        },
    }


def openapi_routes(endpoints: Iterable[Endpoint], issuer: str) -> list[BaseRoute]:
    """The document, whole, also where clients ask for one group of it."""
    document = msgspec.json.encode(openapi(endpoints, issuer))

    async def api_docs(_request: Request) -> Response:
        return Response(document, media_type="application/json")

    return [Route("/v3/api-docs", api_docs), Route("/v3/api-docs/{group}", api_docs)]


def _operation(row: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(row),
        "summary": row.summary,
        "tags": [row.path.split("/")[1]],
        "parameters": [*_in_path(row), *map(_in_query, row.query), *_in_headers(row)],
        "responses": {str(row.status): _success(row), **_failures(row)},
    }
    if row.takes is not None:
        operation["requestBody"] = {"required": True, "content": _content(row)}
    if row.right is None:
        operation["security"] = []
    else:
        operation["security"] = [{"maskinporten": [one]} for one in row.right.scopes] or [
            {"maskinporten": []}
        ]
    return operation


def _operation_id(row: Endpoint) -> str:
    words = _IN_PATH.sub(r"by/\1", row.path).strip("/").replace("_", "/").split("/")
    return row.method.lower() + "".join(word.capitalize() for word in words)


def _in_path(row: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name, _ in _IN_PATH.findall(row.path)
    ]


def _in_query(marked: str) -> dict[str, Any]:
    name = marked.rstrip("!")
    schema, description = PARAMETERS[name]
    return {
        "name": name,
        "in": "query",
        "required": marked.endswith("!"),
        "description": description,
        "schema": schema,
    }


def _in_headers(row: Endpoint) -> list[dict[str, Any]]:
    found = []
    if row.writes and row.tag is not None and row.method != "POST":
        found.append(("If-Match", "Change it only if it still has this entity tag"))
    if row.path == "/clients" and row.method == "POST":
        found.append(("Idempotency-Key", "A repeated request with this key makes no second client"))
    return [
        {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
        for name, text in found
    ]


def _content(row: Endpoint) -> dict[str, Any]:
    if row.takes is str:
        return {"text/plain": {"schema": {"type": "string"}}}
    schema: dict[str, Any] = _reference(row.takes)
    if row.required:
        schema = {"allOf": [schema, {"type": "object", "required": list(row.required)}]}
    return {"application/json": {"schema": schema}}


def _success(row: Endpoint) -> dict[str, Any]:
    headers = ["Registry-Revision", *(["ETag"] if row.tag else []), *(["Link"] if row.many else [])]
    answer: dict[str, Any] = {
        "description": row.summary,
        "headers": {name: {"schema": {"type": "string"}} for name in headers},
    }
    if row.gives is not None:
        schema = _reference(row.gives)
        if row.many:
            schema = {"type": "array", "items": schema}
        answer["content"] = {"application/json": {"schema": schema}}
    return answer


def _failures(row: Endpoint) -> dict[str, Any]:
    content = {"application/json": {"schema": _reference(ErrorBody)}}
    return {
        status: {"description": text, "content": content}
        for status, text in _ERRORS.items()
        if (row.right is not None or status not in {"401", "403"})
        and (row.writes or status not in {"409", "412"})
    }


def _reference(of: Any) -> dict[str, Any]:
    return {"$ref": _REF.format(name=_plain(of.__name__))}


def _plain(name: str) -> str:
    return name.removesuffix("Members")


def _renamed(schema: Any) -> Any:
    """The schema with its references in plain names."""
    if isinstance(schema, dict):
        return {
            name: _plain(value) if name in {"$ref", "title"} else _renamed(value)
            for name, value in schema.items()
        }
    return [_renamed(one) for one in schema] if isinstance(schema, list) else schema
