"""Who may use a scope (Maskinporten: self-service, access). Owners grant, and withdraw."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from typing import Any

from maskinporten.domain.declaration import dated
from maskinporten.domain.orgno import OrgNo, read_orgno
from maskinporten.domain.scope import AccessState, ScopeAccess
from maskinporten.domain.selfservice.case import Case, Decision, Sparse, conflict
from maskinporten.errors import Fault, InvalidInput, Reason, Refused


def find_given(
    case: Case, *, scope: str | None, consumer_orgno: str | None, inactive: bool
) -> Sparse[ScopeAccess]:
    """What the caller has given to others; nothing, for a scope that is not the caller's."""
    names: Iterable[Any]
    own = case.caller.orgno
    if scope is not None:
        names = case.registry.names("accesses", "scope", scope)
    else:
        names = case.registry.names("accesses", "owner_orgno", own)
    accesses = (case.registry.accesses[name] for name in names)
    return (
        access
        if access.owner_orgno == own
        and consumer_orgno in (None, access.consumer_orgno)
        and (inactive or access.state is not AccessState.DENIED)
        else None
        for access in accesses
    )


def find_received(case: Case, *, inactive: bool, accessible_for_all: bool) -> Sparse[ScopeAccess]:
    """What others have given to the caller; on request, what is open to everybody too."""
    own, registry = case.caller.orgno, case.registry
    names = registry.names("accesses", "consumer_orgno", own)
    given = (registry.accesses[name] for name in names)
    received = (a if inactive or a.state is not AccessState.DENIED else None for a in given)
    if not accessible_for_all:
        return received
    open_to_all = (
        registry.scopes[name] for name in registry.names("scopes", "accessible_for_all", True)
    )
    held = {name for name, _ in names}
    further = (
        ScopeAccess(
            scope=scope.name,
            owner_orgno=scope.owner_orgno,
            consumer_orgno=own,
            created=scope.created,
            last_updated=scope.last_updated,
        )
        for scope in open_to_all
        if scope.active and scope.name not in held
    )
    return chain(received, further)


def grant(case: Case, scope_name: str, consumer_orgno: str) -> Decision:
    """The organisation may use the scope, from now on; also where it once was withdrawn.

    Raises InvalidInput; Refused: NOT_OWNER, NOT_YOURS, STATE_CONFLICT.
    """
    consumer = _consumer(consumer_orgno)
    scope = case.own_scope(scope_name)
    if not scope.active:
        conflict("The scope is deactivated; PUT it with active: true first")
    made = ScopeAccess(scope=scope.name, owner_orgno=scope.owner_orgno, consumer_orgno=consumer)
    before = case.registry.accesses.get((scope.name, consumer))
    if before is None:
        case.verify_room("accesses", "owner_orgno")
    return case.decide(dated(made, before, {}, case.now))


def withdraw(case: Case, scope_name: str, consumer_orgno: str) -> Decision:
    """The organisation may not use the scope any more. Raises as `grant`."""
    consumer = _consumer(consumer_orgno)
    scope = case.own_scope(scope_name)
    before = case.registry.accesses.get((scope.name, consumer))
    if before is None:
        raise Refused(Reason.NOT_YOURS, consumer, named=("access",))
    return case.decide(dated(replace(before, state=AccessState.DENIED), before, {}, case.now))


def _consumer(text: str) -> OrgNo:
    try:
        return read_orgno(text)
    except ValueError as fault:
        raise InvalidInput((Fault("consumer_orgno", str(fault)),)) from fault
