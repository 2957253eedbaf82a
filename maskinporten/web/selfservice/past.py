"""Endpoints that look back: who changed what, and why a token is refused or was granted."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from maskinporten.domain.client import Client, ClientId
from maskinporten.domain.explanation import explain, members
from maskinporten.domain.orgno import OrgNo, find_orgno
from maskinporten.domain.registry import Revision
from maskinporten.domain.scope import Scope, ScopeName
from maskinporten.domain.selfservice.caller import (
    READ_AS_OPERATOR,
    READ_CLIENTS,
    READ_SCOPES,
    Right,
)
from maskinporten.domain.selfservice.case import Case
from maskinporten.domain.weighing import Question
from maskinporten.errors import Fault, InvalidInput, Refused
from maskinporten.history import MAX_PAGE, entry_members, find_moment, registry_at
from maskinporten.store import Store
from maskinporten.web.selfservice.endpoint import Call, Endpoint, Past

READ_PAST: Final = Right((*READ_CLIENTS.scopes, *READ_SCOPES.scopes))
_HIGHEST: Final = 2**53  # a revision that JSON readers everywhere can hold
_PAGE: Final = 50


class AuditCallerMembers(Struct, omit_defaults=True):
    """Who made a change; of another organisation's client only whose it is."""

    kind: str
    client_id: str | None = None
    orgno: str | None = None
    client_amr: str | None = None
    token_jti: str | None = None


class AuditEntryMembers(Struct):
    """One change: who, what, when, and the things (`kind/name`) before and after."""

    revision: int
    at: str
    caller: AuditCallerMembers
    command: str
    before: dict[str, dict[str, Any]]
    after: dict[str, dict[str, Any]]


class AuditPageMembers(Struct, omit_defaults=True):
    """Changes, the newest first. `before` leads to the next page, and is absent on the last."""

    entries: list[AuditEntryMembers]
    before: int | None = None


class RuleMembers(Struct, omit_defaults=True):
    """One rule and its verdict: holds, fails, open (others answer) or untold."""

    rule: str
    verdict: str
    sentence: str
    remedy: str | None = None
    by: str | None = None


class DelegationMembers(Struct):
    """What the delegation source will be asked."""

    source: str
    consumer: str
    supplier: str
    scopes: list[str]


class ExplanationMembers(Struct, omit_defaults=True):
    """What the token endpoint would answer (granted, refused, depends), and every rule."""

    outcome: str
    revision: int
    at: str
    rules: list[RuleMembers]
    reason: str | None = None
    code: str | None = None
    error: str | None = None
    error_description: str | None = None
    consumer: str | None = None
    supplier: str | None = None
    delegation: DelegationMembers | None = None


async def _own_audit(case: Case, call: Call, past: Past) -> Mapping[str, Any]:
    """Of clients, scopes and accesses as far as the token reaches; nothing of others."""
    kinds = {"organization"}
    if case.caller.may(READ_CLIENTS):
        kinds.add("client")
    if case.caller.may(READ_SCOPES):
        kinds |= {"scope", "access", "prefix"}
    return await _page(call, past.store, case.caller.orgno, case.caller.orgno, kinds)


async def _whole_audit(_case: Case, call: Call, past: Past) -> Mapping[str, Any]:
    org = call.query.get("org")
    if org is not None and find_orgno(org) is None:
        raise InvalidInput((Fault("org", "must be an organisation number of nine digits"),))
    return await _page(call, past.store, org, None, None)


async def _page(
    call: Call, store: Store, subject: str | None, viewer: OrgNo | None, kinds: set[str] | None
) -> Mapping[str, Any]:
    limit = call.find_number("limit", MAX_PAGE)
    limit = _PAGE if limit is None else limit
    before = call.find_number("before", _HIGHEST)
    records = await store.audit_trail(
        subject, None if before is None else Revision(before), limit + 1
    )
    shown = [entry_members(record, viewer) for record in records[:limit]]
    if kinds is not None:
        for entry in shown:
            for images in (entry["before"], entry["after"]):
                for label in [one for one in images if one.split("/", 1)[0] not in kinds]:
                    del images[label]
        shown = [entry for entry in shown if entry["after"]]
    more = len(records) > limit > 0
    return {"entries": shown, **({"before": records[limit - 1].revision} if more else {})}


async def _explain(case: Case, call: Call, past: Past) -> Mapping[str, Any]:
    """For the owner of the client; or of all the scopes, once one of them stands on the client."""
    question = Question(
        client_id=call.wanted("client_id"),
        scope=call.wanted("scope"),
        consumer_org=call.query.get("consumer_org"),
        iss_onbehalfof=call.query.get("iss_onbehalfof"),
        kid=call.query.get("kid"),
    )
    viewer = _verify_involved(case, question)
    registry, now, certificates = case.registry, case.now, past.certificates
    if (at := call.query.get("at")) is not None:
        revision, now = await find_moment(past.store, at, registry.revision, now)
        registry = await registry_at(past.store, question, revision)
        certificates = None  # what lists of revoked certificates said then is not kept
    return members(explain(question, registry, now, certificates, viewer=viewer))


def _verify_involved(case: Case, question: Question) -> OrgNo:
    """Whose eyes look: the caller's. Raises Refused: NOT_YOURS, for unknown and foreign alike."""
    try:
        case.own_client(question.client_id, READ_CLIENTS)
    except Refused:
        client: Client | None = case.registry.clients.get(ClientId(question.client_id))
        names = [ScopeName(name) for name in question.scope.split(" ") if name]
        scopes: list[Scope | None] = [case.registry.scopes.get(name) for name in names]
        if (
            client is None
            or not case.caller.may(READ_SCOPES)
            or any(scope is None or scope.owner_orgno != case.caller.orgno for scope in scopes)
            or not set(names) & set(client.scopes)
        ):
            raise
    return case.caller.orgno


PAST_ENDPOINTS: Final = (
    Endpoint(
        method="GET", path="/audit", summary="Who changed what of yours, the newest first",
        recall=_own_audit, right=READ_PAST, query=("before", "limit"),
        gives=AuditPageMembers, object_name="audit",
    ),
    Endpoint(
        method="GET", path="/explain",
        summary="Why a token would be refused or granted, now or in the past",
        recall=_explain, right=READ_PAST,
        query=("client_id!", "scope!", "consumer_org", "iss_onbehalfof", "kid", "at"),
        gives=ExplanationMembers, object_name="explanation",
    ),
    Endpoint(
        method="GET", path="/operator/audit",
        summary="Who changed what, of all organisations or one",
        recall=_whole_audit, right=READ_AS_OPERATOR, query=("org", "before", "limit"),
        gives=AuditPageMembers, object_name="audit",
    ),
)  # fmt: skip
