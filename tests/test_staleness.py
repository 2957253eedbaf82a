"""A worker that was cut off: how long it may go on, and what it says."""

import asyncio
from pathlib import Path

import pytest

from maskinporten.domain.registry import Registry
from maskinporten.errors import Unavailable
from maskinporten.replica import Replica
from maskinporten.store.sqlite import open_sqlite
from tests.cluster import cable_to, cluster, declare, until
from tests.conftest import Starter
from tests.world import NOW, Clock, assertion


async def test_the_bound_itself_is_served_and_a_second_more_is_not(tmp_path: Path) -> None:
    """Both sides of MASKINPORTEN_MAX_STALENESS; 0 is no bound."""
    store, clock = await open_sqlite(tmp_path / "registry.db"), Clock()
    await store.migrate()
    replica, boundless = Replica(store, clock, 60), Replica(store, clock)
    await replica.catch_up()
    await boundless.catch_up()

    clock.now = NOW + 60
    assert replica.current() is replica.registry
    clock.now = NOW + 61
    with pytest.raises(Unavailable, match="61 s old"):
        replica.current()
    assert boundless.current() is boundless.registry
    await replica.catch_up()
    assert replica.current() is replica.registry
    await store.close()


@pytest.mark.parametrize(
    ("age", "word", "status"),
    [(10, "UP", 200), (11, "DEGRADED", 200), (601, "OUT_OF_SERVICE", 503)],
)
async def test_health_names_the_age(start: Starter, age: int, word: str, status: int) -> None:
    """UP while heard of, DEGRADED once cut off, OUT_OF_SERVICE beyond the bound."""
    server = await start(max_staleness=600)
    server.clock.now = NOW + age

    health = await server.http.get("/health")
    probe = await server.http.get("/readyz")
    answer = await server.post(assertion(iat=NOW + age, exp=NOW + age + 60))

    assert (health.status_code, health.json()["status"]) == (status, word)
    assert (probe.status_code, answer.status_code) == (status, status)
    if word != "UP":
        assert health.json()["registry_age_seconds"] == age
    if status == 503:
        assert answer.headers["retry-after"] == "10"
        assert answer.json()["error"] == "temporarily_unavailable"


async def test_following_survives_what_it_cannot_take(tmp_path: Path) -> None:
    """A change that a listener refuses (a key sealed elsewhere) is asked for again, for ever."""
    store = await open_sqlite(tmp_path / "registry.db")
    await store.migrate()
    replica = Replica(store, lambda: NOW)
    replica.heard_at = NOW - 99
    refusals = []

    def refuse(registry: Registry) -> None:
        if registry.revision:
            refusals.append(registry)
            raise ValueError("does not open")

    replica.on_change(refuse)
    async with store._write() as db:
        await db.execute("UPDATE revision SET n = 1")
    loop = asyncio.create_task(replica.follow())

    async def twice() -> bool:
        return len(refusals) > 1

    await until(twice, "the loop ended")
    loop.cancel()
    assert replica.registry.revision == 0
    assert (replica.age, replica.why) == (99, "does not open")
    await store.close()


async def test_a_node_cut_off_for_long_refuses_and_comes_back_by_itself(
    tmp_path: Path, postgres_url: str
) -> None:
    """Against a real database: tokens, DEGRADED or not, then 503, then tokens again."""
    declare(tmp_path, postgres_url)
    async with (
        cable_to(postgres_url) as (cable, url),
        cluster(tmp_path, url, MAX_STALENESS="3", WORKERS="1") as nodes,
    ):
        node = await nodes.started()
        cable.cut()
        assert (await nodes.post(node)).status_code == 200

        async def refuses() -> bool:
            return (await nodes.post(node)).status_code == 503

        await until(refuses, node.log)
        health = await nodes.health(node)
        assert health["status"] == "OUT_OF_SERVICE"
        assert health["registry_age_seconds"] >= 3
        assert (await nodes.http.get(f"{node.url}/readyz")).status_code == 503
        cable.mend()
        await nodes.until_ready(node)
        assert (await nodes.post(node)).status_code == 200
