"""The store in one SQLite file: one writer connection, one reader beside it (WAL).

Workers of one machine share the file; SQLite's own locks put their writes in order. With
`synchronous=NORMAL` a killed process loses nothing; a power cut may lose the last moments, of
spent grants too (README, trust table). `FULL` makes each commit wait for the disk.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiosqlite

from maskinporten.audit import AuditEntry
from maskinporten.domain.evidence import Fetch
from maskinporten.domain.registry import Change, Revision
from maskinporten.errors import Unavailable
from maskinporten.store import AuditRecord, Conflict, SchemaTooNew, Spending, rows

_BUSY_TIMEOUT = 5.0  # seconds to wait for another worker's write
_SWITCH_ATTEMPTS = 50
_SWITCH_PAUSE = 0.1  # seconds
_FORGET_EVERY = 128  # spent grants, so that leaving costs a bounded sliver of arriving
_SPENT = (
    """CREATE TABLE IF NOT EXISTS spent_grant
        (key BLOB NOT NULL PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS spent_grant_until ON spent_grant (until)",
)
_FORGET = (
    "DELETE FROM spent_grant WHERE key IN "
    "(SELECT key FROM spent_grant WHERE until < ? ORDER BY until LIMIT ?)"
)


class SqliteStore:
    """A store of one file. Made with `open_sqlite`."""

    def __init__(self, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._writer = writer
        self._reader = reader
        self._writing = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._spent = 0  # since old ones were last forgotten

    async def migrate(self) -> int:
        """See `Store.migrate`. One transaction for all steps: a second node waits, then sees."""
        async with self._write() as db:
            await db.execute("CREATE TABLE IF NOT EXISTS schema_version (n BIGINT NOT NULL)")
            found = await _one(db, "SELECT max(n) FROM schema_version")
            done = found[0] or 0 if found else 0
            steps = rows.migrations()
            if done > steps[-1][0]:
                raise SchemaTooNew(f"schema {done}, this release knows {steps[-1][0]}")
            for number, text in steps:
                if number > done:
                    for statement in _statements(text):
                        await db.execute(statement)
                    await db.execute("INSERT INTO schema_version (n) VALUES (?)", (number,))
            for statement in _SPENT:
                await db.execute(statement)
        return steps[-1][0]

    async def changes_since(self, seen: Revision) -> tuple[Revision, rows.Entities]:
        """See `Store.changes_since`. Both reads see one snapshot."""
        async with self._read() as db:
            found = await _one(db, rows.SELECT_REVISION)
            revision = Revision(found[0] if found else 0)
            if revision == seen:
                return revision, rows.Entities(())
            entities = rows.Entities()
            async with db.execute(rows.SELECT_CHANGES, (seen,)) as cursor:
                while some := await cursor.fetchmany(rows.BATCH):
                    entities.add(some)
        return revision, entities

    async def commit(self, change: Change, entry: AuditEntry, based_on: Revision) -> Revision:
        """See `Store.commit`.

        The first statement does three jobs: it refuses a decision made on old facts, it holds
        the row every writer needs, so that commits happen in revision order, and it numbers this
        one.
        """
        async with self._write() as db:
            found = await _one(db, rows.NEXT_REVISION, based_on)
            if found is None:
                raise Conflict
            revision = Revision(found[0])
            await db.executemany(rows.UPSERT, rows.upserts(change, revision))
            await db.execute(rows.INSERT_AUDIT, (revision, entry.at, rows.audit_body(entry)))
            await db.executemany(rows.INSERT_SUBJECT, rows.audit_subjects(entry, revision))
        return revision

    async def spend_grants(self, grants: Sequence[Spending], now: int) -> frozenset[bytes]:
        """See `Store.spend_grants`. One statement, its own transaction, inserts them all."""
        holes = ", ".join(["(?, ?)"] * len(grants))
        statement = (
            f"INSERT INTO spent_grant (key, until) VALUES {holes} "  # noqa: S608 - only holes
            "ON CONFLICT (key) DO NOTHING RETURNING key"
        )
        values = [value for grant in grants for value in grant]
        async with self._writing:
            with _translated():
                fresh = await self._writer.execute_fetchall(statement, values)
                self._spent += len(grants)
                if self._spent >= _FORGET_EVERY:
                    await self._writer.execute(_FORGET, (now, 2 * self._spent))
                    self._spent = 0
        return frozenset(row[0] for row in fresh)

    async def audit_trail(
        self, subject: str | None, before: Revision | None, limit: int
    ) -> Sequence[AuditRecord]:
        """See `Store.audit_trail`."""
        bound = rows.NO_REVISION if before is None else before
        async with self._read() as db:
            if subject is None:
                found = await db.execute_fetchall(rows.SELECT_AUDIT, (bound, limit))
            else:
                found = await db.execute_fetchall(rows.SELECT_AUDIT_OF, (subject, bound, limit))
        return [AuditRecord(Revision(n), rows.read_audit(body)) for n, body in found]

    async def record_fetches(self, fetches: Sequence[Fetch], forget: int) -> None:
        """See `Store.record_fetches`."""
        async with self._write() as db:
            await db.execute(rows.FORGET_FETCHES, (forget,))
            known = await db.execute_fetchall(rows.SELECT_CALLERS)
            await db.executemany(rows.UPSERT_FETCH, rows.fetches_to_keep(fetches, known))

    async def fetches(self) -> Sequence[Fetch]:
        """See `Store.fetches`."""
        async with self._read() as db:
            return [Fetch(*row) for row in await db.execute_fetchall(rows.SELECT_FETCHES)]

    async def snapshot(self) -> AsyncIterator[tuple[str, Sequence[Any]]]:
        """See `Store.snapshot`. One read transaction, which no writer waits for."""
        async with self._read() as db:
            found = await _one(db, rows.SELECT_REVISION)
            yield "revision", tuple(found or (0,))
            for table, statement in rows.SELECT_ALL.items():
                async with db.execute(statement) as cursor:
                    while some := await cursor.fetchmany(rows.BATCH):
                        for row in some:
                            yield table, row

    async def fill(self, revision: Revision, given: Iterable[tuple[str, Sequence[Any]]]) -> bool:
        """See `Store.fill`. The counter is the proof that nothing was committed before."""
        async with self._write() as db:
            if await _one(db, rows.FIRST_REVISION, revision) is None:
                return False
            for table, some in rows.batches(given):
                await db.executemany(rows.FILL[table], some)
        return True

    async def newest_spent(self) -> int | None:
        """See `Store.newest_spent`."""
        async with self._read() as db:
            found = await _one(db, "SELECT max(until) FROM spent_grant")
        return found[0] if found else None

    async def revision_at(self, at: int) -> Revision:
        """See `Store.revision_at`."""
        async with self._read() as db:
            found = await _one(db, rows.SELECT_REVISION_AT, at)
        return Revision(found[0] if found else 0)

    async def wake(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound on sleep, not work
        """See `Store.wake`. A file tells nobody that it changed; looking often is cheap."""
        await asyncio.sleep(min(timeout, 0.2))

    async def close(self) -> None:
        """See `Store.close`."""
        await self._writer.close()
        await self._reader.close()

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[aiosqlite.Connection]:
        async with self._writing:
            with _translated():
                await self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    await self._writer.execute("COMMIT")
                except BaseException:
                    await self._writer.execute("ROLLBACK")
                    raise

    @asynccontextmanager
    async def _read(self) -> AsyncIterator[aiosqlite.Connection]:
        async with self._reading:
            with _translated():
                await self._reader.execute("BEGIN")
                try:
                    yield self._reader
                finally:
                    await self._reader.execute("ROLLBACK")


async def open_sqlite(path: Path, *, synchronous: str = "NORMAL") -> SqliteStore:
    """The store in the file at `path`, which is made if it is missing.

    Raises Unavailable with a sentence when the file cannot be opened or is not a database.
    """
    if not path.parent.is_dir():
        raise Unavailable(f"the folder {path.parent} does not exist")
    if path.is_dir():  # noqa: ASYNC240 - at start, before anything is served
        raise Unavailable(f"{path} is a folder, not a database")
    async with AsyncExitStack() as opened:
        with _translated():
            writer = await _connect(path, synchronous)
            opened.push_async_callback(writer.close)
            reader = await _connect(path, synchronous)
        opened.pop_all()
    return SqliteStore(writer, reader)


async def _connect(path: Path, synchronous: str) -> aiosqlite.Connection:
    # Without an isolation level the driver begins and commits nothing by itself.
    connection = aiosqlite.connect(
        path, isolation_level=None, timeout=_BUSY_TIMEOUT, cached_statements=1024
    )
    db = await connection
    try:
        await _switch_to_wal(db)
        await db.execute(f"PRAGMA synchronous = {synchronous}")
    except BaseException:
        await db.close()
        raise
    return db


async def _switch_to_wal(db: aiosqlite.Connection) -> None:
    """Write-ahead logging, once for all connections.

    Where several processes make the database together, SQLite tells all but one of them at once
    that it is locked, however long they would wait; so the waiting is done here.
    """
    for _ in range(_SWITCH_ATTEMPTS):
        try:
            await db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            await asyncio.sleep(_SWITCH_PAUSE)
        else:
            return
    await db.execute("PRAGMA journal_mode = WAL")


def _statements(text: str) -> Iterator[str]:
    """The statements of a migration; a trigger's body holds semicolons of its own."""
    statement = ""
    for part in text.split(";"):
        statement += part
        if statement.strip():
            statement += ";"
            if sqlite3.complete_statement(statement):
                yield statement
                statement = ""


async def _one(db: aiosqlite.Connection, statement: str, *values: object) -> sqlite3.Row | None:
    return next(iter(await db.execute_fetchall(statement, values)), None)


@contextmanager
def _translated() -> Iterator[None]:
    """What SQLite says when it cannot, in our word. A Conflict passes."""
    try:
        yield
    except sqlite3.Error as fault:
        raise Unavailable(f"SQLite: {fault}") from fault
