"""This worker's copy of the registry, and the loop that keeps it fresh. No rules, no HTTP."""

import asyncio
import logging
from collections.abc import Callable

from maskinporten.domain.registry import Registry, Revision
from maskinporten.errors import Unavailable
from maskinporten.store import Store

_POLL = 2.0  # seconds at most between two looks, should no wake-up come
_RETRY_AFTER = 10  # seconds a caller should leave a node alone that was cut off for long
_RETRY = 0.5  # seconds between looks while the database is away
_log = logging.getLogger(__name__)


class Replica:
    """The registry as this worker knows it: one immutable value, replaced as a whole.

    `on_change` is called with each new value, before anyone else sees it. What is older than
    `max_staleness` seconds is not given out for issuing (0: whatever its age).
    """

    def __init__(self, store: Store, clock: Callable[[], float], max_staleness: float = 0) -> None:
        self.registry = Registry()
        self.heard_at = 0.0  # epoch seconds at which this was last known to be true
        self.why = ""  # it could not be followed when last tried; empty: it could
        self._store = store
        self._clock = clock
        self._max_staleness = max_staleness
        self._catching_up = asyncio.Lock()
        self._listeners: list[Callable[[Registry], None]] = []

    def on_change(self, listener: Callable[[Registry], None]) -> None:
        """Tell `listener` of every new registry, beginning with the one held now."""
        self._listeners.append(listener)
        listener(self.registry)

    @property
    def age(self) -> float:
        """Seconds since this was last known to be the registry as it is."""
        return max(0.0, self._clock() - self.heard_at)

    def current(self) -> Registry:
        """The registry to decide on. Raises Unavailable once it is too old for that."""
        if self._max_staleness and (age := self.age) > self._max_staleness:
            raise Unavailable(
                f"the registry is {int(age)} s old, more than MASKINPORTEN_MAX_STALENESS",
                retry_after=_RETRY_AFTER,
            )
        return self.registry

    async def catch_up(self) -> Registry:
        """Read what was written since; what this call was preceded by is in the answer.

        Raises Unavailable.
        """
        async with self._catching_up:
            seen = self.registry.revision
            revision, entities = await self._store.changes_since(seen)
            asked = self._clock()
            if revision < seen:
                # The database was put back to an earlier state; ours is no longer true.
                _log.error("the registry went back from revision %d to %d", seen, revision)
                revision, entities = await self._store.changes_since(Revision(0))
                self.registry = Registry()
                seen = Revision(0)
            if revision > seen:
                registry = self.registry.with_entities(revision, entities.taken())
                for listener in self._listeners:
                    listener(registry)
                self.registry = registry
            self.heard_at = asked
            self.why = ""
            return self.registry

    async def follow(self) -> None:
        """Catch up for ever. While the database is away, what is held stays in use.

        So it does when a listener refuses what is new, such as a signing key that does not open.
        """
        while True:
            try:
                await self._store.wake(_POLL)
                await self.catch_up()
            except Exception as fault:  # noqa: BLE001 - this loop must never end
                if str(fault) != self.why:
                    unexpected = None if isinstance(fault, Unavailable) else fault
                    _log.warning("the registry cannot be followed: %s", fault, exc_info=unexpected)
                self.why = str(fault)
                await asyncio.sleep(_RETRY)
