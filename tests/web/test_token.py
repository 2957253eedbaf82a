"""POST /token from the outside: what is answered, and what is refused with which words."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import jwt
import pytest
from starlette.types import Message

from maskinporten.domain.client import JWT_BEARER
from maskinporten.errors import Reason, Refused
from maskinporten.web.token import CallerLeft, read_form
from tests.conftest import Starter
from tests.world import (
    ABSENT,
    CONSUMER,
    ISSUER,
    NOW,
    SUPPLIER,
    Server,
    assertion,
    form,
    jwk,
    private_key,
    segment,
    sign,
)

TRACE = re.compile(r" \(trace_id: [0-9a-f]{32}\)$")
SPENT = "a grant that was spent"


def claims_of(response: httpx.Response) -> dict[str, Any]:
    """The claims of the token in the answer, unverified."""
    token = response.json()["access_token"]
    decoded: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return decoded


async def refused(server: Server, grant: str, reason: Reason) -> dict[str, Any]:
    """The body of the refusal, once status, shape, header and metric are those of `reason`."""
    label = f'reason="{reason.name}"'
    before = server.services.metrics.value("maskinporten_tokens_refused_total", label)
    response = await server.post(grant)
    body: dict[str, Any] = response.json()
    after = server.services.metrics.value("maskinporten_tokens_refused_total", label)
    assert response.status_code == reason.status, body
    assert body["error"] == reason.error, body
    assert after - before == 1
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert TRACE.search(body["error_description"])
    stem = reason.description.split("{}", maxsplit=1)[0]
    assert body["error_description"].startswith(stem)
    uri = {"error_uri": f"{ISSUER}errors/{reason.ref}"} if reason.ref else {}
    assert {name: body[name] for name in body if name == "error_uri"} == uri
    assert body.keys() == {"error", "error_description", *uri}
    return body


async def test_a_registered_client_gets_a_token_an_api_can_trust(server: Server) -> None:
    """The main job: members, header, claims, their order, and a signature that holds."""
    response = await server.post(assertion())

    assert response.status_code == 200
    assert list(response.json()) == ["access_token", "token_type", "expires_in", "scope"]
    assert response.json()["token_type"] == "Bearer"
    assert response.json()["expires_in"] == 119
    assert response.json()["scope"] == "skatt:inntekt.read"
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    key_set = (await server.http.get("/jwk")).json()
    token = response.json()["access_token"]
    header_text = jwt.utils.base64url_decode(token.split(".")[0])
    assert header_text.decode() == f'{{"kid":"{key_set["keys"][0]["kid"]}","alg":"RS256"}}'
    key = jwt.PyJWK(key_set["keys"][0])
    claims = jwt.decode(
        token, key, ["RS256"], issuer=ISSUER, options={"verify_exp": False, "verify_iat": False}
    )
    assert list(claims) == [
        "scope", "iss", "client_amr", "token_type", "exp", "iat", "client_id", "jti", "consumer",
    ]  # fmt: skip
    assert claims["consumer"] == {"authority": "iso6523-actorid-upis", "ID": f"0192:{CONSUMER}"}
    assert (claims["iat"], claims["exp"]) == (NOW, NOW + 120)
    assert claims["client_amr"] == "private_key_jwt"
    assert claims["client_id"] == "consumer"
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", claims["jti"])
    payload = jwt.utils.base64url_decode(token.split(".")[1]).decode()
    assert payload == json.dumps(claims, separators=(",", ":"))


TOLERATED = [
    pytest.param({"aud": [ISSUER]}, id="aud as an array of one"),
    pytest.param({"nbf": NOW}, id="nbf"),
    pytest.param({"nbf": NOW + 10}, id="nbf 10 s ahead"),
    pytest.param({"sub": "consumer"}, id="sub"),
    pytest.param({"jti": ABSENT}, id="no jti"),
    pytest.param({"jti": "not a uuid"}, id="a jti that is not a UUID"),
    pytest.param({"scope": "skatt:inntekt.read skatt:inntekt.read"}, id="a scope twice"),
    pytest.param({"iat": NOW + 10, "exp": NOW + 130}, id="iat 10 s ahead, exp 120 s after"),
    pytest.param({"iat": NOW - 10}, id="iat 10 s back, as Go's oauth2 does"),
    pytest.param({"iat": NOW - 119, "exp": NOW + 1}, id="old iat, alive by its own exp"),
    pytest.param({"iat": NOW - 0.5, "exp": NOW + 0.7}, id="fractional times"),
    pytest.param({"unheard_of": 1}, id="an undocumented claim"),
    pytest.param({"header": {"typ": "JWT"}}, id="typ JWT"),
    pytest.param({"header": {"x5t": "abc", "x5t#S256": "def"}}, id="x5t beside kid"),
    pytest.param({"header": {"x5c": ["ignored beside a registered kid"]}}, id="x5c beside kid"),
    pytest.param({"pid": None, "resource": None, "consumer_org": None}, id="nulls"),
]


@pytest.mark.parametrize("right", TOLERATED)
async def test_serves(server: Server, right: dict[str, Any]) -> None:
    """What real clients send is served, though the documentation says less."""
    response = await server.post(assertion(**right))

    assert response.status_code == 200, response.text


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512"])
async def test_serves_each_documented_algorithm(start: Starter, algorithm: str) -> None:
    """A key registered for an algorithm is used with that one."""
    clients = [
        {
            "client_id": "consumer",
            "client_orgno": CONSUMER,
            "scopes": ["skatt:open"],
            "jwks": {"keys": [jwk("consumer", alg=algorithm)]},
        }
    ]
    server = await start(sections={"clients": clients})

    response = await server.post(assertion(scope="skatt:open", header={"alg": algorithm}))

    assert response.status_code == 200, response.text


REFUSED = [
    pytest.param({"iss": "nobody"}, Reason.CLIENT_UNKNOWN, id="iss is not a client"),
    pytest.param({"iss": "retired"}, Reason.CLIENT_UNKNOWN, id="the client is inactive"),
    pytest.param({"iss": ABSENT}, Reason.CLAIM_INVALID, id="no iss"),
    pytest.param({"iss": 7}, Reason.CLAIM_INVALID, id="iss is a number"),
    pytest.param({"signed_by": "thief"}, Reason.SIGNATURE_INVALID, id="signed by another key"),
    pytest.param({"header": {"kid": "other"}}, Reason.KEY_ID_UNKNOWN, id="unknown kid"),
    pytest.param({"header": {"kid": "../../etc/passwd\0"}}, Reason.KEY_ID_UNKNOWN, id="kid path"),
    pytest.param({"header": {"kid": ABSENT}}, Reason.KEY_ID_MISSING, id="no kid, keys there"),
    pytest.param({"header": {"kid": 1}}, Reason.HEADER_REFUSED, id="kid is a number"),
    pytest.param({"header": {"alg": "none"}}, Reason.ALGORITHM_REFUSED, id="alg none"),
    pytest.param({"header": {"alg": "NONE"}}, Reason.ALGORITHM_REFUSED, id="alg NONE"),
    pytest.param({"header": {"alg": "HS256"}}, Reason.ALGORITHM_REFUSED, id="RS to HS confusion"),
    pytest.param({"header": {"alg": "rs256"}}, Reason.ALGORITHM_REFUSED, id="alg in lower case"),
    pytest.param({"header": {"alg": "PS256"}}, Reason.ALGORITHM_REFUSED, id="alg PS256"),
    pytest.param({"header": {"alg": ABSENT}}, Reason.ALGORITHM_REFUSED, id="no alg"),
    pytest.param({"header": {"alg": "RS512"}}, Reason.SIGNATURE_INVALID, id="not the key's alg"),
    pytest.param({"header": {"jwk": {}}}, Reason.HEADER_REFUSED, id="an embedded jwk"),
    pytest.param({"header": {"jku": "https://x"}}, Reason.HEADER_REFUSED, id="jku"),
    pytest.param({"header": {"x5u": "https://x"}}, Reason.HEADER_REFUSED, id="x5u"),
    pytest.param({"header": {"crit": ["b64"]}}, Reason.HEADER_REFUSED, id="crit"),
    pytest.param({"header": {"b64": False}}, Reason.HEADER_REFUSED, id="b64 false"),
    pytest.param({"header": {"zip": "DEF"}}, Reason.HEADER_REFUSED, id="zip"),
    pytest.param({"header": {"typ": "at+jwt"}}, Reason.HEADER_REFUSED, id="an access token"),
    pytest.param({"header": {"typ": "dpop+jwt"}}, Reason.HEADER_REFUSED, id="a DPoP proof"),
    pytest.param({"header": {"typ": 1}}, Reason.HEADER_REFUSED, id="typ is a number"),
    pytest.param({"aud": ABSENT}, Reason.AUDIENCE_INVALID, id="no aud"),
    pytest.param({"aud": ISSUER[:-1]}, Reason.AUDIENCE_INVALID, id="aud without the slash"),
    pytest.param({"aud": ISSUER + "token"}, Reason.AUDIENCE_INVALID, id="aud is the endpoint"),
    pytest.param({"aud": [ISSUER, "x"]}, Reason.AUDIENCE_INVALID, id="aud is us and another"),
    pytest.param({"aud": [ISSUER, ISSUER]}, Reason.AUDIENCE_INVALID, id="aud is us twice"),
    pytest.param({"aud": []}, Reason.AUDIENCE_INVALID, id="aud is empty"),
    pytest.param({"aud": [[ISSUER]]}, Reason.AUDIENCE_INVALID, id="aud nested"),
    pytest.param({"aud": ISSUER.upper()}, Reason.AUDIENCE_INVALID, id="aud in capitals"),
    pytest.param({"exp": NOW}, Reason.GRANT_EXPIRED, id="exp is this second"),
    pytest.param({"exp": NOW - 1}, Reason.GRANT_EXPIRED, id="exp was a second ago"),
    pytest.param({"exp": ABSENT}, Reason.CLAIM_INVALID, id="no exp"),
    pytest.param({"exp": str(NOW + 60)}, Reason.CLAIM_INVALID, id="exp is a string"),
    pytest.param({"exp": True}, Reason.CLAIM_INVALID, id="exp is true"),
    pytest.param({"exp": -1}, Reason.CLAIM_INVALID, id="exp is negative"),
    pytest.param({"iat": ABSENT}, Reason.CLAIM_INVALID, id="no iat"),
    pytest.param({"iat": NOW + 11}, Reason.ISSUED_AHEAD, id="iat 11 s ahead"),
    pytest.param({"iat": NOW + 10.5}, Reason.ISSUED_AHEAD, id="iat 10.5 s ahead"),
    pytest.param({"exp": NOW + 121}, Reason.GRANT_TOO_LONG, id="lives 121 s"),
    pytest.param({"exp": NOW + 120.5}, Reason.GRANT_TOO_LONG, id="lives 120.5 s"),
    pytest.param({"nbf": NOW + 11}, Reason.NOT_YET_VALID, id="nbf 11 s ahead"),
    pytest.param({"nbf": "now"}, Reason.CLAIM_INVALID, id="nbf is a word"),
    pytest.param({"sub": 1}, Reason.CLAIM_INVALID, id="sub is a number"),
    pytest.param({"jti": 1}, Reason.CLAIM_INVALID, id="jti is a number"),
    pytest.param({"jti": "x" * 1025}, Reason.CLAIM_INVALID, id="jti of 1025 characters"),
    pytest.param({"scope": ABSENT}, Reason.CLAIM_INVALID, id="no scope"),
    pytest.param({"scope": ["skatt:open"]}, Reason.CLAIM_INVALID, id="scope is an array"),
    pytest.param({"scope": ""}, Reason.SCOPE_MALFORMED, id="scope is empty"),
    pytest.param({"scope": "skatt:open\tx"}, Reason.SCOPE_MALFORMED, id="a tab in scope"),
    pytest.param({"scope": "skatt:open\u00a0x"}, Reason.SCOPE_MALFORMED, id="NBSP in scope"),
    pytest.param({"scope": 'skatt:"'}, Reason.SCOPE_MALFORMED, id="a quote in scope"),
    pytest.param({"scope": " ".join(map(str, range(201)))}, Reason.SCOPE_MALFORMED, id="201"),
    pytest.param({"scope": "skatt:inntekt"}, Reason.SCOPE_NOT_ON_CLIENT, id="a scope's prefix"),
    pytest.param({"scope": "SKATT:open"}, Reason.SCOPE_NOT_ON_CLIENT, id="case game"),
    pytest.param({"scope": "skatt:hemmelig"}, Reason.SCOPE_NOT_ON_CLIENT, id="not on the client"),
    pytest.param({"resource": "https://a/#b"}, Reason.TARGET_INVALID, id="a fragment"),
    pytest.param({"resource": "api"}, Reason.TARGET_INVALID, id="a relative resource"),
    pytest.param({"resource": 7}, Reason.TARGET_INVALID, id="resource is a number"),
    pytest.param({"resource": ["https://a", 7]}, Reason.TARGET_INVALID, id="one of them is"),
    pytest.param({"pid": "12345678901"}, Reason.CLAIM_INVALID, id="pid without check digits"),
    pytest.param({"pid": 1}, Reason.CLAIM_INVALID, id="pid is a number"),
    pytest.param({"consumer_org": 991825827}, Reason.CLAIM_INVALID, id="consumer_org as number"),
    pytest.param({"consumer_org": "991825828"}, Reason.CLAIM_INVALID, id="consumer_org, check"),
    pytest.param({"consumer_org": CONSUMER}, Reason.CONSUMER_IS_CLIENT, id="own organisation"),
    pytest.param({"iss_onbehalfof": "x"}, Reason.ON_BEHALF_OF_INVALID, id="unknown onbehalfof"),
    pytest.param(
        {"client_id": "vendor", "scope": "skatt:delegert"}, Reason.SCOPE_NOT_GRANTED, id="no access"
    ),
    pytest.param(
        {"client_id": "vendor", "scope": "skatt:delegert", "consumer_org": CONSUMER},
        Reason.SCOPE_NOT_DELEGATED,
        id="not delegated",
    ),
    pytest.param(
        {"client_id": "vendor", "scope": "skatt:open", "consumer_org": CONSUMER},
        Reason.SCOPE_NOT_DELEGATED,
        id="not delegable",
    ),
    pytest.param(
        {"client_id": "keyless", "scope": "skatt:open", "header": {"kid": "x"}},
        Reason.KEY_ID_UNKNOWN,
        id="kid without registered keys",
    ),
    pytest.param(
        {"client_id": "keyless", "scope": "skatt:open", "header": {"kid": ABSENT}},
        Reason.SIGNER_MISSING,
        id="neither kid nor keys",
    ),
    pytest.param({"authorization_details": {}}, Reason.DETAILS_MALFORMED, id="details, an object"),
    pytest.param({"authorization_details": [1]}, Reason.DETAILS_MALFORMED, id="details of numbers"),
    pytest.param(
        {"authorization_details": [{"type": "x"}]}, Reason.DETAILS_TYPE_UNKNOWN, id="unknown type"
    ),
    pytest.param(
        {"scope": "skatt:inntekt.read skatt:hemmelig"},
        Reason.SCOPE_NOT_ON_CLIENT,
        id="all or nothing",
    ),
]


@pytest.mark.parametrize(("wrong", "reason"), REFUSED)
async def test_refuses(server: Server, wrong: dict[str, Any], reason: Reason) -> None:
    """One thing wrong at a time; the caller hears the reason and nothing else."""
    if "iss" in wrong:
        wrong = {"signed_by": "consumer", "header": {"kid": "consumer"}, **wrong}
    await refused(server, assertion(**wrong), reason)


RIGHT_CLAIMS = {
    "aud": ISSUER, "iss": "consumer", "scope": "skatt:open", "iat": NOW, "exp": NOW + 60,
}  # fmt: skip
RIGHT_HEADER = {"alg": "RS256", "kid": "consumer"}
DUPLICATE = json.dumps(RIGHT_CLAIMS)[:-1].encode() + b',"iss":"vendor"}'
MALFORMED = [
    pytest.param("", id="nothing but spaces"),
    pytest.param("a.b", id="one dot"),
    pytest.param("a.b.c.d", id="three dots"),
    pytest.param("a.b.c.d.e", id="a JWE"),
    pytest.param("." * 60_000, id="sixty thousand dots"),
    pytest.param("a" * 65_000, id="one long word"),
    pytest.param(assertion() + "=", id="padding"),
    pytest.param(assertion() + "\n", id="a line break"),
    pytest.param(" " + assertion(), id="a leading space"),
    pytest.param(assertion().replace(".", ". "), id="spaces inside"),
    pytest.param(assertion().replace(".", ".æ"), id="not ASCII"),
    pytest.param(sign(RIGHT_HEADER, DUPLICATE, private_key("consumer")), id="a claim twice"),
    pytest.param(
        sign(b'{"alg":"none","alg":"RS256"}', RIGHT_CLAIMS, private_key("consumer")),
        id="alg twice",
    ),
    pytest.param(
        sign(RIGHT_HEADER, b"\xef\xbb\xbf" + json.dumps(RIGHT_CLAIMS).encode(), private_key("x")),
        id="a byte order mark",
    ),
    pytest.param(
        sign(RIGHT_HEADER, json.dumps(RIGHT_CLAIMS).encode("utf-16"), private_key("x")),
        id="UTF-16",
    ),
    pytest.param(sign(RIGHT_HEADER, b'{"iss":"\\ud800"}', private_key("x")), id="lone surrogate"),
    pytest.param(sign(RIGHT_HEADER, b'{"exp":NaN}', private_key("x")), id="NaN"),
    pytest.param(sign(RIGHT_HEADER, b'{"exp":1e400}', private_key("x")), id="1e400"),
    pytest.param(
        sign(RIGHT_HEADER, b'{"exp":' + b"9" * 40_000 + b"}", private_key("x")),
        id="an integer of 40,000 digits",
    ),
    pytest.param(
        sign(RIGHT_HEADER, b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", private_key("x")),
        id="20,000 levels",
    ),
    pytest.param(sign(RIGHT_HEADER, {"a": [[[[[[[[1]]]]]]]]}, private_key("x")), id="9 levels"),
    pytest.param(sign(RIGHT_HEADER, b"[]", private_key("x")), id="claims are an array"),
    pytest.param(sign([], RIGHT_CLAIMS, private_key("x")), id="the header is an array"),
    pytest.param("e30." + segment(RIGHT_CLAIMS).decode() + "." + "A" * 341 + "B", id="stray bits"),
]


@pytest.mark.parametrize("grant", MALFORMED)
async def test_refuses_what_is_not_one_clear_jwt(server: Server, grant: str) -> None:
    """Whatever has no single meaning is malformed (attacks 6 to 9)."""
    await refused(server, grant or "   ", Reason.ASSERTION_MALFORMED)


async def test_replay_finds_the_grant_spent(server: Server) -> None:
    """A grant is used once; the second caller hears MP-012."""
    grant = assertion()
    assert (await server.post(grant)).status_code == 200

    await refused(server, grant, Reason.GRANT_SPENT)


async def test_replay_without_jti_finds_the_grant_spent(server: Server) -> None:
    """Without a jti the decoded content names the grant."""
    grant = assertion(jti=ABSENT)
    assert (await server.post(grant)).status_code == 200

    await refused(server, grant, Reason.GRANT_SPENT)


async def test_replay_of_a_jti_under_other_claims_is_refused(server: Server) -> None:
    """The same jti names the same grant, whatever else has changed."""
    assert (await server.post(assertion(jti="once"))).status_code == 200

    await refused(server, assertion(jti="once", exp=NOW + 90), Reason.GRANT_SPENT)


async def test_nobody_burns_another_clients_jti(server: Server) -> None:
    """Spent grants are named by client (attack 15)."""
    assert (await server.post(assertion(jti="same"))).status_code == 200

    other = await server.post(assertion("vendor", jti="same", scope="skatt:open"))

    assert other.status_code == 200


async def test_a_bad_signature_burns_nothing(server: Server) -> None:
    """The grant is spent last, when nothing else can refuse it (attack 15)."""
    await refused(server, assertion(jti="mine", signed_by="thief"), Reason.SIGNATURE_INVALID)
    await refused(server, assertion(jti="mine", scope="skatt:x"), Reason.SCOPE_NOT_ON_CLIENT)

    assert (await server.post(assertion(jti="mine"))).status_code == 200


async def test_a_race_for_one_grant_has_one_winner(start: Starter) -> None:
    """Two servers on one database, forty copies at once, one token (attack 14)."""
    servers = [await start(), await start()]
    grant = assertion()

    answers = await asyncio.gather(*(servers[n % 2].post(grant) for n in range(40)))

    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 39


async def test_a_race_on_postgresql_has_one_winner(start: Starter, postgres_url: str) -> None:
    """Two nodes, one cluster's database: the same promise (attack 14)."""
    servers = [await start(database_url=postgres_url) for _ in range(2)]
    grant = assertion()

    answers = await asyncio.gather(*(servers[n % 2].post(grant) for n in range(40)))

    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 39


async def test_a_grant_stays_spent_after_a_restart(start: Starter) -> None:
    """What was spent stands in the database, not in memory."""
    grant = assertion()
    assert (await (await start()).post(grant)).status_code == 200

    await refused(await start(), grant, Reason.GRANT_SPENT)


async def test_unknown_claims_are_refused_under_the_strict_setting(start: Starter) -> None:
    """The documentation's word, for those who want it; documented claims still pass."""
    server = await start(unknown_claims="refuse")

    await refused(server, assertion(unheard_of=1), Reason.CLAIM_UNKNOWN)
    assert (await server.post(assertion(nbf=NOW, sub="consumer"))).status_code == 200


RESOURCES = [
    pytest.param("https://api.example/v1", "https://api.example/v1", id="a string"),
    pytest.param(["https://api.example/"], "https://api.example/", id="an array of one"),
    pytest.param(["urn:a:b", "urn:c:d"], ["urn:a:b", "urn:c:d"], id="an array of two"),
    pytest.param("https://a/%23b", "https://a/%23b", id="an escaped number sign"),
]


@pytest.mark.parametrize(("resource", "audience"), RESOURCES)
async def test_resource_becomes_aud(server: Server, resource: Any, audience: Any) -> None:
    """RFC 8707: one resource is a string in the token, several are an array."""
    claims = claims_of(await server.post(assertion(resource=resource)))

    assert claims["aud"] == audience
    assert next(iter(claims)) == "aud"


async def test_pid_is_carried_over(server: Server) -> None:
    """A well-formed national identity number stands in the token."""
    assert claims_of(await server.post(assertion(pid="25922947409")))["pid"] == "25922947409"


LIFETIMES = [
    pytest.param("consumer", "skatt:inntekt.read", 120, id="the default"),
    pytest.param(
        "consumer", "skatt:inntekt.write", 600, id="the scope's, longer than the client's"
    ),
    pytest.param("consumer", "skatt:kort", 30, id="the scope's, shorter"),
    pytest.param("consumer", "skatt:inntekt.write skatt:kort", 30, id="the lowest of the scopes"),
    pytest.param("consumer", "skatt:inntekt.read skatt:kort", 30, id="one scope has none"),
    pytest.param("slow", "skatt:inntekt.read", 7200, id="the client's"),
]


@pytest.mark.parametrize(("client_id", "scope", "lifetime"), LIFETIMES)
async def test_lifetime(server: Server, client_id: str, scope: str, lifetime: int) -> None:
    """A scope's at_max_age overrides the client's lifetime, as is observed."""
    response = await server.post(assertion(client_id, scope=scope))
    claims = claims_of(response)

    assert claims["exp"] - claims["iat"] == lifetime
    assert response.json()["expires_in"] == lifetime - 1


async def test_lifetime_can_be_capped_instead(start: Starter) -> None:
    """The other reading of at_max_age: it shortens, and never lengthens."""
    server = await start(lifetime_rule="cap")

    long = claims_of(await server.post(assertion(scope="skatt:inntekt.write")))
    short = claims_of(await server.post(assertion(scope="skatt:kort")))

    assert (long["exp"] - long["iat"], short["exp"] - short["iat"]) == (120, 30)


async def test_a_client_of_two_organisations_names_the_supplier(start: Starter) -> None:
    """A client that a supplier keeps for its customer: both stand in the token."""
    clients = [
        {
            "client_id": "kept",
            "client_orgno": CONSUMER,
            "supplier_orgno": SUPPLIER,
            "scopes": ["skatt:open"],
            "jwks": {"keys": [jwk("kept")]},
        }
    ]
    server = await start(sections={"clients": clients})

    claims = claims_of(await server.post(assertion("kept", scope="skatt:open")))

    assert claims["supplier"]["ID"] == f"0192:{SUPPLIER}"
    assert list(claims)[:3] == ["scope", "supplier", "iss"]


GRANT_TYPE = f"grant_type={JWT_BEARER}"
FORM = "application/x-www-form-urlencoded"
TRANSPORTS = [
    pytest.param("POST", "", f"grant_type={quote(JWT_BEARER, safe='')}&assertion=%s", FORM, id="1"),
    pytest.param("POST", "", f"{GRANT_TYPE}&assertion=%s", FORM, id="unencoded colons"),
    pytest.param("POST", "", f"{GRANT_TYPE}&assertion=%s", f"{FORM};charset=UTF-8", id="charset"),
    pytest.param("POST", "", f"{GRANT_TYPE}&assertion=%s&x=1&y=", FORM, id="extra parameters"),
    pytest.param("POST", f"?{GRANT_TYPE}&assertion=%s", "", None, id="all in the query"),
    pytest.param("POST", f"?{GRANT_TYPE}&assertion=%s", "", FORM, id="query, with the type"),
    pytest.param("POST", f"?{GRANT_TYPE}&assertion=%s", "", "application/json", id="query, JSON"),
]


@pytest.mark.parametrize(("method", "query", "body", "kind"), TRANSPORTS)
async def test_transport(
    server: Server, method: str, query: str, body: str, kind: str | None
) -> None:
    """The ways in which real clients carry the same request."""
    grant = assertion()
    response = await server.http.request(
        method,
        "/token" + query.replace("%s", grant),
        content=body.replace("%s", grant),
        headers={"content-type": kind} if kind else {},
    )

    assert response.status_code == 200, response.text


def request(content: bytes | str, kind: str | None = FORM, query: str = "") -> dict[str, Any]:
    """Arguments of a POST that is about to be refused."""
    headers = {"content-type": kind} if kind else {}
    return {"method": "POST", "url": f"/token{query}", "content": content, "headers": headers}


GOOD = urlencode(form(assertion()))
BAD_REQUESTS = [
    pytest.param(request(""), Reason.GRANT_TYPE_MISSING, id="nothing"),
    pytest.param(request("grant_type="), Reason.GRANT_TYPE_MISSING, id="an empty grant_type"),
    pytest.param(request("assertion=x"), Reason.GRANT_TYPE_MISSING, id="no grant_type"),
    pytest.param(request(GRANT_TYPE), Reason.ASSERTION_MISSING, id="no assertion"),
    pytest.param(
        request("grant_type=client_credentials"), Reason.GRANT_TYPE_UNSUPPORTED, id="another grant"
    ),
    pytest.param(request(GOOD + "&assertion=x"), Reason.REQUEST_MALFORMED, id="assertion twice"),
    pytest.param(request(GOOD + "&x=1&x=2"), Reason.REQUEST_MALFORMED, id="any name twice"),
    pytest.param(
        request(GOOD, query="?assertion=x"), Reason.REQUEST_MALFORMED, id="query and body"
    ),
    pytest.param(request(GOOD, "application/json"), Reason.REQUEST_MALFORMED, id="JSON"),
    pytest.param(request(GOOD, None), Reason.REQUEST_MALFORMED, id="no content type"),
    pytest.param(request(GOOD, "multipart/form-data"), Reason.REQUEST_MALFORMED, id="multipart"),
    pytest.param(request(GOOD, FORM + ";charset=utf-16"), Reason.REQUEST_MALFORMED, id="utf-16"),
    pytest.param(request(GOOD + "&%FF=1"), Reason.REQUEST_MALFORMED, id="not UTF-8"),
    pytest.param(request(b"\xff"), Reason.REQUEST_MALFORMED, id="raw octets"),
    pytest.param(request("a" * 65_537), Reason.REQUEST_MALFORMED, id="64 KiB and one"),
    pytest.param(request("&" * 65_000), Reason.REQUEST_MALFORMED, id="65,001 parameters"),
    pytest.param(
        request("&".join(f"p{n}=1" for n in range(65))), Reason.REQUEST_MALFORMED, id="65 names"
    ),
    pytest.param({"method": "GET", "url": "/token"}, Reason.METHOD_NOT_ALLOWED, id="GET"),
    pytest.param({"method": "PUT", "url": "/token"}, Reason.METHOD_NOT_ALLOWED, id="PUT"),
    pytest.param({"method": "GET", "url": "/tokens"}, Reason.NOT_FOUND, id="another path"),
]


@pytest.mark.parametrize(("wrong", "reason"), BAD_REQUESTS)
async def test_bad_requests(server: Server, wrong: dict[str, Any], reason: Reason) -> None:
    """What is not a token request is told so in the shape of RFC 6749 (attack 25)."""
    response = await server.http.request(**wrong)

    assert (response.status_code, response.json()["error"]) == (reason.status, reason.error)
    assert TRACE.search(response.json()["error_description"])
    if reason is Reason.METHOD_NOT_ALLOWED:
        assert response.headers["allow"] == "POST"


async def test_a_query_beyond_64_kib_is_refused() -> None:
    """Our own limit, whatever the server in front of us lets through."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    at_most = {"method": "POST", "query_string": b"a" * 65_536, "headers": []}
    assert len(await read_form(at_most, receive)) == 1
    with pytest.raises(Refused):
        await read_form({**at_most, "query_string": b"a" * 65_537}, receive)


async def test_a_slow_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who sends half a body and waits gets a 400 when the deadline has passed."""
    monkeypatch.setattr("maskinporten.web.token.BODY_DEADLINE", 0.01)

    async def receive() -> Message:
        if begun:
            await asyncio.sleep(60)
        begun.append(1)
        return {"type": "http.request", "body": b"grant_type=", "more_body": True}

    begun: list[int] = []
    scope = {"method": "POST", "query_string": b"", "headers": []}
    with pytest.raises(Refused) as refusal:
        await read_form(scope, receive)
    assert refusal.value.reason is Reason.REQUEST_MALFORMED


async def test_a_caller_that_leaves_is_not_answered() -> None:
    """A connection that closes mid-body ends the request without a word."""
    messages: Iterator[Message] = iter(
        [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Message:
        return next(messages)

    scope = {"method": "POST", "query_string": b"", "headers": []}
    with pytest.raises(CallerLeft):
        await read_form(scope, receive)


async def test_the_trace_of_the_caller_is_kept(server: Server) -> None:
    """W3C Trace Context: what the gateway logged and what the client was told are one number."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    response = await server.http.post("/token", headers=headers)

    assert response.json()["error_description"].endswith(f"(trace_id: {trace})")


async def test_a_token_is_never_accepted_as_a_grant(server: Server) -> None:
    """Our own access token has our issuer as iss, which is no client (attack 10)."""
    token = (await server.post(assertion())).json()["access_token"]

    await refused(server, token, Reason.CLIENT_UNKNOWN)


async def test_the_audit_has_the_token_and_the_refusal(server: Server) -> None:
    """Every outcome is a line of JSON, without assertion or token; newlines stay inside."""
    issued = await server.post(assertion())
    await server.post(assertion(iss="new\nline"))
    path = server.services.settings.audit_log
    assert path is not None
    text = path.read_text()
    first, second = map(json.loads, text.splitlines())

    assert first["event_name"] == "token_issued"
    assert first["token_jti"] == claims_of(issued)["jti"]
    assert first["token_scopes"] == [{"scope": "skatt:inntekt.read", "delegation_source": None}]
    assert (first["consumer"], first["kid"]) == (CONSUMER, "consumer")
    assert (second["event_name"], second["reason"]) == ("token_refused", "CLIENT_UNKNOWN")
    assert issued.json()["access_token"] not in text
