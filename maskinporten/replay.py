"""Each grant once: the spent grants of this worker, and through the store of all others."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from itertools import islice

from maskinporten.errors import Reason, Refused, Unavailable
from maskinporten.metrics import Metrics
from maskinporten.store import Spending, Store

_MAX_BATCH = 256  # grants in one insert
_PATIENCE = 1.0  # seconds an insert may take before the database counts as away
_PROBE = Spending(bytes(32), 0)  # names no grant, and is forgotten at once
_log = logging.getLogger(__name__)


class WithoutDatabase(StrEnum):
    """What a grant is worth while the database is away."""

    LOCAL = "local"  # refused if this worker has seen it, else accepted and written later
    REFUSE = "refuse"  # 503 until the database is back


class SpentGrants:
    """Spends grants. Requests that come together share one insert (group commit)."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        metrics: Metrics,
        without_database: WithoutDatabase = WithoutDatabase.LOCAL,
    ) -> None:
        self.away = False
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._without_database = without_database
        self._waiting: deque[tuple[Spending, asyncio.Future[bool]]] = deque()
        self._seen: dict[bytes, int] = {}  # key -> until; what this worker has spent
        self._unwritten: dict[bytes, int] = {}  # accepted while the database was away
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
        self._unwritten[key] = until
        self._metrics.add("maskinporten_grants_spent_locally_total")

    async def _flush(self) -> None:
        """Write what is waiting, a batch at a time, until nothing is."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_BATCH))]
            now = int(self._clock())
            try:
                async with asyncio.timeout(_PATIENCE):
                    fresh = await self._store.spend_grants([grant for grant, _ in batch], now)
            except (Unavailable, TimeoutError) as fault:
                self._lose_database(fault)
                for _, done in batch:
                    if not done.done():
                        done.set_exception(Unavailable(str(fault)))
                continue
            for grant, done in batch:
                if not done.done():
                    done.set_result(grant.key in fresh)
            self._forget(now)

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
        """Write what was accepted meanwhile; once nothing is owed, the database is back."""
        while self.away:
            await asyncio.sleep(_PATIENCE)
            try:
                while owed := self._owed(int(self._clock())):
                    await self._store.spend_grants(owed, int(self._clock()))
                    for grant in owed:
                        self._unwritten.pop(grant.key, None)
                # Only a write tells that writes are possible.
                await self._store.spend_grants([_PROBE], int(self._clock()))
            except Unavailable:
                continue
            if not self._unwritten:
                self.away = False
                self._metrics.put("maskinporten_database_away", 0)
                _log.warning("spent grants are written to the database again")

    def _owed(self, now: int) -> list[Spending]:
        """The next batch of what was accepted locally and could still be used again."""
        self._unwritten = {key: until for key, until in self._unwritten.items() if until >= now}
        return [Spending(*item) for item in islice(self._unwritten.items(), _MAX_BATCH)]
