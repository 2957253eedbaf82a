"""One grant, many nodes, one token (attack 14)."""

import asyncio
from collections import Counter
from pathlib import Path

import httpx

from tests.cluster import Node, cluster, declare
from tests.world import form

COPIES = 80  # of each grant for each node


async def _statuses(node: Node, grant: str, begin: asyncio.Event) -> list[int]:
    """The answers of one node to copies that arrive together over connections apart."""
    limits = httpx.Limits(max_connections=16)
    async with httpx.AsyncClient(limits=limits, timeout=60) as http:
        await begin.wait()
        answers = await asyncio.gather(
            *(http.post(f"{node.url}/token", data=form(grant)) for _ in range(COPIES))
        )
    return [answer.status_code for answer in answers]


async def test_three_nodes_and_hundreds_of_copies_have_one_winner(
    tmp_path: Path, postgres_url: str
) -> None:
    """Four times over: one token each, and a refusal for every other copy."""
    declare(tmp_path, postgres_url)
    async with cluster(tmp_path, postgres_url, WORKERS="2") as nodes:
        three = [nodes.node() for _ in range(3)]
        for node in three:
            node.start()
        await nodes.until_ready(*three)
        for _ in range(4):
            grant, begin = nodes.grant(), asyncio.Event()
            racing = [asyncio.create_task(_statuses(node, grant, begin)) for node in three]
            await asyncio.sleep(0.1)
            begin.set()
            found = Counter(status for some in await asyncio.gather(*racing) for status in some)
            assert found == {200: 1, 400: 3 * COPIES - 1}
