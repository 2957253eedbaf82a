"""Counts on this worker who fetches /jwk, and now and then writes it to the store."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final

from maskinporten.domain.evidence import (
    FORGET_AFTER,
    Caller,
    Fetch,
    Network,
    admitted,
    library,
    network,
    origin,
)
from maskinporten.errors import Unavailable
from maskinporten.store import Store

_PAUSE: Final = 10.0  # seconds between two writes
_MAX_CALLERS: Final = 256  # new to this worker between two writes
_log = logging.getLogger(__name__)


class FetchLog:
    """The fetches this worker has seen and not yet written. What it forgets, nobody misses.

    `trusted` are the networks of proxies whose X-Forwarded-For is believed.
    """

    def __init__(
        self, store: Store, clock: Callable[[], float], trusted: Sequence[Network] = ()
    ) -> None:
        self._store = store
        self._clock = clock
        self._trusted = trusted
        self._met: dict[Caller, dict[str, int]] = {}

    def saw(self, user_agent: str, peer: str, forwarded: str, kids: Collection[str]) -> None:
        """A caller now holds the key set with these keys."""
        address = origin(peer, forwarded, self._trusted)
        caller = Caller(library(user_agent), network(address))
        if caller not in self._met and not admitted(self._met, [caller], _MAX_CALLERS):
            return
        at = int(self._clock())
        self._met.setdefault(caller, {}).update(dict.fromkeys(kids, at))

    async def write(self) -> None:
        """Write what was seen; keep it where that fails. Raises Unavailable."""
        met, self._met = self._met, {}
        if not met:
            return
        fetches = [Fetch(*who, kid, at) for who, kids in met.items() for kid, at in kids.items()]
        try:
            await self._store.record_fetches(fetches, int(self._clock()) - FORGET_AFTER)
        except BaseException:
            # What was seen meanwhile is newer.
            for who, kids in self._met.items():
                met.setdefault(who, {}).update(kids)
            self._met = met
            raise

    async def follow(self) -> None:
        """Write for ever; for the last time when told to stop."""
        try:
            while True:
                await asyncio.sleep(_PAUSE)
                await self._try()
        finally:
            await self._try()

    async def _try(self) -> None:
        try:
            await self.write()
        except Unavailable as away:
            _log.warning("fetches of /jwk cannot be written: %s", away)
        except Exception:  # noqa: BLE001 - a defect must not end counting for good
            _log.exception("fetches of /jwk cannot be written")
