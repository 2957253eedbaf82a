"""Many callers against a running server, over real HTTP; every answer is looked at."""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from tests.world import form


class Loaded(NamedTuple):
    """What came of a load."""

    tokens: int
    others: int  # answers that were not 200
    seconds: float
    latencies: list[float]  # seconds, sorted


async def load(host: str, port: int, grants: Sequence[str], connections: int = 32) -> Loaded:
    """Post each grant once, over that many connections that stay open."""
    waiting = iter(grants)
    latencies: list[float] = []
    statuses: list[bytes] = []

    async def caller() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for grant in waiting:
            body = urlencode(form(grant)).encode()
            head = (
                f"POST /token HTTP/1.1\r\nhost: {host}\r\n"
                "content-type: application/x-www-form-urlencoded\r\n"
                f"content-length: {len(body)}\r\n\r\n"
            )
            began = time.perf_counter()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in answer.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - began)
            statuses.append(answer[9:12])
        writer.close()
        await writer.wait_closed()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(connections)))
    seconds = time.perf_counter() - began
    tokens = statuses.count(b"200")
    return Loaded(tokens, len(statuses) - tokens, seconds, sorted(latencies))
