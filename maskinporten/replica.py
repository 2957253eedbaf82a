"""This worker's copy of the registry, and the loop that keeps it fresh. No rules, no HTTP."""

import asyncio
import logging
from collections.abc import Callable

from maskinporten.domain.registry import Registry, Revision
from maskinporten.errors import Unavailable
from maskinporten.store import Store

_POLL = 2.0  # seconds at most between two looks, should no wake-up come
_RETRY = 0.5  # seconds between looks while the database is away
_log = logging.getLogger(__name__)


class Replica:
    """The registry as this worker knows it: one immutable value, replaced as a whole.

    `on_change` is called with each new value, before anyone else sees it.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.registry = Registry()
        self.heard_at = 0.0  # epoch seconds at which the database last answered
        self._store = store
        self._clock = clock
        self._catching_up = asyncio.Lock()
        self._listeners: list[Callable[[Registry], None]] = []

    def on_change(self, listener: Callable[[Registry], None]) -> None:
        """Tell `listener` of every new registry, beginning with the one held now."""
        self._listeners.append(listener)
        listener(self.registry)

    async def catch_up(self) -> Registry:
        """Read what was written since; what this call was preceded by is in the answer.

        Raises Unavailable.
        """
        async with self._catching_up:
            seen = self.registry.revision
            revision, entities = await self._store.changes_since(seen)
            self.heard_at = self._clock()
            if revision < seen:
                # The database was put back to an earlier state; ours is no longer true.
                _log.error("the registry went back from revision %d to %d", seen, revision)
                revision, entities = await self._store.changes_since(Revision(0))
                self.registry = Registry()
                seen = Revision(0)
            if revision > seen:
                registry = self.registry.with_entities(revision, entities)
                for listener in self._listeners:
                    listener(registry)
                self.registry = registry
            return self.registry

    async def follow(self) -> None:
        """Catch up for ever. While the database is away, what is held stays in use."""
        while True:
            try:
                await self._store.wake(_POLL)
                await self.catch_up()
            except Unavailable as away:
                _log.warning("the registry cannot be followed: %s", away)
                await asyncio.sleep(_RETRY)
            except Exception:  # noqa: BLE001 - a defect must not leave this worker behind for good
                _log.exception("the registry cannot be followed")
                await asyncio.sleep(_RETRY)
