"""What every store promises, run against each of them."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from maskinporten.app import open_store
from maskinporten.audit import AuditEntry
from maskinporten.domain.evidence import MAX_CALLERS_OF_NETWORK, Fetch
from maskinporten.domain.registry import Change, Entity, Revision
from maskinporten.domain.scope import Prefix
from maskinporten.errors import Unavailable
from maskinporten.store import Conflict, SchemaTooNew, Spending, Store, rows
from maskinporten.store.postgres import PostgresStore, _numbered, open_postgres
from maskinporten.store.sqlite import open_sqlite
from tests.world import NOW, PROVIDER, registry

Open = Callable[[], Awaitable[Store]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the database lies."""
    return tmp_path


@pytest.fixture(params=["sqlite", "postgresql", "postgresql of the system"])
def url(request: pytest.FixtureRequest, folder: Path) -> str:
    """A fresh database of each kind: SQLite, the newest PostgreSQL, and the oldest we promise."""
    if request.param == "sqlite":
        return f"sqlite:///{folder / 'registry.db'}"
    name = "postgres_url" if request.param == "postgresql" else "system_postgres_url"
    found: str = request.getfixturevalue(name)
    return found


@pytest.fixture
def opener(url: str) -> Open:
    """Opens the same database each time it is called, as another process would."""

    async def opening() -> Store:
        store = await open_store(url)
        await store.migrate()
        return store

    return opening


async def execute(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """SQL behind the store's back."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as db:
            return list(db.execute(statement, values))
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(_numbered(statement), *values)]
    finally:
        await connection.close()


def prefix(name: str) -> Prefix:
    """A small entity."""
    return Prefix(prefix=name, owner_orgno=PROVIDER)  # type: ignore[arg-type]


def entry(command: str = "test", *subjects: str) -> AuditEntry:
    """Who did it."""
    return AuditEntry(
        at=NOW, caller={"kind": "operator"}, command=command, subjects=frozenset(subjects)
    )


async def changes(store: Store, seen: int) -> tuple[int, list[Entity]]:
    """What was written since."""
    revision, found = await store.changes_since(Revision(seen))
    return revision, list(found)


async def test_a_new_database_is_empty_at_revision_0(opener: Open) -> None:
    """Nothing there, and that is an answer."""
    store = await opener()

    assert await changes(store, 0) == (0, [])
    await store.close()


async def test_everything_written_comes_back_as_it_was(opener: Open) -> None:
    """Entities of every kind survive the way to rows and back."""
    store = await opener()
    world = registry()
    entities: tuple[Entity, ...] = (
        *world.prefixes.values(),
        *world.scopes.values(),
        *world.accesses.values(),
        *world.clients.values(),
        *world.delegation_sources.values(),
    )
    assert await store.commit(Change(entities), entry(), Revision(0)) == 1

    revision, found = await store.changes_since(Revision(0))

    assert revision == 1
    assert {rows.identity(e): e for e in found} == {rows.identity(e): e for e in entities}
    await store.close()


async def test_the_feed_gives_what_came_after_and_each_entity_once(opener: Open) -> None:
    """A follower that has seen a revision gets the rest, as it is now."""
    store = await opener()
    await store.commit(Change((prefix("a"), prefix("b"))), entry(), Revision(0))
    await store.commit(Change((prefix("b"),)), entry(), Revision(1))
    await store.commit(Change((prefix("c"),)), entry(), Revision(2))

    assert await changes(store, 1) == (3, [prefix("b"), prefix("c")])
    assert await changes(store, 3) == (3, [])
    await store.close()


async def test_a_decision_on_old_facts_is_a_conflict_and_leaves_nothing(opener: Open) -> None:
    """Change, audit and counter: all or none."""
    store = await opener()
    await store.commit(Change((prefix("a"),)), entry("first"), Revision(0))

    with pytest.raises(Conflict):
        await store.commit(Change((prefix("b"),)), entry("second"), Revision(0))

    assert await changes(store, 0) == (1, [prefix("a")])
    assert [r.entry.command for r in await store.audit_trail(None, None, 9)] == ["first"]
    await store.close()


async def test_of_many_commits_on_one_revision_one_wins(opener: Open) -> None:
    """Two processes, ten coroutines each, one revision: one commit."""
    stores = [await opener(), await opener()]

    async def attempt(number: int) -> bool:
        change = Change((prefix(f"p{number}"),))
        try:
            await stores[number % 2].commit(change, entry(), Revision(0))
        except Conflict:
            return False
        return True

    won = await asyncio.gather(*map(attempt, range(20)))

    assert sum(won) == 1
    for store in stores:
        assert (await store.changes_since(Revision(0)))[0] == 1
        await store.close()


async def test_of_twenty_who_spend_one_grant_one_is_first(opener: Open) -> None:
    """Insert-if-absent is one step, across processes (attack 14)."""
    stores = [await opener(), await opener()]
    grant = Spending(b"k" * 32, NOW + 60)

    answers = await asyncio.gather(*(stores[n % 2].spend_grants([grant], NOW) for n in range(20)))

    assert sorted(map(len, answers)) == [0] * 19 + [1]
    for store in stores:
        await store.close()


async def test_a_batch_tells_the_spent_from_the_fresh(opener: Open) -> None:
    """One insert, an answer for each; and it outlives the connection."""
    store = await opener()
    old, new = Spending(b"a" * 32, NOW + 60), Spending(b"b" * 32, NOW + 60)
    assert await store.spend_grants([old], NOW) == {old.key}
    await store.close()

    again = await opener()
    assert await again.spend_grants([old, new], NOW) == {new.key}
    await again.close()


async def _size(url: str) -> tuple[int, int]:
    """Rows of spent grants, and octets that they and their indexes take on the disk."""
    if url.startswith("sqlite"):
        rows_there = (await execute(url, "SELECT count(*) FROM spent_grant"))[0][0]
        pages = (await execute(url, "PRAGMA page_count"))[0][0]
        return rows_there, pages * 4096
    names = [f"spent_grant_{n}" for n in range(3)]
    found = [
        (await execute(url, f"SELECT count(*), pg_total_relation_size('{name}') FROM {name}"))[0]  # noqa: S608 - ours
        for name in names
    ]
    return sum(count for count, _ in found), sum(octets for _, octets in found)


async def test_spent_grants_stay_bounded_over_a_week(opener: Open, url: str) -> None:
    """What expired leaves by itself, whatever callers do; the disk does not grow (attack 16)."""
    store = await opener()
    step, batch, sizes = 300, 16, []
    for number in range(7 * 24 * 12):
        now = NOW + step * number
        keys = [number.to_bytes(2, "big").ljust(31) + bytes([n]) for n in range(batch)]
        assert len(await store.spend_grants([Spending(k, now + 130) for k in keys], now)) == batch
        if number % (24 * 12) == 200:
            sizes.append(await _size(url))

    assert len(sizes) == 7
    assert max(count for count, _ in sizes) <= batch * 30  # of 32,256, on their way out
    assert max(octets for _, octets in sizes) <= 2 * sizes[0][1]
    await store.close()


async def test_a_jti_is_found_in_the_slice_beside_its_own(opener: Open) -> None:
    """The same name under another expiry is the same grant, on either side of any boundary."""
    store = await opener()
    for second in range(NOW, NOW + 1300, 100):
        key = second.to_bytes(32, "big")
        assert await store.spend_grants([Spending(key, second + 130)], second)
        for until in (second + 1, second + 60, second + 130):
            assert not await store.spend_grants([Spending(key, until)], second)
    await store.close()


async def test_the_audit_trail_is_paged_newest_first_and_by_subject(opener: Open) -> None:
    """An owner reads its own; the operator reads all."""
    store = await opener()
    for number, subject in enumerate(("1", "2", "1", "1")):
        made = entry(f"c{number}", subject)
        await store.commit(Change((prefix(f"p{number}"),)), made, Revision(number))

    assert [r.entry.command for r in await store.audit_trail(None, None, 2)] == ["c3", "c2"]
    own = await store.audit_trail("1", None, 2)
    assert [r.entry.command for r in own] == ["c3", "c2"]
    rest = await store.audit_trail("1", own[-1].revision, 2)
    assert [r.entry.command for r in rest] == ["c0"]
    assert rest[0].entry == entry("c0", "1")
    await store.close()


async def test_fetches_of_keys_are_kept_newest_first_forgotten_and_bounded(opener: Open) -> None:
    """The newest of each caller and key; old ones leave; strangers do not fill the table."""
    stores = [await opener(), await opener()]
    old, late = Fetch("a/1", "10.0.0.0/16", "k1", NOW), Fetch("a/1", "10.0.0.0/16", "k1", NOW + 9)
    other = Fetch("b/1", "10.0.0.0/16", "k1", NOW + 5)
    await stores[0].record_fetches([late, other], NOW)
    await stores[1].record_fetches([old], NOW)
    assert sorted(await stores[0].fetches()) == [late, other]

    invented = [Fetch(f"c/{n}", "10.0.0.0/16", "k1", NOW + 6) for n in range(50)]
    await asyncio.gather(*(store.record_fetches(invented, NOW + 6) for store in stores))
    found = await stores[1].fetches()
    assert len(found) == MAX_CALLERS_OF_NETWORK
    assert late in found
    assert other not in found
    assert await changes(stores[0], 0) == (0, [])
    for store in stores:
        await store.close()


async def test_migrating_twice_is_migrating_once(opener: Open) -> None:
    """Several nodes may start at the same time."""
    stores = await asyncio.gather(*(opener() for _ in range(5)))

    assert {await store.migrate() for store in stores} == {rows.migrations()[-1][0]}
    for store in stores:
        await store.close()


async def test_a_database_of_a_later_release_is_refused(opener: Open, url: str) -> None:
    """An old program keeps its hands off a new schema."""
    store = await opener()
    await execute(url, "INSERT INTO schema_version (n) VALUES (999)")

    with pytest.raises(SchemaTooNew, match="999"):
        await store.migrate()
    await store.close()


async def test_an_entity_of_a_later_release_is_passed_over(opener: Open, url: str) -> None:
    """Two releases share a database for a while; unknown kinds and fields do no harm."""
    store = await opener()
    await store.commit(Change((prefix("a"),)), entry(), Revision(0))
    body = '{"prefix":"n","owner_orgno":"1","new_field":1}'
    await execute(url, rows.UPSERT, "prefix", "n", 1, body)
    await execute(url, rows.UPSERT, "moon", "m", 1, "{}")

    _, found = await store.changes_since(Revision(0))

    assert sorted(e.prefix for e in found if isinstance(e, Prefix)) == ["a", "n"]
    assert len(found) == 2
    await store.close()


async def test_waking_takes_no_longer_than_asked(opener: Open) -> None:
    """A follower is never left asleep."""
    store = await opener()
    for _ in range(2):
        await asyncio.wait_for(store.wake(0.01), 2)
    await store.close()


async def test_a_missing_folder_and_a_foreign_file_are_sentences(tmp_path: Path) -> None:
    """What cannot be opened is Unavailable, with the reason."""
    with pytest.raises(Unavailable, match="does not exist"):
        await open_sqlite(tmp_path / "nowhere" / "registry.db")
    (tmp_path / "text.db").write_text("this is no database at all, whatever its name" * 20)
    with pytest.raises(Unavailable, match="not a database"):
        await open_sqlite(tmp_path / "text.db")


async def test_a_lock_that_does_not_go_away_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening waits for a while, then says what is wrong."""
    monkeypatch.setattr("maskinporten.store.sqlite._SWITCH_ATTEMPTS", 2)
    monkeypatch.setattr("maskinporten.store.sqlite._SWITCH_PAUSE", 0.01)
    with sqlite3.connect(tmp_path / "registry.db", isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="locked"):
            await open_sqlite(tmp_path / "registry.db")
        holder.execute("ROLLBACK")
    holder.close()
    await (await open_sqlite(tmp_path / "registry.db")).close()


async def test_a_folder_in_place_of_the_file_is_a_sentence(tmp_path: Path) -> None:
    """Told before SQLite is asked."""
    with pytest.raises(Unavailable, match="is a folder"):
        await open_sqlite(tmp_path)


async def test_a_commit_wakes_a_follower_at_once(postgres_url: str) -> None:
    """NOTIFY, long before the poll."""
    follower, writer = await open_postgres(postgres_url), await open_postgres(postgres_url)
    await writer.migrate()
    await follower.wake(1)  # begins to listen
    waiting = asyncio.create_task(follower.wake(30))
    await writer.commit(Change((prefix("a"),)), entry(), Revision(0))

    await asyncio.wait_for(waiting, 5)
    await follower.close()
    await writer.close()


async def test_a_cut_connection_is_unavailable_once_and_then_mended(postgres_url: str) -> None:
    """The server ends every connection; the next calls find their way back by themselves."""
    store = await open_postgres(postgres_url)
    await store.migrate()
    await store.wake(1)
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
    await execute(postgres_url, cut + "AND datname = current_database()")
    await asyncio.sleep(0.1)
    for _ in range(6):
        try:
            revision = await store.commit(Change((prefix("a"),)), entry(), Revision(0))
        except Unavailable:
            continue
        break
    assert revision == 1
    await store.wake(1)
    await store.close()


async def test_a_server_that_is_not_there_is_a_sentence() -> None:
    """Unavailable, within the deadline."""
    with pytest.raises(Unavailable, match="PostgreSQL"):
        await open_postgres("postgresql://nobody@127.0.0.1:1/none")


async def test_three_nodes_and_hundreds_of_copies_have_one_winner(postgres_url: str) -> None:
    """A race across connection pools, many times over (attack 14)."""
    stores: list[PostgresStore] = [await open_postgres(postgres_url) for _ in range(3)]
    await stores[0].migrate()
    for race in range(5):
        grant = Spending(bytes([race]) * 32, NOW + 130)
        calls = (stores[n % 3].spend_grants([grant], NOW) for n in range(300))
        assert sum(map(len, await asyncio.gather(*calls))) == 1
    for store in stores:
        await store.close()


REWRITES = [
    "UPDATE audit SET body = '{}' WHERE revision = ?",
    "DELETE FROM audit WHERE revision = ?",
    "UPDATE audit_subject SET subject = 'x' WHERE revision = ?",
    "DELETE FROM audit_subject WHERE revision = ?",
]


@pytest.mark.parametrize("statement", REWRITES)
async def test_the_audit_trail_is_never_rewritten(opener: Open, url: str, statement: str) -> None:
    """Not even behind the store's back: the database itself refuses."""
    store = await opener()
    await store.commit(Change((prefix("a"),)), entry("first", PROVIDER), Revision(0))
    before = await store.audit_trail(None, None, 9)

    with pytest.raises((sqlite3.Error, asyncpg.PostgresError), match="never rewritten"):
        await execute(url, statement, 1)

    assert await store.audit_trail(None, None, 9) == before
    assert await store.audit_trail(PROVIDER, None, 9) == before
    await store.close()


async def test_the_audit_trail_is_not_replaced_or_emptied(opener: Open, url: str) -> None:
    """The other ways each database has."""
    store = await opener()
    await store.commit(Change((prefix("a"),)), entry("first"), Revision(0))
    statements = ["TRUNCATE audit", "TRUNCATE audit_subject"]
    if url.startswith("sqlite"):
        statements = ["INSERT OR REPLACE INTO audit VALUES (1, 0, '{}')"]
    for statement in statements:
        with pytest.raises((sqlite3.Error, asyncpg.PostgresError), match="never rewritten"):
            await execute(url, statement)

    assert [r.entry.command for r in await store.audit_trail(None, None, 9)] == ["first"]
    await store.close()


async def test_the_revision_at_a_time(opener: Open) -> None:
    """The newest that was made by then, that second included."""
    store = await opener()
    for revision, at in enumerate((NOW, NOW + 10, NOW + 10, NOW + 20)):
        made = replace(entry(), at=at)
        await store.commit(Change((prefix(f"p{at}"),)), made, Revision(revision))

    times = (NOW - 1, NOW, NOW + 9, NOW + 10, NOW + 19, NOW + 99)
    assert [await store.revision_at(at) for at in times] == [0, 1, 1, 3, 3, 4]
    await store.close()


async def test_the_trail_of_one_entity(opener: Open) -> None:
    """An entry is found by each entity it is about."""
    store = await opener()
    for revision, name in enumerate("aba"):
        made = replace(entry(name), after={f"prefix/{name}": {}})
        await store.commit(Change((prefix(name),)), made, Revision(revision))

    assert [r.revision for r in await store.audit_trail("prefix/a", None, 9)] == [3, 1]
    assert [r.revision for r in await store.audit_trail("prefix/a", Revision(3), 9)] == [1]
    await store.close()


async def test_an_older_trail_is_found_by_its_entities_too(url: str) -> None:
    """What an earlier release wrote is put in the index by the migration."""
    older = [text for number, text in rows.migrations("sqlite") if number < 5]
    statements = [part for text in older for part in text.split(";") if part.strip()]
    await execute(url, "CREATE TABLE schema_version (n BIGINT NOT NULL)")
    for statement in [*statements, "INSERT INTO schema_version (n) VALUES (4)"]:
        await execute(url, statement)
    made = replace(entry("old"), after={"client/a": {"description": "nul \0"}, "client/b": {}})
    await execute(url, rows.INSERT_AUDIT, 1, NOW, rows.audit_body(made))

    store = await open_store(url)
    await store.migrate()

    for label in ("client/a", "client/b"):
        assert [r.revision for r in await store.audit_trail(label, None, 9)] == [1]
    await store.close()
