"""Organisations that run their own affairs: each with an admin client and a token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from maskinporten.domain.selfservice.bootstrap import admin_document
from tests.world import (
    CONSUMER,
    ISSUER,
    PROVIDER,
    STRANGER,
    SUPPLIER,
    Server,
    assertion,
    document,
    jwk,
)

EVERYTHING = (
    "idporten:dcr.read idporten:dcr.write idporten:dcr.modify idporten:scopes.read "
    "idporten:scopes.write idporten:dcr.datasharing"
)


def admin_world(**more: list[dict[str, Any]]) -> dict[str, Any]:
    """The world's sections, in which four organisations have an admin client `admin-<orgno>`."""
    world = document()
    world["organizations"] = [
        {"orgnr": PROVIDER, "name": "Skatteetaten"},
        {"orgnr": CONSUMER, "name": "Digdir"},
    ]
    for orgno in (PROVIDER, CONSUMER, SUPPLIER, STRANGER):
        name = f"admin-{orgno}"
        keys = {"keys": [jwk(name)]}
        made = admin_document(STRANGER, orgno, name, keys, operator=orgno == STRANGER)
        for section, entries in made.items():
            world[section] = world.get(section, []) + [
                e for e in entries if e not in world[section]
            ]
    for section, entries in more.items():
        world[section] = world.get(section, []) + entries
    return world


@dataclass
class Organisation:
    """One organisation's way in to a server."""

    server: Server
    orgno: str
    token: str

    async def call(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> httpx.Response:
        """A request with the organisation's token."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.server.http.request(
            method, path, json=body, headers={"Authorization": f"Bearer {self.token}", **named}
        )

    async def ok(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The same, where nothing may go wrong; gives the JSON of the answer."""
        answer = await self.call(method, path, body, **headers)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None


async def organisation(server: Server, orgno: str, scope: str = EVERYTHING) -> Organisation:
    """The organisation, with a token for these scopes."""
    name = f"admin-{orgno}"
    answer = await server.post(assertion(name, scope=scope, aud=ISSUER))
    assert answer.status_code == 200, answer.text
    return Organisation(server, orgno, answer.json()["access_token"])


def minimal(**members: Any) -> dict[str, Any]:
    """The registration that every real client sends, and these members."""
    return {
        "integration_type": "maskinporten",
        "application_type": "web",
        "client_name": "Saksbehandling",
        "description": "Våre saker",
        "token_endpoint_auth_method": "private_key_jwt",
        "grant_types": ["urn:ietf:params:oauth:grant-type:jwt-bearer"],
        "scopes": ["skatt:open"],
        **members,
    }


def sentences(answer: httpx.Response) -> Mapping[str, str]:
    """By member, what is wrong with it."""
    found: list[dict[str, Any]] = answer.json()["errors"]
    return {one["fieldIdentifier"]: one["errorMessage"] for one in found}
