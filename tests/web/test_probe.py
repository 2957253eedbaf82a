"""The probe: valid by the next key, and of no use to anyone."""

import base64
import json
from typing import Any

import httpx
import pytest

from maskinporten.domain.manifest import plan
from maskinporten.domain.registry import Registry
from maskinporten.errors import InvalidInput
from maskinporten.validator import Code, Demands, TokenInvalid, TrustedIssuer, Validator
from tests.conftest import Starter
from tests.world import ISSUER, NOW, PROVIDER, Server, assertion, document

AUDIENCE = ISSUER + "jwk/probe"
RIGHT: Demands = {"scope": "maskinporten:probe", "audience": AUDIENCE, "now": NOW}


async def probe(server: Server) -> str:
    """A probe token."""
    answer = await server.http.get("/jwk/probe")
    assert answer.headers["cache-control"] == "no-store"
    token: str = answer.json()["access_token"]
    return token


def parts(token: str) -> list[dict[str, Any]]:
    """Header and claims."""
    return [json.loads(base64.urlsafe_b64decode(p + "==")) for p in token.split(".")[:2]]


async def test_a_probe_has_the_shape_of_a_token_and_is_signed_by_the_next_key(
    server: Server,
) -> None:
    """Members in the same order; an audience, scope, client and consumer of its own."""
    header, claims = parts(await probe(server))
    real = (await server.post(assertion(resource="https://api.example"))).json()["access_token"]
    real_header, real_claims = parts(real)

    assert header["kid"] == server.services.keyring.next_key().kid != real_header["kid"]
    assert list(claims) == list(real_claims)
    assert list(header) == list(real_header)
    assert (claims["aud"], claims["scope"]) == (AUDIENCE, "maskinporten:probe")
    assert claims["consumer"] == {"authority": "iso6523-actorid-upis", "ID": "0192:000000000"}
    assert (claims["iat"], claims["exp"]) == (NOW, NOW + 30)
    answer = (await server.http.get("/jwk/probe")).json()
    assert (answer["expires_in"], answer["token_type"]) == (29, "Bearer")


async def test_a_second_has_one_probe(server: Server) -> None:
    """Attack: asking often to burn signatures."""
    first = await probe(server)
    assert {await probe(server) for _ in range(5)} == {first}
    server.clock.now += 1
    assert await probe(server) != first


async def test_without_a_next_key_there_is_no_probe(server: Server) -> None:
    """503, as for everything that will come back."""
    server.services.keyring._next = None

    assert (await server.http.get("/jwk/probe")).status_code == 503


REFUSED: list[tuple[Demands, Code]] = [
    ({"scope": "skatt:inntekt.read"}, Code.MISSING_SCOPE),
    ({"audience": "https://api.example"}, Code.WRONG_AUDIENCE),
    ({"consumer": PROVIDER}, Code.WRONG_CONSUMER),
    ({"now": NOW + 32}, Code.EXPIRED),
]


async def test_our_validator_accepts_a_probe_as_a_probe_and_as_nothing_else(
    server: Server,
) -> None:
    """The signature holds ahead of time; a real door stays shut."""
    token, key_set = await probe(server), server.services.keyring.key_set
    json_type = {"content-type": "application/json"}
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, content=key_set, headers=json_type)
    )
    http = httpx.Client(transport=transport)
    validator = Validator([TrustedIssuer(ISSUER, jwks_url=ISSUER + "jwk")], http=http)

    assert validator.validate(token, **RIGHT).consumer.orgno == "000000000"
    for wrong, code in REFUSED:
        with pytest.raises(TokenInvalid) as refused:
            validator.validate(token, **Demands(**{**RIGHT, **wrong}))
        assert refused.value.code is code
    validator.close()


async def test_our_own_api_is_shut_to_a_probe(start: Starter) -> None:
    """It is a provider like any other."""
    server = await start()
    bearer = {"authorization": f"Bearer {await probe(server)}"}

    assert (await server.http.get("/api/v1/clients", headers=bearer)).status_code in {401, 403}


def test_the_scope_of_a_probe_cannot_be_registered() -> None:
    """Nobody can give it a meaning, though the prefix be allotted."""
    world = document()
    world["prefixes"] = [*world["prefixes"], {"prefix": "maskinporten", "owner_orgno": PROVIDER}]
    other = {"name": "maskinporten:other", "description": "x"}
    assert plan({**world, "scopes": [*world["scopes"], other]}, Registry(), NOW).entities

    probes = {"name": "maskinporten:probe", "description": "x"}
    with pytest.raises(InvalidInput, match="grants nothing"):
        plan({**world, "scopes": [*world["scopes"], probes]}, Registry(), NOW)
