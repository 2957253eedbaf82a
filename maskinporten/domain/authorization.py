"""Whether a grant may become a token, and for which consumer and supplier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from maskinporten.domain.client import MACHINE_CLIENTS, MAX_TOKEN_LIFETIME, Client, ClientId
from maskinporten.domain.grant import Grant
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.registry import Registry
from maskinporten.domain.scope import AccessState, Scope, ScopeName
from maskinporten.domain.seal import SealHolder
from maskinporten.errors import Reason, Refused


class LifetimeRule(StrEnum):
    """The two readings of a scope's `at_max_age` (DESIGN.md, Divergences)."""

    OVERRIDE = "override"  # the scope's number replaces the client's, as is observed
    CAP = "cap"  # the scope's number only shortens the client's


@dataclass(frozen=True, slots=True)
class Delegation:
    """What a delegation source answered: this consumer has delegated these scopes to supplier."""

    source: str
    consumer: OrgNo
    supplier: OrgNo
    scopes: frozenset[ScopeName]
    how: str = ""  # how it is known, for our log


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What our own registry allows, before anyone else is asked. Made by `entitle` only.

    Where `delegation_source` stands, the supplier's right is still open: `authorize` needs the
    delegation. Where `authorization_details` stand in the grant, they are still to be looked up.
    """

    grant: Grant
    client_id: ClientId
    consumer: OrgNo
    supplier: OrgNo | None
    lifetime: int  # seconds
    delegation_source: str | None = None
    consumer_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Authorization:
    """The right to one token. Made by `authorize` only; holding one is proof."""

    client_id: ClientId
    client_amr: str
    consumer: OrgNo | SealHolder
    supplier: OrgNo | None
    scopes: tuple[ScopeName, ...]
    lifetime: int  # seconds
    delegation_source: str | None = None
    resources: tuple[str, ...] = ()
    pid: str | None = None
    details: tuple[Mapping[str, Any], ...] = ()
    consumer_prefixes: tuple[str, ...] = ()


def entitle(
    grant: Grant,
    client: Client,
    registry: Registry,
    lifetime_rule: LifetimeRule = LifetimeRule.OVERRIDE,
) -> Entitlement:
    """All of the scopes, or none: a client never has to look at what it did not get.

    Access is the consumer's, never the supplier's. A supplier brings the client and the
    delegation; whether the API is open was settled with the consumer.

    Raises Refused: CLIENT_UNKNOWN, CONSUMER_IS_CLIENT, ON_BEHALF_OF_INVALID, SCOPE_NOT_ON_CLIENT,
    SCOPE_NOT_FOR_CLIENT_TYPE, SCOPE_NOT_GRANTED, SCOPE_NOT_DELEGATED.
    """
    consumer, supplier = _parties(grant, client)
    scopes = _registered_scopes(grant, client, registry)
    for scope in scopes:
        types = scope.allowed_integration_types
        if types and client.integration_type not in types:
            raise Refused(Reason.SCOPE_NOT_FOR_CLIENT_TYPE, scope.name)
    for scope in scopes:
        if not scope.accessible_for_all and not _has_access(registry, scope, consumer):
            detail = f"{scope.name} consumer={consumer}"
            raise Refused(Reason.SCOPE_NOT_GRANTED, detail, named=(scope.name,))
    prefixes = any(scope.consumer_prefix for scope in scopes)
    return Entitlement(
        grant=grant,
        client_id=client.client_id,
        consumer=consumer,
        supplier=supplier,
        lifetime=token_lifetime(client, scopes, lifetime_rule),
        delegation_source=_delegation_source(grant, scopes, consumer, client.client_orgno),
        consumer_prefixes=registry.prefixes_of(consumer) if prefixes else (),
    )


def authorize(
    entitlement: Entitlement,
    delegation: Delegation | None = None,
) -> Authorization:
    """The right to the token, once a delegation that was needed is at hand.

    The delegation must answer exactly what was asked: consumer, supplier, source, every scope.
    Raises Refused: SCOPE_NOT_DELEGATED.
    """
    grant, supplier = entitlement.grant, entitlement.supplier
    if entitlement.delegation_source is not None:
        for name in grant.scopes:
            if (
                delegation is None
                or delegation.source != entitlement.delegation_source
                or delegation.consumer != entitlement.consumer
                or delegation.supplier != supplier
                or name not in delegation.scopes
            ):
                how = "nobody to ask" if delegation is None else delegation.how
                raise _not_delegated(name, entitlement.consumer, supplier, how)
    return Authorization(
        client_id=entitlement.client_id,
        client_amr=grant.client_amr,
        consumer=entitlement.consumer,
        supplier=supplier,
        scopes=grant.scopes,
        lifetime=entitlement.lifetime,
        delegation_source=entitlement.delegation_source,
        resources=grant.resources,
        pid=grant.pid,
        consumer_prefixes=entitlement.consumer_prefixes,
    )


def with_detail(authorization: Authorization, detail: Mapping[str, Any]) -> Authorization:
    """The same right, and what was confirmed about the grant's `authorization_details`."""
    return replace(authorization, details=(*authorization.details, detail))


def token_lifetime(client: Client, scopes: tuple[Scope, ...], rule: LifetimeRule) -> int:
    """Seconds. The lowest positive `at_max_age` of the scopes, else the client's own number.

    Under CAP the client's number is a ceiling as well. No token outlives MAX_TOKEN_LIFETIME, on
    which the removal of our signing keys relies.
    """
    return scoped_lifetime(client.access_token_lifetime, scopes, rule)


def scoped_lifetime(own: int, scopes: Sequence[Scope], rule: LifetimeRule) -> int:
    """The same, where the caller's own number of seconds is `own`."""
    scoped = [scope.at_max_age for scope in scopes if scope.at_max_age > 0]
    if not scoped:
        return min(own, MAX_TOKEN_LIFETIME)
    if rule is LifetimeRule.CAP:
        scoped.append(own)
    return min(*scoped, MAX_TOKEN_LIFETIME)


def _parties(grant: Grant, client: Client) -> tuple[OrgNo, OrgNo | None]:
    """Who the token is for, and who acts for them."""
    if not client.active or client.integration_type not in MACHINE_CLIENTS:
        raise Refused(Reason.CLIENT_UNKNOWN, f"{client.client_id} is inactive or of another kind")
    if grant.iss_onbehalfof is not None:
        entry = client.find_on_behalf_of(grant.iss_onbehalfof)
        if entry is None or grant.consumer_org is not None:
            raise Refused(Reason.ON_BEHALF_OF_INVALID, repr(grant.iss_onbehalfof)[:80])
        return entry.orgno, client.client_orgno
    if grant.consumer_org is None:
        return client.client_orgno, client.supplier_orgno
    if grant.consumer_org == client.client_orgno:
        raise Refused(Reason.CONSUMER_IS_CLIENT)
    return grant.consumer_org, client.client_orgno


def _registered_scopes(grant: Grant, client: Client, registry: Registry) -> tuple[Scope, ...]:
    """Every scope must stand on the client, and exist, and be active (Maskinporten: scopes)."""
    found = [registry.scopes.get(name) for name in grant.scopes]
    scopes = tuple(
        scope
        for scope in found
        if scope is not None and scope.active and scope.name in client.scopes
    )
    if len(scopes) != len(found):
        missing = " ".join(
            name
            for name, scope in zip(grant.scopes, found, strict=True)
            if scope is None or scope not in scopes
        )
        raise Refused(Reason.SCOPE_NOT_ON_CLIENT, missing, named=(missing,))
    return scopes


def _has_access(registry: Registry, scope: Scope, consumer: OrgNo) -> bool:
    access = registry.accesses.get((scope.name, consumer))
    return access is not None and access.state is AccessState.APPROVED


def _delegation_source(
    grant: Grant, scopes: tuple[Scope, ...], consumer: OrgNo, supplier: OrgNo
) -> str | None:
    """Who must confirm the delegation; None where the grant needs none."""
    if grant.iss_onbehalfof is not None:
        if any(scope.delegation_source for scope in scopes):
            raise Refused(Reason.ON_BEHALF_OF_INVALID, "a scope has a delegation source")
        return None
    if grant.consumer_org is None:
        return None
    source = scopes[0].delegation_source
    for scope in scopes:
        if scope.delegation_source is None or scope.delegation_source != source:
            raise _not_delegated(scope.name, consumer, supplier)
    return source


def _not_delegated(
    name: ScopeName, consumer: OrgNo, supplier: OrgNo | None, how: str = "cannot be delegated"
) -> Refused:
    parts = (str(consumer), str(name), str(supplier))
    return Refused(Reason.SCOPE_NOT_DELEGATED, " ".join((*parts, how)), named=parts)
