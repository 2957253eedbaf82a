"""GET /jwk/probe: a token by the next key, for whoever wants to test a validator ahead of time."""

import secrets
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from maskinporten.domain.probe import sign_probe
from maskinporten.domain.token import AccessToken
from maskinporten.keyring import Keyring
from maskinporten.web.answers import json_response

_JTI_OCTETS = 32


def probe_routes(issuer: str, keyring: Keyring, clock: Callable[[], float]) -> list[BaseRoute]:
    """At most one signature each second, however many ask: they share it."""
    shared: dict[tuple[str, int], AccessToken] = {}

    async def probe(_request: Request) -> Response:
        """An answer like the token endpoint's. Raises Unavailable without a next key."""
        key, now = keyring.next_key(), int(clock())
        token = shared.get((key.kid, now))
        if token is None:
            token = sign_probe(key, issuer, now, secrets.token_urlsafe(_JTI_OCTETS))
            shared.clear()
            shared[key.kid, now] = token
        return json_response(token.response(), headers={"cache-control": "no-store"})

    return [Route("/jwk/probe", probe)]
