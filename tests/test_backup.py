"""A backup is one true moment, and comes back whole, or not at all."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jwt
import pytest

from maskinporten.app import open_store
from maskinporten.audit import AuditEntry
from maskinporten.backup import (
    FORGOTTEN,
    SILENT,
    TOLD,
    Restoration,
    find_restoration,
    findings,
    read_backup,
    restore,
    write_backup,
)
from maskinporten.cli import main
from maskinporten.domain.registry import Change, Revision
from maskinporten.domain.scope import Prefix
from maskinporten.domain.signing import SealedKey, Stage
from maskinporten.errors import InvalidInput
from maskinporten.store import SchemaTooNew, Spending, Store, rows
from tests.conftest import Starter
from tests.world import NOW, PROVIDER, assertion, registry

ENTRY = AuditEntry(at=NOW, caller={"kind": "operator"}, command="test", subjects=frozenset({"1"}))


def prefix(name: str) -> Prefix:
    """A small entity."""
    return Prefix(prefix=name, owner_orgno=PROVIDER)  # type: ignore[arg-type]


async def opened(url: str) -> Store:
    """A migrated store."""
    store = await open_store(url)
    await store.migrate()
    return store


async def filled(url: str) -> Store:
    """The world's registry, committed in two steps."""
    store = await opened(url)
    world = registry()
    shelves: list[Mapping[Any, Any]] = [world.prefixes, world.scopes, world.accesses, world.clients]
    entities: list[Any] = [entity for shelf in shelves for entity in shelf.values()]
    await store.commit(Change(tuple(entities[:3])), ENTRY, Revision(0))
    await store.commit(Change(tuple(entities[3:])), ENTRY, Revision(1))
    return store


@pytest.fixture(params=["sqlite", "postgresql"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'source.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Another, empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'target.db'}"
    found: str = request.getfixturevalue("other_postgres_url")
    return found


async def test_what_was_backed_up_comes_back(source: str, target: str, tmp_path: Path) -> None:
    """Entities, revisions and audit are the same in either kind of database."""
    old, new = await filled(source), await opened(target)

    written = await write_backup(old, tmp_path / "backup", NOW)
    found = await restore(new, tmp_path / "backup", NOW + 5)

    assert found == written
    _, before = await old.changes_since(Revision(0))
    revision, after = await new.changes_since(Revision(0))
    assert sorted(map(repr, after)) == sorted(map(repr, before))
    assert revision == written.revision + 1
    assert (await new.audit_trail(None, None, 9))[1:] == await old.audit_trail(None, None, 9)
    assert await new.audit_trail("1", None, 9) == await old.audit_trail("1", None, 9)
    assert await find_restoration(new) == Restoration(NOW + 5, NOW, written.revision)
    assert await find_restoration(old) is None
    await old.close()
    await new.close()


async def test_a_backup_under_writes_is_one_moment(source: str, tmp_path: Path) -> None:
    """Commits go on while the file is written; it holds exactly what its revision says."""
    store, writer = await filled(source), await open_store(source)
    done = asyncio.Event()

    async def write() -> None:
        revision, _ = await writer.changes_since(Revision(0))
        while not done.is_set():
            change = Change((prefix(f"p{revision}"), prefix(f"q{revision}")))
            revision = await writer.commit(change, ENTRY, revision)

    writing = asyncio.create_task(write())
    revisions = set()
    for number in range(5):
        path = tmp_path / f"backup{number}"
        found = await write_backup(store, path, NOW)
        names = [line.split('"')[5] for line in path.read_text().splitlines() if '"prefix"' in line]
        later = {name for name in names if name[0] in "pq"}
        assert later == {f"{c}{n}" for c in "pq" for n in range(2, found.revision)}
        revisions.add(found.revision)
    done.set()
    await writing

    assert len(revisions) > 1
    await store.close()
    await writer.close()


async def test_a_backup_never_overwrites_a_registry(target: str, tmp_path: Path) -> None:
    """Into a database where anything was committed nothing is restored."""
    store = await filled(target)
    await write_backup(store, tmp_path / "backup", NOW)
    revision, before = await store.changes_since(Revision(0))

    with pytest.raises(InvalidInput, match="is not empty"):
        await restore(store, tmp_path / "backup", NOW)

    found, after = await store.changes_since(Revision(0))
    assert (found, list(after)) == (revision, list(before))
    await store.close()


def _cut(lines: list[bytes]) -> bytes:
    return b"".join(lines[:-1])


def _flipped(lines: list[bytes]) -> bytes:
    octets = bytearray(b"".join(lines))
    octets[len(lines[0]) + 30] ^= 1
    return bytes(octets)


DAMAGE = [
    pytest.param(lambda _: b"", "is empty", id="nothing in it"),
    pytest.param(_cut, "cut short", id="the last line is missing"),
    pytest.param(lambda ls: b"".join(ls)[:-9], "damaged|cut short", id="cut in the last line"),
    pytest.param(lambda ls: b"".join([*ls[:3], *ls[4:]]), "digest", id="a row is missing"),
    pytest.param(lambda ls: b"".join([ls[0], ls[2], ls[1], *ls[3:]]), "digest", id="rows moved"),
    pytest.param(_flipped, "damaged|cannot be read", id="one bit is another"),
    pytest.param(lambda ls: b"".join([*ls, b"[]\n"]), "after its end", id="more after the end"),
    pytest.param(lambda ls: b"".join(ls[1:]), "no backup", id="no header"),
    pytest.param(lambda _: b"-----BEGIN", "no backup", id="another kind of file"),
    pytest.param(
        lambda ls: b"".join([ls[0], b'["spent_grant",1,2]\n', *ls[1:]]),
        "row 1 that cannot be read",
        id="a table that is no part of it",
    ),
    pytest.param(
        lambda ls: ls[0].replace(b'up":1', b'up":2') + b"".join(ls[1:]),
        "format 2",
        id="a later format",
    ),
    pytest.param(
        lambda ls: ls[0].replace(b'"at":', b'"at":-') + b"".join(ls[1:]),
        "header",
        id="a time below 0",
    ),
]


@pytest.mark.parametrize(("damage", "sentence"), DAMAGE)
async def test_a_damaged_file_restores_nothing(damage: Any, sentence: str, tmp_path: Path) -> None:
    """The whole file is read before the first row is written."""
    store = await filled(f"sqlite:///{tmp_path / 'source.db'}")
    path = tmp_path / "backup"
    await write_backup(store, path, NOW)
    await store.close()
    path.write_bytes(damage(path.read_bytes().splitlines(keepends=True)))
    empty = await opened(f"sqlite:///{tmp_path / 'target.db'}")

    with pytest.raises(InvalidInput, match=sentence):
        await restore(empty, path, NOW)

    assert (await empty.changes_since(Revision(0)))[0] == 0
    await empty.close()


async def test_a_backup_of_a_later_release_is_refused(tmp_path: Path) -> None:
    """Its tables may hold what this release cannot."""
    store = await opened(f"sqlite:///{tmp_path / 'source.db'}")
    await write_backup(store, tmp_path / "backup", NOW)
    schema = rows.migrations()[-1][0]
    header, end = (tmp_path / "backup").read_bytes().splitlines(keepends=True)
    later = header.replace(b'"schema":%d' % schema, b'"schema":%d' % (schema + 1))
    end = end.replace(
        hashlib.sha256(header).hexdigest().encode(), hashlib.sha256(later).hexdigest().encode()
    )
    (tmp_path / "backup").write_bytes(later + end)

    with pytest.raises(SchemaTooNew):
        await restore(store, tmp_path / "backup", NOW)
    await store.close()


async def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """A backup appears whole, or not at all."""
    store = await filled(f"sqlite:///{tmp_path / 'source.db'}")
    await write_backup(store, tmp_path / "backup", NOW)
    before = (tmp_path / "backup").read_bytes()
    (tmp_path / ".backup.part").mkdir()

    with pytest.raises(OSError, match="directory"):
        await write_backup(store, tmp_path / "backup", NOW + 1)

    assert (tmp_path / "backup").read_bytes() == before
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    await store.close()


async def test_the_newest_spent_grant_is_known(source: str) -> None:
    """By which a start tells how old a database is."""
    store = await opened(source)
    assert await store.newest_spent() is None

    await store.spend_grants([Spending(bytes([1] * 32), NOW + 9)], NOW)
    await store.spend_grants([Spending(bytes([2] * 32), NOW + 700)], NOW)

    assert await store.newest_spent() == NOW + 700
    await store.close()


@pytest.mark.parametrize(
    ("now", "seconds"),
    [(NOW, FORGOTTEN), (NOW + FORGOTTEN - 1, 1), (NOW + FORGOTTEN, 0), (NOW + 10_000, 0)],
)
def test_attack_a_grant_from_before_a_restore_is_waited_out(now: int, seconds: int) -> None:
    """Nothing is served until every grant that was spent before is dead."""
    assert Restoration(NOW, NOW - 86_400, Revision(4)).wait(now) == seconds


KEY = SealedKey(kid="k1", stage=Stage.ACTIVE, n="", e="", sealed="")
GONE = SealedKey(kid="k0", stage=Stage.REMOVED, n="", e="", sealed="")
MARK = Restoration(NOW, NOW - 86_400, Revision(4))


@pytest.mark.parametrize(
    ("mark", "newest", "now", "words"),
    [
        (None, None, NOW, []),
        (None, NOW, NOW + SILENT, []),
        (None, NOW, NOW + SILENT + 1, ["put back from a copy", "k1 active"]),
        (MARK, NOW, NOW, ["revision 4", f"waiting {FORGOTTEN} s", "k1 active"]),
        (MARK, None, NOW + FORGOTTEN, ["restored at", "k1 active"]),
        (MARK, NOW + TOLD, NOW + TOLD - 1, ["restored at", "k1 active"]),
        (MARK, NOW + TOLD, NOW + TOLD, []),
    ],
)
def test_a_start_says_what_it_found(
    mark: Restoration | None, newest: int | None, now: int, words: Sequence[str]
) -> None:
    """One sentence for each thing an operator must know, and none for a database in use."""
    told = findings(mark, newest, [KEY, GONE], now)

    assert len(told) == len(words)
    assert all(word in sentence for word, sentence in zip(words, told, strict=True))
    assert "k0" not in "".join(told)


async def test_a_restored_server_signs_with_the_same_key(start: Starter, tmp_path: Path) -> None:
    """Providers notice nothing: /jwk is what it was."""
    server = await start()
    await write_backup(server.services.store, tmp_path / "backup", NOW)
    keys = (await server.http.get("/jwk")).json()
    (tmp_path / "other").mkdir()
    new = await opened(f"sqlite:///{tmp_path / 'other' / 'registry.db'}")
    await restore(new, tmp_path / "backup", NOW)
    await new.close()

    again = await start(tmp_path / "other")

    assert (await again.http.get("/jwk")).json() == keys
    answer = await again.post(assertion())
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    published = {key.key_id: key for key in jwt.PyJWKSet.from_dict(keys).keys}
    key = published[jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode_complete(
        token, key, ["RS256"], options={"verify_exp": False, "verify_iat": False}
    )


def test_the_commands_say_what_came_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Backup, a look at the file, restore, and a second restore that is refused."""
    old, new = (f"sqlite:///{tmp_path / name}" for name in ("old.db", "new.db"))
    file = str(tmp_path / "backup")
    (tmp_path / "r.toml").write_text('[[prefixes]]\nprefix = "a"\nowner_orgno = "991825827"\n')
    assert main(["apply", str(tmp_path / "r.toml"), "--database", old]) == 0

    assert main(["backup", file, "--database", old]) == 0
    assert main(["restore", file, "--dry-run"]) == 0
    assert main(["restore", file, "--database", new]) == 0
    assert main(["restore", file, "--database", new]) == 1
    assert main(["backup", str(tmp_path / "no" / "where"), "--database", old]) == 1

    out, err = capsys.readouterr()
    assert "revision 1, 4 rows" in out
    assert "is undone" in out
    assert "is not empty" in err
    assert "cannot be written" in err
    assert read_backup(tmp_path / "backup").revision == 1
