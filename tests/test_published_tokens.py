"""Bodies of real tokens that Altinn and Digdir have published, rebuilt member by member.

Each is asked for as its client must have asked, and Altinn answers what it must have answered.
The order of members is compared too, at every level. `jti` is ours, and so is a client_id that was
struck out; of the system user's token only the element was published.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
import pytest
import respx

from tests.conftest import Starter
from tests.world import client as declared
from tests.world import private_key, sign

TEST: Final = "https://test.maskinporten.no/"
SOURCE: Final = "https://tt02.altinn.no/"
BASE: Final = "https://platform.altinn.test/"
ALTINN: Final = {"altinn": f"{SOURCE}={BASE}", "altinn_orgno": "991825827"}
ORGANIZATION: Final = "urn:altinn:organization:identifier-no:"


def actor(orgno: str) -> dict[str, str]:
    """An organisation as tokens name it."""
    return {"authority": "iso6523-actorid-upis", "ID": f"0192:{orgno}"}


@dataclass(frozen=True)
class Published:
    """A token's body, and what Altinn says."""

    body: dict[str, Any]
    lifetime: int = 120
    asked: dict[str, Any] | None = None  # the element of the request
    system_user: dict[str, Any] | None = None
    handled_by: str | None = None
    spelling: str = "metadata"  # of the member in Altinn's answer
    of_client: dict[str, Any] = field(default_factory=dict)


PLAIN: Final = Published(
    {
        "scope": "altinn:instances.read altinn:instances.write",
        "iss": TEST,
        "client_amr": "private_key_jwt",
        "token_type": "Bearer",
        "exp": 1737845935,
        "iat": 1737842335,
        "client_id": "044f5040-6d5f-4d15-8d24-3e30d6d41d05",
        "jti": "",
        "consumer": actor("991825827"),
    },
    lifetime=3600,
)
SYSTEM_USER: Final = Published(
    {
        "authorization_details": [
            {
                "type": "urn:altinn:systemuser",
                "systemuser_org": actor("310702641"),
                "systemuser_id": ["f950ddae-06c3-4b57-b940-702417a90df0"],
                "system_id": "991825827_smartcloud",
            }
        ],
        "scope": "altinn:broker.read",
        "iss": TEST,
        "client_amr": "private_key_jwt",
        "token_type": "Bearer",
        "exp": 1737842455,
        "iat": 1737842335,
        "client_id": "a-vendor",
        "jti": "",
        "consumer": actor("991825827"),
    },
    asked={"type": "urn:altinn:systemuser", "systemuser_org": actor("310702641")},
)
CONSENT: Final = Published(
    {
        "authorization_details": [
            {
                "type": "urn:altinn:consent",
                "id": "93413201-b7e8-4ec3-a899-580fc02c6aeb",
                "from": "urn:altinn:person:identifier-no:25922947409",
                "to": actor("991825827"),
                "consented": "2025-07-18T07:57:30.409251+00:00",
                "validTo": "2026-07-18T07:57:15.639509+00:00",
                "consentRights": [
                    {
                        "action": ["consent"],
                        "resource": [
                            {"type": "urn:altinn:resource", "value": "samtykke-test-vegard"}
                        ],
                        "metadata": {"inntektsaar": "2022"},
                    }
                ],
            }
        ],
        "scope": "altinn:consentrequests.read",
        "iss": TEST,
        "client_amr": "private_key_jwt",
        "token_type": "Bearer",
        "exp": 1752825571,
        "iat": 1752825451,
        "client_id": "107c6f58-e06b-44e9-be7a-11ea44c7ad8b",
        "jti": "",
        "consumer": actor("991825827"),
    }
)
SUPPLIERS_CONSENT: Final = Published(
    {
        "authorization_details": [
            {
                "type": "urn:altinn:consent",
                "id": "ecbff842-199b-45c9-8b58-80ed4d813660",
                "from": "urn:altinn:person:identifier-no:23886799519",
                "to": actor("313876144"),
                "consented": "2026-01-15T10:34:39.676924+00:00",
                "validTo": "2026-01-20T10:34:34.836+00:00",
                "consentRights": [
                    {
                        "action": ["consent"],
                        "resource": [
                            {
                                "type": "urn:altinn:resource",
                                "value": "standard-samtykke-for-dele-data",
                            }
                        ],
                        "metadata": {"inntektsaar": "2028"},
                    }
                ],
            }
        ],
        "scope": "altinn:consentrequests.write",
        "supplier": actor("310149942"),
        "iss": TEST,
        "client_amr": "private_key_jwt",
        "token_type": "Bearer",
        "exp": 1768473780,
        "delegation_source": SOURCE,
        "iat": 1768473280,
        "client_id": "a-supplier",
        "jti": "",
        "consumer": actor("313876144"),
    },
    lifetime=500,
    handled_by=ORGANIZATION + "310149942",
    spelling="metaData",
)
DELEGATED: Final = Published(
    {name: value for name, value in SUPPLIERS_CONSENT.body.items() if "details" not in name},
    lifetime=500,
)


def world(published: Published) -> dict[str, Any]:
    """A registry in which the token may be had."""
    body = published.body
    consumer = body["consumer"]["ID"][5:]
    supplier = body["supplier"]["ID"][5:] if "supplier" in body else None
    scopes = body["scope"].split()
    source = {"delegation_source": SOURCE} if supplier else {}
    return {
        "delegation_sources": [{"name": "altinn", "issuer": SOURCE}],
        "prefixes": [{"prefix": "altinn", "owner_orgno": "991825827"}],
        "scopes": [
            {"name": s, "description": s, "at_max_age": published.lifetime, **source}
            for s in scopes
        ],
        "accesses": [{"scope": s, "consumer_orgno": consumer} for s in scopes],
        "clients": [declared(body["client_id"], supplier or consumer, *scopes)],
    }


def grant(published: Published) -> str:
    """What its client must have sent."""
    body = published.body
    claims = {
        "aud": TEST,
        "iss": body["client_id"],
        "scope": body["scope"],
        "iat": body["iat"],
        "exp": body["iat"] + 100,
        "jti": "j",
    }
    if "supplier" in body:
        claims["consumer_org"] = body["consumer"]["ID"][5:]
    if "authorization_details" in body:
        (element,) = body["authorization_details"]
        asked = {name: element.get(name) for name in ("type", "id", "from")}
        claims["authorization_details"] = [published.asked or asked]
    header = {"alg": "RS256", "kid": body["client_id"]}
    return sign(header, claims, private_key(body["client_id"]))


def answer_as_altinn(published: Published) -> None:
    """What Altinn must have said."""
    body = published.body
    if "supplier" in body:
        respx.get(BASE + "accessmanagement/api/v1/maskinporten/delegations/").respond(
            json=[
                {
                    "consumer_org": body["consumer"]["ID"][5:],
                    "supplier_org": body["supplier"]["ID"][5:],
                    "delegation_scheme_Id": None,
                    "scopes": [body["scope"]],
                    "created": "2026-01-01T00:00:00Z",
                    "resourceid": "r",
                }
            ]
        )
    for element in body.get("authorization_details", ()):
        if element["type"] == "urn:altinn:systemuser":
            respx.get(BASE + "authentication/api/v1/systemuser/byExternalId").respond(
                json={
                    "id": element["systemuser_id"][0],
                    "integrationTitle": "Smart cloud",
                    "systemId": element["system_id"],
                    "productName": element["system_id"],
                    "reporteeOrgNo": element["systemuser_org"]["ID"][5:],
                    "created": "2025-01-01T00:00:00Z",
                    "isDeleted": False,
                    "supplierName": "S",
                    "supplierOrgno": body["consumer"]["ID"][5:],
                    "externalRef": element["systemuser_org"]["ID"][5:],
                    "userType": "standard",
                }
            )
            continue
        rights = [
            {published.spelling if k == "metadata" else k: v for k, v in right.items()}
            for right in element["consentRights"]
        ]
        answer = {
            "id": element["id"],
            "from": element["from"],
            "to": ORGANIZATION + element["to"]["ID"][5:],
            "handledBy": published.handled_by,
            "consented": element["consented"],
            "validTo": element["validTo"],
            "consentRights": rights,
        }
        respx.post(BASE + "accessmanagement/api/v1/maskinporten/consent/lookup").respond(
            json=answer
        )


@respx.mock
@pytest.mark.parametrize(
    "published",
    [
        pytest.param(PLAIN, id="plain, 2025"),
        pytest.param(DELEGATED, id="delegated, 2026"),
        pytest.param(SYSTEM_USER, id="system user, 2025"),
        pytest.param(CONSENT, id="consent, 2025"),
        pytest.param(SUPPLIERS_CONSENT, id="consent to a supplier's customer, 2026"),
    ],
)
async def test_the_published_body(start: Starter, published: Published) -> None:
    """Written as text, ours is theirs: same members, same order, same spelling."""
    server = await start(sections=world(published), issuer=TEST, **ALTINN)
    server.clock.now = published.body["iat"]
    answer_as_altinn(published)

    answer = await server.post(grant(published))

    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    ours = jwt.decode(token, options={"verify_signature": False})
    assert json.dumps({**ours, "jti": ""}) == json.dumps(published.body)
    assert list(jwt.get_unverified_header(token)) == ["kid", "alg"]
