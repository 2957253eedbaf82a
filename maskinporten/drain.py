"""Leaving without dropping a request: told to all first, done later.

`serve` lays a flag where every worker of its own looks. From then on a worker says at /readyz that
it is not ready, asks its callers to close their connections, and goes on answering; once the
gateway in front has had its time to look elsewhere, the workers are told to stop.
"""

import asyncio
import os
from pathlib import Path
from typing import Final

from starlette.types import Message, Send

_LOOK: Final = 0.1  # seconds between two looks for the flag
_CLOSE: Final = (b"connection", b"close")


def flag_of(metrics_file: Path, serving: int) -> Path:
    """Where the `serve` process with that number tells its workers to leave."""
    return metrics_file.with_name(f"{metrics_file.name}.{serving}.leaving")


class Drain:
    """Whether this worker is about to leave."""

    def __init__(self, metrics_file: Path | None) -> None:
        self.begun = False
        self._flag = None if metrics_file is None else flag_of(metrics_file, os.getppid())

    async def watch(self) -> None:
        """Look for the flag until it is there. A worker without `serve` is never told."""
        while self._flag is not None and not self.begun:
            self.begun = self._flag.exists()
            await asyncio.sleep(_LOOK)

    def closing(self, send: Send) -> Send:
        """Answers as before, and asks that no further request comes by this connection."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
            await send(message)

        return sending
