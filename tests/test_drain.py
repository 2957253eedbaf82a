"""Leaving and coming under load: no caller notices."""

import asyncio
import os
import signal
from pathlib import Path

from tests.cluster import DEADLINE, Cluster, Load, cluster, declare, until


async def restarted(nodes: Cluster, load: Load, number: int) -> None:
    """SIGTERM, gone, and back, while the load runs."""
    node = nodes.nodes[number]
    await node.stopped()
    node.start()
    await nodes.until_ready(node)
    await load.more(40)


async def test_a_rolling_restart_drops_no_request(tmp_path: Path, postgres_url: str) -> None:
    """Two nodes of two workers, SIGTERM one after the other: every answer is a token."""
    declare(tmp_path, postgres_url)
    async with cluster(tmp_path, postgres_url) as nodes:
        first, second = nodes.node(), nodes.node()
        for node in (first, second):
            node.start()
        await nodes.until_ready(first, second)
        async with Load(nodes, [first, second]).running() as load:
            await load.more(40)
            await restarted(nodes, load, 0)
            await restarted(nodes, load, 1)
    assert set(load.answers) == {200}, load.answers
    assert len(set(load.tokens)) == len(load.tokens)


async def test_a_node_says_that_it_leaves_and_goes_on_answering(tmp_path: Path) -> None:
    """Not ready first, on every worker; tokens still, and no connection is kept."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    declare(tmp_path, url)
    async with cluster(tmp_path, url, DRAIN="30") as nodes:
        node = await nodes.started()
        assert "connection" not in (await nodes.http.get(f"{node.url}/readyz")).headers
        assert node.process is not None
        node.process.send_signal(signal.SIGTERM)

        async def leaving() -> bool:
            return (await nodes.http.get(f"{node.url}/readyz")).status_code == 503

        await until(leaving, node.log)
        await asyncio.sleep(0.5)
        for _ in range(6):
            probe = await nodes.http.get(f"{node.url}/readyz")
            assert (probe.status_code, probe.headers["connection"]) == (503, "close")
        token = await nodes.post(node)
        assert (token.status_code, token.headers["connection"]) == (200, "close")
        health = await nodes.health(node)
        assert health["status"] == "OUT_OF_SERVICE"
        assert health["reasons"] == ["this node is about to stop"]
        node.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(node.process.wait, DEADLINE) == 0, node.log
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".leaving")]  # noqa: PTH208
