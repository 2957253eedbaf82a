"""Altinn's answers and faults, through the whole application: one wrong thing at a time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

import httpx
import jwt
import pytest
import respx

from maskinporten.administration import administer
from maskinporten.altinn import altinn_policy
from maskinporten.altinn_line import OwnTokens
from maskinporten.domain.altinn import ConsentQuestion, DelegationQuestion
from maskinporten.domain.circuit import Circuit
from maskinporten.domain.manifest import plan
from maskinporten.domain.orgno import OrgNo
from maskinporten.errors import InvalidInput, Reason
from maskinporten.keyring import LocalKey
from tests.conftest import Starter
from tests.world import (
    CONSUMER,
    ISSUER,
    NOW,
    SOURCE,
    STRANGER,
    SUPPLIER,
    Server,
    assertion,
    document,
    jwk,
    private_key,
    settings,
)

BASE: Final = "https://platform.altinn.test/"
OPERATOR: Final = "991825827"
LINE: Final = {"altinn": f"{SOURCE}={BASE}", "altinn_orgno": OPERATOR}
DELEGATIONS: Final = BASE + "accessmanagement/api/v1/maskinporten/delegations/"
SYSTEM_USER: Final = BASE + "authentication/api/v1/systemuser/byExternalId"
CONSENT: Final = BASE + "accessmanagement/api/v1/maskinporten/consent/lookup"
SCOPE: Final = "skatt:delegert"
CONSENT_ID: Final = "f70542a8-1b3f-4a5e-9d5a-0a4d6f6f1a11"
PERSON: Final = "urn:altinn:person:identifier-no:25922947409"
ORGANIZATION: Final = "urn:altinn:organization:identifier-no:"


def delegation(**changes: Any) -> dict[str, Any]:
    """An element of Altinn's answer."""
    return {
        "consumer_org": CONSUMER,
        "supplier_org": SUPPLIER,
        "delegation_scheme_Id": None,
        "scopes": [SCOPE],
        "created": "2024-05-01T00:00:00+00:00",
        "resourceid": "scope-delegert",
        **changes,
    }


def system_user(**changes: Any) -> dict[str, Any]:
    """Altinn's answer about a system user."""
    return {
        "id": "f950ddae-06c3-4b57-b940-702417a90df0",
        "integrationTitle": "Smart cloud",
        "systemId": "889640782_smartcloud",
        "productName": "889640782_smartcloud",
        "reporteeOrgNo": STRANGER,
        "created": "2025-01-01T00:00:00Z",
        "isDeleted": False,
        "supplierName": "Vendor",
        "supplierOrgno": SUPPLIER,
        "externalRef": STRANGER,
        "userType": "standard",
        **changes,
    }


def consent(**changes: Any) -> dict[str, Any]:
    """Altinn's answer about a consent."""
    return {
        "id": CONSENT_ID,
        "from": PERSON,
        "to": ORGANIZATION + SUPPLIER,
        "handledBy": None,
        "consented": "2026-02-03T10:14:05.419279+00:00",
        "validTo": "2027-02-03T10:13:27.897002+00:00",
        "consentRights": [
            {
                "action": ["consent"],
                "resource": [{"type": "urn:altinn:resource", "value": "ske-samtykke-sbl-inntekt"}],
                "metadata": {"fraogmed": "2024-01", "tilogmed": "2024-12"},
            }
        ],
        **changes,
    }


def delegated(**claims: Any) -> str:
    """A supplier's grant."""
    return assertion("vendor", scope=SCOPE, consumer_org=CONSUMER, **claims)


def for_system_user(reference: str | None = None, **claims: Any) -> str:
    """A vendor's grant for its customer's system user."""
    owner = {"authority": "iso6523-actorid-upis", "ID": f"0192:{STRANGER}"}
    element: dict[str, Any] = {"type": "urn:altinn:systemuser", "systemuser_org": owner}
    if reference is not None:
        element["externalRef"] = reference
    return assertion("vendor", scope="skatt:open", authorization_details=[element], **claims)


def with_consent(**claims: Any) -> str:
    """A grant that leans on a consent."""
    element = {"type": "urn:altinn:consent", "id": CONSENT_ID, "from": PERSON}
    all_claims = {"scope": "skatt:open", "authorization_details": [element], **claims}
    return assertion("vendor", **all_claims)


def claims_of(answer: httpx.Response) -> dict[str, Any]:
    """The token's claims, in their order."""
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = jwt.decode(
        answer.json()["access_token"], options={"verify_signature": False}
    )
    return found


def metric(server: Server, outcome: str) -> float:
    """How many questions ended so."""
    label = f'outcome="{outcome}"'
    return server.services.metrics.value("maskinporten_altinn_calls_total", label)


def audited(server: Server) -> dict[str, Any]:
    """The newest audit line."""
    path = server.services.settings.audit_log
    assert path is not None
    found: dict[str, Any] = json.loads(path.read_text().splitlines()[-1])
    return found


@respx.mock
async def test_a_suppliers_token(start: Starter) -> None:
    """Asked with the documented path and parameters, and with a token of our own."""
    server = await start(**LINE)
    route = respx.get(DELEGATIONS).respond(json=[delegation()])

    claims = claims_of(await server.post(delegated()))

    assert list(claims) == [
        "scope", "supplier", "iss", "client_amr", "token_type", "exp", "delegation_source", "iat",
        "client_id", "jti", "consumer",
    ]  # fmt: skip
    assert claims["consumer"] == {"authority": "iso6523-actorid-upis", "ID": f"0192:{CONSUMER}"}
    assert claims["supplier"] == {"authority": "iso6523-actorid-upis", "ID": f"0192:{SUPPLIER}"}
    assert claims["delegation_source"] == SOURCE
    request = route.calls.last.request
    assert dict(request.url.params) == {
        "supplierorg": SUPPLIER, "consumerorg": CONSUMER, "scope": SCOPE,
    }  # fmt: skip
    own = jwt.decode(
        request.headers["authorization"].removeprefix("Bearer "),
        options={"verify_signature": False},
    )
    assert own["iss"] == ISSUER
    assert own["scope"] == "altinn:maskinporten/delegations.admin"
    assert own["consumer"]["ID"] == f"0192:{OPERATOR}"
    (confirmed,) = audited(server)["confirmations"]
    assert confirmed == {
        "kind": "delegation", "scope": SCOPE, "source": SOURCE, "how": "asked",
        "confirmed": True, "reference": "scope-delegert",
    }  # fmt: skip


@respx.mock
async def test_a_system_users_token(start: Starter) -> None:
    """Member by member as a published token, `externalRef` not echoed; no supplier."""
    server = await start(**LINE)
    route = respx.get(SYSTEM_USER).respond(json=system_user())

    claims = claims_of(await server.post(for_system_user()))

    assert list(claims)[:2] == ["authorization_details", "scope"]
    (element,) = claims["authorization_details"]
    assert list(element.items()) == [
        ("type", "urn:altinn:systemuser"),
        ("systemuser_org", {"authority": "iso6523-actorid-upis", "ID": f"0192:{STRANGER}"}),
        ("systemuser_id", ["f950ddae-06c3-4b57-b940-702417a90df0"]),
        ("system_id", "889640782_smartcloud"),
    ]
    assert claims["consumer"]["ID"] == f"0192:{SUPPLIER}"
    assert "supplier" not in claims
    assert "delegation_source" not in claims
    assert dict(route.calls.last.request.url.params) == {
        "clientId": "vendor", "systemProviderOrgNo": SUPPLIER, "systemUserOwnerOrgNo": STRANGER,
    }  # fmt: skip
    route.respond(json=system_user(externalRef="kunde-2"))
    claims_of(await server.post(for_system_user("kunde-2")))
    assert route.calls.last.request.url.params["externalRef"] == "kunde-2"


@respx.mock
async def test_a_consents_token(start: Starter) -> None:
    """Member by member as a published token; the request as documented."""
    server = await start(**LINE)
    route = respx.post(CONSENT).respond(json=consent())

    (element,) = claims_of(await server.post(with_consent()))["authorization_details"]

    assert list(element) == [
        "type", "id", "from", "to", "consented", "validTo", "consentRights",
    ]  # fmt: skip
    assert element == {
        "type": "urn:altinn:consent",
        "id": CONSENT_ID,
        "from": PERSON,
        "to": {"authority": "iso6523-actorid-upis", "ID": f"0192:{SUPPLIER}"},
        "consented": "2026-02-03T10:14:05.419279+00:00",
        "validTo": "2027-02-03T10:13:27.897002+00:00",
        "consentRights": consent()["consentRights"],
    }
    assert list(element["consentRights"][0]) == ["action", "resource", "metadata"]
    assert json.loads(route.calls.last.request.content) == {
        "id": CONSENT_ID, "from": PERSON, "to": ORGANIZATION + SUPPLIER,
    }  # fmt: skip


@respx.mock
async def test_a_consent_to_the_customer_of_a_supplier(start: Starter) -> None:
    """With `consumer_org` the consent must be the consumer's; both are asked about."""
    server = await start(**LINE)
    respx.get(DELEGATIONS).respond(json=[delegation()])
    rights = [{k: v for k, v in consent()["consentRights"][0].items() if k != "metadata"}]
    found = consent(to=ORGANIZATION + CONSUMER, consentRights=rights)
    route = respx.post(CONSENT).respond(json=found)

    claims = claims_of(await server.post(with_consent(scope=SCOPE, consumer_org=CONSUMER)))

    (element,) = claims["authorization_details"]
    assert element["to"] == claims["consumer"] != claims["supplier"]
    assert "metadata" not in element["consentRights"][0]
    assert json.loads(route.calls.last.request.content)["to"] == ORGANIZATION + CONSUMER
    assert [c["kind"] for c in audited(server)["confirmations"]] == ["delegation", "consent"]


def problem(status: int, *codes: str) -> dict[str, Any]:
    """A problem document, as Altinn writes one or several."""
    if len(codes) == 1:
        return {"type": "x", "title": "t", "status": status, "detail": "d", "code": codes[0]}
    within = [{"detail": "d", "code": code} for code in codes]
    return {"title": "several", "status": status, "code": "STD-00001", "problems": within}


DELEGATED, USER, CONSENTED = delegated, for_system_user, with_consent
NO = [
    pytest.param(DELEGATED, 200, [], Reason.SCOPE_NOT_DELEGATED, id="no delegation"),
    pytest.param(DELEGATED, 200, [delegation(consumer_org=STRANGER)],
                 Reason.SCOPE_NOT_DELEGATED, id="another consumer in the answer"),
    pytest.param(DELEGATED, 200, [delegation(supplier_org=STRANGER)],
                 Reason.SCOPE_NOT_DELEGATED, id="another supplier in the answer"),
    pytest.param(DELEGATED, 200, [delegation(consumer_org=SUPPLIER, supplier_org=CONSUMER)],
                 Reason.SCOPE_NOT_DELEGATED, id="the other way round"),
    pytest.param(DELEGATED, 200, [delegation(scopes=["skatt:deleger"])],
                 Reason.SCOPE_NOT_DELEGATED, id="a prefix of the scope"),
    pytest.param(DELEGATED, 200, [delegation(scopes=[])],
                 Reason.SCOPE_NOT_DELEGATED, id="no scopes in the answer"),
    pytest.param(USER, 404, None, Reason.SYSTEM_USER_UNKNOWN, id="no system user"),
    pytest.param(USER, 404, problem(404, "AUTH-00001"), Reason.SYSTEM_USER_UNKNOWN,
                 id="no system user, as a problem"),
    pytest.param(USER, 200, system_user(isDeleted=True), Reason.SYSTEM_USER_UNKNOWN, id="deleted"),
    pytest.param(USER, 200, system_user(reporteeOrgNo=CONSUMER), Reason.SYSTEM_USER_UNKNOWN,
                 id="another customer's system user"),
    pytest.param(USER, 200, system_user(supplierOrgno=CONSUMER), Reason.SYSTEM_USER_UNKNOWN,
                 id="another vendor's system user"),
    pytest.param(lambda: for_system_user("a"), 200, system_user(externalRef="b"),
                 Reason.SYSTEM_USER_UNKNOWN, id="another externalRef"),
    *(
        pytest.param(CONSENTED, status, problem(status, code), Reason.DETAILS_REFUSED, id=code)
        for status, code in ((404, "AM-00001"), (400, "AM-00011"), (400, "AM-00012"),
                             (400, "AM-00013"), (400, "AM-00014"), (400, "AM.11"))
    ),
    pytest.param(CONSENTED, 500, problem(500, "AM-00013", "AM-00014"), Reason.DETAILS_REFUSED,
                 id="two problems at once"),
    pytest.param(CONSENTED, 200, consent(id="00000000-0000-0000-0000-000000000000"),
                 Reason.DETAILS_REFUSED, id="another consent"),
    pytest.param(CONSENTED, 200, consent(to=ORGANIZATION + CONSUMER), Reason.DETAILS_REFUSED,
                 id="to another"),
    pytest.param(CONSENTED, 200, consent(**{"from": ORGANIZATION + STRANGER}),
                 Reason.DETAILS_REFUSED, id="from another"),
    pytest.param(CONSENTED, 200, consent(validTo="2027-01-15T08:00:00Z"),
                 Reason.DETAILS_REFUSED, id="valid until this second"),
    pytest.param(CONSENTED, 200, consent(validTo="2026-01-15T08:00:00+00:00"),
                 Reason.DETAILS_REFUSED, id="valid until last year"),
]  # fmt: skip


@respx.mock
@pytest.mark.parametrize(("ask", "status", "body", "reason"), NO)
async def test_no(
    start: Starter, ask: Callable[[], str], status: int, body: Any, reason: Reason
) -> None:
    """Altinn does not confirm: refused, by the documented code."""
    server = await start(**LINE)
    content = {"json": body} if body is not None else {}
    respx.route(host="platform.altinn.test").respond(status, **content)

    refused = await server.post(ask())

    assert refused.status_code == reason.status
    assert refused.json()["error"] == reason.error
    assert refused.json()["error_uri"] == f"{ISSUER}errors/{reason.ref}"
    assert audited(server)["reason"] == reason.name
    assert not server.services.altinn.away  # type: ignore[union-attr]


def test_the_second_before_is_still_valid() -> None:
    """The clock of the world is at the end of the consent above."""
    assert NOW == 1_800_000_000  # 2027-01-15T08:00:00Z


@respx.mock
async def test_a_consent_that_ends_while_it_is_remembered(start: Starter) -> None:
    """Its end counts, not the time we remember it."""
    server = await start(**LINE)
    route = respx.post(CONSENT).respond(json=consent(validTo="2027-01-15T08:00:01Z"))

    assert (await server.post(with_consent())).status_code == 200
    server.clock.now += 1
    refused = await server.post(with_consent())
    assert refused.json()["error"] == "invalid_authorization_details"
    assert route.call_count == 1


def content(octets: bytes, status: int = 200, kind: str = "application/json") -> httpx.Response:
    """An answer of these very octets."""
    return httpx.Response(status, content=octets, headers={"content-type": kind})


ONE = json.dumps(delegation()).encode()
UNUSABLE = [
    pytest.param(DELEGATED, httpx.ConnectTimeout("x"), "timeout", id="timeout"),
    pytest.param(DELEGATED, httpx.ConnectError("x"), "unreachable", id="nobody there"),
    pytest.param(DELEGATED, httpx.ReadError("x"), "unreachable", id="cut off"),
    pytest.param(DELEGATED, RuntimeError("x"), "unusable", id="what nobody foresaw"),
    *(
        pytest.param(ask, httpx.Response(status, json={}), outcome, id=f"{status} {ask.__name__}")
        for ask in (DELEGATED, USER, CONSENTED)
        for status, outcome in ((401, "unauthorized"), (403, "unauthorized"), (429, "busy"),
                                (500, "error"), (503, "error"), (400, "unusable"),
                                (204, "unusable"), (302, "unusable"))
    ),
    pytest.param(DELEGATED, httpx.Response(404, json={}), "unusable", id="404 for a list"),
    pytest.param(CONSENTED, httpx.Response(404, json={}), "unusable", id="404 without a code"),
    pytest.param(CONSENTED, httpx.Response(400, json=problem(400, "AM-00011", "X-1")), "unusable",
                 id="a code we do not know"),
    pytest.param(USER, httpx.Response(404, html="<p>no such page"), "unusable", id="404 as HTML"),
    pytest.param(DELEGATED, httpx.Response(200, html="<p>Be back soon"), "unusable", id="HTML"),
    pytest.param(DELEGATED, content(b"[" + ONE + b"]", kind="text/plain"), "unusable", id="text"),
    pytest.param(DELEGATED, content(b""), "unusable", id="nothing"),
    pytest.param(DELEGATED, content(b"[" + ONE), "unusable", id="half of it"),
    pytest.param(DELEGATED, content(b"\xef\xbb\xbf[" + ONE + b"]"), "unusable", id="a BOM"),
    pytest.param(DELEGATED, content(b"[" + ONE + b" " * 262_144 + b"]"), "unusable", id="huge"),
    pytest.param(DELEGATED, httpx.Response(200, json=[delegation()] * 1001), "unusable",
                 id="a long list"),
    pytest.param(DELEGATED, content(b"[" * 5000 + b"]" * 5000), "unusable", id="nested deeply"),
    pytest.param(DELEGATED, content(b'[{"scopes":[],"scopes":["skatt:delegert"],' + ONE[1:] + b"]"),
                 "unusable", id="a member twice"),
    pytest.param(DELEGATED, httpx.Response(200, json=[delegation()], headers={
        "content-encoding": "br"}), "unusable", id="an encoding"),
    pytest.param(DELEGATED, httpx.Response(200, json=[None]), "unusable", id="null within"),
    pytest.param(USER, httpx.Response(200, json=system_user(isDeleted=None)), "unusable",
                 id="system user, a null"),
    pytest.param(CONSENTED, httpx.Response(200, json=consent(validTo=None)), "unusable",
                 id="consent, a null"),
]  # fmt: skip


@respx.mock
@pytest.mark.parametrize(("ask", "fault", "outcome"), UNUSABLE)
async def test_altinn_cannot_be_asked(
    start: Starter, ask: Callable[[], str], fault: Any, outcome: str
) -> None:
    """503 and Retry-After; the very same grant works as soon as Altinn answers."""
    server = await start(**LINE)
    grant = ask()
    route = respx.route(host="platform.altinn.test")
    if isinstance(fault, Exception):
        route.mock(side_effect=fault)
    else:
        route.mock(return_value=fault)

    refused = await server.post(grant)

    assert (refused.status_code, refused.json()["error"]) == (503, "temporarily_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert metric(server, outcome) == 1
    assert audited(server)["reason"] == "TEMPORARILY_AWAY"
    altinn = server.services.altinn
    assert altinn is not None
    for line in altinn._lines.values():
        line.circuit = Circuit()
    good = {"delegated": [delegation()], "for_system_user": system_user()}
    route.mock(return_value=httpx.Response(200, json=good.get(ask.__name__, consent())))
    assert (await server.post(grant)).status_code == 200
    assert (await server.post(grant)).json()["error"] == "invalid_grant"


@respx.mock
async def test_a_refused_token_of_ours_is_made_anew_once(start: Starter) -> None:
    """Altinn that has not seen our newest key says 401, and is asked again with a new token."""
    server = await start(**LINE)
    route = respx.get(DELEGATIONS)
    route.side_effect = [httpx.Response(401), httpx.Response(200, json=[delegation()])]

    assert (await server.post(delegated())).status_code == 200
    first, second = (call.request.headers["authorization"] for call in route.calls)
    assert first != second


@respx.mock
async def test_own_tokens_are_kept_until_shortly_before_they_expire(start: Starter) -> None:
    """100 s of 120; then a new one."""
    server = await start(**LINE, altinn_remember=0)
    route = respx.get(DELEGATIONS).respond(json=[delegation()])
    seen = []
    for seconds in (0, 99, 1):
        server.clock.now += seconds
        now = int(server.clock.now)
        await server.post(delegated(iat=now, exp=now + 60))
        seen.append(route.calls.last.request.headers["authorization"])

    assert seen[0] == seen[1] != seen[2]
    path = server.services.settings.audit_log
    assert path is not None
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    own = [line for line in lines if line["event_name"] == "own_token_issued"]
    assert [line["event_created"] for line in own] == [NOW * 1000, (NOW + 100) * 1000]
    assert {line["consumer"] for line in own} == {OPERATOR}
    assert own[0]["token_scopes"][0]["scope"] == "altinn:maskinporten/delegations.admin"
    signed = jwt.decode(
        seen[0].removeprefix("Bearer "), options={"verify_signature": False, "verify_exp": False}
    )
    assert signed["jti"] == own[0]["token_jti"]


@respx.mock
async def test_a_redirect_is_not_followed(start: Starter) -> None:
    """Attack 36: an answer does not choose where we go next."""
    server = await start(**LINE)
    elsewhere = respx.get("https://evil.test/").respond(json=[delegation()])
    respx.get(DELEGATIONS).respond(302, headers={"location": "https://evil.test/"})

    assert (await server.post(delegated())).status_code == 503
    assert not elsewhere.called


@respx.mock
async def test_answers_are_remembered_briefly_and_apart(start: Starter) -> None:
    """A yes for its time, a no for its own; the audit tells which was which."""
    server = await start(**LINE)
    altinn = server.services.altinn
    assert altinn is not None
    route = respx.get(DELEGATIONS).respond(json=[delegation()])

    for _ in range(3):
        assert (await server.post(delegated())).status_code == 200
    assert route.call_count == 1
    assert audited(server)["confirmations"][0]["how"] == "remembered"
    altinn._positive.clear()
    route.respond(json=[])
    for _ in range(3):
        assert (await server.post(delegated())).status_code == 403
    assert route.call_count == 2


@respx.mock
async def test_an_answer_about_others_is_not_remembered(start: Starter) -> None:
    """Altinn that was confused for a moment keeps no supplier out for longer."""
    server = await start(**LINE)
    route = respx.get(DELEGATIONS).respond(json=[delegation(consumer_org=STRANGER)])

    assert (await server.post(delegated())).status_code == 403
    route.respond(json=[delegation()])
    assert (await server.post(delegated())).status_code == 200


@respx.mock
async def test_equal_questions_under_way_are_asked_once(start: Starter) -> None:
    """A crowd of one supplier's grants makes one call, and all of them get their token."""
    server = await start(**LINE)
    asked, open_now = asyncio.Event(), asyncio.Event()

    async def answer(_request: httpx.Request) -> httpx.Response:
        asked.set()
        await open_now.wait()
        return httpx.Response(200, json=[delegation()])

    route = respx.get(DELEGATIONS).mock(side_effect=answer)
    crowd = [asyncio.create_task(server.post(delegated())) for _ in range(10)]
    await asked.wait()
    crowd.pop().cancel()
    open_now.set()

    assert {(await each).status_code for each in crowd} == {200}
    assert route.call_count == 1


@respx.mock
async def test_several_scopes_are_several_questions(start: Starter) -> None:
    """All must be delegated; the one that is not is named."""
    world = document()
    other = {**world["scopes"][5], "name": "skatt:annen"}
    accesses = [*world["accesses"], {"scope": "skatt:annen", "consumer_orgno": CONSUMER}]
    clients = [
        {**client, "scopes": [*client["scopes"], "skatt:annen"]} for client in world["clients"]
    ]
    sections = {
        "scopes": [*world["scopes"], other],
        "accesses": accesses,
        "clients": clients,
    }
    server = await start(sections=sections, **LINE)
    both = f"{SCOPE} skatt:annen"

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=[delegation(scopes=[request.url.params["scope"]])])

    route = respx.get(DELEGATIONS).mock(side_effect=answer)
    claims = claims_of(await server.post(assertion("vendor", scope=both, consumer_org=CONSUMER)))
    assert claims["scope"] == both
    assert route.call_count == 2
    server.services.altinn._positive.clear()  # type: ignore[union-attr]
    route.mock(return_value=httpx.Response(200, json=[delegation()]))
    refused = await server.post(assertion("vendor", scope=both, consumer_org=CONSUMER))
    assert "skatt:annen" in refused.json()["error_description"]


ORDER = [
    pytest.param({"authorization_details": [{"type": "x"}], "scope": "no:such"},
                 Reason.DETAILS_TYPE_UNKNOWN, id="MP-301 before scopes"),
    pytest.param({"authorization_details": [], "scope": "no:such"},
                 Reason.DETAILS_MALFORMED, id="MP-302 before scopes"),
    pytest.param({"consumer_org": STRANGER}, Reason.SCOPE_NOT_GRANTED, id="access before Altinn"),
    pytest.param({"consumer_org": SUPPLIER}, Reason.CONSUMER_IS_CLIENT, id="own organisation"),
]  # fmt: skip


@respx.mock
@pytest.mark.parametrize(("claims", "reason"), ORDER)
async def test_altinn_hears_nothing_of_what_is_refused_anyway(
    start: Starter, claims: dict[str, Any], reason: Reason
) -> None:
    """The order of faults; nobody can make us ask about others by grants that fail."""
    server = await start(**LINE)
    route = respx.route().respond(500)

    refused = await server.post(assertion("vendor", **{"scope": SCOPE, **claims}))

    assert refused.json()["error"] == reason.error
    assert audited(server)["reason"] == reason.name
    assert not route.called


@respx.mock
async def test_delegation_before_details(start: Starter) -> None:
    """MP-251 before MP-303."""
    server = await start(**LINE)
    respx.get(DELEGATIONS).respond(json=[])
    lookup = respx.post(CONSENT).respond(404, json=problem(404, "AM-00001"))

    refused = await server.post(with_consent(scope=SCOPE, consumer_org=CONSUMER))
    assert refused.json()["error_uri"].endswith("MP-251")
    assert not lookup.called


@respx.mock
async def test_without_a_line_nothing_is_delegated(start: Starter) -> None:
    """Fails closed, and asks nobody: no setting, or a source the setting does not name."""
    route = respx.route().respond(json=[delegation()])
    server = await start()
    assert (await server.post(delegated())).json()["error_uri"].endswith("MP-251")
    assert (await server.post(with_consent())).json()["error_uri"].endswith("MP-301")
    other = await start(altinn=f"https://www.altinn.no/={BASE}", altinn_orgno=OPERATOR)
    assert (await other.post(delegated())).json()["error_uri"].endswith("MP-251")
    assert not route.called


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@respx.mock
async def test_a_circuit_opens_and_mends_itself(start: Starter) -> None:
    """Five failures; then nothing is asked, /health says so, and plain grants notice nothing."""
    server = await start(**LINE)
    altinn = server.services.altinn
    assert altinn is not None
    now = [100.0]
    line = altinn._lines[SOURCE, DelegationQuestion]
    line._timer = lambda: now[0]
    route = respx.get(DELEGATIONS).respond(500)

    for _ in range(5):
        assert (await server.post(delegated())).status_code == 503
    health = (await server.http.get("/health")).json()
    assert health["status"] == "DEGRADED"
    assert "Altinn does not answer" in str(health)
    assert server.services.metrics.value("maskinporten_altinn_away") == 1
    held = await server.post(delegated())
    assert (held.status_code, held.headers["retry-after"]) == (503, "2")
    assert (route.call_count, metric(server, "held")) == (5, 1)
    assert (await server.post(assertion())).status_code == 200

    route.respond(json=[delegation()])
    now[0] += 2
    mending = line._mending
    assert mending is not None
    await asyncio.wait_for(mending, 30)
    assert (await server.http.get("/health")).json()["status"] == "UP"
    assert server.services.metrics.value("maskinporten_altinn_away") == 0
    assert (await server.post(delegated())).status_code == 200


@respx.mock
async def test_what_nobody_foresaw_does_not_hold_the_trial(start: Starter) -> None:
    """The circuit's one trial ends whatever is raised in it; the next question is asked."""
    server = await start(**LINE)
    altinn = server.services.altinn
    assert altinn is not None
    now = [100.0]
    line = altinn._lines[SOURCE, DelegationQuestion]
    line._timer = lambda: now[0]
    route = respx.get(DELEGATIONS).respond(500)
    for _ in range(5):
        assert (await server.post(delegated())).status_code == 503
    mending = line._mending
    assert mending is not None

    route.mock(side_effect=RuntimeError("x"))
    now[0] += 2
    await asyncio.wait_for(mending, 30)

    assert not line.circuit.is_open
    route.mock(side_effect=None)
    route.respond(json=[delegation()])
    assert (await server.post(delegated())).status_code == 200


@respx.mock
async def test_a_question_that_makes_altinn_fail_stops_nobody_for_long(start: Starter) -> None:
    """A consent at which Altinn breaks opens the circuit for consents, and is not what mends it."""
    server = await start(**LINE)
    altinn = server.services.altinn
    assert altinn is not None
    line = altinn._lines[SOURCE, ConsentQuestion]
    now = [100.0]
    line._timer = lambda: now[0]
    poison = "00000000-0000-0000-0000-00000000dead"

    def answer(request: httpx.Request) -> httpx.Response:
        if poison in request.content.decode():
            return httpx.Response(500, json={"title": "unhandled"})
        return httpx.Response(200, json=consent())

    respx.post(CONSENT).mock(side_effect=answer)
    respx.get(DELEGATIONS).respond(json=[delegation()])
    assert (await server.post(with_consent())).status_code == 200
    element = {"type": "urn:altinn:consent", "id": poison, "from": PERSON}
    for _ in range(6):
        grant = assertion("vendor", scope="skatt:open", authorization_details=[element])
        assert (await server.post(grant)).status_code == 503
    assert line.circuit.is_open
    assert (await server.post(delegated())).status_code == 200
    now[0] += 2
    assert line._mending is not None
    await asyncio.wait_for(line._mending, 30)
    assert not altinn.away


@respx.mock
async def test_questions_that_are_wrong_do_not_open_the_circuit(start: Starter) -> None:
    """One caller cannot take Altinn away from the others."""
    server = await start(**LINE)
    respx.get(DELEGATIONS).respond(400, json={})

    for _ in range(12):
        assert (await server.post(delegated())).status_code == 503
    assert metric(server, "unusable") == 12
    assert not server.services.altinn.away  # type: ignore[union-attr]


@respx.mock
async def test_429_is_obeyed(start: Starter) -> None:
    """Told to stay away, we do, at once; and tell the caller."""
    server = await start(**LINE)
    route = respx.get(DELEGATIONS).respond(429, headers={"retry-after": "20"})

    for _ in range(3):
        answer = await server.post(delegated())
        assert (answer.status_code, 19 <= int(answer.headers["retry-after"]) <= 21) == (503, True)
    assert route.call_count == 1


@pytest.mark.parametrize(("grace", "status"), [(0, 503), (600, 200)])
@respx.mock
async def test_grace_is_the_operators_choice(start: Starter, grace: float, status: int) -> None:
    """Off by default; on, a delegation of moments ago holds while Altinn does not answer."""
    server = await start(**LINE, altinn_grace=grace)
    altinn = server.services.altinn
    assert altinn is not None
    route = respx.get(DELEGATIONS).respond(json=[delegation()])
    await server.post(delegated())
    altinn._positive.clear()  # as after MASKINPORTEN_ALTINN_REMEMBER seconds
    route.respond(500)

    assert (await server.post(delegated())).status_code == status
    if grace:
        assert audited(server)["confirmations"][0]["how"] == "grace"
        assert server.services.metrics.value("maskinporten_altinn_grace_total") == 1
    # What Altinn takes back is gone, grace or not.
    route.respond(json=[])
    assert (await server.post(delegated())).status_code == 403
    altinn._negative.clear()
    route.respond(500)
    assert (await server.post(delegated())).status_code == 503


@respx.mock
async def test_places_for_those_who_wait_are_bounded(start: Starter) -> None:
    """One more than may wait is told at once, and everyone else is served meanwhile."""
    server = await start(**LINE, altinn_waiting=2)
    asked, open_now = asyncio.Event(), asyncio.Event()

    async def answer(_request: httpx.Request) -> httpx.Response:
        asked.set()
        await open_now.wait()
        return httpx.Response(200, json=[delegation()])

    respx.get(DELEGATIONS).mock(side_effect=answer)
    waiting = [asyncio.create_task(server.post(delegated())) for _ in range(2)]
    await asked.wait()
    await _settle()
    refused = await server.post(delegated())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert (await server.post(assertion())).status_code == 200
    open_now.set()
    assert {(await each).status_code for each in waiting} == {200}


async def _change(server: Server, **sections: Any) -> None:
    declared = {**document(), **sections}
    await administer(
        server.services.store,
        server.services.replica,
        lambda current: plan(declared, current, NOW),
        {"kind": "operator"},
        "test",
        NOW,
    )


async def _disable(server: Server) -> None:
    clients = document()["clients"]
    await _change(server, clients=[{**c, "active": c["client_id"] != "vendor"} for c in clients])


async def _withdraw(server: Server) -> None:
    accesses = [{**access, "state": "DENIED"} for access in document()["accesses"]]
    await _change(server, accesses=accesses)


async def _remove_key(server: Server) -> None:
    clients = document()["clients"]
    other = {"keys": [jwk("another")]}
    await _change(
        server,
        clients=[{**c, "jwks": other} if c["client_id"] == "vendor" else c for c in clients],
    )


async def _let_it_expire(server: Server) -> None:
    server.clock.now += 60


MEANWHILE = [
    pytest.param(DELEGATED, _disable, Reason.CLIENT_UNKNOWN, id="the client is shut out"),
    pytest.param(DELEGATED, _remove_key, Reason.KEY_ID_UNKNOWN, id="its key is removed"),
    pytest.param(DELEGATED, _withdraw, Reason.SCOPE_NOT_GRANTED, id="the access is withdrawn"),
    pytest.param(DELEGATED, _let_it_expire, Reason.GRANT_EXPIRED, id="the grant expires"),
    pytest.param(CONSENTED, _disable, Reason.CLIENT_UNKNOWN, id="shut out, asking for a consent"),
    pytest.param(CONSENTED, _let_it_expire, Reason.GRANT_EXPIRED, id="expires, with a consent"),
]


@respx.mock
@pytest.mark.parametrize(("ask", "happen", "reason"), MEANWHILE)
async def test_what_happens_while_altinn_thinks_counts(
    start: Starter,
    ask: Callable[[], str],
    happen: Callable[[Server], Coroutine[Any, Any, None]],
    reason: Reason,
) -> None:
    """Attack 29: a slow answer is no way around a decision that was made meanwhile."""
    server = await start(**LINE)

    async def answer(request: httpx.Request) -> httpx.Response:
        await happen(server)
        body = [delegation()] if request.method == "GET" else consent(validTo="2030-01-01T00:00Z")
        return httpx.Response(200, json=body)

    respx.route(host="platform.altinn.test").mock(side_effect=answer)

    refused = await server.post(ask())
    assert refused.json()["error"] == reason.error
    assert audited(server)["reason"] == reason.name


@respx.mock
async def test_a_consent_that_ends_while_altinn_thinks(start: Starter) -> None:
    """It is weighed at the second the token would be signed."""
    server = await start(**LINE)

    async def answer(_request: httpx.Request) -> httpx.Response:
        server.clock.now += 3
        return httpx.Response(200, json=consent(validTo="2027-01-15T08:00:02Z"))

    respx.post(CONSENT).mock(side_effect=answer)
    assert (await server.post(with_consent())).json()["error_uri"].endswith("MP-303")


def test_own_tokens_are_signed_by_the_key_that_signs_now() -> None:
    """After a rotation, or an emergency, no token of the key before is shown."""
    keys = iter([LocalKey("a", private_key("a")), *[LocalKey("b", private_key("b"))] * 2])
    told: list[Any] = []
    own = OwnTokens(
        ISSUER, OrgNo(OPERATOR), lambda: next(keys), lambda: "j", lambda: NOW, told.append
    )
    kids = [
        jwt.get_unverified_header(own.bearer("x:y").removeprefix("Bearer "))["kid"]
        for _ in range(3)
    ]

    assert kids == ["a", "b", "b"]
    assert len(told) == 2


@respx.mock
async def test_a_token_is_of_the_second_it_is_signed(start: Starter) -> None:
    """Time that Altinn took is not taken from the token's life."""
    server = await start(**LINE)

    async def answer(_request: httpx.Request) -> httpx.Response:
        server.clock.now += 3
        return httpx.Response(200, json=[delegation()])

    respx.get(DELEGATIONS).mock(side_effect=answer)
    claims = claims_of(await server.post(delegated()))
    assert (claims["iat"], claims["exp"]) == (NOW + 3, NOW + 123)


@respx.mock
async def test_a_body_that_does_not_end(start: Starter) -> None:
    """The deadline is for the whole answer, not for its beginning."""
    server = await start(**LINE, altinn_deadline=0.3)

    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    headers = {"content-type": "application/json"}
    respx.get(DELEGATIONS).mock(
        side_effect=lambda _: httpx.Response(200, content=drip(), headers=headers)
    )

    assert (await server.post(delegated())).status_code == 503
    assert metric(server, "timeout") == 1


FAULTS = [
    pytest.param({"altinn": "https://a/"}, "ALTINN", "pairs", id="no pair"),
    pytest.param({"altinn": "https://a/=https://b"}, "ALTINN", "slashes", id="no final slash"),
    pytest.param({"altinn": "https://a=https://b/"}, "ALTINN", "slashes", id="source, no slash"),
    pytest.param({"altinn": "https://a/=http://b/"}, "ALTINN", "https", id="http"),
    pytest.param({"altinn": "https://a/=ftp://b/"}, "ALTINN", "https", id="ftp"),
    pytest.param({"altinn": "https://a/=https://b/?x=/"}, "ALTINN", "alone", id="a query"),
    pytest.param({"altinn": "https://a/=https://u@b/"}, "ALTINN", "alone", id="a user"),
    pytest.param({"altinn": ""}, "ALTINN", "beside", id="an organisation alone"),
    pytest.param({"altinn_orgno": ""}, "ALTINN_ORGNO", "nine digits", id="no organisation"),
    pytest.param({"altinn_orgno": "991825828"}, "ALTINN_ORGNO", "nine digits", id="check digit"),
    pytest.param({"altinn_deadline": 0.0}, "ALTINN_DEADLINE", "0.1 to 30", id="no time"),
    pytest.param({"altinn_deadline": float("nan")}, "ALTINN_DEADLINE", "0.1 to 30", id="NaN"),
    pytest.param({"altinn_calls": 0}, "ALTINN_CALLS", "1 to", id="no calls"),
    pytest.param({"altinn_waiting": 64}, "ALTINN_WAITING", "1 to 63", id="all places taken"),
    pytest.param({"altinn_remember": 601.0}, "ALTINN_REMEMBER", "0 to 600", id="too long"),
    pytest.param({"altinn_remember_no": -1.0}, "ALTINN_REMEMBER_NO", "0 to", id="negative"),
    pytest.param({"altinn_grace": 86_401.0}, "ALTINN_GRACE", "86400", id="a day and more"),
]


@pytest.mark.parametrize(("wrong", "name", "words"), FAULTS)
def test_a_wrong_setting_is_a_sentence(
    tmp_path: Any, wrong: dict[str, Any], name: str, words: str
) -> None:
    """Before anything is served."""
    with pytest.raises(InvalidInput) as invalid:
        altinn_policy(settings(tmp_path, **{**LINE, **wrong}))
    (fault,) = invalid.value.faults
    assert fault.path == f"MASKINPORTEN_{name}"
    assert words in fault.sentence
