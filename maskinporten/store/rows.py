"""Domain values to rows and back, and the SQL that both databases read alike.

| Migration | Release | What changed |
|---|---|---|
| 0001_start | 0.1.0 | the counter, the entities, the audit trail |
| 0002_jwk_fetch | 0.2.0 | which callers have fetched which key |
| 0005_audit_stands | 0.2.0 | the audit trail refuses to be rewritten, and is found by time |

Each migration runs under the previous release's code. An entity is one row: its kind, its name,
the revision that last wrote it, and its fields as JSON. Unknown fields of a later release are
passed over when they are read, so that two releases can share a database for a while.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import groupby, islice
from typing import Any, Final

import msgspec

from maskinporten.audit import AuditEntry
from maskinporten.domain.client import Client
from maskinporten.domain.evidence import MAX_CALLERS, Caller, Fetch, admitted
from maskinporten.domain.registry import SHELVES, Change, Entity, Registry, Revision
from maskinporten.domain.scope import DelegationSource, Organization, Prefix, Scope, ScopeAccess
from maskinporten.domain.signing import SealedKey, SigningRequest

KINDS: Final[dict[str, type]] = {
    "prefix": Prefix,
    "scope": Scope,
    "access": ScopeAccess,
    "client": Client,
    "delegation_source": DelegationSource,
    "organization": Organization,
    "signing_key": SealedKey,
    "signing_request": SigningRequest,
}
_KIND_OF: Final = {of: kind for kind, of in KINDS.items()}
_DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    kind: msgspec.json.Decoder(of) for kind, of in KINDS.items()
}
_ENTRIES: Final = msgspec.json.Decoder(AuditEntry)
_ENCODER: Final = msgspec.json.Encoder()

SELECT_REVISION: Final = "SELECT n FROM revision"
SELECT_CHANGES: Final = "SELECT kind, body FROM entity WHERE revision > ? ORDER BY revision"
NEXT_REVISION: Final = "UPDATE revision SET n = n + 1 WHERE n = ? RETURNING n"
UPSERT: Final = (
    "INSERT INTO entity (kind, id, revision, body) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision, body = excluded.body"
)
INSERT_AUDIT: Final = "INSERT INTO audit (revision, at, body) VALUES (?, ?, ?)"
INSERT_SUBJECT: Final = "INSERT INTO audit_subject (subject, revision) VALUES (?, ?)"
SELECT_AUDIT: Final = (
    "SELECT revision, body FROM audit WHERE revision < ? ORDER BY revision DESC LIMIT ?"
)
SELECT_AUDIT_OF: Final = (
    "SELECT a.revision, a.body FROM audit_subject s JOIN audit a ON a.revision = s.revision "
    "WHERE s.subject = ? AND s.revision < ? ORDER BY s.revision DESC LIMIT ?"
)
SELECT_CALLERS: Final = "SELECT DISTINCT library, network FROM jwk_fetch"
SELECT_FETCHES: Final = "SELECT library, network, kid, at FROM jwk_fetch"
FORGET_FETCHES: Final = "DELETE FROM jwk_fetch WHERE at < ?"
UPSERT_FETCH: Final = (
    "INSERT INTO jwk_fetch (library, network, kid, at) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (library, network, kid) DO UPDATE SET at = excluded.at "
    "WHERE jwk_fetch.at < excluded.at"
)
BACKED_UP: Final = {
    "entity": ("kind", "id", "revision", "body"),
    "audit": ("revision", "at", "body"),
    "audit_subject": ("subject", "revision"),
}
"""The tables of a backup and their columns. Spent grants and fetches of /jwk are not among them."""
SELECT_ALL: Final = {
    table: f"SELECT {', '.join(columns)} FROM {table} ORDER BY {', '.join(columns[:2])}"  # noqa: S608 - ours
    for table, columns in BACKED_UP.items()
}
FILL: Final = {
    table: f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - ours
    for table, columns in BACKED_UP.items()
}
FIRST_REVISION: Final = "UPDATE revision SET n = ? WHERE n = 0 RETURNING n"
BATCH: Final = 1000  # rows written or read at once
SELECT_REVISION_AT: Final = (
    "SELECT revision FROM audit WHERE at <= ? ORDER BY at DESC, revision DESC LIMIT 1"
)
NO_REVISION: Final = 2**62  # above any revision there will be


def migrations(dialect: str = "sqlite") -> list[tuple[int, str]]:
    """Number and SQL of every migration, in order.

    Most are one file for both databases; a trigger has a file for each (`0005_….sqlite.sql`).
    """
    folder = files("maskinporten.store") / "migrations"
    found = sorted(
        (entry.name, entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if re.fullmatch(rf"[0-9]+_\w+(\.{dialect})?\.sql", entry.name)
    )
    return [(int(name.split("_", 1)[0]), text) for name, text in found]


def batches(
    given: Iterable[tuple[str, Sequence[Any]]],
) -> Iterator[tuple[str, list[Sequence[Any]]]]:
    """Rows of one table together, at most `BATCH` of them."""
    for table, group in groupby(given, key=lambda row: row[0]):
        while some := [values for _, values in islice(group, BATCH)]:
            yield table, some


def identity(entity: Entity) -> tuple[str, str]:
    """Kind and name of an entity; together they are unique."""
    name = SHELVES[type(entity)][1](entity)
    return _KIND_OF[type(entity)], " ".join(name) if isinstance(name, tuple) else str(name)


def upserts(change: Change, revision: Revision) -> Iterator[tuple[str, str, int, str]]:
    """The values of `UPSERT`, one row for each entity."""
    for entity in change.entities:
        kind, name = identity(entity)
        yield kind, name, revision, _ENCODER.encode(entity).decode()


def fetches_to_keep(fetches: Iterable[Fetch], known: Iterable[Sequence[str]]) -> list[Fetch]:
    """Those of callers there is room for; sorted, so that two writers never wait in a ring."""
    found = sorted(fetches)
    inside = (Caller(*who) for who in known)
    kept = admitted(inside, (fetch.caller for fetch in found), MAX_CALLERS)
    return [fetch for fetch in found if fetch.caller in kept]


class Entities(Sequence[Entity]):
    """Rows as entities, each made when it is looked at: a registry is never whole as objects."""

    def __init__(self, found: Iterable[Sequence[str]] = ()) -> None:
        self._rows: list[tuple[str, bytes]] = []
        self.add(found)

    def add(self, found: Iterable[Sequence[str]]) -> None:
        """Further rows, kind and body; those of a kind that only a later release knows are not."""
        self._rows += [(sys.intern(kind), body.encode()) for kind, body in found if kind in KINDS]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        kind, body = self._rows[place]
        return _DECODERS[kind].decode(body)

    def taken(self) -> Iterator[Entity]:
        """Each entity once, its row let go of; nothing is left. Memory is used again meanwhile."""
        self._rows.reverse()
        while self._rows:
            yield _DECODERS[self._rows[-1][0]].decode(self._rows.pop()[1])


def audit_body(entry: AuditEntry) -> str:
    """The entry as JSON."""
    return _ENCODER.encode(entry).decode()


def audit_subjects(entry: AuditEntry, revision: Revision) -> list[tuple[str, int]]:
    """The values of `INSERT_SUBJECT`: who may read the entry, and each entity it is about."""
    return [(subject, revision) for subject in sorted({*entry.subjects, *entry.after})]


def read_image(label: str, image: Mapping[str, Any]) -> Entity | None:
    """The entity of an audit image; None for kinds that keep a secret apart, or are unknown."""
    of = KINDS.get(label.split("/", 1)[0])
    if of is None or of is SealedKey:
        return None
    entity: Entity = msgspec.convert(image, of)
    return entity


def read_audit(body: str) -> AuditEntry:
    """The entry of a row."""
    return _ENTRIES.decode(body)


def images(change: Change, registry: Registry) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a change replaces and what it leaves, by `kind/id`, as plain JSON for the audit.

    A sealed private key is not shown.
    """
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for entity in change.entities:
        shelf, name_of = SHELVES[type(entity)]
        replaced = getattr(registry, shelf).get(name_of(entity))
        label = "/".join(identity(entity))
        after[label] = _image(entity)
        if replaced is not None:
            before[label] = _image(replaced)
    return before, after


def _image(entity: Entity) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(entity)
    fields.pop("sealed", None)
    return fields
