"""The store in PostgreSQL: the same promises for any number of nodes.

The counter's row lock puts commits in order, as SQLite's single writer does. Followers are woken
by NOTIFY and look by themselves underneath, so that a lost message costs the poll, nothing else.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

import asyncpg

from maskinporten.audit import AuditEntry
from maskinporten.domain.evidence import Fetch
from maskinporten.domain.registry import Change, Revision
from maskinporten.errors import Unavailable
from maskinporten.store import AuditRecord, Conflict, SchemaTooNew, Spending, rows

_CHANNEL: Final = "maskinporten"
_MIGRATING: Final = 0x6D61736B  # names the advisory lock under which one node migrates
_RECORDING: Final = 0x6A776B73  # the same for fetches of /jwk
_POOL: Final = 4  # connections of a worker beside the one that listens
_DEADLINE: Final = 5.0  # seconds for a statement, and for a connection
# Spent grants lie in three tables by the time slice of their `until`. The grants that are still
# alive fill two of them at most; the third is emptied as a whole, so that nothing is deleted row
# by row. One grant always names the same slice. The margin is what nodes' clocks may differ.
_SLICE: Final = 600  # seconds
_MARGIN: Final = 300  # seconds into a slice before the one before it is emptied
_TABLES: Final = 3


def _numbered(statement: str) -> str:
    """The SQL that both databases share, with PostgreSQL's parameters."""
    count = iter(range(1, statement.count("?") + 1))
    return re.sub(r"\?", lambda _: f"${next(count)}", statement)


_SELECT_CHANGES: Final = _numbered(rows.SELECT_CHANGES)
_NEXT_REVISION: Final = _numbered(rows.NEXT_REVISION)
_UPSERT: Final = _numbered(rows.UPSERT)
_INSERT_AUDIT: Final = _numbered(rows.INSERT_AUDIT)
_INSERT_SUBJECT: Final = _numbered(rows.INSERT_SUBJECT)
_SELECT_AUDIT: Final = _numbered(rows.SELECT_AUDIT)
_SELECT_REVISION_AT: Final = _numbered(rows.SELECT_REVISION_AT)
_SELECT_AUDIT_OF: Final = _numbered(rows.SELECT_AUDIT_OF)
_FORGET_FETCHES: Final = _numbered(rows.FORGET_FETCHES)
_FIRST_REVISION: Final = _numbered(rows.FIRST_REVISION)
_FILL: Final = {table: _numbered(statement) for table, statement in rows.FILL.items()}
_UPSERT_FETCH: Final = _numbered(rows.UPSERT_FETCH)
_MAKE_SPENT: Final = (
    *(
        f"CREATE TABLE IF NOT EXISTS spent_grant_{n} (key BYTEA PRIMARY KEY, until BIGINT NOT NULL)"
        for n in range(_TABLES)
    ),
    "CREATE TABLE IF NOT EXISTS spent_slice (n BIGINT PRIMARY KEY, slice BIGINT NOT NULL)",
    "INSERT INTO spent_slice SELECT n, 0 FROM generate_series(0, 2) n ON CONFLICT DO NOTHING",
)
_SPEND: Final = tuple(
    f"INSERT INTO spent_grant_{n} (key, until) "  # noqa: S608 - numbers of ours
    "SELECT k, u FROM unnest($1::bytea[], $2::bigint[]) AS given (k, u) "
    f"WHERE NOT EXISTS (SELECT FROM spent_grant_{(n + 1) % _TABLES} WHERE key = k AND until >= $3) "
    f"AND NOT EXISTS (SELECT FROM spent_grant_{(n + 2) % _TABLES} WHERE key = k AND until >= $3) "
    "ON CONFLICT DO NOTHING RETURNING key"
    for n in range(_TABLES)
)
_NEWEST_SPENT: Final = (
    "SELECT greatest((SELECT max(until) FROM spent_grant_0), "
    "(SELECT max(until) FROM spent_grant_1), (SELECT max(until) FROM spent_grant_2))"
)
# A deadline that passes is an OSError too (TimeoutError).
_FAULTS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    ValueError,
)
_CLAIM_SLICE: Final = "UPDATE spent_slice SET slice = $2 WHERE n = $1 AND slice < $2 RETURNING n"


class PostgresStore:
    """A store of many nodes. Made with `open_postgres`."""

    def __init__(self, pool: "asyncpg.Pool[Any]", url: str) -> None:
        self._pool = pool
        self._url = url
        self._listener: asyncpg.Connection[Any] | None = None
        self._woken = asyncio.Event()
        self._emptied = 0  # the newest slice this worker knows a table to be emptied for

    async def migrate(self) -> int:
        """See `Store.migrate`. Under one lock: the others wait, then find it done."""
        async with self._transaction() as db:
            await db.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATING)
            await db.execute("CREATE TABLE IF NOT EXISTS schema_version (n BIGINT NOT NULL)")
            done = await db.fetchval("SELECT max(n) FROM schema_version") or 0
            steps = rows.migrations("postgres")
            if done > steps[-1][0]:
                raise SchemaTooNew(f"schema {done}, this release knows {steps[-1][0]}")
            for number, text in steps:
                if number > done:
                    await db.execute(text)
                    await db.execute("INSERT INTO schema_version (n) VALUES ($1)", number)
            for statement in _MAKE_SPENT:
                await db.execute(statement)
        return steps[-1][0]

    async def changes_since(self, seen: Revision) -> tuple[Revision, rows.Entities]:
        """See `Store.changes_since`. Both reads see one snapshot."""
        async with self._transaction(isolation="repeatable_read", readonly=True) as db:
            revision = Revision(await db.fetchval(rows.SELECT_REVISION))
            if revision == seen:
                return revision, rows.Entities(())
            entities = rows.Entities()
            cursor = await db.cursor(_SELECT_CHANGES, seen)
            while some := await cursor.fetch(rows.BATCH):
                entities.add(some)
        return revision, entities

    async def commit(self, change: Change, entry: AuditEntry, based_on: Revision) -> Revision:
        """See `Store.commit`. The counter's row is the first thing taken and the last let go."""
        async with self._transaction() as db:
            found = await db.fetchval(_NEXT_REVISION, based_on)
            if found is None:
                raise Conflict
            revision = Revision(found)
            await db.executemany(_UPSERT, rows.upserts(change, revision))
            await db.execute(_INSERT_AUDIT, revision, entry.at, rows.audit_body(entry))
            await db.executemany(_INSERT_SUBJECT, rows.audit_subjects(entry, revision))
            await db.execute("SELECT pg_notify($1, $2)", _CHANNEL, str(revision))
        return revision

    async def spend_grants(self, grants: Sequence[Spending], now: int) -> frozenset[bytes]:
        """See `Store.spend_grants`. One insert for each slice there is, most often one.

        The same grant meets itself in one table's primary key. Another grant with the same jti
        and another `exp` may lie in a neighbouring slice, which is looked at too.
        """
        by_slice: dict[int, list[Spending]] = defaultdict(list)
        for grant in grants:
            by_slice[grant.until // _SLICE].append(grant)
        fresh: set[bytes] = set()
        for number, some in by_slice.items():
            keys, untils = [grant.key for grant in some], [grant.until for grant in some]
            found = await self._fetch(_SPEND[number % _TABLES], keys, untils, now)
            fresh.update(row["key"] for row in found)
        await self._empty_the_oldest(now)
        return frozenset(fresh)

    async def _empty_the_oldest(self, now: int) -> None:
        """Empty the table of the slice before this one; it is the table of the next but one."""
        current, into = divmod(now, _SLICE)
        coming = current + 2
        if into < _MARGIN or self._emptied >= coming:
            return
        async with self._transaction() as db:
            if await db.fetchval(_CLAIM_SLICE, coming % _TABLES, coming) is not None:
                await db.execute(f"TRUNCATE spent_grant_{coming % _TABLES}")
        self._emptied = coming

    async def audit_trail(
        self, subject: str | None, before: Revision | None, limit: int
    ) -> Sequence[AuditRecord]:
        """See `Store.audit_trail`."""
        bound = rows.NO_REVISION if before is None else before
        if subject is None:
            found = await self._fetch(_SELECT_AUDIT, bound, limit)
        else:
            found = await self._fetch(_SELECT_AUDIT_OF, subject, bound, limit)
        return [AuditRecord(Revision(n), rows.read_audit(body)) for n, body in found]

    async def record_fetches(self, fetches: Sequence[Fetch], forget: int) -> None:
        """See `Store.record_fetches`. One at a time, so that the bound on callers is exact."""
        async with self._transaction() as db:
            await db.execute("SELECT pg_advisory_xact_lock($1)", _RECORDING)
            await db.execute(_FORGET_FETCHES, forget)
            known = await db.fetch(rows.SELECT_CALLERS)
            await db.executemany(_UPSERT_FETCH, rows.fetches_to_keep(fetches, known))

    async def fetches(self) -> Sequence[Fetch]:
        """See `Store.fetches`."""
        return [Fetch(*row) for row in await self._fetch(rows.SELECT_FETCHES)]

    async def snapshot(self) -> AsyncIterator[tuple[str, Sequence[Any]]]:
        """See `Store.snapshot`. One transaction of repeatable reads, through cursors."""
        async with self._transaction(isolation="repeatable_read", readonly=True) as db:
            yield "revision", (await db.fetchval(rows.SELECT_REVISION),)
            for table, statement in rows.SELECT_ALL.items():
                async for row in db.cursor(statement, prefetch=rows.BATCH):
                    yield table, tuple(row)

    async def fill(self, revision: Revision, given: Iterable[tuple[str, Sequence[Any]]]) -> bool:
        """See `Store.fill`. The counter is the proof that nothing was committed before."""
        async with self._transaction() as db:
            if await db.fetchval(_FIRST_REVISION, revision) is None:
                return False
            for table, some in rows.batches(given):
                await db.executemany(_FILL[table], some)
            await db.execute("SELECT pg_notify($1, $2)", _CHANNEL, str(revision))
        return True

    async def newest_spent(self) -> int | None:
        """See `Store.newest_spent`."""
        found: int | None = (await self._fetch(_NEWEST_SPENT))[0][0]
        return found

    async def revision_at(self, at: int) -> Revision:
        """See `Store.revision_at`."""
        with _translated():
            return Revision(await self._pool.fetchval(_SELECT_REVISION_AT, at) or 0)

    async def wake(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound on sleep, not work
        """See `Store.wake`. A message that came since the last call is not lost."""
        if self._listener is None or self._listener.is_closed():
            with _translated():
                self._listener = await asyncpg.connect(self._url, timeout=_DEADLINE)
                await self._listener.add_listener(_CHANNEL, lambda *_: self._woken.set())
            return
        try:
            await asyncio.wait_for(self._woken.wait(), timeout)
        except TimeoutError:
            await self._verify_listener(self._listener)
        self._woken.clear()

    async def _verify_listener(self, listener: "asyncpg.Connection[Any]") -> None:
        """Nothing was heard, which may be because nobody is there any more."""
        try:
            await listener.execute("SELECT 1", timeout=_DEADLINE)
        except _FAULTS:
            listener.terminate()

    async def close(self) -> None:
        """See `Store.close`."""
        if self._listener is not None and not self._listener.is_closed():
            await self._listener.close(timeout=_DEADLINE)
        await self._pool.close()

    @asynccontextmanager
    async def _transaction(self, **options: Any) -> AsyncIterator["asyncpg.Connection[Any]"]:
        async with self._connection() as db, db.transaction(**options):
            yield db

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        async with self._connection() as db:
            found: list[Any] = await db.fetch(statement, *values)
        return found

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        """A connection of the pool. One that fails or is given up on is not used again.

        Nobody waits for its last word: beyond a broken cable there is none. So goes one that may
        not write, for it may have been opened to a server that follows another one.
        """
        with _translated():
            db: Any = await self._pool.acquire(timeout=_DEADLINE)
            try:
                yield db
            except (
                OSError,
                asyncio.CancelledError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
                asyncpg.PostgresConnectionError,
                asyncpg.ReadOnlySQLTransactionError,
            ):
                db.terminate()
                raise
            finally:
                # Where this fails the pool drops the connection; what it answered stays answered.
                with suppress(*_FAULTS):
                    await self._pool.release(db, timeout=_DEADLINE)


async def open_postgres(url: str) -> PostgresStore:
    """The store in the database at `url` (postgresql://…). Raises Unavailable with a sentence."""
    with _translated():
        pool = await asyncpg.create_pool(
            url, min_size=0, max_size=_POOL, command_timeout=_DEADLINE, timeout=_DEADLINE
        )
        async with pool.acquire(timeout=_DEADLINE):
            pass
    return PostgresStore(pool, url)


@contextmanager
def _translated() -> Iterator[None]:
    """What PostgreSQL or the network says when it cannot, in our word. A Conflict passes."""
    try:
        yield
    except _FAULTS as fault:
        raise Unavailable(f"PostgreSQL: {type(fault).__name__}: {fault}") from fault
