"""Each grant once: spent in the store for all nodes, in the spool while the store is away."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from enum import StrEnum

from maskinporten.errors import Reason, Refused, Unavailable
from maskinporten.metrics import Metrics
from maskinporten.spool import Spool
from maskinporten.store import Spending, Store

_MAX_BATCH = 256  # grants in one insert
_PATIENCE = 1.0  # seconds an insert may take before the database counts as away
_PROBE = Spending(bytes(32), 0)  # names no grant, and is forgotten at once
_log = logging.getLogger(__name__)


class WithoutDatabase(StrEnum):
    """What a grant is worth while the database is away."""

    LOCAL = "local"  # refused if this node has seen it, else accepted and written later
    REFUSE = "refuse"  # 503 until the database is back


class SpentGrants:
    """Spends grants. Requests that come together share one insert (group commit)."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        metrics: Metrics,
        spool: Spool,
        without_database: WithoutDatabase = WithoutDatabase.LOCAL,
    ) -> None:
        self.away = False
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._spool = spool
        metrics.put("maskinporten_database_away", 0)  # the row may be a dead worker's
        self._without_database = without_database
        self._waiting: deque[tuple[Spending, asyncio.Future[bool]]] = deque()
        self._seen: dict[bytes, int] = {}  # key -> until; what this worker has spent
        self._paid: dict[bytes, int] = {}  # claims of this node that the database has by now
        self._spool_lost = False
        self._flushing: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None

    async def spend(self, key: bytes, until: int) -> None:
        """Return the first time and only then.

        Raises Refused: GRANT_SPENT; or Unavailable, and then the grant was not spent by us.
        """
        if key in self._seen:
            raise Refused(Reason.GRANT_SPENT, "seen by this worker")
        self._seen[key] = until
        if self.away:
            self._spend_locally(key, until)
            return
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((Spending(key, until), done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        try:
            first = await done
        except Unavailable:
            self._spend_locally(key, until)
            return
        if not first:
            raise Refused(Reason.GRANT_SPENT, "spent before")

    async def recover(self) -> None:
        """Write what a worker of this node claimed before it died. Raises Unavailable."""
        await self._pay()

    async def close(self) -> None:
        """Wait for what is under way."""
        for task in (self._flushing, self._mending):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _spend_locally(self, key: bytes, until: int) -> None:
        if self._without_database is WithoutDatabase.REFUSE:
            self._seen.pop(key, None)
            raise Unavailable("spent grants cannot be written")
        now = int(self._clock())
        self._forget(now)  # an outage may be long
        try:
            first = self._spool.claim(Spending(key, until), now)
        except OSError as fault:
            self._seen.pop(key, None)
            raise Unavailable(f"neither database nor spool can be written: {fault}") from fault
        if not first:
            raise Refused(Reason.GRANT_SPENT, "seen by this node")
        self._metrics.add("maskinporten_grants_spent_locally_total")

    async def _flush(self) -> None:
        """Write what is waiting, a batch at a time, until nothing is."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_BATCH))]
            now = int(self._clock())
            try:
                async with asyncio.timeout(_PATIENCE):
                    fresh = await self._insert([grant for grant, _ in batch], now)
            except Exception as fault:  # noqa: BLE001 - whatever it was, nobody may wait for ever
                self._lose_database(fault)
                for _, done in batch:
                    if not done.done():
                        done.set_exception(Unavailable(str(fault)))
                continue
            fresh -= self._note([grant for grant, _ in batch if grant.key in fresh], now)
            for grant, done in batch:
                if not done.done():
                    done.set_result(grant.key in fresh)
            self._forget(now)

    async def _insert(self, grants: list[Spending], now: int) -> frozenset[bytes]:
        """Ask twice, for a connection may have died unheard. The second answer counts.

        Had the first been carried out without our hearing it, its grants are refused; a token less
        is mended by another grant, a token too many by nothing.
        """
        try:
            return await self._store.spend_grants(grants, now)
        except Unavailable:
            return await self._store.spend_grants(grants, now)

    def _note(self, grants: list[Spending], now: int) -> frozenset[bytes]:
        """Tell the node's other workers; what they claimed before, in an outage of theirs alone."""
        try:
            return self._spool.note(grants, now) if grants else frozenset()
        except OSError as fault:
            if not self._spool_lost:
                _log.error("the spool cannot be written: %s", fault)
            self._spool_lost = True
            return frozenset()

    def _forget(self, now: int) -> None:
        """Drop what has expired; insertion order is nearly the order of expiry."""
        while self._seen:
            key, until = next(iter(self._seen.items()))
            if until >= now:
                return
            del self._seen[key]

    def _lose_database(self, fault: BaseException) -> None:
        if not self.away:
            _log.error("spent grants cannot be written, mode %s: %s", self._without_database, fault)
            self.away = True
            self._metrics.put("maskinporten_database_away", 1)
            self._mending = asyncio.create_task(self._mend())

    async def _mend(self) -> None:
        """Write what was claimed meanwhile; once nothing is owed, the database is back."""
        while self.away:
            await asyncio.sleep(_PATIENCE)
            try:
                await self._pay()
                # Only a write tells that writes are possible.
                await self._store.spend_grants([_PROBE], int(self._clock()))
                owed = self._owed()
            except Exception as fault:  # noqa: BLE001 - this loop ends when the database is back
                _log.debug("not yet: %s", fault)
                continue
            if not owed:
                self.away = False
                self._metrics.put("maskinporten_database_away", 0)
                _log.warning("spent grants are written to the database again")

    async def _pay(self) -> None:
        while owed := self._owed():
            await self._store.spend_grants(owed, int(self._clock()))
            self._paid.update(owed)

    def _owed(self) -> list[Spending]:
        """The next batch of what this node claimed and could still be used again."""
        now = int(self._clock())
        self._paid = {key: until for key, until in self._paid.items() if until >= now}
        return [grant for grant in self._spool.owed(now) if grant.key not in self._paid][
            :_MAX_BATCH
        ]
