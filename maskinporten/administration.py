"""A decision about the registry becomes a committed change, retried on conflict. No rules."""

from collections.abc import Callable, Mapping
from typing import Any

from maskinporten.audit import AuditEntry
from maskinporten.domain.registry import Change, Registry, Revision
from maskinporten.errors import Unavailable
from maskinporten.replica import Replica
from maskinporten.store import Conflict, Store, rows

_ATTEMPTS = 3


async def administer(
    store: Store,
    replica: Replica,
    decide: Callable[[Registry], Change],
    caller: Mapping[str, str],
    command: str,
    now: int,
) -> tuple[Revision, Change]:
    """Decide on what is true, commit if it still is, catch up; the caller reads its own write.

    An empty change commits nothing. Raises what `decide` raises, Unavailable, or Conflict when
    others were quicker three times. After Unavailable nothing of it was committed, unless the
    database went away at the commit and stayed away; the same decision may then be made again.
    """
    attempt = 0
    while True:
        registry = await replica.catch_up()
        change = decide(registry)
        if not change.entities:
            return registry.revision, change
        entry = _entry(change, registry, caller, command, now)
        attempt += 1
        try:
            revision = await store.commit(change, entry, registry.revision)
        except Conflict:
            if attempt == _ATTEMPTS:
                raise
            continue
        except Unavailable:
            # Perhaps the answer was lost and not the change.
            if (committed := await _find_commit(store, registry.revision, entry)) is None:
                raise
            revision = committed
        await replica.catch_up()
        return revision, change


async def _find_commit(store: Store, based_on: Revision, entry: AuditEntry) -> Revision | None:
    """The revision under which exactly this entry stands, if it does. Raises Unavailable."""
    following, as_read = Revision(based_on + 1), rows.read_audit(rows.audit_body(entry))
    for record in await store.audit_trail(None, Revision(following + 1), 1):
        if (record.revision, record.entry) == (following, as_read):
            return following
    return None


def _entry(
    change: Change, registry: Registry, caller: Mapping[str, str], command: str, now: int
) -> AuditEntry:
    before, after = rows.images(change, registry)
    subjects = {
        value
        for image in (*before.values(), *after.values())
        for name, value in _orgnos(image)
        if name.endswith(("orgno", "orgnr")) and value
    }
    return AuditEntry(
        at=now,
        caller=caller,
        command=command,
        subjects=frozenset(subjects),
        before=before,
        after=after,
    )


def _orgnos(image: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in image.items() if isinstance(value, str)]
