"""Looking back by the API: the owner's audit trail, and why a token is refused."""

from pathlib import Path
from typing import Any

import pytest

from tests.chains import enterprise, trust_folder, x5c
from tests.conftest import Starter
from tests.selfservice.organisations import Organisation, admin_world, minimal, organisation
from tests.world import CONSUMER, PROVIDER, STRANGER, SUPPLIER, assertion, client, jwk

CLIENTS = "idporten:dcr.read idporten:dcr.write"
SCOPES = "idporten:scopes.read idporten:scopes.write"
ASKED = "/api/v1/explain?client_id=mine&scope=skatt:hemmelig"


async def changed(start: Starter) -> tuple[Organisation, Organisation]:
    """A consumer that made a client and changed it; a provider that gave and took access."""
    server = await start(sections=admin_world())
    consumer, provider = await organisation(server, CONSUMER), await organisation(server, PROVIDER)
    await provider.ok("PUT", f"/scopes/access/{CONSUMER}?scope=skatt:hemmelig")
    made = minimal(client_id="mine", scopes=["skatt:hemmelig"])
    await consumer.ok("POST", "/clients", made)
    await consumer.ok("PUT", "/clients/mine", {**made, "client_name": "Nytt navn"})
    await provider.ok("DELETE", f"/scopes/access/{CONSUMER}?scope=skatt:hemmelig")
    return consumer, provider


async def trail(caller: Organisation, query: str = "") -> list[dict[str, Any]]:
    """The caller's audit, one page."""
    found: list[dict[str, Any]] = (await caller.ok("GET", f"/api/v1/audit{query}"))["entries"]
    return found


async def test_the_owner_reads_who_changed_what_and_how_it_was(start: Starter) -> None:
    """Own client and own access; of the provider's client only whose it is."""
    consumer, _ = await changed(start)
    newest, renamed, made, *_ = await trail(consumer)

    label = f"access/skatt:hemmelig {CONSUMER}"
    assert newest["caller"] == {"kind": "client", "orgno": PROVIDER}
    assert newest["command"].startswith("DELETE /scopes/access/")
    assert (newest["before"][label]["state"], newest["after"][label]["state"]) == (
        "APPROVED", "DENIED",
    )  # fmt: skip
    assert renamed["caller"]["client_id"] == f"admin-{CONSUMER}"
    assert renamed["caller"]["client_amr"] == "private_key_jwt"
    assert renamed["caller"]["token_jti"]
    names = [renamed[when]["client/mine"]["client_name"] for when in ("before", "after")]
    assert names == ["Saksbehandling", "Nytt navn"]
    assert (made["before"], list(made["after"])) == ({}, ["client/mine"])
    assert newest["at"] == "2027-01-15T08:00:00.000Z"


async def test_nothing_of_others_stands_in_the_trail(start: Starter) -> None:
    """The first commit touches everybody's things; each sees its own part (attack 30)."""
    consumer, _ = await changed(start)
    stranger = await organisation(consumer.server, SUPPLIER)

    for entry in await trail(stranger, "?limit=100"):
        for image in (*entry["before"].values(), *entry["after"].values()):
            owners = {value for name, value in image.items() if name.endswith("orgno")}
            assert SUPPLIER in owners
    labels = {label for entry in await trail(stranger) for label in entry["after"]}
    assert "client/vendor" in labels
    assert "client/mine" not in labels


@pytest.mark.parametrize(
    ("scope", "kinds"), [(CLIENTS, {"client"}), (SCOPES, {"access", "scope", "prefix"})]
)
async def test_a_token_reaches_no_further_than_its_scopes(
    start: Starter, scope: str, kinds: set[str]
) -> None:
    """Clients by the scopes of clients, accesses by those of scopes."""
    consumer, _ = await changed(start)
    limited = await organisation(consumer.server, CONSUMER, scope)

    found = await trail(limited, "?limit=100")
    seen = {label.split("/")[0] for entry in found for label in entry["after"]}
    assert seen & {"client", "access", "scope", "prefix"} <= kinds
    assert found


async def test_the_trail_comes_in_pages(start: Starter) -> None:
    """Each entry once, the newest first; the last page leads nowhere."""
    consumer, _ = await changed(start)
    whole = await trail(consumer)
    found, before = [], ""
    while True:
        page = await consumer.ok("GET", f"/api/v1/audit?limit=2{before}")
        found += page["entries"]
        if "before" not in page:
            break
        before = f"&before={page['before']}"

    assert found == whole
    assert len({entry["revision"] for entry in found}) == len(found) > 2
    assert await trail(consumer, "?limit=0") == []


@pytest.mark.parametrize("query", ["?limit=101", "?limit=x", "?before=-1", f"?before={2**70}"])
async def test_a_senseless_page_is_a_sentence(start: Starter, query: str) -> None:
    """400, and which parameter."""
    consumer = await organisation(await start(sections=admin_world()), CONSUMER)
    answer = await consumer.call("GET", f"/api/v1/audit{query}")

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["fieldIdentifier"] == query[1:].split("=", maxsplit=1)[0]


async def test_the_operator_reads_what_all_have_changed(start: Starter) -> None:
    """With its own scope, of all or of one organisation."""
    consumer, _ = await changed(start)
    operator = await organisation(consumer.server, STRANGER, "idporten:operator.read")

    every = (await operator.ok("GET", "/api/v1/operator/audit?limit=100"))["entries"]
    callers = {entry["caller"].get("client_id") for entry in every}
    assert {f"admin-{CONSUMER}", f"admin-{PROVIDER}"} <= callers
    path = f"/api/v1/operator/audit?org={CONSUMER}&limit=2"
    some = (await operator.ok("GET", path))["entries"]
    assert some == every[:2]
    assert (await operator.call("GET", "/api/v1/operator/audit?org=1")).status_code == 400
    assert (await consumer.call("GET", "/api/v1/operator/audit")).status_code == 403


async def test_the_owner_of_a_client_is_told_why(start: Starter) -> None:
    """Now, at an earlier revision, and at a time."""
    consumer, _ = await changed(start)
    now = await consumer.ok("GET", ASKED)
    assert (now["outcome"], now["code"]) == ("refused", "MP-250")
    failing = [rule for rule in now["rules"] if rule["verdict"] == "fails"]
    assert [(rule["rule"], rule["by"]) for rule in failing] == [
        ("skatt:hemmelig: is open to the consumer", f"the scope's owner, {PROVIDER}")
    ]

    then = await consumer.ok("GET", f"{ASKED}&at={now['revision'] - 1}")
    assert (then["outcome"], then["consumer"]) == ("depends", CONSUMER)  # on its certificate
    earlier = await consumer.ok("GET", f"{ASKED}&at=2026-01-01T00:00:00Z")
    assert (earlier["reason"], earlier["revision"]) == ("CLIENT_UNKNOWN", 0)
    wrong = await consumer.call("GET", f"{ASKED}&at=soon")
    assert wrong.json()["errors"][0]["fieldIdentifier"] == "at"


async def test_the_owner_of_the_scopes_is_told_but_not_about_keys(start: Starter) -> None:
    """Once the scope stands on the client."""
    _, provider = await changed(start)
    told = await provider.ok("GET", ASKED)

    assert told["code"] == "MP-250"
    assert not [rule for rule in told["rules"] if "key" in rule["rule"]]


@pytest.mark.parametrize(
    ("orgno", "scope", "client_id", "asked"),
    [
        pytest.param(SUPPLIER, CLIENTS, "mine", "skatt:hemmelig", id="a foreign client"),
        pytest.param(SUPPLIER, CLIENTS, "nobodys", "skatt:hemmelig", id="an unknown client"),
        pytest.param(PROVIDER, SCOPES, "nobodys", "skatt:hemmelig", id="own scope, no client"),
        pytest.param(PROVIDER, SCOPES, "mine", "skatt:kort", id="own scope, not on the client"),
        pytest.param(PROVIDER, SCOPES, "mine", "skatt:none skatt:hemmelig", id="a missing scope"),
        pytest.param(PROVIDER, CLIENTS, "mine", "skatt:hemmelig", id="without scopes.read"),
        pytest.param(CONSUMER, SCOPES, "mine", "skatt:hemmelig", id="without dcr.read"),
    ],
)
async def test_foreign_and_unknown_answer_alike(
    start: Starter, orgno: str, scope: str, client_id: str, asked: str
) -> None:
    """Nothing can be learnt about what is not one's own (attack 30)."""
    consumer, _ = await changed(start)
    caller = await organisation(consumer.server, orgno, scope)

    answer = await caller.call("GET", f"/api/v1/explain?client_id={client_id}&scope={asked}&at=x")

    assert answer.status_code == 404
    assert answer.json()["error_description"] == "There is no such client among yours"


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_key_that_is_locked_to_a_certificate(
    start: Starter, tmp_path: Path, *, trusted: bool
) -> None:
    """The certificate is weighed as for a token; what it was in the past stays open."""
    locked = jwk("locked", x5c=x5c(enterprise(name="locked")))
    made = {**client("locked", CONSUMER, "skatt:open"), "jwks": {"keys": [locked]}}
    trust = trust_folder(tmp_path) if trusted else None
    server = await start(sections=admin_world(clients=[made]), trust=trust)
    owner = await organisation(server, CONSUMER)

    told = await owner.ok("GET", "/api/v1/explain?client_id=locked&scope=skatt:open")
    answer = await server.post(assertion("locked", scope="skatt:open"))

    assert told["outcome"] == ("granted" if trusted else "refused")
    assert told.get("code") == (None if trusted else "MP-120")
    assert (answer.status_code == 200) is trusted
    revision = told["revision"]
    path = f"/api/v1/explain?client_id=locked&scope=skatt:open&at={revision}"
    assert (await owner.ok("GET", path))["outcome"] == "depends"
