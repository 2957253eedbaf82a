"""What a database must promise us. Few methods; the promises are the contract.

Two observations make it this small. Maskinporten never deletes, it deactivates: rows never
vanish, each carries the revision that last wrote it, and `WHERE revision > seen` is a complete
feed. And writes are rare: one counter row can put them in order, so that no follower can miss
one.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from maskinporten.audit import AuditEntry
from maskinporten.domain.evidence import Fetch
from maskinporten.domain.registry import Change, Revision
from maskinporten.store.rows import Entities


class Conflict(Exception):
    """Someone else committed first; decide again on what is true now."""


class SchemaTooNew(Exception):
    """The database was migrated by a later release than this one."""


class Spending(NamedTuple):
    """A grant to be used up: its name and until when (epoch seconds) it must be remembered."""

    key: bytes  # 32 octets
    until: int


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """An audit entry and the revision it stands for."""

    revision: Revision
    entry: AuditEntry


class Store(Protocol):
    """A database. Every method raises `Unavailable` when it cannot be reached, and nothing else."""

    async def migrate(self) -> int:
        """Bring the schema up to this release; safe to run by several nodes at once.

        Returns the schema version. Raises SchemaTooNew.
        """
        ...

    async def changes_since(self, seen: Revision) -> tuple[Revision, Entities]:
        """Everything written after `seen`, and the revision that makes it complete.

        The whole registry is `changes_since(0)`. An entity is given once, as it is now.
        """
        ...

    async def commit(self, change: Change, entry: AuditEntry, based_on: Revision) -> Revision:
        """The change, who asked for it, and the next revision: all three or none.

        When this returns, the change survives the death of this process. Raises Conflict when
        the registry has moved on from `based_on`.
        """
        ...

    async def spend_grants(self, grants: Sequence[Spending], now: int) -> frozenset[bytes]:
        """Insert if absent, in one step: the keys that were not spent before.

        Of many callers anywhere who spend the same key at the same moment, one is told so. A key
        stands in `grants` once. What expired before `now` is forgotten in passing.
        """
        ...

    async def audit_trail(
        self, subject: str | None, before: Revision | None, limit: int
    ) -> Sequence[AuditRecord]:
        """The newest entries first, of one organisation, one entity (`kind/id`) or (None) of all.

        What was written stays as it is: the database refuses to change or remove an entry.
        """
        ...

    async def revision_at(self, at: int) -> Revision:
        """The newest revision that was made at or before `at` (epoch seconds); 0: none was."""
        ...

    async def record_fetches(self, fetches: Sequence[Fetch], forget: int) -> None:
        """Keep the newest fetch of each caller and key, and forget those from before `forget`.

        It is no part of the registry: no revision, no audit. Callers for whom there is no room
        (`evidence.admitted`) are passed over.
        """
        ...

    async def fetches(self) -> Sequence[Fetch]:
        """Every fetch of /jwk that is kept."""
        ...

    def snapshot(self) -> AsyncIterator[tuple[str, Sequence[Any]]]:
        """Table and columns of every row of `rows.BACKED_UP`, as of one moment.

        The first is `("revision", (n,))`. Servers go on reading and writing meanwhile.
        """
        ...

    async def fill(self, revision: Revision, given: Iterable[tuple[str, Sequence[Any]]]) -> bool:
        """Write a snapshot's rows into an empty database, all or none.

        False, and nothing written, where anything was committed before.
        """
        ...

    async def newest_spent(self) -> int | None:
        """The latest `until` (epoch seconds) of the spent grants that are remembered."""
        ...

    async def wake(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound on sleep, not work
        """Return when the registry may have changed, at the latest after `timeout` seconds."""
        ...

    async def close(self) -> None:
        """Let go of the database."""
        ...
