"""Clients and their customers: made, read, changed, put out of use."""

import uuid
from typing import Any

from tests.conftest import Starter
from tests.selfservice.organisations import (
    Organisation,
    admin_world,
    minimal,
    organisation,
    sentences,
)
from tests.world import CONSUMER, PROVIDER, STRANGER, SUPPLIER, assertion, jwk


async def begin(start: Starter, orgno: str = CONSUMER, **scope: str) -> Organisation:
    """A server with admin clients, and one organisation's way in."""
    return await organisation(await start(sections=admin_world()), orgno, **scope)


async def test_a_newcomer_gets_from_nothing_to_a_token(start: Starter) -> None:
    """The whole way by HTTP alone; the token line serves the client at once."""
    own = await begin(start)

    made = await own.call("POST", "/api/v1/clients", minimal())
    client_id = made.json()["client_id"]
    keys = await own.call("POST", f"/api/v1/clients/{client_id}/jwks", {"keys": [jwk("fresh")]})

    assert (made.status_code, keys.status_code) == (201, 201)
    assert str(uuid.UUID(client_id)) == client_id
    grant = assertion(client_id, signed_by="fresh", header={"kid": "fresh"}, scope="skatt:open")
    answer = await own.server.post(grant)
    assert answer.status_code == 200, answer.text


async def test_the_members_of_a_client(start: Starter) -> None:
    """Defaults, own organisation, times with zone and milliseconds, and nothing secret."""
    own = await begin(start)

    made = await own.ok("POST", "/clients", minimal(client_id="MOVE_IP_991825827"))

    assert made == {
        "client_id": "MOVE_IP_991825827",
        "client_name": "Saksbehandling",
        "client_orgno": CONSUMER,
        "description": "Våre saker",
        "active": True,
        "application_type": "web",
        "integration_type": "maskinporten",
        "scopes": ["skatt:open"],
        "grant_types": ["urn:ietf:params:oauth:grant-type:jwt-bearer"],
        "token_endpoint_auth_method": "private_key_jwt",
        "access_token_lifetime": 120,
        "onbehalfof": [],
        "created": "2027-01-15T08:00:00.000Z",
        "last_updated": "2027-01-15T08:00:00.000Z",
        "jwks": {"keys": []},
    }


TOLERATED: list[tuple[dict[str, Any], str]] = [
    ({"redirect_uris": None, "post_logout_redirect_uris": None}, "null lists"),
    ({"client_uri": "https://x.no/", "logo_uri": "https://x.no/l"}, "legacy URIs"),
    ({"refresh_token_usage": "", "refresh_token_lifetime": 0}, "Go's empty values"),
    ({"grant_types": ["jwt_bearer_token"]}, "the legacy grant type"),
    ({"something_new": {"a": [1.5]}}, "a member that nobody knows"),
    ({"created": "yesterday", "client_secret": "x", "jwks_uri": "x"}, "read-only"),
    ({"client_orgno": CONSUMER, "supplier_orgno": None}, "own organisation named"),
    ({"client_name": "æøå" * 85}, "a name of 255 characters"),
    ({"access_token_lifetime": 1}, "a lifetime of a second"),
    ({"access_token_lifetime": 86_400}, "a lifetime of a day"),
    ({"scopes": []}, "no scopes yet"),
    ({"client_id": "x" * 255}, "a client_id of 255 characters"),
]


async def test_takes(start: Starter) -> None:
    """What real clients send."""
    own = await begin(start)

    for members, what in TOLERATED:
        answer = await own.call("POST", "/clients", minimal(**members))
        assert answer.status_code == 201, (what, answer.text)
        assert answer.json()["created"].startswith("2027-"), what
        assert "client_secret" not in answer.json(), what


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"client_id": "æ"}, "client_id"),
    ({"client_id": "x\0"}, "client_id"),
    ({"client_id": "x" * 256}, "client_id"),
    ({"client_id": 7}, "client_id"),
    ({"client_id": ""}, "client_id"),
    ({"client_name": "x" * 256}, "client_name"),
    ({"client_name": ["x"]}, "client_name"),
    ({"description": "x" * 4001}, "description"),
    ({"supplier_orgno": SUPPLIER}, "supplier_orgno"),
    ({"active": "yes"}, "active"),
    ({"integration_type": "idporten"}, "integration_type"),
    ({"integration_type": "unknown"}, "integration_type"),
    ({"application_type": "browser"}, "application_type"),
    ({"grant_types": ["authorization_code"]}, "grant_types"),
    ({"token_endpoint_auth_method": "client_secret_basic"}, "token_endpoint_auth_method"),
    ({"access_token_lifetime": 0}, "access_token_lifetime"),
    ({"access_token_lifetime": 86_401}, "access_token_lifetime"),
    ({"access_token_lifetime": 1.5}, "access_token_lifetime"),
    ({"authorization_lifetime": -1}, "authorization_lifetime"),
    ({"redirect_uris": ["x" * 2049]}, "redirect_uris[0]"),
    ({"redirect_uris": "x"}, "redirect_uris"),
    ({"logo_uri": "x" * 2049}, "logo_uri"),
    ({"sso_disabled": 1}, "sso_disabled"),
    ({"scopes": ["skatt:nope"]}, "scopes[0]"),
    ({"scopes": ["skatt:open", "skatt:hemmelig"]}, "scopes[1]"),
    ({"scopes": ["skatt:krr"]}, "scopes[0]"),
    ({"scopes": "skatt:open"}, "scopes"),
    ({"scopes": ["x"] * 1001}, "scopes"),
    ({"client_nam": "a slip"}, "client_nam"),
    ({"jwks": {"keys": [{}]}}, "jwks.keys[0]"),
    ({"onbehalfof": [{"onbehalfof": "k", "orgno": "1"}]}, "onbehalfof[0].orgno"),
]


async def test_names_the_fault(start: Starter) -> None:
    """Each limit has a sentence at its member; nothing is kept of a refused request."""
    own = await begin(start)
    before = own.server.services.replica.registry.revision

    for members, where in FAULTS:
        answer = await own.call("POST", "/clients", minimal(**members))
        assert answer.status_code == 400, (where, answer.text)
        assert where in sentences(answer), answer.text
    assert own.server.services.replica.registry.revision == before


BODIES = [b"", b"{", b"[]", b"null", b'{"a":1,"a":2}', b"\xff", b'{"a":NaN}', b"[" * 5000]


async def test_a_body_that_is_no_json_object(start: Starter) -> None:
    """One sentence, never a 5xx."""
    own = await begin(start)
    headers = {"Authorization": f"Bearer {own.token}", "Content-Type": "application/json"}

    for body in BODIES:
        answer = await own.server.http.post("/api/v1/clients", content=body, headers=headers)
        assert answer.status_code == 400, body[:20]
        assert "JSON" in answer.json()["errors"][0]["errorMessage"]


async def test_a_body_of_more_than_half_a_mebibyte(start: Starter) -> None:
    """It is not read to its end."""
    own = await begin(start)

    answer = await own.call("POST", "/clients", minimal(description="x" * 600_000))

    assert answer.status_code == 400
    assert "longer" in answer.text


async def test_the_whole_answer_can_be_sent_back(start: Starter) -> None:
    """GET, change, PUT: what cannot be set is passed over, and what was not sent stays."""
    own = await begin(start)
    made = await own.ok("POST", "/clients", minimal(logo_uri="https://x.no/", redirect_uris=[]))
    path = f"/api/v1/clients/{made['client_id']}"
    await own.ok("POST", path + "/jwks", {"keys": [jwk("fresh")]})
    shown = await own.ok("GET", path)
    own.server.clock.now += 5

    changed = await own.ok("PUT", path, {**shown, "client_name": "Ny", "jwks": None})
    lean = await own.ok("PUT", path, {"description": "Kort"})

    assert changed["jwks"]["keys"][0]["kid"] == "fresh"
    assert (lean["client_name"], lean["description"]) == ("Ny", "Kort")
    assert (lean["scopes"], lean["logo_uri"]) == (["skatt:open"], "https://x.no/")
    assert lean["created"] == made["created"] < lean["last_updated"]


async def test_what_never_changes(start: Starter) -> None:
    """Owners cannot be assigned (attack 30)."""
    own = await begin(start)
    made = await own.ok("POST", "/clients", minimal())

    for member, value in (
        ("client_id", "other"),
        ("client_orgno", PROVIDER),
        ("supplier_orgno", SUPPLIER),
        ("integration_type", "krr"),
    ):
        answer = await own.call("PUT", f"/clients/{made['client_id']}", {member: value})
        assert answer.status_code == 400, member
        assert list(sentences(answer)) == [member]


async def test_deactivated_never_deleted(start: Starter) -> None:
    """DELETE hides it and stops its tokens; PUT brings it back; its id stays taken."""
    own = await begin(start)
    made = minimal(client_id="kort", jwks={"keys": [jwk("kort")]})
    await own.ok("POST", "/clients", made)

    gone = await own.call("DELETE", "/clients/kort")

    assert (gone.status_code, gone.content) == (200, b"")
    refused = await own.server.post(assertion("kort", scope="skatt:open"))
    assert refused.json()["error_description"].startswith("Invalid assertion")
    assert (await own.call("GET", "/clients/kort")).status_code == 404
    assert (await own.ok("GET", "/clients/kort?inactive=TRUE"))["active"] is False
    assert '"kort"' not in (await own.call("GET", "/clients")).text
    assert '"kort"' in (await own.call("GET", "/clients/?inactive=true")).text
    assert await own.ok("GET", "/clients?inactive=true&integration_type=krr") == []
    assert (await own.call("POST", "/clients", made)).status_code == 409
    assert (await own.call("POST", "/clients/kort/jwks", {"keys": []})).status_code == 409
    assert (await own.ok("PUT", "/clients/kort", {"active": True}))["active"] is True
    assert (await own.server.post(assertion("kort", scope="skatt:open"))).status_code == 200


async def test_a_repeated_request_makes_no_second_client(start: Starter) -> None:
    """The same key and body give the same client; the same key and another body, 409."""
    own = await begin(start)
    first = await own.call("POST", "/clients", minimal(), Idempotency_Key="abc")
    again = await own.call("POST", "/clients", minimal(), Idempotency_Key="abc")
    await own.ok("PUT", f"/clients/{first.json()['client_id']}", {"description": "changed"})
    late = await own.call("POST", "/clients", minimal(), Idempotency_Key="abc")
    other = await own.call("POST", "/clients", minimal(description="x"), Idempotency_Key="abc")
    fresh = await own.call("POST", "/clients", minimal(), Idempotency_Key="abd")
    empty = await own.call("POST", "/clients", minimal(), Idempotency_Key="")

    assert [one.status_code for one in (first, again, late, other, fresh)] == [
        201, 201, 201, 409, 201,
    ]  # fmt: skip
    ids = [one.json()["client_id"] for one in (first, again, late, fresh)]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert empty.status_code == 400


async def test_repeating_the_request_of_another_shows_nothing(start: Starter) -> None:
    """Whoever knows its body and the name of its client is told that the name is taken."""
    own = await begin(start)
    stranger = await organisation(own.server, SUPPLIER)
    body = minimal(client_id="k")
    assert (await own.call("POST", "/clients", body, Idempotency_Key="k")).status_code == 201

    answer = await stranger.call("POST", "/clients", body, Idempotency_Key="k")

    assert answer.status_code == 409
    assert CONSUMER not in answer.text


async def test_no_secret_is_ever_made(start: Starter) -> None:
    """Machine clients prove themselves by keys."""
    own = await begin(start)
    made = await own.ok("POST", "/clients", minimal())

    answer = await own.call("POST", f"/clients/{made['client_id']}/secret")

    assert answer.status_code == 409
    assert "no secret" in answer.json()["errors"][0]["errorMessage"]


async def test_customers(start: Starter) -> None:
    """Added, read, changed, taken away; the token line follows."""
    own = await begin(start)
    await own.ok("POST", "/clients", minimal(client_id="k", jwks={"keys": [jwk("k")]}))
    entry = {"onbehalfof": "kunde", "name": "Kunde", "orgno": PROVIDER, "client_uri": "https://k/"}
    path = "/api/v1/clients/k/onbehalfof"

    made = await own.call("POST", path, entry)

    assert made.status_code == 201
    assert made.json()["organization_name"] == "Skatteetaten"
    assert (await own.call("POST", path, entry)).status_code == 409
    grant: dict[str, Any] = {"scope": "skatt:open", "iss_onbehalfof": "kunde"}
    assert (await own.server.post(assertion("k", **grant))).status_code == 200
    changed = await own.ok("PUT", path + "/kunde", {"orgno": SUPPLIER})
    assert (changed["orgno"], changed["name"]) == (SUPPLIER, "kunde")
    assert await own.ok("GET", path + "/kunde") == changed
    assert await own.ok("GET", path + "/") == [changed]
    gone = await own.call("DELETE", path + "/kunde/")
    assert (gone.status_code, await own.ok("GET", path)) == (200, [])
    assert (await own.server.post(assertion("k", **grant))).status_code == 400


CUSTOMER_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"orgno": PROVIDER}, "onbehalfof"),
    ({"onbehalfof": "", "orgno": PROVIDER}, "onbehalfof"),
    ({"onbehalfof": "x" * 256, "orgno": PROVIDER}, "onbehalfof"),
    ({"onbehalfof": "k"}, "orgno"),
    ({"onbehalfof": "k", "orgno": "974761077"}, "orgno"),
    ({"onbehalfof": "k", "orgno": PROVIDER, "name": "x" * 256}, "name"),
    ({"onbehalfof": "k", "orgno": PROVIDER, "uri": 1}, "uri"),
]


async def test_names_the_fault_of_a_customer(start: Starter) -> None:
    """Each limit has a sentence at its member."""
    own = await begin(start)
    await own.ok("POST", "/clients", minimal(client_id="k"))

    for entry, where in CUSTOMER_FAULTS:
        answer = await own.call("POST", "/clients/k/onbehalfof", entry)
        assert answer.status_code == 400, where
        assert where in sentences(answer), answer.text


async def test_a_supplier_manages_clients_it_made_for_others(start: Starter) -> None:
    """Under dcr.supplier: made in the other's name, seen by both, changed by both."""
    own = {"client_id": "eget", "client_orgno": CONSUMER, "supplier_orgno": CONSUMER}
    server = await start(sections=admin_world(clients=[own]))
    supplier = await organisation(server, SUPPLIER, "idporten:dcr.supplier")
    owner = await organisation(server, CONSUMER)
    foreign = minimal(client_orgno=CONSUMER, client_id="hos-kunde")

    made = await supplier.ok("POST", "/clients", foreign)

    assert (made["client_orgno"], made["supplier_orgno"]) == (CONSUMER, SUPPLIER)
    assert [one["client_id"] for one in await supplier.ok("GET", "/clients")] == ["hos-kunde"]
    assert "hos-kunde" in str(await owner.ok("GET", "/clients"))
    await supplier.ok("PUT", "/clients/hos-kunde", {"description": "by the supplier"})
    await owner.ok("PUT", "/clients/hos-kunde", {"description": "by the owner"})
    assert (await supplier.call("GET", f"/clients/admin-{SUPPLIER}")).status_code == 404
    assert (await supplier.call("POST", "/clients", minimal())).status_code == 403
    without = await organisation(server, SUPPLIER)
    assert (await without.call("GET", "/clients/hos-kunde")).status_code == 404
    assert (await without.call("POST", "/clients", foreign)).status_code == 403
    both = await organisation(server, CONSUMER, "idporten:dcr.read idporten:dcr.supplier")
    listed = [one["client_id"] for one in await both.ok("GET", "/clients")]
    assert len(listed) == len(set(listed))
    stranger = await organisation(server, STRANGER, "idporten:dcr.supplier")
    assert (await stranger.call("GET", "/clients/hos-kunde")).status_code == 404


async def test_the_onboarding_portal(start: Starter) -> None:
    """A client with scopes and keys at once, under the base that is misspelt, and retired."""
    own = await begin(start, scope="idporten:dcr.datasharing")
    path = "/api/vw1/datasharing/consumer/client"
    body = {"description": "Vårt fagsystem", "scopes": ["skatt:open"], "keys": [jwk("portal")]}

    made = await own.ok("POST", path, body)

    assert list(made) == ["clientId", "description", "consumerOrgNr", "scopes", "keys"]
    assert (made["consumerOrgNr"], made["keys"][0]["kid"]) == (CONSUMER, "portal")
    grant = assertion(
        made["clientId"], signed_by="portal", header={"kid": "portal"}, scope="skatt:open"
    )
    assert (await own.server.post(grant)).status_code == 200
    assert made in await own.ok("GET", path)
    usable = await own.ok("GET", "/api/v1/datasharing/consumer/scope/access")
    assert "skatt:inntekt.read" in [one["name"] for one in usable]
    gone = await own.call("DELETE", f"{path}?client_id={made['clientId']}")
    assert (gone.status_code, made in await own.ok("GET", path)) == (200, False)
    for wrong in ({}, {**body, "scopes": ["x:y"]}, {**body, "keys": [{}]}, {**body, "keys": 1}):
        assert (await own.call("POST", path, wrong)).status_code == 400
    assert (await own.call("POST", "/clients", minimal())).status_code == 403
