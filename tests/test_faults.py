"""The failure table of the README, a plug pulled for each line: real nodes, real databases.

What is counted: answers that are no tokens, tokens for spent grants, acknowledged writes that are
gone. Each test is named after the line of the table that it proves.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.cluster import Cable, Cluster, Load, Node, cable_to, cluster, declare, until
from tests.selfservice.organisations import admin_world

_FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left' USING ERRCODE = '53100'; END $$;
"""
_FILLED = ("revision", "entity", "spent_grant_0", "spent_grant_1", "spent_grant_2")


@dataclass
class Plant:
    """Two nodes on one PostgreSQL, the first of them by a cable."""

    nodes: Cluster
    near: Node  # by the cable
    far: Node
    cable: Cable
    url: str  # of the database, without the cable

    async def sql(self, *statements: str) -> None:
        """Done to the database behind everybody's back."""
        connection = await asyncpg.connect(self.url)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    async def back(self) -> None:
        """Until the node by the cable owes nothing and follows again."""

        async def up() -> bool:
            away = await self.nodes.metric(self.near, "maskinporten_database_away")
            health = [await self.nodes.health(self.near) for _ in range(4)]
            return not away and all(found["status"] == "UP" for found in health)

        await until(up, self.near.log)


@asynccontextmanager
async def plant(folder: Path, url: str) -> AsyncIterator[Plant]:
    """Both nodes ready."""
    declare(folder, url, admin_world())
    async with cable_to(url) as (cable, by_cable), cluster(folder, url) as nodes:
        near, far = nodes.node(DATABASE_URL=by_cable), nodes.node()
        for node in (near, far):
            node.start()
        await nodes.until_ready(near, far)
        yield Plant(nodes, near, far, cable, url)


async def _hangs_up(p: Plant) -> None:
    database = p.url.partition("?")[0].rpartition("/")[2]
    await p.sql(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' "  # noqa: S608 - ours
        "AND pid <> pg_backend_pid()"
    )


async def _stopped(p: Plant) -> None:
    p.cable.cut()


async def _silent(p: Plant) -> None:
    p.cable.hold()


async def _mended(p: Plant) -> None:
    p.cable.mend()


async def _read_only(p: Plant) -> None:
    name = p.url.partition("?")[0].rpartition("/")[2]
    await p.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await _hangs_up(p)


async def _writable(p: Plant) -> None:
    name = p.url.partition("?")[0].rpartition("/")[2]
    await p.sql(
        "SET default_transaction_read_only = off",
        f"ALTER DATABASE {name} SET default_transaction_read_only = off",
    )


async def _full(p: Plant) -> None:
    await p.sql(
        _FULL,
        *(
            f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION full_disk()"
            for table in _FILLED
        ),
    )


async def _emptied(p: Plant) -> None:
    await p.sql("DROP FUNCTION full_disk CASCADE")


AWAY = {
    "stopped": (_stopped, _mended),
    "silent": (_silent, _mended),
    "read-only": (_read_only, _writable),
    "full": (_full, _emptied),
}


async def test_database_away(tmp_path: Path, postgres_url: str) -> None:
    """Tokens flow, writes are 503 and can be repeated, one grant is one token, nothing is lost.

    Stopped, silent, read-only and full, one after the other; then slow.
    """
    async with plant(tmp_path, postgres_url) as p:
        admin = await p.nodes.admin(p.near)
        for how, (pull, mend) in AWAY.items():
            spent = [p.nodes.grant() for _ in range(2)]
            for grant in spent:
                assert (await p.nodes.post(p.near, grant)).status_code == 200
            async with Load(p.nodes, [p.near]).running() as load:
                await pull(p)
                await load.more(20)
                racing = await _without_database(p, admin, how, spent)
                await mend(p)
                await p.back()
                await load.more(20)
            assert set(load.answers) == {200}, (how, load.answers)
            for grant in (racing, *spent):
                assert (await p.nodes.post(p.far, grant)).status_code == 400, how
            assert (await p.nodes.write(p.near, admin, how)).status_code == 201, how
            assert how in await p.nodes.clients(p.far, admin)
        await _slow(p)


async def _without_database(p: Plant, admin: str, how: str, spent: list[str]) -> str:
    """What a caller sees meanwhile; gives a grant that was accepted once, of sixteen copies."""
    racing = p.nodes.grant()
    answers = await asyncio.gather(*(p.nodes.post(p.near, racing) for _ in range(16)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 15, how
    for grant in spent:
        codes = [(await p.nodes.post(p.near, grant)).status_code for _ in range(4)]
        assert codes == [400] * 4, how
    refused = await p.nodes.write(p.near, admin, how)
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True), how
    assert await p.nodes.metric(p.near, "maskinporten_database_away") == 1
    words = {(await p.nodes.health(p.near))["status"] for _ in range(4)}
    assert "DEGRADED" in words, how
    return racing


async def _slow(p: Plant) -> None:
    """Slow, but sooner than a grant may wait: it waits. Slower: the node goes on by itself."""
    p.cable.delay = 0.05
    grant = p.nodes.grant()
    assert (await p.nodes.post(p.near, grant)).status_code == 200
    p.cable.delay = 2.0
    late = p.nodes.grant()
    answers = [(await p.nodes.post(p.near, late)).status_code for _ in range(4)]
    assert answers == [200, 400, 400, 400]
    p.cable.mend()
    await p.back()
    for used in (grant, late):
        assert (await p.nodes.post(p.far, used)).status_code == 400


async def test_connection_cut_mid_commit(tmp_path: Path, postgres_url: str) -> None:
    """A write whose answer never comes is looked for, and acknowledged, once. So with grants."""
    async with plant(tmp_path, postgres_url) as p:
        admin = await p.nodes.admin(p.near)
        p.cable.cut_after = (b"maskinporten", b"COMMIT")

        answer = await p.nodes.write(p.near, admin, "once")

        assert p.cable.cuts == 1
        assert answer.status_code == 201, answer.text
        assert "once" in await p.nodes.clients(p.far, admin)
        assert (await p.nodes.write(p.far, admin, "once")).status_code == 409

        # Whether the database has taken them or not, none gives a second token anywhere.
        grants = [p.nodes.grant() for _ in range(12)]
        tokens = 0
        for number, grant in enumerate(grants):
            if number % 4 == 2:
                p.cable.cut()
                p.cable.mend()
            tokens += (await p.nodes.post(p.near, grant)).is_success
        assert tokens == len(grants)
        await p.back()
        for grant in grants:
            assert (await p.nodes.post(p.far, grant)).status_code == 400
            assert (await p.nodes.post(p.near, grant)).status_code == 400
        await _notification_lost(p)


async def _notification_lost(p: Plant) -> None:
    """A change of which nobody was told acts by the poll."""
    newest = int(await p.nodes.metric(p.near, "maskinporten_registry_revision"))
    await p.sql(
        "UPDATE entity SET revision = (SELECT n + 1 FROM revision) WHERE id = 'vendor'",
        "UPDATE revision SET n = n + 1",
    )

    async def heard() -> bool:
        return all(
            [
                await p.nodes.metric(node, "maskinporten_registry_revision") > newest
                for node in (p.near, p.far)
            ]
        )

    await until(heard, f"still at {newest}")


async def _worker_killed_while_the_database_is_away(p: Plant) -> None:
    """Its successor waits for the database; what it had accepted is not accepted again."""
    p.cable.cut()
    used = [p.nodes.grant() for _ in range(6)]
    for grant in used:
        assert (await p.nodes.post(p.near, grant)).status_code == 200
    first, *_ = p.near.workers()
    os.kill(first, signal.SIGKILL)
    await asyncio.sleep(0.5)
    for grant in used:
        assert (await p.nodes.post(p.near, grant)).status_code == 400
    p.cable.mend()
    await p.back()
    for grant in used:
        assert (await p.nodes.post(p.far, grant)).status_code == 400


async def test_node_killed(tmp_path: Path, postgres_url: str) -> None:
    """Kill -9 of a node in the midst of tokens and writes: what it acknowledged is there."""
    async with plant(tmp_path, postgres_url) as p:
        admin = await p.nodes.admin(p.near)
        written: list[str] = []
        used: list[str] = []

        async def write(prefix: str) -> None:
            number = 0
            while True:
                name = f"{prefix}-{number}"
                if (await p.nodes.write(p.near, admin, name)).status_code == 201:
                    written.append(name)
                number += 1

        async def spend() -> None:
            while True:
                grant = p.nodes.grant()
                if (await p.nodes.post(p.near, grant)).is_success:
                    used.append(grant)

        tasks = [asyncio.create_task(done) for done in (write("a"), write("b"), spend(), spend())]

        async def busy() -> bool:
            return len(written) >= 5 and len(used) >= 20

        await until(busy, p.near.log)
        p.near.kill()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert set(written) <= await p.nodes.clients(p.far, admin)
        answers = [(await p.nodes.post(p.far, grant)).status_code for grant in used]
        assert answers == [400] * len(used)
        p.near.start()
        await p.nodes.until_ready(p.near)
        assert set(written) <= await p.nodes.clients(p.near, admin)
        await _worker_killed_while_the_database_is_away(p)
