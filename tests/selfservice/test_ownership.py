"""Two organisations that try to touch each other's things, at every endpoint there is."""

import base64
import itertools
from typing import Any

import httpx
import msgspec

from maskinporten.web.selfservice.endpoint import Endpoint
from maskinporten.web.selfservice.openapi import openapi
from maskinporten.web.selfservice.routes import BASES, ENDPOINTS
from tests.conftest import Starter
from tests.selfservice.organisations import (
    EVERYTHING,
    Organisation,
    admin_world,
    minimal,
    organisation,
)
from tests.world import (
    CONSUMER,
    ISSUER,
    NOW,
    PROVIDER,
    STRANGER,
    SUPPLIER,
    assertion,
    jwk,
    private_key,
    sign,
)

ONBOARDING = "/datasharing/consumer/client"
KNOWN = {
    "client_id": "theirs",
    "kid": "theirs",
    "onbehalfof": "kunde",
    "consumer_orgno": CONSUMER,
    "prefix": "skatt",
    "orgnr": PROVIDER,
    "scope": "skatt:kort",
}
MISSING = {**KNOWN, "client_id": "nobodys", "scope": "nobodys:kort"}
BODIES: dict[str, Any] = {
    "/clients": minimal(client_orgno=CONSUMER),
    "/clients/{client_id}": minimal(),
    "/clients/{client_id}/jwks": {"keys": [jwk("thief")]},
    "/clients/{client_id}/jwks/{kid}": jwk("thief", kid="theirs"),
    "/clients/{client_id}/onbehalfof": {"onbehalfof": "ny", "orgno": SUPPLIER},
    "/clients/{client_id}/onbehalfof/{onbehalfof:path}": {"orgno": SUPPLIER},
    "/scopes": {"name": "skatt:kort", "description": "Mine now"},
    "/operator/prefixes": {"prefix": "my", "owner_orgno": SUPPLIER},
    "/operator/prefixes/{prefix}": {"owner_orgno": SUPPLIER},
}
OWNED = [row for row in ENDPOINTS if row.right and ("{client_id}" in row.path or row.takes)]
OWNED += [row for row in ENDPOINTS if {"scope!", "client_id!"} & set(row.query)]
OWNED = [row for n, row in enumerate(OWNED) if row not in OWNED[:n] and row.path != ONBOARDING]
OWNED += [row for row in ENDPOINTS if row.path == ONBOARDING and row.method == "DELETE"]


def name(row: Endpoint) -> str:
    """An endpoint, in the words of a test's name."""
    return f"{row.method} {row.own_base or ''}{row.path}"


async def victims(start: Starter) -> tuple[Organisation, Organisation]:
    """Consumer with a client, key and customer; provider with scopes; and a supplier outside."""
    server = await start(sections=admin_world())
    owner = await organisation(server, CONSUMER)
    made = minimal(client_id="theirs", jwks={"keys": [jwk("theirs")]})
    await owner.ok("POST", "/clients", made)
    customer = {"onbehalfof": "kunde", "orgno": PROVIDER}
    await owner.ok("POST", "/clients/theirs/onbehalfof", customer)
    return owner, await organisation(server, SUPPLIER, EVERYTHING)


async def knock(caller: Organisation, row: Endpoint, names: dict[str, str]) -> httpx.Response:
    """The endpoint with these names put in, and a body that would be right for the owner."""
    path = row.path.replace(":path}", "}").format(**names)
    wanted = [one.rstrip("!") for one in row.query if one.endswith("!")]
    query = "?" + "&".join(f"{one}={names[one]}" for one in wanted if one in names)
    if "client_id!" in row.query:
        query += f"&client_id={names['client_id']}"
    body = BODIES.get(row.path)
    if body and "name" in body:
        body = {**body, "name": names["scope"]}
    if row.takes is str:
        return await caller.server.http.post(
            f"{row.own_base}{path}",
            content=base64.b64encode(b"key"),
            headers={"Authorization": f"Bearer {caller.token}"},
        )
    return await caller.call(row.method, f"{row.own_base or '/api/v1'}{path}{query}", body)


async def test_an_unknown_and_a_foreign_thing_answer_alike(start: Starter) -> None:
    """Nothing changes, and nothing can be learnt by the difference (attack 30)."""
    owner, stranger = await victims(start)
    before = owner.server.services.replica.registry

    for row in OWNED:
        foreign = await knock(stranger, row, KNOWN)
        unknown = await knock(stranger, row, MISSING)

        assert foreign.status_code in {403, 404}, (name(row), foreign.text)
        told = ("status", "error", "error_description")
        answers = [[answer.json()[one] for one in told] for answer in (foreign, unknown)]
        assert answers[0] == answers[1], name(row)
        after = await owner.server.services.replica.catch_up()
        assert after.revision == before.revision, name(row)


async def test_listings_show_nothing_of_others(start: Starter) -> None:
    """Each sees its own."""
    _, stranger = await victims(start)

    clients = await stranger.ok("GET", "/clients?inactive=true")
    assert {one["client_orgno"] for one in clients} == {SUPPLIER}
    for path in ("/scopes?inactive=true", "/scopes?scope=skatt:kort", "/prefix?inactive=true"):
        assert await stranger.ok("GET", path) == []
    for query in ("", "?scope=skatt:kort", f"?consumer_orgno={CONSUMER}"):
        assert await stranger.ok("GET", "/scopes/access" + query) == []


async def test_no_token_opens_nothing(start: Starter) -> None:
    """401 with a challenge (RFC 6750 section 3), whatever is asked."""
    server = await start(sections=admin_world())
    outside = Organisation(server, SUPPLIER, "")

    for row in ENDPOINTS:
        if row.right is not None:
            answer = await knock(outside, row, KNOWN)
            assert answer.status_code == 401, name(row)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["errors"][0]["errorMessage"]


async def test_a_token_without_the_scope_opens_nothing(start: Starter) -> None:
    """403 with the scopes that would, before a body is read; a right to read is none to write."""
    server = await start(sections=admin_world())
    answer = await server.post(assertion(scope="skatt:open"))
    consumer = Organisation(server, CONSUMER, answer.json()["access_token"])
    reader = await organisation(server, CONSUMER, "idporten:dcr.read idporten:scopes.read")

    for row in ENDPOINTS:
        if row.right is None or not row.right.scopes:
            continue
        refused = await knock(consumer, row, KNOWN)
        assert refused.status_code == 403, name(row)
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
        written = await knock(reader, row, KNOWN)
        assert not row.writes or written.status_code == 403, (name(row), written.text)


def forged(**changes: Any) -> str:
    """A token by somebody else's key."""
    claims = {
        "iss": ISSUER,
        "client_id": f"admin-{CONSUMER}",
        "consumer": {"authority": "iso6523-actorid-upis", "ID": f"0192:{CONSUMER}"},
        "scope": "idporten:dcr.write",
        "iat": NOW,
        "exp": NOW + 60,
        **changes,
    }
    return sign({"alg": "RS256", "kid": "x"}, claims, private_key("thief"))


NO_TOKENS = ["x", "a.b.c", forged(), forged(iss="https://else/"), "é"]


async def test_what_is_no_token_of_ours(start: Starter) -> None:
    """401, and the sentence tells nothing about our keys."""
    server = await start(sections=admin_world())

    for token in NO_TOKENS:
        headers = {b"Authorization": b"Bearer " + token.encode()}
        answer = await server.http.get("/clients", headers=headers)
        assert answer.status_code == 401, token
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_an_expired_token(start: Starter) -> None:
    """The validator's own two seconds of leeway, and no more."""
    own = await organisation(await start(sections=admin_world()), CONSUMER)
    own.server.clock.now = NOW + 121
    assert (await own.call("GET", "/clients")).status_code == 200

    own.server.clock.now = NOW + 122

    assert (await own.call("GET", "/clients")).status_code == 401


async def test_a_token_for_another_api(start: Starter) -> None:
    """What another provider was handed opens nothing here; a token for us does."""
    server = await start(sections=admin_world())
    for resource, status in (("https://other.example/", 401), (ISSUER + "api/v1", 200)):
        grant = assertion(f"admin-{CONSUMER}", scope="idporten:dcr.read", resource=resource)
        token = (await server.post(grant)).json()["access_token"]
        own = Organisation(server, CONSUMER, token)

        assert (await own.call("GET", "/clients")).status_code == status


async def test_a_token_dies_with_its_right(start: Starter) -> None:
    """A deactivated client, a scope taken from it, an access withdrawn: at the next call."""
    server = await start(sections=admin_world())
    owner = await organisation(server, CONSUMER)
    admin = f"/clients/admin-{CONSUMER}"
    operator = await organisation(server, STRANGER)

    await owner.ok("PUT", admin, {"scopes": ["idporten:dcr.write", "idporten:scopes.read"]})
    assert (await owner.call("POST", "/scopes", {})).status_code == 403
    assert (await owner.call("GET", "/scopes")).status_code == 200
    await operator.ok("DELETE", f"/scopes/access/{CONSUMER}?scope=idporten:scopes.read")
    assert (await owner.call("GET", "/scopes")).status_code == 403
    await owner.ok("DELETE", admin)
    assert (await owner.call("GET", "/clients")).status_code == 401


async def test_a_supplier_names_its_victim_a_customer(start: Starter) -> None:
    """Its token then says `consumer`: the victim. It opens nothing of anybody's."""
    server = await start(sections=admin_world())
    thief = await organisation(server, SUPPLIER)
    victim = {"onbehalfof": "victim", "orgno": CONSUMER}
    await thief.ok("POST", f"/clients/admin-{SUPPLIER}/onbehalfof", victim)
    grant = assertion(f"admin-{SUPPLIER}", scope=EVERYTHING, iss_onbehalfof="victim")
    token = (await server.post(grant)).json()["access_token"]
    before = server.services.replica.registry

    for row in ENDPOINTS:
        if row.right is not None:
            answer = await knock(Organisation(server, CONSUMER, token), row, KNOWN)
            assert answer.status_code == 401, (name(row), answer.text)
            assert "supplier" in answer.json()["error_description"]
    assert (await server.services.replica.catch_up()).revision == before.revision


async def test_a_supplier_makes_an_admin_client_in_its_victims_name(start: Starter) -> None:
    """The supplier's right reaches what it made, not what the victim's own clients may do."""
    server = await start(sections=admin_world())
    thief = await organisation(server, SUPPLIER, "idporten:dcr.supplier")
    keys = {"keys": [jwk("planted")]}
    planted = minimal(
        client_id="planted", client_orgno=CONSUMER, scopes=["idporten:dcr.write"], jwks=keys
    )
    await thief.ok("POST", "/clients", planted)
    answer = await server.post(assertion("planted", scope="idporten:dcr.write"))
    as_victim = Organisation(server, CONSUMER, answer.json()["access_token"])

    assert (await as_victim.call("GET", "/clients")).status_code == 401
    assert (await as_victim.call("DELETE", f"/clients/admin-{CONSUMER}")).status_code == 401


async def test_numbers_that_hide_behind_zeros(start: Starter) -> None:
    """Zeros in front change no number, raise no bound, and break nothing."""
    own = await organisation(await start(sections=admin_world()), CONSUMER)

    for path in ("/audit?limit=", "/audit?before=", "/clients?size="):
        for zeros in (20, 5000):
            assert (await own.call("GET", path + "0" * zeros + "7")).status_code == 200, path
            beyond = await own.call("GET", path + "0" * zeros + "9" * 17)
            assert beyond.status_code == 400, (path, beyond.text)
        for wrong in ("", "00-1", "0٣", "0x1", "9" * 5000):
            assert (await own.call("GET", path + wrong)).status_code == 400, (path, wrong)


async def test_signing_keys_that_change_under_way(start: Starter) -> None:
    """A token by the old key and one by the new are both valid, at once."""
    server = await start(sections=admin_world())
    old = await organisation(server, CONSUMER)
    assert (await old.call("GET", "/clients")).status_code == 200
    replica = server.services.replica
    server.clock.now = NOW + 100
    await server.services.rotation.advance()
    await replica.catch_up()

    assert (await old.call("GET", "/clients")).status_code == 200


async def test_every_base_serves_every_path(start: Starter) -> None:
    """Bare, versioned and external, with and without the slash that scripts use."""
    server = await start(sections=admin_world())

    for row in ENDPOINTS:
        if row.own_base is None and row.method == "GET":
            path = row.path.replace(":path}", "}").format(**KNOWN)
            for base, slash in itertools.product(BASES, ("", "/")):
                answer = await server.http.get(base + path + slash)
                assert answer.status_code in ({401} if row.right else {200}), base + path + slash
                assert answer.headers["registry-revision"]


async def test_methods_that_are_not_there(start: Starter) -> None:
    """405 with the ones that are, in the API's own shape."""
    server = await start(sections=admin_world())

    answer = await server.http.patch("/api/v1/clients")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert answer.json()["errors"]


async def test_answers_have_the_documented_shape(start: Starter) -> None:
    """Every GET, read by the model that its document is made of."""
    owner, _ = await victims(start)
    operator = await organisation(owner.server, STRANGER, EVERYTHING + " idporten:operator.read")
    for row in ENDPOINTS:
        if row.method != "GET":
            continue
        caller = operator if "scopes" in row.path or "operator" in row.path else owner
        names = {**KNOWN, "scope": "idporten:dcr.read"}
        answer = await knock(caller, row, names)
        assert answer.status_code == 200, (row.path, answer.text)
        shape = list[row.gives] if row.many else row.gives  # type: ignore[name-defined]
        msgspec.json.decode(answer.content, type=shape)


async def test_the_document(start: Starter) -> None:
    """OpenAPI 3.1, with every endpoint, whose references lead somewhere."""
    server = await start(sections=admin_world())

    document = (await server.http.get("/v3/api-docs")).json()

    assert document == openapi(ENDPOINTS, ISSUER)
    assert document["openapi"] == "3.1.0"
    for row in ENDPOINTS:
        operation = document["paths"][row.path.replace(":path}", "}")][row.method.lower()]
        assert str(row.status) in operation["responses"]
    schemas = document["components"]["schemas"]
    text = str(document)
    for part in text.split("#/components/schemas/")[1:]:
        assert part.split("'")[0] in schemas
