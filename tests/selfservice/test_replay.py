"""Entries of the original's public listing, in and out again, member by member and in order."""

import json
from typing import Any

from tests.conftest import Starter
from tests.selfservice.organisations import admin_world, organisation
from tests.world import CONSUMER, PROVIDER

# As the original lists it, but for the description; then one of every optional member.
LISTED = """{"prefix":"altinn","description":"Parties","subscope":
"accessmanagement/authorizedparties.resourceowner","active":true,
"created":"2024-05-23T13:17:33.438Z","last_updated":"2026-01-19T09:40:37.258551Z",
"allowed_integration_types":["maskinporten"],"owner_orgno":"991825827",
"token_type":"SELF_CONTAINED","visibility":"PUBLIC","requires_user_consent":false,
"requires_user_authentication":false,"requires_pseudonymous_tokens":false,
"delegation_source":"https://tt02.altinn.no/","at_max_age":3600,
"authorization_max_lifetime":3600,"accessible_for_all":false,
"name":"altinn:accessmanagement/authorizedparties.resourceowner","protected":false,
"supports_european_businesses":false}"""
VARIANTS: list[dict[str, Any]] = [
    {},
    {"subscope": "accessmanagement/enduser:connections:toothers.read"},
    {"subscope": "æøå"},
    {"description#en": "Parties", "description#nn": "Partar"},
    {"long_description": "Lang\nmed [lenke](https://x.no)", "long_description#en": "Long"},
    {"created": "2018-11-28T14:11:35+01:00", "last_updated": "2019-11-28T14:11:26.301+01:00"},
    {"requires_user_consent": True, "token_type": "OPAQUE", "protected": True},
    {"enforced_aud_for_access_token": "https://api.no/"},
    {"supports_european_businesses": True, "accessible_for_all": True},
    {"allowed_integration_types": ["api_klient", "krr", "maskinporten"]},
]


async def test_through_import_and_listing(start: Starter) -> None:
    """`apply` takes what `/scopes/all` gave, and `/scopes/all` gives it back."""
    prefixes = [{"prefix": "altinn", "owner_orgno": CONSUMER}]
    original = json.loads(LISTED)
    entries = []
    for number, members in enumerate(VARIANTS):
        entry = {**original, **members}
        entry["subscope"] += f".{number}"
        entries.append({**entry, "name": f"altinn:{entry['subscope']}"})
    server = await start(sections=admin_world(scopes=entries, prefixes=prefixes))

    listed = (await server.http.get("/scopes/all?prefix=altinn")).json()

    by_name = {entry["name"]: entry for entry in listed}
    assert len(listed) == len(VARIANTS)
    for entry, members in zip(entries, VARIANTS, strict=True):
        found = by_name[entry["name"]]
        assert found == entry
        ours = [name for name in found if name not in members]
        assert ours == [name for name in original if name not in members]


async def test_through_the_api(start: Starter) -> None:
    """Posted by its owner it is the same, but for what is not the owner's to say."""
    entry = {**json.loads(LISTED), "description#en": "Parties"}
    prefixes = [{"prefix": "altinn", "owner_orgno": PROVIDER}]
    own = await organisation(await start(sections=admin_world(prefixes=prefixes)), PROVIDER)

    made = await own.ok("POST", "/api/v1/scopes", entry)

    now = "2027-01-15T08:00:00.000Z"
    ours = {"created": now, "last_updated": now, "owner_orgno": PROVIDER}
    assert made == {**entry, **ours}
    own.server.clock.now += 60
    assert await own.ok("PUT", f"/api/v1/scopes?scope={entry['name']}", made) == made
