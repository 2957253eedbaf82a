"""The registry and its audit trail as one file: written while servers run, put back into nothing.

The file is JSON lines, the same for every database, so that it also moves a registry from SQLite
to PostgreSQL. Spent grants are not in it: what a restored database has forgotten is dead after
`FORGOTTEN` seconds, and `serve` waits for that. Signing keys are in it as they rest, sealed.

    {"maskinporten_backup": 1, "schema": 2, "revision": 41, "at": 1800000000}
    ["entity", "client", "welfare-backend", 40, "{…}"]
    ["audit", 41, 1799990000, "{…}"]
    {"rows": 2, "sha256": "…"}          of all lines before
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from maskinporten.audit import AuditEntry
from maskinporten.domain.grant import MAX_LIFETIME, SKEW
from maskinporten.domain.registry import Change, Revision
from maskinporten.domain.rotation import SETTLE
from maskinporten.domain.signing import PUBLISHED, SealedKey
from maskinporten.errors import Fault, InvalidInput
from maskinporten.store import SchemaTooNew, Store, rows

FORMAT: Final = 1
FORGOTTEN: Final = MAX_LIFETIME + SKEW + SETTLE
"""Seconds after which a grant that was spent before a restore is dead on every node's clock."""
COMMAND: Final = "restore"
TOLD: Final = 7 * 24 * 3600  # seconds after a restore that `serve` still tells of it
SILENT: Final = 3600  # seconds without a grant after which a database may be yesterday's
_LOOK_BACK: Final = 100  # audit entries in which the mark of a restore is looked for
_HEADER: Final = {"maskinporten_backup", "schema", "revision", "at"}
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Backup:
    """What a whole and undamaged file says of itself. Made by `read_backup` and `write_backup`."""

    path: Path
    schema: int
    revision: Revision
    at: int  # epoch seconds at which it was begun
    rows: int


@dataclass(frozen=True, slots=True)
class Restoration:
    """The mark that a restore leaves in the audit trail."""

    at: int  # epoch seconds of the restore
    backup_at: int  # epoch seconds of the backup
    revision: Revision  # the newest one that came back

    def wait(self, now: int) -> int:
        """Seconds until what was spent before the restore is dead; 0 once it is."""
        return max(0, self.at + FORGOTTEN - now)


async def write_backup(store: Store, path: Path, now: int) -> Backup:
    """One consistent moment of a database in use. The file appears whole, or not at all.

    Raises Unavailable, and OSError where the file cannot be written; an old file then stays.
    """
    schema = await store.migrate()
    digest, count, revision = hashlib.sha256(), 0, Revision(0)
    beside = path.with_name(f".{path.name}.part")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:

            def put(value: object) -> None:
                line = _ENCODER.encode(value) + b"\n"
                digest.update(line)
                file.write(line)

            async for table, row in store.snapshot():
                if table == "revision":
                    revision = Revision(int(row[0]))
                    put(
                        {
                            "maskinporten_backup": FORMAT,
                            "schema": schema,
                            "revision": revision,
                            "at": now,
                        }
                    )
                    continue
                count += 1
                put([table, *row])
            file.write(_ENCODER.encode({"rows": count, "sha256": digest.hexdigest()}) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return Backup(path, schema, revision, now, count)


def read_backup(path: Path) -> Backup:
    """What the file holds, once every line of it was read and its digest agrees.

    Raises InvalidInput with one sentence: it is no backup, of a later format, damaged, cut short.
    """
    digest, count = hashlib.sha256(), 0
    header: dict[str, Any] | None = None
    end: dict[str, Any] | None = None
    try:
        with path.open("rb") as file:
            for line in file:
                if end is not None:
                    raise _invalid(path, "goes on after its end")
                value = _DECODER.decode(line)
                if header is None:
                    header = _verify_header(path, value)
                elif isinstance(value, dict):
                    end = value
                    continue
                else:
                    _verify_row(path, value, count)
                    count += 1
                digest.update(line)
    except OSError as fault:
        raise _invalid(path, f"cannot be read: {fault.strerror}") from fault
    except msgspec.DecodeError as fault:
        raise _invalid(path, f"is damaged after row {count}, or no backup") from fault
    if header is None:
        raise _invalid(path, "is empty")
    if end is None:
        raise _invalid(path, f"ends after row {count} without its last line: it was cut short")
    if end != {"rows": count, "sha256": digest.hexdigest()}:
        raise _invalid(path, "is damaged: its digest does not agree")
    return Backup(path, header["schema"], Revision(header["revision"]), header["at"], count)


async def restore(store: Store, path: Path, now: int) -> Backup:
    """Put a backup into an empty database, in one transaction, and leave the mark of it.

    Raises InvalidInput (the file, or a database that is not empty), SchemaTooNew, Unavailable;
    nothing was written then.
    """
    backup = read_backup(path)
    schema = await store.migrate()
    if backup.schema > schema:
        raise SchemaTooNew(f"the backup has schema {backup.schema}, this release knows {schema}")
    if not await store.fill(backup.revision, _rows(path)):
        sentence = "is not empty; a backup is restored into a new one, and nothing is overwritten"
        raise InvalidInput((Fault("the database", sentence),))
    entry = AuditEntry(
        at=now,
        caller={"kind": "operator"},
        command=COMMAND,
        after={"backup": {"at": backup.at, "revision": backup.revision, "rows": backup.rows}},
    )
    await store.commit(Change(()), entry, backup.revision)
    return backup


async def find_restoration(store: Store) -> Restoration | None:
    """The last restore of this database, if it is among its newest commits."""
    for record in await store.audit_trail(None, None, _LOOK_BACK):
        if record.entry.command == COMMAND and "backup" in record.entry.after:
            backup = record.entry.after["backup"]
            return Restoration(record.entry.at, int(backup["at"]), Revision(backup["revision"]))
    return None


def findings(
    restoration: Restoration | None, newest_spent: int | None, keys: Sequence[SealedKey], now: int
) -> list[str]:
    """What an operator should know before a database that was put back is served, in sentences.

    A restore by `restore` leaves its mark. A copy of the files leaves none, but a database whose
    newest spent grant (epoch seconds until which it is remembered) is long dead may be one.
    """
    told = []
    if restoration is not None and now - restoration.at < TOLD:
        told.append(
            f"this database was restored at {_instant(restoration.at)} from a backup of "
            f"{_instant(restoration.backup_at)} (revision {restoration.revision}); "
            "what was decided between the two is undone"
        )
        if seconds := restoration.wait(now):
            told.append(f"waiting {seconds} s, until every grant spent before is dead")
    elif newest_spent is not None and now - newest_spent > SILENT:
        told.append(
            f"the newest grant this database knows died at {_instant(newest_spent)}; if it was put "
            "back from a copy, what was decided since is undone, and grants spent within the last "
            f"{FORGOTTEN} s can be used once more"
        )
    if told:
        named = ", ".join(f"{k.kid} {k.stage}" for k in keys if k.stage in PUBLISHED)
        told.append(f"signing keys found: {named}; revoke any that was revoked since")
    return told


def _instant(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _rows(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """The rows of a file that `read_backup` has found whole."""
    with path.open("rb") as file:
        for line in file:
            value = _DECODER.decode(line)
            if isinstance(value, list):
                yield value[0], value[1:]


def _verify_header(path: Path, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not value.keys() >= _HEADER:
        raise _invalid(path, "is no backup of maskinporten")
    if value["maskinporten_backup"] != FORMAT:
        raise _invalid(path, f"has format {value['maskinporten_backup']}; this release reads 1")
    if not all(isinstance(value[name], int) and value[name] >= 0 for name in _HEADER):
        raise _invalid(path, "has a header that cannot be read")
    return value


def _verify_row(path: Path, value: object, count: int) -> None:
    if isinstance(value, list) and value:
        columns = rows.BACKED_UP.get(value[0]) if isinstance(value[0], str) else None
        if columns is not None and len(value) == 1 + len(columns):
            return
    raise _invalid(path, f"has a row {count + 1} that cannot be read")


def _invalid(path: Path, sentence: str) -> InvalidInput:
    return InvalidInput((Fault(str(path), sentence),))
