"""A small true world: real keys, real grants, and a clock that stands still.

`world.assertion(exp=NOW + 121)` makes a grant that is right in every way but the one named.
"""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from maskinporten.administration import administer
from maskinporten.app import Application, Services, open_services
from maskinporten.domain.client import JWT_BEARER
from maskinporten.domain.jwk import rsa_members
from maskinporten.domain.manifest import plan
from maskinporten.domain.registry import Registry, Revision
from maskinporten.settings import Environment, Secret, Settings

NOW: Final = 1_800_000_000  # epoch seconds
ISSUER: Final = "https://maskinporten.example/"
PROVIDER: Final = "974761076"
CONSUMER: Final = "991825827"
SUPPLIER: Final = "889640782"
STRANGER: Final = "310000019"
SOURCE: Final = "https://tt02.altinn.no/"
ABSENT: Final = object()  # a claim or header member that is left out
DIGESTS: Final = {"RS256": hashes.SHA256(), "RS384": hashes.SHA384(), "RS512": hashes.SHA512()}
_jtis = count()


@cache
def private_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A real key for that name, made once per run."""
    del name
    return rsa.generate_private_key(65537, bits)


def jwk(name: str, **members: Any) -> dict[str, Any]:
    """The public JWK of that name's key, as its owner would register it."""
    n, e = rsa_members(private_key(name).public_key())
    return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": name, "n": n, "e": e, **members}


def client(client_id: str, orgno: str, *scopes: str, **members: Any) -> dict[str, Any]:
    """A client as a registry file declares it, with one key named like the client."""
    return {
        "client_id": client_id,
        "client_orgno": orgno,
        "client_name": client_id,
        "scopes": list(scopes),
        "jwks": {"keys": [jwk(client_id)]},
        **members,
    }


def document() -> dict[str, Any]:
    """The world in the format of `maskinporten apply`."""
    return {
        "delegation_sources": [{"name": "altinn", "issuer": SOURCE}],
        "prefixes": [{"prefix": "skatt", "owner_orgno": PROVIDER}],
        "scopes": [
            {"name": "skatt:inntekt.read", "description": "Income"},
            {"name": "skatt:inntekt.write", "description": "Change income", "at_max_age": 600},
            {"name": "skatt:kort", "description": "Short-lived", "at_max_age": 30},
            {"name": "skatt:open", "description": "For all", "accessible_for_all": True},
            {"name": "skatt:hemmelig", "description": "Granted to nobody"},
            {
                "name": "skatt:delegert",
                "description": "Delegable",
                "delegation_source": SOURCE,
            },
            {
                "name": "skatt:krr",
                "description": "For another kind of client",
                "allowed_integration_types": ["krr"],
                "accessible_for_all": True,
            },
        ],
        "accesses": [
            {"scope": scope, "consumer_orgno": CONSUMER}
            for scope in (
                "skatt:inntekt.read",
                "skatt:inntekt.write",
                "skatt:kort",
                "skatt:delegert",
            )
        ],
        "clients": [
            client(
                "consumer",
                CONSUMER,
                "skatt:inntekt.read",
                "skatt:inntekt.write",
                "skatt:kort",
                "skatt:open",
                "skatt:delegert",
            ),
            client("slow", CONSUMER, "skatt:inntekt.read", access_token_lifetime=7200),
            client("vendor", SUPPLIER, "skatt:delegert", "skatt:open"),
            client("retired", CONSUMER, "skatt:open", active=False),
            {**client("keyless", CONSUMER, "skatt:open"), "jwks": {"keys": []}},
        ],
    }


def registry(**sections: list[dict[str, Any]]) -> Registry:
    """The registry of the world's document, or of these sections in place of its own."""
    change = plan({**document(), **sections}, Registry(), NOW)
    return Registry().with_entities(Revision(1), change.entities)


def segment(value: Any) -> bytes:
    """JSON, or octets as they are, in base64url."""
    octets = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(octets).rstrip(b"=")


def sign(header: Any, claims: Any, key: rsa.RSAPrivateKey, algorithm: str = "RS256") -> str:
    """A JWS in compact form, whatever header and claims are."""
    signing_input = segment(header) + b"." + segment(claims)
    signature = key.sign(signing_input, padding.PKCS1v15(), DIGESTS[algorithm])
    return (signing_input + b"." + segment(signature)).decode()


def present(members: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not ABSENT."""
    return {name: value for name, value in members.items() if value is not ABSENT}


def assertion(
    client_id: str = "consumer",
    *,
    signed_by: str | None = None,
    header: Mapping[str, Any] | None = None,
    **claims: Any,
) -> str:
    """A grant that is right in every way but those named; ABSENT leaves a claim out."""
    all_claims = {
        "aud": ISSUER,
        "iss": client_id,
        "scope": "skatt:inntekt.read",
        "iat": NOW,
        "exp": NOW + 60,
        "jti": f"jti-{next(_jtis)}",
        **claims,
    }
    all_header = {"alg": "RS256", "kid": client_id, **(header or {})}
    algorithm = all_header["alg"] if all_header.get("alg") in DIGESTS else "RS256"
    return sign(
        present(all_header), present(all_claims), private_key(signed_by or client_id), algorithm
    )


def form(grant: str) -> dict[str, str]:
    """The parameters of a token request."""
    return {"grant_type": JWT_BEARER, "assertion": grant}


def settings(folder: Path, **changes: Any) -> Settings:
    """Settings of a server whose database lies in `folder`."""
    values: dict[str, Any] = {
        "issuer": ISSUER,
        "database_url": f"sqlite:///{folder / 'registry.db'}",
        "key_encryption_key": Secret(bytes(32)),
        "environment": Environment.TEST,
        "audit_log": folder / "audit.jsonl",
        "signing_key_bits": 2048,
        **changes,
    }
    return Settings(**values)


@dataclass
class Clock:
    """Stands still until it is told the time."""

    now: float = NOW

    def __call__(self) -> float:
        """Epoch seconds."""
        return self.now


@dataclass
class Server:
    """A whole application in this process, spoken to over its ASGI interface."""

    http: httpx.AsyncClient
    services: Services
    clock: Clock = field(default_factory=Clock)

    async def post(self, grant: str) -> httpx.Response:
        """POST /token with the grant."""
        return await self.http.post("/token", data=form(grant))


@asynccontextmanager
async def running(
    folder: Path, sections: Mapping[str, Any] | None = None, **changes: Any
) -> AsyncIterator[Server]:
    """A server over the world's registry; its clock stands at NOW."""
    clock = Clock()
    chosen = settings(folder, **changes)
    async with open_services(chosen, clock) as services:
        declared = {**document(), **(sections or {})}
        await administer(
            services.store,
            services.replica,
            lambda current: plan(declared, current, NOW),
            {"kind": "operator"},
            "test",
            NOW,
        )
        application = Application(chosen, clock)
        application.open(services)
        transport = httpx.ASGITransport(application, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=ISSUER) as http:
            yield Server(http, services, clock)
