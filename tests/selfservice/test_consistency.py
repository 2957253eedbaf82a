"""Callers meet any worker, lose answers, and write at the same time as others."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from maskinporten.domain.registry import Change, Entity, Revision
from maskinporten.errors import Unavailable
from tests.conftest import Starter
from tests.selfservice.organisations import Organisation, admin_world, minimal, organisation
from tests.world import CONSUMER, PROVIDER, Server, assertion, jwk


def at(server: Server, caller: Organisation) -> Organisation:
    """The same caller at another worker."""
    return Organisation(server, caller.orgno, caller.token)


async def two(start: Starter, **changes: Any) -> tuple[Organisation, Organisation]:
    """One caller at two workers of one database."""
    one = await start(sections=admin_world(), **changes)
    other = await start(sections=admin_world(), **changes)
    caller = await organisation(one, CONSUMER)
    return caller, at(other, caller)


async def reads_its_writes(one: Organisation, other: Organisation) -> None:
    """Each write is there for a reading at the other worker that follows it at once."""
    for number in range(10):
        writer, reader = (one, other) if number % 2 else (other, one)
        made = await writer.call("POST", "/clients", minimal(client_id=f"k{number}"))
        read = await reader.call("GET", f"/clients/k{number}")
        assert read.status_code == 200
        revisions = [int(answer.headers["registry-revision"]) for answer in (made, read)]
        assert revisions[0] <= revisions[1]


async def test_reads_its_own_writes_on_any_worker(start: Starter) -> None:
    """Without knowing of the header; SQLite."""
    await reads_its_writes(*await two(start))


async def test_reads_its_own_writes_on_any_node(start: Starter, postgres_url: str) -> None:
    """The same; PostgreSQL."""
    await reads_its_writes(*await two(start, database_url=postgres_url))


async def test_a_public_reading_waits_for_what_the_caller_has_seen(start: Starter) -> None:
    """`Registry-Revision` in a request; one that lies ahead of the database is 503."""
    one, other = await two(start)
    provider = await organisation(one.server, PROVIDER)
    made = await provider.call("POST", "/scopes", {"name": "skatt:ny", "description": "x"})
    seen = made.headers["registry-revision"]

    read = await other.server.http.get("/scopes/all", headers={"Registry-Revision": seen})
    ahead = await other.server.http.get("/scopes/all", headers={"Registry-Revision": "9999"})
    odd = await other.server.http.get("/scopes/all", headers={"Registry-Revision": "9" * 5000})

    assert "skatt:ny" in read.text
    assert (ahead.status_code, ahead.headers["retry-after"]) == (503, "2")
    assert odd.status_code == 200


async def within_a_second(server: Server, grant: str, status: int) -> None:
    """The token line answers so, before a second has passed."""
    deadline = time.monotonic() + 1
    while (answer := await server.post(grant)).status_code != status:
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.02)


async def test_a_change_acts_on_the_token_line_of_every_worker(start: Starter) -> None:
    """A new client, a removed key, a withdrawn access, within a second (attack 29); SQLite."""
    await acts_within_a_second(*await two(start))


async def test_a_change_acts_on_the_token_line_of_every_node(
    start: Starter, postgres_url: str
) -> None:
    """The same; PostgreSQL."""
    await acts_within_a_second(*await two(start, database_url=postgres_url))


async def acts_within_a_second(one: Organisation, other: Organisation) -> None:
    """What is written at one, the other's token endpoint heeds."""
    provider = await organisation(one.server, PROVIDER)
    key, scope = {"keys": [jwk("k")]}, "skatt:inntekt.read"

    await one.ok("POST", "/clients", minimal(client_id="k", jwks=key, scopes=[scope]))
    await within_a_second(other.server, assertion("k"), 200)
    await provider.ok("DELETE", f"/scopes/access/{CONSUMER}?scope={scope}")
    await within_a_second(other.server, assertion("k"), 403)
    await provider.ok("PUT", f"/scopes/access/{CONSUMER}?scope={scope}")
    await within_a_second(other.server, assertion("k"), 200)
    await one.ok("DELETE", "/clients/k/jwks")
    await within_a_second(other.server, assertion("k"), 400)


async def test_nobody_overwrites_what_they_have_not_read(start: Starter) -> None:
    """ETag and If-Match (RFC 9110 section 13.1.1): the second writer gets 412."""
    one, other = await two(start)
    made = await one.call("POST", "/clients", minimal(client_id="k"))
    tag = (await other.call("GET", "/clients/k")).headers["etag"]
    assert made.headers["etag"] == tag

    first = await one.call("PUT", "/clients/k", {"description": "a"}, If_Match=tag)
    second = await other.call("PUT", "/clients/k", {"description": "b"}, If_Match=tag)

    assert (first.status_code, second.status_code) == (200, 412)
    assert (await other.ok("GET", "/clients/k"))["description"] == "a"
    new = first.headers["etag"]
    for header, status in (
        (f'"x", {new}', 200),
        ("*", 200),
        (f"W/{new}", 412),
        ("nonsense", 412),
    ):
        answer = await one.call("PUT", "/clients/k", {"description": "a"}, If_Match=header)
        assert answer.status_code == status, header
    unchanged = await one.call("GET", "/clients/k", If_None_Match=new)
    assert (unchanged.status_code, unchanged.content) == (304, b"")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/clients/k", None),
        ("POST", "/clients/k/jwks", {"keys": [jwk("b")]}),
        ("DELETE", "/clients/k/jwks", None),
        ("PUT", "/clients/k/jwks/a", jwk("a")),
        ("DELETE", "/clients/k/jwks/a", None),
        ("PUT", "/clients/k/onbehalfof/o", {"orgno": PROVIDER}),
        ("DELETE", "/clients/k/onbehalfof/o", None),
    ],
)
async def test_every_change_heeds_if_match(
    start: Starter, method: str, path: str, body: Any
) -> None:
    """A tag that does not hold changes nothing."""
    own = await organisation(await start(sections=admin_world()), CONSUMER)
    customers = [{"onbehalfof": "o", "orgno": PROVIDER}]
    keys = {"keys": [jwk("a")]}
    await own.ok("POST", "/clients", minimal(client_id="k", onbehalfof=customers, jwks=keys))
    before = await own.ok("GET", "/clients/k")

    answer = await own.call(method, path, body, If_Match='"stale"')

    assert answer.status_code == 412, answer.text
    assert await own.ok("GET", "/clients/k") == before


async def test_writers_that_meet_both_get_through(start: Starter) -> None:
    """What two workers write at once is decided again on what is true then."""
    one, other = await two(start)

    answers = await asyncio.gather(
        *(
            (one, other)[number % 2].call("POST", "/clients", minimal(client_id=f"k{number}"))
            for number in range(6)
        )
    )

    made = {f"k{n}" for n, answer in enumerate(answers) if answer.status_code == 201}
    alone = [one.call("POST", "/clients", minimal(client_id=f"one{n}")) for n in range(8)]
    assert {answer.status_code for answer in await asyncio.gather(*alone)} == {201}
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len(made) >= 3
    listed = {client["client_id"] for client in await one.ok("GET", "/clients")}
    assert {name for name in listed if name.startswith("k") and name[1:].isdigit()} == made


async def test_one_of_two_that_take_the_same_name(start: Starter) -> None:
    """The other is told that it is taken."""
    one, other = await two(start)

    answers = await asyncio.gather(
        *(caller.call("POST", "/clients", minimal(client_id="k")) for caller in (one, other))
    )

    assert sorted(answer.status_code for answer in answers) == [201, 409]


async def test_a_retry_at_another_worker_makes_no_second_client(start: Starter) -> None:
    """The answer was lost; the key is the same."""
    one, other = await two(start)

    answers = await asyncio.gather(
        *(
            caller.call("POST", "/clients", minimal(), Idempotency_Key="k")
            for caller in (one, other)
        )
    )

    assert [answer.status_code for answer in answers] == [201, 201]
    assert len({answer.json()["client_id"] for answer in answers}) == 1


class Overtaken:
    """A store before which somebody else commits, as often as it is told."""

    def __init__(self, caller: Organisation, times: int) -> None:
        self.times = times
        self._store = caller.server.services.store
        self._commit = self._store.commit
        self._caller = caller

    async def commit(self, change: Change, entry: Any, based_on: Revision) -> Revision:
        """Somebody else is quicker, then ours is tried."""
        if self.times:
            self.times -= 1
            now = Revision(self._caller.server.services.replica.registry.revision)
            await self._commit(Change(()), entry, now)
        return await self._commit(change, entry, based_on)


@pytest.mark.parametrize(("times", "status"), [(2, 201), (3, 409)])
async def test_others_are_quicker(
    start: Starter, monkeypatch: pytest.MonkeyPatch, times: int, status: int
) -> None:
    """Twice is made good; after three times the caller is told."""
    own = await organisation(await start(sections=admin_world()), CONSUMER)
    overtaken = Overtaken(own, times)
    monkeypatch.setattr(own.server.services.store, "commit", overtaken.commit)

    answer = await own.call("POST", "/clients", minimal(client_id="k"))

    assert answer.status_code == status
    monkeypatch.undo()
    found = await own.call("GET", "/clients/k")
    assert found.status_code == (200 if status == 201 else 404)


async def test_the_database_away(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After, nothing half done; what needs no token is still answered."""
    own = await organisation(await start(sections=admin_world()), CONSUMER)

    async def away(_seen: Revision) -> tuple[Revision, Sequence[Entity]]:
        raise Unavailable("the plug is pulled")

    monkeypatch.setattr(own.server.services.store, "changes_since", away)
    answers: list[httpx.Response] = [
        await own.call("POST", "/clients", minimal()),
        await own.call("GET", "/clients"),
    ]

    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["errors"][0]["errorMessage"]
    assert (await own.server.http.get("/scopes/all")).status_code == 200


async def test_the_audit_tells_who_changed_what(start: Starter) -> None:
    """Client, organisation, token, before and after, with the change."""
    own = await organisation(await start(sections=admin_world()), CONSUMER)
    await own.ok("POST", "/clients", minimal(client_id="k"))
    await own.ok("PUT", "/clients/k", {"description": "Ny"})

    (record, *_) = await own.server.services.store.audit_trail(CONSUMER, None, 1)

    entry = record.entry
    assert entry.command == "PUT /clients/{client_id}"
    assert entry.caller["client_id"] == f"admin-{CONSUMER}"
    assert entry.caller["orgno"] == CONSUMER
    assert entry.caller["token_jti"]
    assert entry.before["client/k"]["description"] == "Våre saker"
    assert entry.after["client/k"]["description"] == "Ny"
