"""What the world may know of us: metadata (RFC 8414) and our public keys (RFC 7517)."""

import hashlib
from http.client import OK
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from maskinporten.domain.client import JWT_BEARER
from maskinporten.domain.details import DETAILS_TYPES
from maskinporten.domain.grant import ALGORITHMS
from maskinporten.evidence import FetchLog
from maskinporten.keyring import Keyring

_METADATA_MAX_AGE = 3600  # seconds


def metadata(issuer: str) -> dict[str, Any]:
    """Authorization server metadata: these seven members, in this order, and nothing else."""
    return {
        "issuer": issuer,
        "token_endpoint": issuer + "token",
        "jwks_uri": issuer + "jwk",
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "grant_types_supported": [JWT_BEARER],
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "authorization_details_types_supported": list(DETAILS_TYPES),
    }


def metadata_routes(issuer: str, keyring: Keyring, fetches: FetchLog) -> list[BaseRoute]:
    """The public documents, with validators for caches (RFC 9110 section 8.8.3)."""
    document = msgspec.json.encode(metadata(issuer))
    document_tag = f'"{hashlib.sha256(document).hexdigest()[:32]}"'

    async def authorization_server(request: Request) -> Response:
        return _cacheable(request, document, document_tag, _METADATA_MAX_AGE)

    async def jwk(request: Request) -> Response:
        answer = _cacheable(request, keyring.key_set, keyring.etag, keyring.max_age)
        if request.method == "GET" and (answer.status_code == OK or keyring.etag in _held(request)):
            peer = request.client.host if request.client else ""
            headers = request.headers
            forwarded = ",".join(headers.getlist("x-forwarded-for"))
            fetches.saw(headers.get("user-agent", ""), peer, forwarded, keyring.kids)
        return answer

    well_known = "/.well-known/oauth-authorization-server"
    return [
        Route(well_known, authorization_server),
        Route(well_known + "/", authorization_server),
        Route("/jwk", jwk),
    ]


def _cacheable(request: Request, body: bytes, tag: str, max_age: int) -> Response:
    headers = {"etag": tag, "cache-control": f"public, max-age={max_age}"}
    if tag in (held := _held(request)) or "*" in held:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def _held(request: Request) -> list[str]:
    """The entity tags that the caller says it holds, compared weakly (RFC 9110 section 13.1.2)."""
    known = request.headers.get("if-none-match", "")
    return [one.strip().removeprefix("W/") for one in known.split(",")]
