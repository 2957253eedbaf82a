"""The dialogues of programs that drive Digdir's API today: what they send, what they need back."""

from datetime import datetime
from typing import Any
from urllib.parse import quote_plus

import httpx

from tests.conftest import Starter
from tests.selfservice.organisations import Organisation, admin_world, organisation
from tests.world import CONSUMER, PROVIDER, SUPPLIER, jwk

JSON = {"Content-Type": "application/json"}
CLIENT: dict[str, Any] = {
    "access_token_lifetime": 3600,
    "application_type": "web",
    "authorization_lifetime": 0,
    "client_name": "ETATEN",
    "description": "cluster:team:app",
    "frontchannel_logout_session_required": False,
    "grant_types": ["urn:ietf:params:oauth:grant-type:jwt-bearer"],
    "integration_type": "maskinporten",
    "post_logout_redirect_uris": None,
    "redirect_uris": None,
    "refresh_token_lifetime": 0,
    "refresh_token_usage": "ONETIME",
    "scopes": ["skatt:open"],
    "token_endpoint_auth_method": "private_key_jwt",
}
SCOPE: dict[str, Any] = {
    "accessible_for_all": False,
    "active": True,
    "allowed_integration_types": ["maskinporten"],
    "at_max_age": 30,
    "description": "cluster:team:app",
    "name": "",
    "prefix": "skatt",
    "requires_pseudonymous_tokens": False,
    "requires_user_authentication": False,
    "requires_user_consent": False,
    "subscope": "team/app.read",
    "token_type": "SELF_CONTAINED",
    "visibility": "PUBLIC",
}
NAME = quote_plus("skatt:team/app.read")


async def sent(own: Organisation, method: str, path: str, body: bytes = b"") -> httpx.Response:
    """A request whose empty body claims to be JSON, as Go's clients write it."""
    headers = {**JSON, "Authorization": f"Bearer {own.token}"}
    return await own.server.http.request(method, path, content=body, headers=headers)


async def test_a_kubernetes_operator_keeps_a_client(start: Starter) -> None:
    """Found by its description, changed, its keys renewed only when they near their end."""
    own = await organisation(await start(sections=admin_world()), CONSUMER)
    made = await own.ok("POST", "/clients", CLIENT)
    listed = (await sent(own, "GET", "/clients")).json()
    (found,) = [one for one in listed if one["description"] == CLIENT["description"]]
    path = f"/clients/{found['client_id']}"

    changed = await own.ok("PUT", path, {**CLIENT, "client_id": found["client_id"], "scopes": []})
    await own.ok("POST", path + "/jwks", {"keys": [jwk("new"), jwk("old")]})
    keys = (await sent(own, "GET", path + "/jwks")).json()

    assert found["client_id"] == made["client_id"] == changed["client_id"]
    assert found["integration_type"] == "maskinporten"
    assert changed["scopes"] == []
    assert isinstance(keys["created"], str)
    assert all(type(key["exp"]) is int for key in keys["keys"])
    usable = (await sent(own, "GET", "/scopes/access/all?accessible_for_all=true")).json()
    assert {"skatt:open", "skatt:kort"} <= {one["scope"] for one in usable}
    assert all(one["state"] == "APPROVED" for one in usable)
    assert (await sent(own, "DELETE", path)).status_code == 200


async def test_a_kubernetes_operator_exposes_a_scope(start: Starter) -> None:
    """Made, opened, closed, put out of use and revived; each answer is an object it can read."""
    own = await organisation(await start(sections=admin_world()), PROVIDER)
    await own.ok("POST", "/scopes", SCOPE)
    listed = (await sent(own, "GET", "/scopes?inactive=true")).json()
    assert [one for one in listed if one["description"] == SCOPE["description"]]
    assert (await sent(own, "GET", f"/scopes/access?scope={NAME}")).json() == []

    for method, state in (("PUT", "APPROVED"), ("DELETE", "DENIED"), ("PUT", "APPROVED")):
        access = (await sent(own, method, f"/scopes/access/{SUPPLIER}?scope={NAME}")).json()
        assert access["state"] == state
        for name in ("created", "last_updated"):
            assert datetime.fromisoformat(access[name]).tzinfo is not None
    skipped = await sent(own, "PUT", f"/scopes/access/000000000?scope={NAME}")
    assert skipped.status_code == 400
    gone = (await sent(own, "DELETE", f"/scopes?scope={NAME}")).json()
    assert (gone["name"], gone["active"]) == ("skatt:team/app.read", False)
    back = await own.ok("PUT", f"/scopes?scope={NAME}", {**SCOPE, "at_max_age": 60})
    assert (back["active"], back["at_max_age"]) == (True, 60)
    assert len((await sent(own, "GET", f"/scopes/access?scope={NAME}")).json()) == 1


async def test_a_municipal_portal(start: Starter) -> None:
    """It posts to the path with the slash, and reads a sentence from any refusal."""
    own = await organisation(await start(sections=admin_world()), CONSUMER)
    body = {name: CLIENT[name] for name in ("client_name", "description", "integration_type")}

    made = await own.ok("POST", "/clients/", {**body, "scopes": ["skatt:open"]})

    assert (await own.ok("GET", f"/clients/{made['client_id']}/jwks"))["keys"] == []
    for method, path, wrong in (
        ("POST", "/clients/", {**body, "scopes": ["skatt:nope"]}),
        ("POST", f"/clients/{made['client_id']}/jwks", {"keys": []}),
        ("GET", "/clients/nobody", None),
        ("DELETE", "/scopes/access/1/?scope=x", None),
    ):
        refused = await own.call(method, path, wrong)
        assert 400 <= refused.status_code < 500
        assert refused.json()["errors"][0]["errorMessage"]


async def test_the_web_front_end(start: Starter) -> None:
    """It sends the whole answer back, with an icon, and asks in capitals."""
    own = await organisation(await start(sections=admin_world()), PROVIDER)
    made = await own.ok("POST", "/api/v1/clients", CLIENT)
    path = f"/api/v1/clients/{made['client_id']}"

    back = await own.ok("PUT", path, {**made, "logo_uri": "https://x.no/i.svg", "active": True})

    assert back["logo_uri"] == "https://x.no/i.svg"
    shown = await own.ok("GET", "/api/v1/scopes/scope?scope=skatt:kort")
    same = await own.ok("PUT", "/api/v1/scopes?scope=skatt:kort", shown)
    assert same == shown
    listed = await own.server.http.get("/api/v1/scopes/all?integration_type=MASKINPORTEN")
    assert "skatt:open" in listed.text
