"""The failure table of the README, second half: failover, a full disk, and nodes that are wrong."""

import asyncio
import base64
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import DEADLINE, Load, cluster, declare, until
from tests.postgres import Postgres
from tests.selfservice.organisations import admin_world


@pytest.fixture
def pair() -> Iterator[tuple[Postgres, Postgres]]:
    """Two places for servers, that of the system's package."""
    folders = [Path(tempfile.mkdtemp(prefix="maskinporten-pg-")) for _ in range(2)]
    servers = [Postgres(folder) for folder in folders]
    yield servers[0], servers[1]
    for server in servers:
        server.close()
        shutil.rmtree(server.folder)


async def test_database_failed_over(tmp_path: Path, pair: tuple[Postgres, Postgres]) -> None:
    """The leader dies, its synchronous follower is promoted: the nodes find it by themselves."""
    leader, follower = pair
    leader.make()
    leader.start("synchronous_standby_names=*", "synchronous_commit=local")
    follower.follow(leader)
    follower.start("hot_standby=on")
    url = (
        f"postgresql://postgres@{leader.address},{follower.address}/postgres"
        "?target_session_attrs=read-write"
    )
    declare(tmp_path, url, admin_world())
    async with cluster(tmp_path, url) as nodes:
        node, other = nodes.node(), nodes.node()
        for started in (node, other):
            started.start()
        await nodes.until_ready(node, other)
        admin = await nodes.admin(node)
        assert (await nodes.write(node, admin, "before")).status_code == 201
        used = [nodes.grant() for _ in range(4)]
        for grant in used:
            assert (await nodes.post(node, grant)).status_code == 200
        async with Load(nodes, [node, other]).running() as load:
            await load.more(20)
            await asyncio.sleep(0.5)  # the follower has it all
            await asyncio.to_thread(leader.stop, "immediate")
            await load.more(20)
            await asyncio.to_thread(follower.promote)

            async def writes() -> bool:
                return (await nodes.write(node, admin, "after")).status_code in {201, 409}

            await until(writes, node.log)
            await load.more(20)
        assert set(load.answers) == {200}, load.answers

        async def paid() -> bool:
            away = [await nodes.metric(n, "maskinporten_database_away") for n in (node, other)]
            return away == [0, 0]

        await until(paid, node.log)
        assert {"before", "after"} <= await nodes.clients(other, admin)
        for grant in used:
            assert (await nodes.post(other, grant)).status_code == 400


async def test_disk_full_on_sqlite(tmp_path: Path) -> None:
    """The operating system takes no more octets of the file: tokens flow, writes are 503."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    declare(tmp_path, url, admin_world())
    async with cluster(tmp_path, url) as nodes:
        node = await nodes.started()
        admin = await nodes.admin(node)
        used = [nodes.grant() for _ in range(2)]
        for grant in used:
            assert (await nodes.post(node, grant)).status_code == 200
        full = 4096  # octets of a file; the spool of this test is smaller
        for worker in node.workers():
            resource.prlimit(worker, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))

        meanwhile = nodes.grant()
        answers = [(await nodes.post(node, meanwhile)).status_code for _ in range(6)]
        assert answers == [200, *[400] * 5]
        refused = await nodes.write(node, admin, "meanwhile")
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert await nodes.metric(node, "maskinporten_database_away") == 1

        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        for worker in node.workers():
            resource.prlimit(worker, resource.RLIMIT_FSIZE, unlimited)

        async def back() -> bool:
            return await nodes.metric(node, "maskinporten_database_away") == 0

        await until(back, node.log)
        assert (await nodes.write(node, admin, "meanwhile")).status_code == 201
        node.kill()
        node.start()
        await nodes.until_ready(node)
        for grant in (meanwhile, *used):
            assert (await nodes.post(node, grant)).status_code == 400
        assert "meanwhile" in await nodes.clients(node, admin)


async def test_clock_two_minutes_off(tmp_path: Path, postgres_url: str) -> None:
    """The node that is wrong refuses what is right; it accepts nothing that was used elsewhere."""
    declare(tmp_path, postgres_url)
    async with cluster(tmp_path, postgres_url, WORKERS="1") as nodes:
        right, ahead, behind = nodes.node(), nodes.node(), nodes.node()
        for node, seconds in ((ahead, "120"), (behind, "-120")):
            node.launcher = ("-m", "tests.shifted", seconds)
        for node in (right, ahead, behind):
            node.start()
        await nodes.until_ready(right, ahead, behind)

        now = int(time.time())
        last = nodes.grant(iat=now - 115, exp=now + 4)
        assert (await nodes.post(right, last)).status_code == 200
        answer = await nodes.post(ahead)
        assert (answer.status_code, "MP-130" in answer.text) == (400, True)
        answer = await nodes.post(behind)
        assert (answer.status_code, "Issue time" in answer.text) == (400, True)
        # Dead for all but the one behind, which must hear that it was used.
        await asyncio.sleep(max(0.0, now + 5 - time.time()))
        answer = await nodes.post(behind, last)
        assert (answer.status_code, "MP-012" in answer.text) == (400, True), answer.text


async def test_key_encryption_key_and_trust_wrong_on_one_node(
    tmp_path: Path, postgres_url: str
) -> None:
    """That node does not start, and says why in a sentence; the others serve on."""
    declare(tmp_path, postgres_url)
    trust = tmp_path / "trust"
    shutil.copytree(Path(__file__).parent.parent / "keys" / "trust" / "test", trust)
    async with cluster(tmp_path, postgres_url, WORKERS="1", TRUST=str(trust)) as nodes:
        right = await nodes.started()
        wrong = nodes.node(KEY_ENCRYPTION_KEY=base64.b64encode(b"x" * 32).decode())
        wrong.start()
        assert wrong.process is not None
        assert await asyncio.to_thread(wrong.process.wait, DEADLINE) == 1
        assert "does not open" in wrong.log
        assert "Traceback" not in wrong.log

        # A trust directory that was spoilt while the server runs acts at the next start only.
        (trust / "trust.toml").write_text("spoilt")
        assert (await nodes.post(right)).status_code == 200
        late = nodes.node()
        late.start()
        assert late.process is not None
        assert await asyncio.to_thread(late.process.wait, DEADLINE) == 1
        assert "trust.toml" in late.log
        assert "Traceback" not in late.log
        assert (await nodes.post(right)).status_code == 200
