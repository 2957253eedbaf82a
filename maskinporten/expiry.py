"""Looks through the registry now and then for what will soon expire, a little at a time."""

import asyncio
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final

from maskinporten.domain.expiry import (
    Expiring,
    expiring_by_organisation,
    expiring_certificates,
    expiring_keys,
)
from maskinporten.domain.link import Link
from maskinporten.domain.registry import Registry

EVERY: Final = 3600.0  # seconds between two looks
_AT_ONCE: Final = 500  # clients looked at before others get their turn
METRIC: Final = "maskinporten_expiring_soon"
_HELP: Final = "Keys and certificates that expire within 30 days, by organisation."


class ExpiryWatch:
    """What the last look found. Its labels are open, so it stands apart from `Metrics`."""

    def __init__(
        self,
        registry: Callable[[], Registry],
        certificates: Callable[[], Iterable[Link]],
        clock: Callable[[], float],
    ) -> None:
        self.found: list[Expiring] = []
        self._registry = registry
        self._certificates = certificates
        self._clock = clock

    async def follow(self) -> None:
        """Look, and look again; for ever."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Once through everything."""
        now = int(self._clock())
        links = await asyncio.to_thread(lambda: list(self._certificates()))
        found = list(expiring_certificates(links, now))
        for number, client in enumerate(self._registry().clients.values()):
            found += expiring_keys(client, now)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        self.found = sorted(found)

    def exposition(self) -> str:
        """The metric's lines."""
        counted = sorted(expiring_by_organisation(self.found).items())
        lines = (
            f'{METRIC}{{orgno="{orgno}",kind="{kind}"}} {count}\n'
            for (orgno, kind), count in counted
        )
        head = (f"# HELP {METRIC} {_HELP}\n", f"# TYPE {METRIC} gauge\n")
        return "".join(chain(head, lines))
