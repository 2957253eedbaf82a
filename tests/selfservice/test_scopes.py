"""Scopes and access: what owners of prefixes decide, and what the world sees."""

from typing import Any

import pytest

from maskinporten.domain.selfservice import case
from tests.conftest import Starter
from tests.selfservice.organisations import (
    Organisation,
    admin_world,
    minimal,
    organisation,
    sentences,
)
from tests.world import CONSUMER, PROVIDER, SOURCE, STRANGER, SUPPLIER, assertion

KRR = {
    "prefix": "skatt",
    "subscope": "global/kontakt.read",
    "description": "Les kontaktinformasjon",
    "description#en": "Read contact details",
}
NAME = "skatt:global/kontakt.read"


async def begin(start: Starter, orgno: str = PROVIDER) -> Organisation:
    """A provider that owns the prefix `skatt`."""
    return await organisation(await start(sections=admin_world()), orgno)


async def test_a_provider_opens_an_api_to_a_consumer(start: Starter) -> None:
    """Scope, access, client, token: each by its owner."""
    own = await begin(start)
    made = await own.call("POST", "/api/v1/scopes", KRR)
    assert made.status_code == 201, made.text
    assert (await own.ok("GET", f"/scopes/access?scope={NAME}")) == []

    access = await own.ok("PUT", f"/scopes/access/{CONSUMER}?scope={NAME}")

    assert access == {
        "scope": NAME,
        "owner_orgno": PROVIDER,
        "owner_organization_name": "Skatteetaten",
        "consumer_orgno": CONSUMER,
        "consumer_organization_name": "Digdir",
        "state": "APPROVED",
        "created": "2027-01-15T08:00:00.000Z",
        "last_updated": "2027-01-15T08:00:00.000Z",
    }
    consumer = await organisation(own.server, CONSUMER)
    assert NAME in [one["scope"] for one in await consumer.ok("GET", "/scopes/access/all")]
    await consumer.ok("PUT", "/clients/consumer", {"scopes": [NAME]})
    assert (await own.server.post(assertion(scope=NAME))).status_code == 200
    withdrawn = await own.ok("DELETE", f"/scopes/access/{CONSUMER}/?scope={NAME}")
    assert withdrawn["state"] == "DENIED"
    assert (await own.server.post(assertion(scope=NAME))).status_code == 403
    assert await own.ok("GET", f"/scopes/access/?scope={NAME}") == []
    assert len(await own.ok("GET", f"/scopes/access?scope={NAME}&inactive=TRUE")) == 1
    again = await own.ok("PUT", f"/scopes/access/{CONSUMER}?scope={NAME}")
    assert again["state"] == "APPROVED"
    assert (await own.server.post(assertion(scope=NAME))).status_code == 200


async def test_defaults_and_order_of_the_members(start: Starter) -> None:
    """The order is that of the public listing; languages stand beside the description."""
    own = await begin(start)

    made = await own.ok("POST", "/scopes/", KRR)

    assert list(made) == [
        "prefix", "description", "description#en", "subscope", "active", "created",
        "last_updated", "owner_orgno", "token_type", "visibility", "requires_user_consent",
        "requires_user_authentication", "requires_pseudonymous_tokens", "at_max_age",
        "authorization_max_lifetime", "accessible_for_all", "name", "protected",
        "supports_european_businesses",
    ]  # fmt: skip
    assert (made["visibility"], made["token_type"], made["name"]) == (
        "PUBLIC", "SELF_CONTAINED", NAME,
    )  # fmt: skip


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"subscope": ""}, "name"),
    ({"subscope": "a b"}, "name"),
    ({"subscope": 'a"b'}, "name"),
    ({"subscope": "x" * 255}, "name"),
    ({"subscope": None}, "subscope"),
    ({"name": "skatt:another"}, "name"),
    ({"description": None}, "description"),
    ({"description": " "}, "description"),
    ({"description": "x" * 4001}, "description"),
    ({"description#en": 7}, "description#en"),
    ({"long_description": "x" * 20_001}, "long_description"),
    ({"visibility": "HIDDEN"}, "visibility"),
    ({"token_type": "JWT"}, "token_type"),
    ({"allowed_integration_types": ["machine"]}, "allowed_integration_types[0]"),
    ({"at_max_age": -1}, "at_max_age"),
    ({"at_max_age": "60"}, "at_max_age"),
    ({"authorization_max_lifetime": -1}, "authorization_max_lifetime"),
    ({"delegation_source": "https://else.where/"}, "delegation_source"),
    ({"accessible_for_all": "yes"}, "accessible_for_all"),
    ({"enforced_aud_for_access_token": 1}, "enforced_aud_for_access_token"),
    ({"supports_european_businesses": None, "visibilty": "PUBLIC"}, "visibilty"),
]


async def test_names_the_fault(start: Starter) -> None:
    """Each limit has a sentence at its member; nothing is kept."""
    own = await begin(start)
    before = own.server.services.replica.registry.revision

    for members, where in FAULTS:
        answer = await own.call("POST", "/scopes", {**KRR, **members})
        assert answer.status_code == 400, (where, answer.text)
        assert where in sentences(answer), answer.text
    assert own.server.services.replica.registry.revision == before


async def test_a_whole_scope_is_written_back_as_operators_do(start: Starter) -> None:
    """Empty strings and owner fields are passed over; languages it does not know stay."""
    own = await begin(start)
    await own.ok("POST", "/scopes", {**KRR, "delegation_source": SOURCE, "at_max_age": 60})
    whole = {
        "prefix": "skatt",
        "subscope": "global/kontakt.read",
        "name": "",
        "owner_orgno": STRANGER,
        "description": "Ny",
        "visibility": "PRIVATE",
        "token_type": "SELF_CONTAINED",
        "allowed_integration_types": ["maskinporten"],
        "at_max_age": 30,
        "active": True,
        "protected": True,
    }

    changed = await own.ok("PUT", f"/scopes?scope={NAME}", whole)

    assert changed["owner_orgno"] == PROVIDER
    assert changed["description#en"] == KRR["description#en"]
    assert "delegation_source" not in changed
    assert (changed["at_max_age"], changed["protected"]) == (30, False)
    gone = await own.ok("PUT", f"/scopes?scope={NAME}", {"description#en": None})
    assert "description#en" not in gone
    assert gone["allowed_integration_types"] == ["maskinporten"]


async def test_a_name_never_changes(start: Starter) -> None:
    """Another name is another scope."""
    own = await begin(start)

    for member in ("name", "prefix", "subscope"):
        answer = await own.call("PUT", "/scopes?scope=skatt:kort", {member: "skatt:x"})
        assert (answer.status_code, list(sentences(answer))) == (400, [member])


async def test_deactivated_never_deleted(start: Starter) -> None:
    """DELETE answers with the scope; POST is 409 then; PUT revives it, and the accesses live."""
    own = await begin(start)

    gone = await own.ok("DELETE", "/scopes?scope=skatt:kort")

    assert (gone["name"], gone["active"]) == ("skatt:kort", False)
    assert (await own.server.post(assertion(scope="skatt:kort"))).status_code == 400
    assert "skatt:kort" not in str(await own.ok("GET", "/scopes"))
    assert "skatt:kort" in str(await own.ok("GET", "/scopes?inactive=true"))
    assert (await own.call("GET", "/scopes/scope?scope=skatt:kort")).status_code == 404
    assert (await own.call("PUT", f"/scopes/access/{STRANGER}?scope=skatt:kort")).status_code == 409
    body = {"name": "skatt:kort", "description": "x"}
    assert (await own.call("POST", "/scopes", body)).status_code == 409
    assert (await own.ok("PUT", "/scopes?scope=skatt:kort", {"active": True}))["active"] is True
    assert (await own.server.post(assertion(scope="skatt:kort"))).status_code == 200
    assert (await own.call("POST", "/scopes", body)).status_code == 409


async def test_access_for_what_is_no_organisation(start: Starter) -> None:
    """400, by which one real client knows a consumer to skip."""
    own = await begin(start)

    answer = await own.call("PUT", "/scopes/access/123456789?scope=skatt:kort")

    assert (answer.status_code, list(sentences(answer))) == (400, ["consumer_orgno"])
    assert (await own.call("PUT", f"/scopes/access/{CONSUMER}")).status_code == 400
    never = await own.call("DELETE", f"/scopes/access/{STRANGER}?scope=skatt:kort")
    assert never.status_code == 404


async def test_access_open_to_all_is_shown_on_request(start: Starter) -> None:
    """As a Kubernetes operator asks for it."""
    own = await begin(start, SUPPLIER)

    assert "skatt:open" not in str(await own.ok("GET", "/scopes/access/all"))
    found = await own.ok("GET", "/scopes/access/all?accessible_for_all=true")
    (entry,) = [one for one in found if one["scope"] == "skatt:open"]
    assert (entry["state"], entry["consumer_orgno"]) == ("APPROVED", SUPPLIER)


LISTINGS = [
    ("", {"skatt:inntekt.read", "skatt:open", "skatt:delegert", "skatt:krr"}),
    ("?prefix=skatt", {"skatt:open", "skatt:delegert"}),
    ("?accessible_for_all=true", {"skatt:open", "skatt:krr"}),
    ("?accessible_for_all=false&delegated_sources=false", {"skatt:inntekt.read", "skatt:kort"}),
    ("?delegated_sources=TRUE", {"skatt:delegert"}),
    ("?integration_type=MASKINPORTEN", {"skatt:open", "skatt:inntekt.read"}),
    ("?inactive=true&unheard=of", {"skatt:open"}),
]


async def test_the_public_listing(start: Starter) -> None:
    """No token; filters; what is private never stands there."""
    own = await begin(start)

    for query, some in LISTINGS:
        answer = await own.server.http.get("/scopes/all" + query)
        names = {one["name"] for one in answer.json()}
        assert some <= names, query
        assert not [name for name in names if name.startswith("idporten:")]
        assert "integration_type" not in query or "skatt:krr" not in names
        assert "accessible_for_all=true" not in query or names == some
    assert (await own.server.http.get("/scopes/all?prefix=nobody")).json() == []


async def test_other_public_documents(start: Starter) -> None:
    """Prefixes, delegation sources in both spellings, names of organisations."""
    server = (await begin(start)).server
    (source,) = (await server.http.get("/api/v1/delegationsources/")).json()
    prefixes = (await server.http.get("/prefix/all")).json()
    named = await server.http.get(f"/organizations/{PROVIDER}")

    assert (source["name"], source["issuer"]) == ("altinn", SOURCE)
    assert source["lastUpdated"] == source["last_updated"]
    assert {"prefix": "skatt", "owner_orgno": PROVIDER}.items() <= prefixes[-1].items()
    assert named.json() == {"orgnr": PROVIDER, "name": "Skatteetaten"}
    for path in ("/organizations/310000027", "/organizations/x", "/api/v1/nothing"):
        missing = await server.http.get(path)
        assert missing.status_code == 404
        assert missing.json()["errors"][0]["errorMessage"]


async def test_whom_a_token_speaks_for(start: Starter) -> None:
    """And what is its prefix."""
    own = await begin(start)

    assert await own.ok("GET", "/auth/user") == {
        "authenticated_organization_number": PROVIDER,
        "authenticated_organization_name": "Skatteetaten",
        "is_synthetic_organization_number": False,
        "has_consented": True,
    }
    assert [one["prefix"] for one in await own.ok("GET", "/prefix")] == ["skatt"]


async def test_a_listing_is_whole_and_paged(start: Starter) -> None:
    """A bare array in pieces; with `size` a page at a time, each leading to the next."""
    scopes = [{"name": f"skatt:mange/{number:04}", "description": "x"} for number in range(450)]
    server = await start(sections=admin_world(scopes=scopes))
    own = await organisation(server, PROVIDER)

    whole = await own.ok("GET", "/scopes")
    path, pages = "/api/v1/scopes?size=200", []
    while path:
        answer = await own.call("GET", path)
        pages += answer.json()
        link = answer.headers.get("link", "")
        path = link[1 : link.index(">")] if link else ""

    assert pages == whole
    some = await server.http.get("/scopes/all?prefix=skatt&accessible_for_all=true&inactive=false")
    assert [one["name"] for one in some.json()] == ["skatt:krr", "skatt:open"]
    delegable = "/scopes/all?accessible_for_all=true&delegated_sources=true"
    assert (await server.http.get(delegable)).json() == []
    assert await own.ok("GET", "/scopes?scope=skatt:mange/0449") == [
        one for one in whole if one["name"] == "skatt:mange/0449"
    ]
    assert len(whole) > 450
    assert [one["name"] for one in whole] == sorted(one["name"] for one in whole)
    assert (await own.ok("GET", "/scopes?size=10&page=99")) == []
    for query in ("size=-1", "size=10001", "size=x", "size=2&page=9999999999999999999999"):
        assert (await own.call("GET", f"/scopes?{query}")).status_code == 400


async def test_the_operator_gives_out_prefixes(start: Starter) -> None:
    """With a scope of its own; a prefix that moves takes its scopes and accesses along."""
    server = await start(sections=admin_world())
    operator = await organisation(server, STRANGER, "idporten:operator.write")
    provider = await organisation(server, PROVIDER)
    path = "/api/v1/operator/prefixes"

    made = await operator.call("POST", path, {"prefix": "nav", "owner_orgno": PROVIDER})

    assert made.status_code == 201, made.text
    assert (await operator.call("POST", path, made.json())).status_code == 409
    assert (await provider.call("POST", path, made.json())).status_code == 403
    await provider.ok("POST", "/scopes", {"name": "nav:a", "description": "x"})
    await provider.ok("PUT", f"/scopes/access/{CONSUMER}?scope=nav:a")
    await operator.ok("PUT", path + "/nav", {"owner_orgno": CONSUMER})
    owner = await organisation(server, CONSUMER)
    assert (await owner.ok("GET", "/scopes/scope?scope=nav:a"))["owner_orgno"] == CONSUMER
    assert len(await owner.ok("GET", "/scopes/access?scope=nav:a")) == 1
    assert (await provider.call("GET", "/scopes/scope?scope=nav:a")).status_code == 403
    assert (await operator.ok("DELETE", path + "/nav"))["active"] is False
    refused = await owner.call("POST", "/scopes", {"name": "nav:b", "description": "x"})
    assert refused.status_code == 403
    assert (await operator.ok("PUT", path + "/nav", {"active": True}))["active"] is True
    assert (await operator.call("PUT", path + "/none", {})).status_code == 404
    for wrong in ({}, {"prefix": "Stor", "owner_orgno": PROVIDER}, {"prefix": "a"}):
        assert (await operator.call("POST", path, wrong)).status_code == 400


async def test_new_scopes_can_be_registered_at_once(start: Starter) -> None:
    """What is delegable or open needs no access; what is closed does."""
    own = await begin(start)
    await own.ok("POST", "/scopes", {**KRR, "delegation_source": SOURCE})
    consumer = await organisation(own.server, SUPPLIER)

    await consumer.ok("POST", "/clients", minimal(scopes=[NAME]))
    await own.ok("PUT", f"/scopes?scope={NAME}", {})
    refused = await consumer.call("POST", "/clients", minimal(scopes=[NAME]))

    assert refused.status_code == 400
    assert "no access" in sentences(refused)["scopes[0]"]


async def test_an_organisation_cannot_fill_the_memory(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit nothing new is made; what is there can still be changed."""
    own = await begin(start)
    held = own.server.services.replica.registry
    for shelf, member, method, path, body in (
        ("clients", "client_orgno", "POST", "/clients", minimal()),
        ("scopes", "owner_orgno", "POST", "/scopes", KRR),
        ("accesses", "owner_orgno", "PUT", f"/scopes/access/{STRANGER}?scope=skatt:kort", None),
    ):
        limit = len(held.names(shelf, member, PROVIDER))
        monkeypatch.setattr(case, "MAX_OWNED", limit)
        refused = await own.call(method, path, body)
        assert (refused.status_code, "at most" in refused.text) == (409, True)
        monkeypatch.setattr(case, "MAX_OWNED", limit + 1)
        assert (await own.call(method, path, body)).is_success
    assert (await own.call("PUT", "/scopes?scope=skatt:kort", {"at_max_age": 9})).is_success
    again = f"/scopes/access/{CONSUMER}?scope=skatt:kort"
    assert (await own.call("PUT", again)).is_success
