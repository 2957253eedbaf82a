"""The past, from the audit trail: what stood in the registry then, and who changed what.

An entry holds each entity as it was before and after, so the trail alone says how any of them
stood at any revision. Sealed private keys are in neither image.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from maskinporten.domain.client import Client, is_client_id
from maskinporten.domain.members import instant
from maskinporten.domain.orgno import OrgNo, find_orgno
from maskinporten.domain.registry import Entity, Registry, Revision
from maskinporten.domain.scope import MAX_SCOPES_PER_GRANT, is_scope_token
from maskinporten.domain.weighing import Question
from maskinporten.errors import Fault, InvalidInput
from maskinporten.store import AuditRecord, Store, rows

MAX_PAGE: Final = 100  # audit entries in one answer of the API
_OWNED: Final = frozenset(
    {"client_orgno", "supplier_orgno", "owner_orgno", "consumer_orgno", "orgnr"}
)


def read_moment(at: str, current: Revision, now: int) -> tuple[Revision | None, int | None]:
    """The revision (digits) or the time (RFC 3339; epoch seconds) that `at` names.

    Raises InvalidInput.
    """
    if at.isascii() and at.isdigit():
        if int(at[:18]) > current:
            raise _no_moment(f"there is no revision {at[:18]}; the newest is {current}")
        return Revision(int(at[:18])), None
    try:
        time = datetime.fromisoformat(at)
        seconds = int(time.timestamp()) if time.tzinfo else None
    except (ValueError, OverflowError):
        seconds = None
    if seconds is None:
        raise _no_moment("must be a revision (digits) or a time with a zone: 2026-01-31T12:00:00Z")
    if not 0 <= seconds <= now:
        raise _no_moment("must not lie in the future, nor before 1970")
    return None, seconds


def _no_moment(sentence: str) -> InvalidInput:
    return InvalidInput((Fault("at", sentence),))


async def find_moment(store: Store, at: str, current: Revision, now: int) -> tuple[Revision, int]:
    """The revision that `at` means, and the time to weigh keys at, in epoch seconds.

    A revision is looked at as of the moment it was made. Raises InvalidInput, Unavailable.
    """
    revision, seconds = read_moment(at, current, now)
    if revision is not None:
        made = await store.audit_trail(None, Revision(revision + 1), 1)
        return revision, made[0].entry.at if made else now
    return await store.revision_at(seconds or 0), seconds or 0


async def registry_at(store: Store, question: Question, revision: Revision) -> Registry:
    """The registry at `revision`, as far as the question touches it. Raises Unavailable.

    Costs a look-up for each entity, however far back.
    """
    names = [name for name in question.scope.split(" ") if is_scope_token(name)]
    names = names[:MAX_SCOPES_PER_GRANT]
    found: list[Entity] = []
    if is_client_id(question.client_id):
        found += await _stood(store, revision, [f"client/{question.client_id}"])
    client = found[0] if found and isinstance(found[0], Client) else None
    consumer = _consumer(question, client)
    found += await _stood(store, revision, [f"scope/{name}" for name in names])
    if consumer is not None:
        labels = [f"access/{name} {consumer}" for name in names]
        found += await _stood(store, revision, labels)
    return Registry().with_entities(revision, found)


def _consumer(question: Question, client: Client | None) -> str | None:
    if question.iss_onbehalfof is not None:
        entry = client.find_on_behalf_of(question.iss_onbehalfof) if client else None
        return entry.orgno if entry else None
    if question.consumer_org is not None:
        return find_orgno(question.consumer_org)
    return client.client_orgno if client else None


async def _stood(store: Store, revision: Revision, labels: Iterable[str]) -> list[Entity]:
    found = [await entity_at(store, revision, label) for label in labels]
    return [entity for entity in found if entity is not None]


async def entity_at(store: Store, revision: Revision, label: str) -> Entity | None:
    """The entity (`kind/id`) as it stood at `revision`; None where it was not there yet."""
    records = await store.audit_trail(label, Revision(revision + 1), 1)
    return rows.read_image(label, records[0].entry.after[label]) if records else None


def entry_members(record: AuditRecord, viewer: OrgNo | None = None) -> dict[str, Any]:
    """An audit entry as JSON. An organisation is shown what is its own, the operator (None) all.

    One commit may touch the things of many organisations; and which client of another organisation
    made a change is that organisation's to know.
    """
    entry = record.entry
    before, after, caller = entry.before, entry.after, entry.caller
    if viewer is not None:
        labels = {
            label
            for images in (before, after)
            for label, image in images.items()
            if _concerns(image, viewer)
        }
        before = {label: image for label, image in before.items() if label in labels}
        after = {label: image for label, image in after.items() if label in labels}
        if caller.get("orgno") != viewer:
            caller = {name: caller[name] for name in ("kind", "orgno") if name in caller}
    return {
        "revision": record.revision,
        "at": instant(entry.at),
        "caller": dict(caller),
        "command": entry.command,
        "before": dict(before),
        "after": dict(after),
    }


def _concerns(image: Mapping[str, Any], viewer: OrgNo) -> bool:
    return any(image.get(name) == viewer for name in _OWNED)
