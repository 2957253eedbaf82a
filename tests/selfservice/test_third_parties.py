"""What two third-party programs send and need, request by request, against a real server.

nais/digdirator (Go) looks after clients and scopes from Kubernetes; okdata-maskinporten-api
(Python) is a municipality's portal. Both fetch a token for each call. Their assertions about the
answers are ours here: what each would fail on, fails.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from maskinporten.domain.client import JWT_BEARER
from tests.selfservice.organisations import admin_world
from tests.test_cli import DEADLINE, free_port, run, serving, started, wait_until_ready, written
from tests.world import ABSENT, CONSUMER, PROVIDER, STRANGER, SUPPLIER, assertion, form, jwk

DESCRIPTION = "cluster:team:app"
SCOPE = "skatt:team/lønn.les"


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server process over a world in which four organisations run their own affairs."""
    folder: Path = tmp_path_factory.mktemp("third")
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    chosen = serving(folder, ISSUER=address, PORT=str(port), WORKERS="2", DRAIN="0")
    assert run("apply", written(folder, admin_world()), **chosen).returncode == 0
    with started("serve", cwd=folder, **chosen):
        wait_until_ready(address)
        yield address


@dataclass
class Digdirator:
    """The Go operator: go-jose's `aud` array, `nbf`, JSON content type on whatever it sends."""

    issuer: str
    orgno: str
    base: str = "api/v1"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A call; anything from 400 up would be tried again, then given up."""
        now = int(time.time())
        admin = f"admin-{self.orgno}"
        wanted = "idporten:dcr.write idporten:dcr.read idporten:scopes.write"
        metadata = httpx.get(f"{self.issuer}.well-known/oauth-authorization-server")
        assert metadata.headers["content-type"].startswith("application/json")
        assert metadata.json()["issuer"] == self.issuer
        grant = assertion(
            admin, scope=wanted, aud=[self.issuer], iat=now, nbf=now, exp=now + 120,
            header={"typ": "JWT"},
        )  # fmt: skip
        token = httpx.post(metadata.json()["token_endpoint"], data=form(grant))
        assert token.status_code == 200, token.text
        answer = httpx.request(
            method,
            f"{self.issuer}{self.base}".rstrip("/") + path,
            json=body,
            headers={
                "Authorization": f"Bearer {token.json()['access_token']}",
                "Content-Type": "application/json",
            },
        )
        assert answer.status_code < 400, answer.text
        return answer.json() if answer.content else None


def registration(*scopes: str, **members: Any) -> dict[str, Any]:
    """A client as the Go struct is marshalled: nulls for empty lists, defaults spelled out."""
    return {
        "access_token_lifetime": 120,
        "application_type": "web",
        "authorization_lifetime": 7200,
        "client_name": "ARBEIDS- OG VELFERDSETATEN",
        "client_uri": "https://www.nav.no",
        "description": DESCRIPTION,
        "frontchannel_logout_session_required": False,
        "grant_types": [JWT_BEARER],
        "integration_type": "maskinporten",
        "post_logout_redirect_uris": None,
        "redirect_uris": None,
        "refresh_token_lifetime": 0,
        "refresh_token_usage": "ONETIME",
        "scopes": list(scopes),
        "token_endpoint_auth_method": "private_key_jwt",
        **members,
    }


def exposed(**members: Any) -> dict[str, Any]:
    """A scope as the Go struct is marshalled: its name is the empty string, then the old one."""
    return {
        "accessible_for_all": False,
        "active": True,
        "allowed_integration_types": ["maskinporten"],
        "at_max_age": 30,
        "authorization_max_lifetime": 30,
        "description": "Lønn",
        "name": "",
        "prefix": "skatt",
        "requires_pseudonymous_tokens": False,
        "requires_user_authentication": False,
        "requires_user_consent": False,
        "subscope": "team/lønn.les",
        "token_type": "SELF_CONTAINED",
        "visibility": "PUBLIC",
        **members,
    }


def instant(text: str) -> datetime:
    """As Go reads a time: RFC 3339, with its zone."""
    read = datetime.fromisoformat(text)
    assert read.tzinfo is not None
    return read


def await_token(issuer: str, client_id: str, key: str, scope: str) -> None:
    """Until every worker knows of the change, a token with that key for all of the scopes."""
    deadline = time.monotonic() + DEADLINE
    while True:
        now = int(time.time())
        grant = assertion(client_id, signed_by=key, header={"kid": key}, iat=now, exp=now + 120,
                          aud=[issuer], scope=scope)  # fmt: skip
        if httpx.post(f"{issuer}token", data=form(grant)).status_code == 200:
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("base", ["api/v1", "external/api/v1", ""])
def test_digdirator_looks_after_a_client(issuer: str, base: str) -> None:
    """Find by description, register, keys, update, keys again, delete."""
    go = Digdirator(issuer, CONSUMER, base)
    mine = [
        client
        for client in go.ask("GET", "/clients")
        if client["description"] == DESCRIPTION and client["integration_type"] == "maskinporten"
    ]
    assert mine == []

    made = go.ask("POST", "/clients", registration("skatt:open"))
    client_id = made["client_id"]
    assert [c["client_id"] for c in go.ask("GET", "/clients") if c["description"] == DESCRIPTION]
    first = {"keys": [jwk("go-1")]}
    registered = go.ask("POST", f"/clients/{client_id}/jwks", first)
    assert [key["kid"] for key in registered["keys"]] == ["go-1"]
    instant(registered["created"])
    both = {"keys": [jwk("go-2"), jwk("go-1")]}
    go.ask("POST", f"/clients/{client_id}/jwks", both)
    found = go.ask("GET", f"/clients/{client_id}/jwks")
    assert {key["kid"] for key in found["keys"]} == {"go-1", "go-2"}
    for key in found["keys"]:
        assert isinstance(key["exp"], int)
        assert key["exp"] > time.time() + 30 * 24 * 3600  # else it would post them for ever

    scopes = ["skatt:open", "skatt:inntekt.read"]
    updated = go.ask("PUT", f"/clients/{client_id}", registration(*scopes, client_id=client_id))
    assert updated["scopes"] == scopes
    assert updated["access_token_lifetime"] == 120
    await_token(issuer, client_id, "go-2", " ".join(scopes))

    go.ask("DELETE", f"/clients/{client_id}")
    assert client_id not in [client["client_id"] for client in go.ask("GET", "/clients")]


def test_digdirator_looks_after_a_scope(issuer: str) -> None:
    """List with inactive ones, register, grant, withdraw, deactivate, revive."""
    go, named = Digdirator(issuer, PROVIDER), quote(SCOPE, safe="")
    assert SCOPE not in [scope["name"] for scope in go.ask("GET", "/scopes?inactive=true")]

    made = go.ask("POST", "/scopes", exposed())
    assert (made["name"], made["active"]) == (SCOPE, True)
    assert go.ask("GET", f"/scopes/access?scope={named}") == []
    for orgno in (CONSUMER, SUPPLIER):
        granted = go.ask("PUT", f"/scopes/access/{orgno}?scope={named}")
        assert (granted["consumer_orgno"], granted["state"]) == (orgno, "APPROVED")
        instant(granted["created"])
        instant(granted["last_updated"])
    withdrawn = go.ask("DELETE", f"/scopes/access/{SUPPLIER}?scope={named}")
    assert (withdrawn["scope"], withdrawn["state"]) == (SCOPE, "DENIED")
    acl = {one["consumer_orgno"]: one["state"] for one in go.ask(
        "GET", f"/scopes/access?scope={named}")}  # fmt: skip
    assert acl[CONSUMER] == "APPROVED"
    assert acl.get(SUPPLIER, "DENIED") == "DENIED"
    assert go.ask("PUT", f"/scopes/access/{SUPPLIER}?scope={named}")["state"] == "APPROVED"

    changed = go.ask("PUT", f"/scopes?scope={named}", exposed(at_max_age=60))
    assert (changed["name"], changed["at_max_age"]) == (SCOPE, 60)
    deleted = go.ask("DELETE", f"/scopes?scope={named}")
    assert (deleted["name"], deleted["active"]) == (SCOPE, False)
    listed = {s["name"]: s["active"] for s in go.ask("GET", "/scopes?inactive=true")}
    assert listed[SCOPE] is False
    revived = go.ask("PUT", f"/scopes?scope={named}", exposed(active=True))
    assert (revived["name"], revived["active"]) == (SCOPE, True)
    given = Digdirator(issuer, CONSUMER).ask("GET", "/scopes/access/all?accessible_for_all=true")
    assert {"scope": SCOPE, "state": "APPROVED"}.items() <= next(
        one for one in given if one["scope"] == SCOPE
    ).items()


def test_digdirator_skips_what_is_no_organisation(issuer: str) -> None:
    """It takes 400 for an invalid consumer, and repeats everything else."""
    go = Digdirator(issuer, PROVIDER)
    with pytest.raises(AssertionError) as failed:
        go.ask("PUT", "/scopes/access/123456789?scope=skatt:kort")
    assert '"status":400' in str(failed.value)


@dataclass
class Okdata:
    """The Python portal: PyJWT, the bare unversioned base with its slash, 4xx read member wise."""

    issuer: str

    def ask(self, method: str, scope: str, path: str = "", body: Any = None) -> httpx.Response:
        """A call with a token for the one scope it needs."""
        now = int(time.time())
        grant = assertion(
            f"admin-{STRANGER}", scope=scope, aud=self.issuer, iat=now, exp=now + 120,
            header={"typ": "JWT", "x5t": ABSENT},
        )  # fmt: skip
        answer = httpx.post(f"{self.issuer}token", data=form(grant), headers={"Accept": "*/*"})
        token = answer.json()
        assert token["token_type"] == "Bearer"
        assert isinstance(token["expires_in"], int)
        assert token["scope"] == scope
        return httpx.request(
            method,
            f"{self.issuer}{path}",
            json=body,
            headers={
                "Accept": "*/*",
                "Content-Type": "application/json",
                "Authorization": f"Bearer {token['access_token']}",
            },
        )


def test_okdata_serves_a_municipality(issuer: str) -> None:
    """Make a client, look for keys, add one, list, and read what is wrong where something is."""
    portal = Okdata(issuer)
    body = {
        "client_name": "oslokommune",
        "description": "Freg testklient for testing",
        "scopes": ["skatt:open"],
        "token_endpoint_auth_method": "private_key_jwt",
        "grant_types": [JWT_BEARER],
        "integration_type": "maskinporten",
        "application_type": "web",
    }
    made = portal.ask("POST", "idporten:dcr.write", "clients/", body)
    assert made.is_success, made.text
    client_id = made.json()["client_id"]
    instant(made.json()["created"])
    fresh = portal.ask("GET", "idporten:dcr.read", f"clients/{client_id}/jwks")
    assert (fresh.status_code, fresh.json()["keys"]) == (200, [])

    key = jwk("kid-2026-11-25-08-00-00", exp=int(time.time()) + 90 * 24 * 3600)
    added = portal.ask("POST", "idporten:dcr.write", f"clients/{client_id}/jwks", {"keys": [key]})
    assert added.is_success, added.text
    stored = portal.ask("GET", "idporten:dcr.read", f"clients/{client_id}/jwks").json()["keys"]
    assert [(one["kid"], one["exp"]) for one in stored] == [(key["kid"], key["exp"])]
    assert portal.ask("GET", "idporten:dcr.read", f"clients/{client_id}").is_success
    listed = portal.ask("GET", "idporten:dcr.read", "clients/").json()
    assert client_id in [one["client_id"] for one in listed]
    given = portal.ask("GET", "idporten:scopes.read", "scopes/access/?scope=idporten:dcr.read")
    assert isinstance(given.json(), list)

    six = {"keys": [jwk(f"okdata-{n % 2}", kid=f"k{n}") for n in range(6)]}
    wrong = [
        ("POST", "clients/", {**body, "scopes": ["skatt:finnes-ikke"]}),
        ("POST", f"clients/{client_id}/jwks", six),
        ("POST", f"clients/{client_id}/jwks", {"keys": []}),
        ("GET", "clients/finnes-ikke", None),
    ]
    for method, path, sent in wrong:
        refused = portal.ask(method, "idporten:dcr.write", path, sent)
        assert 400 <= refused.status_code < 500
        assert [one["errorMessage"] for one in refused.json()["errors"]]
    removed = portal.ask("DELETE", "idporten:dcr.write", f"clients/{client_id}/jwks")
    assert removed.is_success
    assert portal.ask("DELETE", "idporten:dcr.write", f"clients/{client_id}").is_success
