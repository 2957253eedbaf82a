"""What the world may know of us: metadata (RFC 8414) and our public keys (RFC 7517)."""

import hashlib
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from maskinporten.domain.client import JWT_BEARER
from maskinporten.domain.grant import ALGORITHMS
from maskinporten.keyring import Keyring

_METADATA_MAX_AGE = 3600  # seconds
DETAILS_TYPES = ("urn:altinn:systemuser", "urn:altinn:consent")


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


def metadata_routes(issuer: str, keyring: Keyring) -> list[BaseRoute]:
    """The public documents, with validators for caches (RFC 9110 section 8.8.3)."""
    document = msgspec.json.encode(metadata(issuer))
    document_tag = f'"{hashlib.sha256(document).hexdigest()[:32]}"'

    async def authorization_server(request: Request) -> Response:
        return _cacheable(request, document, document_tag, _METADATA_MAX_AGE)

    async def jwk(request: Request) -> Response:
        return _cacheable(request, keyring.key_set, keyring.etag, keyring.max_age)

    well_known = "/.well-known/oauth-authorization-server"
    return [
        Route(well_known, authorization_server),
        Route(well_known + "/", authorization_server),
        Route("/jwk", jwk),
    ]


def _cacheable(request: Request, body: bytes, tag: str, max_age: int) -> Response:
    headers = {"etag": tag, "cache-control": f"public, max-age={max_age}"}
    known = request.headers.get("if-none-match", "")
    if known == "*" or tag in (one.strip().removeprefix("W/") for one in known.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
