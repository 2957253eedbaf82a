"""Two workers, one store: what one writes the other knows."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from maskinporten.administration import administer
from maskinporten.domain.manifest import plan
from maskinporten.domain.registry import Change, Registry, Revision
from maskinporten.errors import Unavailable
from maskinporten.replica import Replica
from maskinporten.store.rows import Entities
from maskinporten.store.sqlite import SqliteStore, open_sqlite
from tests.conftest import Starter
from tests.world import CONSUMER, NOW, Server, assertion, client, document


class Plug(SqliteStore):
    """A real store whose plug is pulled for one call."""

    pulled = False

    async def changes_since(self, seen: Revision) -> tuple[Revision, Entities]:
        """As the store does, unless the plug is pulled."""
        if self.pulled:
            self.pulled = False
            raise Unavailable("the plug is pulled")
        return await super().changes_since(seen)


OPERATOR: Mapping[str, str] = {"kind": "operator"}


async def declare(server: Server, declared: dict[str, Any]) -> Change:
    """Apply a document through one server's parts."""
    services = server.services
    _, change = await administer(
        services.store,
        services.replica,
        lambda registry: plan(declared, registry, NOW),
        OPERATOR,
        "test",
        NOW,
    )
    return change


async def within_a_second(server: Server, grant: dict[str, Any], status: int) -> None:
    """The server answers so before a second has passed."""
    deadline = time.monotonic() + 1
    while (answer := await server.post(assertion(**grant))).status_code != status:
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(0.02)


async def test_a_change_acts_on_every_worker_within_a_second(start: Starter) -> None:
    """A new client is served, a disabled one refused, by the worker that did not do it."""
    one, other = await start(), await start()
    grant = {"client_id": "fresh", "scope": "skatt:open"}

    await declare(one, {"clients": [client("fresh", CONSUMER, "skatt:open")]})
    await within_a_second(other, grant, 200)
    await declare(one, {"clients": [client("fresh", CONSUMER, "skatt:open", active=False)]})
    await within_a_second(other, grant, 400)


async def test_a_withdrawn_access_is_gone_everywhere_within_a_second(start: Starter) -> None:
    """Nothing is served from a cache that nobody told (attack 29)."""
    one, other = await start(), await start()
    access = {"scope": "skatt:inntekt.read", "consumer_orgno": CONSUMER, "state": "DENIED"}

    await declare(one, {"accesses": [access]})

    await within_a_second(other, {}, 403)


async def test_writers_that_meet_both_get_through(start: Starter) -> None:
    """On conflict the decision is made again on what is true then."""
    servers = [await start(), await start()]

    changes = await asyncio.gather(
        *(
            declare(server, {"prefixes": [{"prefix": f"p{n}", "owner_orgno": CONSUMER}]})
            for n, server in enumerate(servers)
        )
    )

    assert [len(change.entities) for change in changes] == [1, 1]
    registry = await servers[0].services.replica.catch_up()
    assert {"p0", "p1"} <= set(registry.prefixes)


async def test_a_database_put_back_to_an_earlier_state_is_read_anew(tmp_path: Path) -> None:
    """A restored backup is the truth; what was after it is forgotten."""
    store = await open_sqlite(tmp_path / "registry.db")
    await store.migrate()
    replica = Replica(store, lambda: NOW)
    for orgno in (CONSUMER, "974761076"):
        declared = {"prefixes": [{"prefix": f"p{orgno}", "owner_orgno": orgno}]}
        decide = partial(plan, declared, now=NOW)
        await administer(store, replica, decide, OPERATOR, "t", NOW)
    async with store._write() as db:
        await db.execute("UPDATE revision SET n = 1")
        await db.execute("DELETE FROM entity WHERE revision = 2")

    registry = await replica.catch_up()

    assert (registry.revision, list(registry.prefixes)) == (1, [f"p{CONSUMER}"])
    await store.close()


async def test_following_survives_a_database_that_goes_away(tmp_path: Path) -> None:
    """The loop keeps what it holds, and catches up when the database answers again."""
    opened = await open_sqlite(tmp_path / "registry.db")
    await opened.migrate()
    store = Plug(opened._writer, opened._reader)
    replica = Replica(store, lambda: NOW)
    seen: list[Registry] = []
    arrived = asyncio.Event()

    def listen(registry: Registry) -> None:
        seen.append(registry)
        if registry.clients:
            arrived.set()

    replica.on_change(listen)
    store.pulled = True
    loop = asyncio.create_task(replica.follow())
    writer = Replica(await open_sqlite(tmp_path / "registry.db"), lambda: NOW)
    await administer(writer._store, writer, partial(plan, document(), now=NOW), OPERATOR, "t", NOW)
    await asyncio.wait_for(arrived.wait(), 5)
    loop.cancel()

    assert seen[-1] is replica.registry
    await store.close()
    await writer._store.close()
